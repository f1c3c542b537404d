//! Getting pieces: who is asked for what, blocks as they come, verdicts on pieces.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Event, Job, Swarm};
use crate::proto::candidates::culprit;
use crate::proto::geometry::Geometry;
use crate::proto::peer::Peer;
use crate::proto::picker::{Receipt, View};
use crate::proto::units::{BlockRef, PeerKey, PieceIndex};
use crate::proto::wire::extension::{Extension, encode_dont_have};
use crate::proto::wire::message::{Message, Request};

/// Of so many bytes that came, one may be redundant before blocks are no longer asked of a second peer.
const COPIES_SHARE: u64 = 25;

/// Bytes beyond that share which a fresh swarm may spend: one long wait is worth more.
const COPIES_ALLOWANCE: u64 = 128 * 1024;

/// When the pieces under way come to so many times the bytes that they should take, nothing more is begun but
/// what a read waits for.
const MOST_OPEN: u64 = 2;

/// Time that another peer must save, beside half of the wait, to be asked too for what a reader waits for.
const TAKE_OVER: Duration = Duration::from_millis(100);

/// Requests to a peer that has brought nothing yet, at least and at most: the most is about what a home line holds
/// in one round trip.
const FIRST_REQUESTS: Range<usize> = 3..8;

/// Blocks that a peer without work takes over from others at a time: their owners may be about to bring them.
const COPIES_AT_ONCE: usize = 4;

