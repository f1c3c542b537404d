//! As a first seed: who is pointed at how much, and whose turn ends.
//!
//! While more peers wait than have slots, each is served for one turn and then makes room. So pieces go out one after
//! the other, and not many at once of which nobody has the first for long.
//!
//! Not here: which pieces ([`crate::proto::spread`]).

use std::time::{Duration, Instant};

use super::Swarm;
use crate::proto::peer::Peer;
use crate::proto::units::PeerKey;
use crate::proto::wire::message::Message;

/// Pieces that a seed points each peer at, at least, when nobody waits: one to fetch, others to go on with.
const LEAST_SPREAD: usize = 4;

/// Time that the pieces beyond those last at the peer's rate: more than it asks for ahead.
const SPREAD_SECONDS: f64 = 2.0;

/// Pieces that a seed points one peer at, at most: so many suggestions libtorrent keeps too.
const MOST_SPREAD: usize = 16;

/// Time of a turn at a slot's share of our line, but never less than one piece takes: on a fast line a turn should
/// last for a few round trips.
const TURN_SECONDS: f64 = 0.2;

/// Time between two turns of a peer, at least.
const LEAST_WAIT: Duration = Duration::from_millis(500);

impl Swarm {
    /// Whether we are a seed with pieces that nobody else has.
    pub(super) fn is_spreading(&self) -> bool {
        self.have().is_full() && self.spread.goes_on()
    }

    /// Points every peer that is served at pieces that nobody has yet.
    pub(super) fn spread_out(&mut self, now: Instant) {
        if !self.is_spreading() {
            return;
        }
        let keys: Vec<_> = self.served().map(|peer| peer.key).collect();
        for key in keys {
            self.spread_to(key, now);
        }
    }

    /// The peer has got a slot.
    pub(super) fn begin_turn(&mut self, key: PeerKey, now: Instant) {
        if !self.is_spreading() {
            return;
        }
        let piece_len = u64::from(self.geometry.nominal_piece_len());
        let bytes = self.turn_pieces(now) as u64 * piece_len;
        self.spread.begin(key, bytes, &self.geometry);
        self.spread_to(key, now);
    }

    /// So many pieces ahead that the peer always finds one to begin when it has asked for all of another; but no
    /// more than its turn lasts.
    fn spread_to(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.fast) else { return };
        let piece_len = f64::from(self.geometry.nominal_piece_len());
        let ahead = match self.somebody_waits(now) {
            true if self.spread.is_over(key, &self.geometry) || self.spread.pending(key) > 0 => {
                return;
            }
            true => self.turn_pieces(now),
            false => LEAST_SPREAD + (peer.up.per_second(now) * SPREAD_SECONDS / piece_len) as usize,
        };
        while self.spread.pending(key) < ahead.min(MOST_SPREAD) {
            let picker = &self.picker;
            let out = |piece| picker.availability(piece) > 0;
            let Some(piece) = self.spread.point(key, &self.geometry, out) else { return };
            self.say(key, Message::Suggest(piece.raw()), now);
        }
    }

    fn turn_pieces(&self, now: Instant) -> usize {
        let rate: f64 = self.peers.values().map(|peer| peer.up.per_second(now)).sum();
        let bytes = rate * TURN_SECONDS / self.served().count().max(1) as f64;
        let pieces = bytes / f64::from(self.geometry.nominal_piece_len());
        (pieces as usize).clamp(1, MOST_SPREAD)
    }

    /// Whether somebody has waited so long that nothing of his last turn is still on its way: what he asked for in
    /// it would be taken for wishes of the next.
    fn somebody_waits(&self, now: Instant) -> bool {
        let waits = |peer: &&Peer| peer.am_choking && peer.peer_interested;
        let mut waiting = self.peers.values().filter(waits);
        waiting.any(|peer| now.saturating_duration_since(peer.choke_changed) >= LEAST_WAIT)
    }

    /// Whether others are to be served in the peer's place.
    pub(super) fn has_had_turn(&self, key: PeerKey, now: Instant) -> bool {
        self.is_spreading()
            && self.somebody_waits(now)
            && self.peers.get(&key).is_some_and(|peer| !peer.am_choking)
            && self.spread.is_over(key, &self.geometry)
    }

    /// Who has had its turn makes room for who has waited longest, once the socket has taken all that it was given:
    /// else many would wait for the line again.
    pub(super) fn end_turn(&mut self, key: PeerKey, now: Instant) {
        if self.peers.get(&key).is_some_and(|peer| !peer.upload.is_under_way()) {
            self.set_choking(key, true, now);
            self.fill_slots(now);
        }
    }
}
