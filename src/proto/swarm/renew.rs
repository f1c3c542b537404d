//! A full set of peers is renewed: now and then one that is of no use makes room for one not met yet.
//!
//! Invariant: nobody goes who gives or gets anything, whom the user named, or who has been here for less than
//! [`PROBATION`].

use std::time::{Duration, Instant};

use super::{Parting, Peer, Swarm};
use crate::proto::units::PeerKey;

/// Time between two partings, so that a set is renewed and not turned over.
const RENEWAL: Duration = Duration::from_secs(30);

/// Time in which a peer can show its use: two rounds of optimistic unchoking.
const PROBATION: Duration = Duration::from_secs(60);

/// Bytes a second below which nothing moves.
const TRICKLE: f64 = 1.0;

impl Swarm {
    /// Parts from the peer of least use, if there is somebody to take its place.
    pub(super) fn renew(&mut self, now: Instant) {
        if now < self.next_renewal || !self.dials.are_enough(self.peers.len(), &self.config, now) {
            return;
        }
        self.next_renewal = now + RENEWAL;
        if self.dials.candidates.has_fresh(self.wants_no_more(), now)
            && let Some(key) = self.least_useful(now)
        {
            self.part(key, Parting::Useless, now);
        }
    }

    fn least_useful(&self, now: Instant) -> Option<PeerKey> {
        let useless = self.peers.values().filter(|peer| self.is_useless(peer, now));
        let least = useless.min_by_key(|peer| (peer.downloaded + peer.uploaded, peer.since));
        least.map(|peer| peer.key)
    }

    fn is_useless(&self, peer: &Peer, now: Instant) -> bool {
        let is_new = now.saturating_duration_since(peer.since) < PROBATION;
        let moves = peer.down.per_second(now) + peer.up.per_second(now) >= TRICKLE;
        if is_new || moves || self.dials.candidates.stays(peer.addr) {
            return false;
        }
        let wanted = peer.peer_interested || peer.pieces.has_more_than(self.have());
        let gave_nothing = self.picker.wants_anything() && peer.downloaded + peer.uploaded == 0;
        !wanted || gave_nothing
    }
}
