//! Giving: who is unchoked, and what goes out to them.

use std::time::Instant;

use bytes::Bytes;

use super::{Job, Swarm};
use crate::proto::choker::Standing;
use crate::proto::geometry::Span;
use crate::proto::peer::Peer;
use crate::proto::units::PeerKey;
use crate::proto::upload::Queued;
use crate::proto::wire::message::{Message, Request};

type Violation = &'static str;

impl Swarm {
    /// The choker's round: everyone that it chose is unchoked, everyone else choked.
    pub(super) fn choke_round(&mut self, now: Instant) {
        let standings: Vec<_> = self
            .peers
            .values()
            .map(|peer| Standing {
                key: peer.key,
                interested: peer.peer_interested && self.config.upload,
                snubbed: peer.snubbed,
                rides_free: peer.rides_free(),
                score: peer.score(now),
                since: peer.since,
                unchoked: (!peer.am_choking).then_some(peer.choke_changed),
                waiting: peer.choke_changed,
            })
            .collect();
        let seeding = self.wants_no_more();
        let chosen = self.choker.round(&standings, seeding, now, &mut self.rng);
        for standing in standings {
            let serve = chosen.contains(&standing.key);
            if serve == standing.unchoked.is_none() {
                self.set_choking(standing.key, !serve, now);
            }
        }
    }

    /// Looks whether our line is used, and gives free slots to those that have waited longest.
    pub(super) fn use_line(&mut self, now: Instant) {
        let waiting = self.served().filter(|peer| peer.upload.is_waiting()).count();
        let busy = 2 * waiting > self.served().count();
        self.choker.observe(busy, now);
        self.choke_riders(now);
        self.fill_slots(now);
    }

    /// Who has taken its credit and given nothing loses its slot at once: a round is long on a fast line.
    fn choke_riders(&mut self, now: Instant) {
        if self.wants_no_more() {
            return;
        }
        let optimistic = self.choker.optimistic();
        let rides =
            |peer: &&Peer| !peer.am_choking && peer.rides_free() && Some(peer.key) != optimistic;
        let keys: Vec<_> = self.peers.values().filter(rides).map(|peer| peer.key).collect();
        for key in keys {
            self.set_choking(key, true, now);
        }
    }

    /// Gives free slots to those that have waited longest.
    pub(super) fn fill_slots(&mut self, now: Instant) {
        let served = self.served().count();
        if !self.config.upload || !self.choker.has_room(served) {
            return;
        }
        let seeding = self.wants_no_more();
        let fair = |peer: &&Peer| seeding || (!peer.snubbed && !peer.rides_free());
        let mut waiting: Vec<_> = self
            .peers
            .values()
            .filter(|peer| peer.am_choking && peer.peer_interested)
            .filter(fair)
            .map(|peer| (peer.choke_changed, peer.key))
            .collect();
        waiting.sort_unstable();
        for (serving, (_, key)) in (served..).zip(waiting) {
            if !self.choker.has_room(serving) {
                return;
            }
            self.set_choking(key, false, now);
        }
    }

    pub(super) fn set_choking(&mut self, key: PeerKey, choking: bool, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.am_choking = choking;
        peer.choke_changed = now;
        let dropped = if choking { peer.upload.clear() } else { Vec::new() };
        let fast = peer.fast;
        if choking {
            self.spread.end(key);
        } else {
            self.begin_turn(key, now);
        }
        self.say(key, if choking { Message::Choke } else { Message::Unchoke }, now);
        if fast {
            for span in dropped {
                self.say(key, Message::Reject(request(span)), now);
            }
        }
    }

    /// Serves nobody any more; what was loaded already still goes out, and the rest is rejected.
    pub fn end_upload(&mut self, now: Instant) {
        self.config.upload = false;
        let served = self.peers.values().filter(|peer| !peer.am_choking);
        for key in served.map(|peer| peer.key).collect::<Vec<_>>() {
            self.set_choking(key, true, now);
        }
    }

    pub(super) fn hear_interested(&mut self, key: PeerKey, now: Instant) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        let back = !std::mem::replace(&mut peer.peer_interested, true) && !peer.am_choking;
        // Others may have its slot by now. Where a new piece makes many come back at once, each would get it late.
        if back && !self.choker.has_room(self.served().count() - 1) {
            self.set_choking(key, true, now);
        }
        self.fill_slots(now);
        Ok(())
    }

    pub(super) fn hear_not_interested(
        &mut self,
        key: PeerKey,
        now: Instant,
    ) -> Result<(), Violation> {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.peer_interested = false;
        }
        self.fill_slots(now);
        Ok(())
    }

    /// Those that hold a slot.
    pub(super) fn served(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(|peer| !peer.am_choking && peer.peer_interested)
    }

    pub(super) fn hear_request(
        &mut self,
        key: PeerKey,
        asked: Request,
        now: Instant,
    ) -> Result<(), Violation> {
        let span = self
            .geometry
            .span(asked.piece, asked.begin, asked.len)
            .ok_or("a request for bytes that are not, or for too many")?;
        let have = self.have().has(span.piece);
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        let served = !peer.am_choking && have;
        let queued = if served {
            peer.upload.push(span, self.config.max_incoming_requests)
        } else {
            Queued::Full
        };
        if queued == Queued::Full {
            // A request may cross our choke on its way, or ask for what was thrown out since we told of it;
            // without BEP 6 silence says no.
            if peer.fast {
                self.say(key, Message::Reject(asked), now);
            }
            return Ok(());
        }
        if self.is_spreading() && self.picker.availability(span.piece) == 0 {
            self.spread.takes(key, span.piece);
        }
        self.load(key, now);
        Ok(())
    }

    pub(super) fn hear_cancel(
        &mut self,
        key: PeerKey,
        asked: Request,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(span) = self.geometry.span(asked.piece, asked.begin, asked.len) else {
            return self.odd(key);
        };
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if peer.upload.cancel(span) && peer.fast {
            self.say(key, Message::Reject(asked), now);
        }
        Ok(())
    }

    /// The bytes that [`Job::Load`] asked for; `None` for what is no longer here.
    pub fn handle_loaded(
        &mut self,
        key: PeerKey,
        loaded: Vec<(Span, Option<Bytes>)>,
        now: Instant,
    ) {
        for (span, data) in loaded {
            let Some(peer) = self.peers.get_mut(&key) else { return };
            if !peer.upload.loaded(span) {
                continue;
            }
            let Some(data) = data else {
                if peer.fast {
                    self.say(key, Message::Reject(request(span)), now);
                }
                continue;
            };
            peer.upload.sending(data.len() as u64);
            self.say(key, Message::Piece { piece: span.piece.raw(), begin: span.begin, data }, now);
        }
        self.load(key, now);
    }

    /// The socket has taken this much payload.
    pub fn handle_sent(&mut self, key: PeerKey, bytes: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.upload.sent(bytes);
        peer.up.add(bytes, now);
        peer.uploaded += bytes;
        self.totals.uploaded += bytes;
        self.load(key, now);
    }

    fn load(&mut self, key: PeerKey, now: Instant) {
        if self.has_had_turn(key, now) {
            return self.end_turn(key, now);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let spans = peer.upload.load(peer.up.per_second(now), self.config.upload_limited);
        if !spans.is_empty() {
            spans.iter().for_each(|span| self.spread.gives(key, *span));
            self.jobs.push_back(Job::Load { key, spans });
        }
    }
}

fn request(span: Span) -> Request {
    Request { piece: span.piece.raw(), begin: span.begin, len: span.len }
}
