//! The readers' side: handles, reads that wait, and what they make the picker want.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::time::Instant;

use super::{Event, Swarm};
use crate::proto::units::{PieceIndex, ReaderId, Ticket};

impl Swarm {
    /// A handle was opened on a file that fills this range of the torrent.
    pub fn open(&mut self, reader: ReaderId, file: Range<u64>, now: Instant) {
        self.readers.open(reader, file);
        self.want(now);
    }

    /// The handle is closed.
    pub fn close(&mut self, reader: ReaderId, now: Instant) {
        self.readers.close(reader);
        self.want(now);
    }

    /// The reader has got this range of the torrent from bytes that were here.
    pub fn advance(&mut self, reader: ReaderId, range: Range<u64>, now: Instant) {
        self.readers.advance(reader, &range, now);
        self.want(now);
    }

    /// The reader waits for this range of the torrent; [`Event::Ready`] tells when all of it is here.
    pub fn read(&mut self, ticket: Ticket, reader: ReaderId, range: Range<u64>, now: Instant) {
        self.readers.advance(reader, &range, now);
        let have = self.picker.have();
        let needs: BTreeSet<PieceIndex> = self.geometry.pieces_in(&range).collect();
        let missing: BTreeSet<_> =
            needs.iter().copied().filter(|&piece| !have.has(piece)).collect();
        if missing.is_empty() {
            self.events.push_back(Event::Ready(ticket));
            return self.want(now);
        }
        self.readers.wait(ticket, needs, missing);
        self.take_in_demands(now);
        self.clear_the_way(now);
        self.wake_all();
        self.settle(now);
    }

    /// Nobody waits for the ticket any more.
    pub fn cancel(&mut self, ticket: Ticket, now: Instant) {
        if self.readers.cancel(ticket) {
            self.want(now);
        }
    }

    /// The pieces that readers have need of, here or not: the last to be thrown out.
    pub fn spared(&self, now: Instant) -> Vec<RangeInclusive<PieceIndex>> {
        self.readers.spared(&self.geometry, self.config.max_window, now)
    }

    /// Whether what nobody reads is fetched too.
    pub fn is_filling(&self) -> bool {
        self.picker.is_filling()
    }

    /// Turns fill on or off.
    pub fn set_fill(&mut self, fill: bool, now: Instant) {
        self.picker.set_fill(fill);
        self.wake_all();
        self.settle(now);
    }

    /// Pieces that fill may have under way, or a reader, before fill begins another: as many as the store has room
    /// for. In force from the next request on.
    pub fn set_fill_room(&mut self, pieces: usize) {
        self.picker.set_fill_room(pieces);
    }

    /// Bytes that all windows together may have.
    pub fn max_window(&self) -> u64 {
        self.config.max_window
    }

    /// Changes that: while the store takes nothing, a window must not push its own pieces out of memory.
    pub fn set_max_window(&mut self, bytes: u64, now: Instant) {
        self.config.max_window = bytes;
        self.want(now);
    }

    /// What readers want has changed.
    pub(super) fn want(&mut self, now: Instant) {
        self.take_in_demands(now);
        self.wake_all();
        self.settle(now);
    }

    pub(super) fn take_in_demands(&mut self, now: Instant) {
        let have = self.picker.have();
        let demands = self.readers.demands(&self.geometry, have, self.config.max_window, now);
        self.check_doubted(&demands);
        self.picker.set_demands(demands);
    }
}