impl Swarm {
    /// Asks every peer for which something changed. Each `handle_*` and each command ends here.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.picker.is_blocked() {
            self.next_housekeeping = self.next_housekeeping.min(now + super::HOUSEKEEPING_BLOCKED);
        }
        if !self.idle.is_empty() && self.picker.is_blocked() {
            self.ask_soonest(now);
            self.take_over(now);
        }
        while let Some(key) = self.idle.pop_first() {
            self.ask(key, now);
        }
    }

    /// Blocks that readers wait for are asked for one by one, each of the peer that brings it soonest: so a
    /// piece is spread over all peers that shorten the wait.
    fn ask_soonest(&mut self, now: Instant) {
        let able = |peer: &&Peer| !peer.snubbed && self.free_requests(peer) > 0;
        let mut soonest: BinaryHeap<_> = self
            .peers
            .values()
            .filter(able)
            .map(|peer| Reverse((peer.eta(0, now), peer.key)))
            .collect();
        while let Some(Reverse((_, key))) = soonest.pop() {
            let Some(peer) = self.peers.get(&key) else { continue };
            let Some(block) = self.picker.pick_blocked(view(peer, &BTreeSet::new())) else {
                continue;
            };
            self.request(key, block, now);
            let Some(peer) = self.peers.get(&key) else { continue };
            if self.free_requests(peer) > 0 {
                soonest.push(Reverse((peer.eta(0, now), key)));
            }
        }
    }

    /// When every block that readers wait for is asked of somebody: those that come last by far are asked of a peer
    /// that has room and brings them sooner, be the first asker slow or laden.
    fn take_over(&mut self, now: Instant) {
        // What is late all the same must be able to be asked for again: that takes the rest.
        if self.picker.lacks_askers() || !self.is_thrifty(2 * COPIES_SHARE) {
            return;
        }
        let mut arrivals = BTreeMap::<BlockRef, (Instant, usize)>::new();
        for (at, block) in self.peers.values().flat_map(|peer| peer.arrivals(now)) {
            if self.picker.is_waited_for(block.piece) {
                let (first, askers) = arrivals.entry(block).or_insert((at, 0));
                *first = at.min(*first);
                *askers += 1;
            }
        }
        let copies: usize = arrivals.values().map(|(_, askers)| askers - 1).sum();
        let mut last: Vec<_> = arrivals.into_iter().map(|(block, (at, _))| (at, block)).collect();
        last.sort_unstable_by(|a, b| b.cmp(a));
        for (at, block) in last.into_iter().take(COPIES_AT_ONCE.saturating_sub(copies)) {
            let able = |peer: &&Peer| !peer.snubbed && self.free_requests(peer) > 0;
            let idle = self.idle.iter().filter_map(|key| self.peers.get(key)).filter(able);
            let Some(peer) = idle.min_by_key(|peer| peer.eta(0, now)) else { return };
            let wait = peer.eta(0, now).saturating_duration_since(now);
            if now + 2 * wait + TAKE_OVER < at
                && self.picker.ask_too(block, view(peer, &BTreeSet::new()))
            {
                self.request(peer.key, block, now);
            }
        }
    }

    fn ask(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get(&key) else { return };
        let free = self.free_requests(peer);
        if free == 0 {
            return;
        }
        let room = self.has_room();
        let again = self.brings_sooner(peer, now);
        for block in self.picker.pick(view(peer, &again), free, room) {
            self.request(key, block, now);
        }
    }

    /// Whether memory allows another piece to be begun for which no read waits, and it is time for that.
    fn has_room(&self) -> bool {
        if self.fill_from.is_some() && !self.picker.is_blocked() {
            return false;
        }
        let in_hand = self.in_hand.len() as u64 * u64::from(self.geometry.nominal_piece_len());
        in_hand < self.config.open_bytes && !self.is_crowded()
    }

    /// Whether peers that can help with nothing begun have begun as many pieces of their own as they may.
    fn is_crowded(&self) -> bool {
        let piece = u64::from(self.geometry.nominal_piece_len());
        self.open_bytes() >= MOST_OPEN * self.config.open_bytes.max(2 * piece)
    }

    /// In end-game: the blocks asked of others that a peer without work would bring sooner, the latest first.
    fn brings_sooner(&self, peer: &Peer, now: Instant) -> BTreeSet<BlockRef> {
        let busy = peer.snubbed || peer.outstanding().len() > 1;
        if busy || !self.picker.is_end_game() || !self.is_thrifty(COPIES_SHARE) {
            return BTreeSet::new();
        }
        let others = self.peers.values().filter(|other| other.key != peer.key);
        let mut expected: Vec<_> = others.flat_map(|other| other.expected(now)).collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        let sooner = expected.into_iter().enumerate();
        let sooner = sooner.take_while(|(nth, (at, _))| peer.eta(*nth, now) < *at);
        sooner.map(|(_, (_, block))| block).take(COPIES_AT_ONCE).collect()
    }

    /// Whether so few bytes came twice that more may: one of so many, beside the allowance.
    fn is_thrifty(&self, share: u64) -> bool {
        self.totals.redundant <= self.totals.downloaded / share + COPIES_ALLOWANCE
    }

    fn free_requests(&self, peer: &Peer) -> usize {
        if peer.peer_choking && peer.allowed_fast.is_empty() {
            return 0;
        }
        peer.free_requests(self.readers.is_active(), self.first_requests(), &self.config)
    }

    /// Requests to a peer that has brought nothing yet: no more than its share of what readers wait for, or those
    /// that come first would be left with all of it.
    fn first_requests(&self) -> usize {
        if !self.picker.is_blocked() {
            return FIRST_REQUESTS.end;
        }
        let all = self.peers.len() + self.dials.len();
        let share = self.picker.waited_blocks().div_ceil(all.max(1));
        share.clamp(FIRST_REQUESTS.start, FIRST_REQUESTS.end)
    }

    fn request(&mut self, key: PeerKey, block: BlockRef, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.ask(block, now) {
            self.say(key, Message::Request(request(&self.geometry, block)), now);
        }
    }

    /// Takes back the requests for fill that a read which has just begun to wait would have to wait behind. Only
    /// from peers with BEP 6: each block stays asked of its peer until it is rejected or comes all the same, so
    /// none comes twice.
    pub(super) fn clear_the_way(&mut self, now: Instant) {
        let mut taken = Vec::new();
        for peer in self.peers.values().filter(|peer| peer.fast && !peer.snubbed) {
            let mut wanted = self.picker.demands().iter().take_while(|demand| demand.blocked);
            if !wanted.any(|demand| peer.pieces.has(demand.piece)) {
                continue;
            }
            let blocks = peer.in_the_way().into_iter();
            let fill = blocks.filter(|block| !self.picker.is_demanded(block.piece));
            taken.extend(fill.map(|block| (peer.key, block)));
        }
        for (key, block) in taken {
            self.take_back(key, block, now);
        }
    }

    pub(super) fn take_block(&mut self, key: PeerKey, block: BlockRef, data: Bytes, now: Instant) {
        let bytes = data.len() as u64;
        self.totals.downloaded += bytes;
        self.idle.insert(key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let asked = peer.brought(block, bytes, now);
        let Receipt::New { askers, whole } = self.picker.receive(block, key, asked) else {
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
        self.drop_leftovers();
    }

    /// What was begun and nobody is asked for any more is kept for the next read, and finished by fill. Without
    /// fill it would pile up, and with it too where nobody can finish it: beyond the budget, what got nothing for
    /// longest goes.
    pub(super) fn drop_leftovers(&mut self) {
        while (self.is_crowded()
            || !self.picker.is_filling() && self.assembly.bytes() > self.config.open_bytes)
            && let Some(piece) = self.assembly.oldest(|piece| self.is_leftover(piece))
        {
            self.assembly.take(piece);
            self.picker.dropped(piece);
        }
    }

    fn is_leftover(&self, piece: PieceIndex) -> bool {
        let partial = self.picker.partial(piece);
        let resting = partial.is_none_or(|partial| partial.is_idle() && !partial.is_whole());
        resting && !self.in_hand.contains(&piece) && !self.picker.is_demanded(piece)
    }

    /// The block is no longer needed, or not so soon. With BEP 6 the request stays open until it is rejected or answered.
    fn take_back(&mut self, key: PeerKey, block: BlockRef, now: Instant) {
        let cancel = Message::Cancel(request(&self.geometry, block));
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.fast {
            peer.cancel(block);
        } else {
            peer.take_out(block);
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

    /// The hashing of a piece failed, by nobody's fault: it is asked for again.
    pub fn handle_unverified(&mut self, piece: PieceIndex, now: Instant) {
        self.in_hand.remove(&piece);
        self.assembly.take(piece);
        self.picker.dropped(piece);
        self.wake_all();
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
        self.is_here(piece, now);
        for liar in liars {
            self.ban(liar, now);
        }
    }

    /// Tells everyone of a piece that has become ours.
    pub(super) fn is_here(&mut self, piece: PieceIndex, now: Instant) {
        self.events.push_back(Event::Have(piece));
        self.announce(piece, now);
        for ticket in self.readers.arrived(piece) {
            self.events.push_back(Event::Ready(ticket));
        }
        if self.picker.have().is_full() {
            self.tell_upload_only(now);
            self.events.push_back(Event::Complete);
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

    /// Tells peers that we have the piece, seeds too, that they may spread others (BEP 16 needs it as well); and
    /// those that it was interesting for that it no longer is.
    fn announce(&mut self, piece: PieceIndex, now: Instant) {
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            let Some(peer) = self.peers.get(&key) else { continue };
            let judged = peer.pieces.has(piece);
            if self.hears_of_pieces(peer) {
                self.say(key, Message::Have(piece.raw()), now);
            }
            if judged {
                self.judge(key, now);
            }
        }
    }

    /// The piece has been thrown out of the store: it is missing again, and peers are told (BEP 54).
    pub fn evict(&mut self, piece: PieceIndex, now: Instant) {
        // Nobody was told of a doubted one.
        self.picker.resolve(piece, false);
        if !self.picker.have().has(piece) {
            return;
        }
        self.picker.evicted(piece);
        self.readers.lost(piece);
        let tell: Vec<_> = self
            .peers
            .values()
            .filter_map(|peer| Some((peer.key, peer.said.ids.of(Extension::DontHave)?)))
            .collect();
        for (key, id) in tell {
            let payload = encode_dont_have(piece.raw());
            self.say(key, Message::Extended { id, payload }, now);
        }
        self.tell_upload_only(now);
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            self.judge(key, now);
        }
        self.want(now);
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
            self.snub(key);
        }
    }

    /// Others are asked for what the peer was to bring, and it for one block at a time, until it brings one.
    pub(super) fn snub(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        for block in peer.snub() {
            self.picker.release(block, key);
        }
        self.drop_exclusive(key);
        self.picker.disown(key);
        self.wake_all();
    }

    /// Blocks that readers wait for and that are late may be asked of one more peer.
    pub(super) fn mark_late(&mut self, now: Instant) {
        if !self.is_thrifty(COPIES_SHARE) {
            return;
        }
        let mut late = BTreeMap::<BlockRef, usize>::new();
        for block in self.peers.values().flat_map(|peer| peer.late(now)) {
            *late.entry(block).or_default() += 1;
        }
        for (block, askers) in late {
            if self.picker.is_waited_for(block.piece) {
                self.picker.mark_late(block, askers);
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

fn view<'a>(peer: &'a Peer, again: &'a BTreeSet<BlockRef>) -> View<'a> {
    View {
        key: peer.key,
        pieces: &peer.pieces,
        refused: &peer.refused,
        suggested: &peer.suggested,
        only: peer.peer_choking.then_some(&peer.allowed_fast),
        again,
    }
}

fn request(geometry: &Geometry, block: BlockRef) -> Request {
    let span = geometry.block_span(block);
    Request { piece: block.piece.raw(), begin: span.begin, len: span.len }
}
