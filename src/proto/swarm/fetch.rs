//! Getting pieces: who is asked for what, blocks as they come, verdicts on pieces.

use std::time::Instant;

use bytes::Bytes;

use super::{Event, Job, Swarm};
use crate::proto::candidates::culprit;
use crate::proto::geometry::Geometry;
use crate::proto::picker::{Receipt, View};
use crate::proto::units::{BlockRef, PeerKey, PieceIndex};
use crate::proto::wire::extension::{Extension, encode_dont_have};
use crate::proto::wire::message::{Message, Request};

impl Swarm {
    /// Asks every peer for which something changed. Each `handle_*` and each command ends here.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.picker.is_blocked() {
            self.next_housekeeping = self.next_housekeeping.min(now + super::HOUSEKEEPING_BLOCKED);
        }
        while let Some(key) = self.idle.pop_first() {
            self.ask(key, now);
        }
        debug_assert_eq!(self.invariants(), Ok(()));
    }

    fn ask(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.peer_choking && peer.allowed_fast.is_empty() {
            return;
        }
        let free = peer.free_requests(self.readers.is_active(), &self.config);
        if free == 0 {
            return;
        }
        let view = View {
            key,
            pieces: &peer.pieces,
            refused: &peer.refused,
            only: peer.peer_choking.then_some(&peer.allowed_fast),
            idle: peer.outstanding().len() < 2 && !peer.snubbed,
        };
        let in_hand = self.in_hand.len() as u64 * u64::from(self.geometry.nominal_piece_len());
        let room = in_hand < self.config.open_bytes;
        for block in self.picker.pick(view, free, room) {
            peer.ask(block, now);
            peer.spoke = now;
            self.transmit.push_back((key, Message::Request(request(&self.geometry, block))));
        }
    }

    pub(super) fn take_block(&mut self, key: PeerKey, block: BlockRef, data: Bytes, now: Instant) {
        let bytes = data.len() as u64;
        self.totals.downloaded += bytes;
        self.idle.insert(key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.brought(block, bytes, now);
        let Receipt::New { askers, whole } = self.picker.receive(block) else {
            self.totals.redundant += bytes;
            return;
        };
        let by = culprit(peer.contact());
        self.assembly.insert(block, data, by);
        for other in askers.iter().filter(|other| *other != key) {
            self.take_back(other, block, now);
        }
        if whole {
            let blocks =
                self.assembly.blocks(block.piece).map(|brought| brought.data.clone()).collect();
            self.in_hand.insert(block.piece);
            self.jobs.push_back(Job::Verify { piece: block.piece, blocks });
        }
    }

    /// Another peer was faster. With BEP 6 the request stays open until it is rejected or answered.
    fn take_back(&mut self, key: PeerKey, block: BlockRef, now: Instant) {
        let cancel = Message::Cancel(request(&self.geometry, block));
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.fast {
            peer.cancel(block);
        } else {
            peer.take_out(block, now);
        }
        self.say(key, cancel, now);
        self.idle.insert(key);
    }

    /// The verdict on a piece that [`Job::Verify`] gave out.
    pub fn handle_verified(&mut self, piece: PieceIndex, right: bool, now: Instant) {
        if right {
            self.piece_is_right(piece, now);
        } else {
            self.piece_is_wrong(piece, now);
        }
        self.settle(now);
    }

    /// The verified piece is in the store, or the store could not take it: then it is missing again.
    pub fn handle_stored(&mut self, piece: PieceIndex, kept: bool, now: Instant) {
        self.in_hand.remove(&piece);
        if !kept {
            self.evict(piece, now);
        }
        self.wake_all();
        self.settle(now);
    }

    fn piece_is_right(&mut self, piece: PieceIndex, now: Instant) {
        let blocks = self.assembly.take(piece);
        let liars =
            self.blame.verified(piece, blocks.iter().map(|block| (block.index, &block.data[..])));
        self.picker.verified(piece);
        self.events.push_back(Event::Have(piece));
        self.announce(piece, now);
        for ticket in self.readers.arrived(piece) {
            self.events.push_back(Event::Ready(ticket));
        }
        if self.picker.have().is_full() {
            self.events.push_back(Event::Complete);
        }
        for liar in liars {
            self.ban(liar, now);
        }
    }

    fn piece_is_wrong(&mut self, piece: PieceIndex, now: Instant) {
        self.in_hand.remove(&piece);
        let blocks = self.assembly.take(piece);
        self.totals.corrupt += blocks.iter().map(|block| block.data.len() as u64).sum::<u64>();
        let givers = blocks.iter().map(|block| (block.index, &block.data[..], block.by));
        let liar = self.blame.failed(piece, givers);
        self.picker.failed(piece);
        if let Some(liar) = liar {
            self.ban(liar, now);
        }
        self.wake_all();
    }

    /// Tells the peers that lack the piece that we have it, and those that it was interesting for that it no
    /// longer is.
    fn announce(&mut self, piece: PieceIndex, now: Instant) {
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            let Some(peer) = self.peers.get(&key) else { continue };
            if !peer.pieces.has(piece) {
                self.say(key, Message::Have(piece.raw()), now);
            } else {
                self.judge(key, now);
            }
        }
    }

    /// The piece has been thrown out of the store: it is missing again, and peers are told (BEP 54).
    pub fn evict(&mut self, piece: PieceIndex, now: Instant) {
        if !self.picker.have().has(piece) {
            return;
        }
        self.picker.evicted(piece);
        let tell: Vec<_> = self
            .peers
            .values()
            .filter_map(|peer| Some((peer.key, peer.said.ids.of(Extension::DontHave)?)))
            .collect();
        for (key, id) in tell {
            let payload = encode_dont_have(piece.raw());
            self.say(key, Message::Extended { id, payload }, now);
        }
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            self.judge(key, now);
        }
    }

    pub(super) fn snub_silent(&mut self, now: Instant) {
        let reading = self.readers.is_active();
        let silent: Vec<_> = self
            .peers
            .values()
            .filter(|peer| !peer.snubbed && peer.is_silent(reading, now))
            .map(|peer| peer.key)
            .collect();
        for key in silent {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            for block in peer.snub() {
                self.picker.release(block, key);
            }
            self.drop_exclusive(key);
            self.picker.disown(key);
            self.wake_all();
        }
    }

    /// Blocks that readers wait for and that are late may be asked of one more peer.
    pub(super) fn mark_late(&mut self, now: Instant) {
        for peer in self.peers.values() {
            for block in peer.late(now) {
                self.picker.mark_late(block);
            }
        }
        self.wake_all();
    }

    /// What the peer alone was to bring of failed pieces is asked anew of another.
    pub(super) fn drop_exclusive(&mut self, key: PeerKey) {
        for piece in self.picker.restart_exclusive(key) {
            self.assembly.take(piece);
        }
    }
}

fn request(geometry: &Geometry, block: BlockRef) -> Request {
    let span = geometry.block_span(block);
    Request { piece: block.piece.raw(), begin: span.begin, len: span.len }
}
