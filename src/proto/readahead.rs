//! What readers want: the pieces that their reads wait for, and a window ahead of each.
//!
//! While a reader reads on, its window grows with the bytes read, from nothing at the first look to
//! [`Config::max_window`](super::config::Config::max_window) shared by all windows. So a player gets ahead, and a
//! scanner that looks at heads moves only what it looks at.
//!
//! Invariant: a ticket is answered once: when every piece of its range is here, or never again after its
//! cancel. No two readers share a position.
//!
//! Not here: what a jump is ([`super::reader`]), who is asked ([`crate::proto::picker`]), the bytes (they go from the cache to the reader).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::time::Instant;

use super::bitfield::Bitfield;
use super::geometry::Geometry;
use super::picker::Demand;
use super::reader::{Reader, Window};
use super::units::{PieceIndex, ReaderId, Ticket};

/// Bytes at the head and at the tail of an open file that players come back to: its index.
const EDGE: u64 = 8 << 20;

#[derive(Clone, Debug)]
struct Waiting {
    /// The pieces that hold the read's range.
    needs: BTreeSet<PieceIndex>,
    missing: BTreeSet<PieceIndex>,
}

/// Every reader of one torrent and every read that waits.
#[derive(Debug, Default)]
pub struct Readers {
    readers: BTreeMap<ReaderId, Reader>,
    waiting: BTreeMap<Ticket, Waiting>,
}

impl Readers {
    /// A handle was opened on a file that fills this range of the torrent.
    pub fn open(&mut self, id: ReaderId, file: Range<u64>) {
        self.readers.insert(id, Reader::new(file));
    }

    /// The handle is closed; reads of it that wait stay until they are cancelled.
    pub fn close(&mut self, id: ReaderId) {
        self.readers.remove(&id);
    }

    /// The reader has read this range, from bytes that were here or as a ticket that waits.
    pub fn advance(&mut self, id: ReaderId, range: &Range<u64>, now: Instant) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.read(range, now);
        }
    }

    /// A read needs these pieces, and waits for those of them that are missing, at least one.
    pub fn wait(
        &mut self,
        ticket: Ticket,
        needs: BTreeSet<PieceIndex>,
        missing: BTreeSet<PieceIndex>,
    ) {
        self.waiting.insert(ticket, Waiting { needs, missing });
    }

    /// Nobody waits for the ticket any more; true when somebody did.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// The piece is here: takes out the tickets that waited for nothing else, oldest first.
    pub fn arrived(&mut self, piece: PieceIndex) -> Vec<Ticket> {
        let mut ready = Vec::new();
        for (ticket, waiting) in &mut self.waiting {
            if waiting.missing.remove(&piece) && waiting.missing.is_empty() {
                ready.push(*ticket);
            }
        }
        for ticket in &ready {
            self.waiting.remove(ticket);
        }
        ready
    }

    /// The piece is gone again: reads that need it wait for it anew.
    pub fn lost(&mut self, piece: PieceIndex) {
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.needs.contains(&piece)) {
            waiting.missing.insert(piece);
        }
    }

    /// Whether any handle is open or any read waits.
    pub fn is_active(&self) -> bool {
        !self.readers.is_empty() || !self.waiting.is_empty()
    }

    /// Reads that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Every piece wanted and not had, most urgent first: those that reads wait for, in the order that the
    /// reads came; then the windows, by the time when their readers come to them, those that were left last.
    pub fn demands(
        &self,
        geometry: &Geometry,
        have: &Bitfield,
        max_window: u64,
        now: Instant,
    ) -> Vec<Demand> {
        let mut seen = BTreeSet::new();
        let mut demands = Vec::new();
        for piece in self.waiting.values().flat_map(|waiting| waiting.missing.iter().copied()) {
            if seen.insert(piece) {
                demands.push(Demand { piece, blocked: true });
            }
        }
        let mut ahead = Vec::new();
        for Window { range, rate, left } in self.windows(max_window, now) {
            for piece in geometry.pieces_in(&range).filter(|&piece| !have.has(piece)) {
                let distance = geometry.piece_start(piece).saturating_sub(range.start);
                // In microseconds, which have an order; a window's rate is above zero.
                let due = (distance as f64 / rate * 1e6) as u64;
                ahead.push((left, due, piece));
            }
        }
        ahead.sort_unstable();
        let fresh = ahead.into_iter().filter(|(_, _, piece)| seen.insert(*piece));
        demands.extend(fresh.map(|(_, _, piece)| Demand { piece, blocked: false }));
        demands
    }

    /// The pieces that are to stay if any may: those that reads wait for, the windows, heads and tails of open files.
    pub fn spared(
        &self,
        geometry: &Geometry,
        max_window: u64,
        now: Instant,
    ) -> Vec<RangeInclusive<PieceIndex>> {
        let edge = EDGE.max(u64::from(geometry.nominal_piece_len()));
        let edges = self.readers.values().flat_map(|reader| reader.edges(edge));
        let windows = self.windows(max_window, now).into_iter().map(|window| window.range);
        let ends = |range| {
            let mut pieces = geometry.pieces_in(&range);
            let first = pieces.next()?;
            Some((first, pieces.next_back().unwrap_or(first)))
        };
        let waited = self.waiting.values().flat_map(|waiting| &waiting.needs);
        let waited = waited.map(|&piece| (piece, piece));
        // Readers of one file have its edges in common.
        let all: BTreeSet<_> = edges.chain(windows).filter_map(ends).chain(waited).collect();
        all.into_iter().map(|(first, last)| first..=last).collect()
    }

    /// The window of each run of each reader, cut to its share.
    fn windows(&self, max_window: u64, now: Instant) -> Vec<Window> {
        let mut windows: Vec<_> =
            self.readers.values().flat_map(|reader| reader.windows(now)).collect();
        let share = max_window / windows.len().max(1) as u64;
        for Window { range, .. } in &mut windows {
            range.end = range.end.min(range.start + share);
        }
        windows
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PIECE: u64 = 256 * 1024;

    fn scene() -> (Readers, Geometry) {
        let geometry = Geometry::new(64 * PIECE, PIECE as i64).expect("legal");
        let mut readers = Readers::default();
        for id in [1, 2] {
            readers.open(ReaderId(id), 0..64 * PIECE);
        }
        (readers, geometry)
    }

    #[test]
    fn windows_share_and_those_that_were_left_come_last() {
        let (mut readers, geometry) = scene();
        let (now, mut have) = (Instant::now(), Bitfield::empty(64));
        have.insert(geometry.piece(21).expect("a piece"));
        let wanted = |readers: &Readers| -> Vec<u32> {
            let demands = readers.demands(&geometry, &have, 4 * PIECE, now);
            demands.iter().map(|demand| demand.piece.raw()).collect()
        };
        readers.advance(ReaderId(1), &(0..8 * PIECE), now);
        assert_eq!(wanted(&readers), [8, 9, 10, 11]);
        readers.advance(ReaderId(2), &(16 * PIECE..20 * PIECE), now);
        assert_eq!(wanted(&readers), [8, 20, 9]);
        readers.advance(ReaderId(2), &(40 * PIECE..41 * PIECE), now);
        assert_eq!(wanted(&readers), [8, 9, 20], "a look at another place");
        readers.close(ReaderId(1));
        assert_eq!(wanted(&readers), [20, 22, 23]);
    }

    #[test]
    fn who_runs_dry_first_comes_first() {
        let (mut readers, geometry) = scene();
        let (begin, have) = (Instant::now(), Bitfield::empty(64));
        let mut now = begin;
        for step in 0..4 {
            // One reads a piece a second, the other three.
            readers.advance(ReaderId(1), &(step * PIECE..(step + 1) * PIECE), now);
            let fast = 16 + 3 * step;
            readers.advance(ReaderId(2), &(fast * PIECE..(fast + 3) * PIECE), now);
            now += Duration::from_secs(1);
        }
        let demands = readers.demands(&geometry, &have, 16 * PIECE, now);
        let wanted: Vec<_> = demands.iter().map(|demand| demand.piece.raw()).collect();
        assert_eq!(wanted, [4, 28, 29, 30, 5, 31, 32, 33, 6, 34, 35, 7]);
    }

    #[test]
    fn windows_edges_and_what_is_waited_for_are_spared() {
        let (mut readers, now) = (Readers::default(), Instant::now());
        let geometry = Geometry::new(256 * PIECE, PIECE as i64).expect("legal");
        readers.open(ReaderId(1), 10 * PIECE + 1..200 * PIECE);
        readers.open(ReaderId(2), 10 * PIECE + 1..200 * PIECE);
        let spared = |readers: &Readers| -> Vec<_> {
            let all = readers.spared(&geometry, 4 * PIECE, now);
            all.into_iter().map(|range| (range.start().raw(), range.end().raw())).collect()
        };
        assert_eq!(spared(&readers), [(10, 42), (168, 199)]);
        readers.advance(ReaderId(1), &(100 * PIECE..104 * PIECE), now);
        let needs = BTreeSet::from([geometry.piece(60).expect("a piece")]);
        readers.wait(Ticket(1), needs.clone(), needs);
        assert_eq!(spared(&readers), [(10, 42), (60, 60), (104, 107), (168, 199)]);
        readers.close(ReaderId(1));
        readers.close(ReaderId(2));
        assert_eq!(spared(&readers), [(60, 60)]);
    }

    #[test]
    fn a_ticket_is_ready_when_its_last_piece_arrives() {
        let (mut readers, geometry) = scene();
        let pieces: Vec<_> = geometry.pieces_in(&(0..2 * PIECE)).collect();
        let needs: BTreeSet<_> = pieces.iter().copied().collect();
        readers.wait(Ticket(7), needs.clone(), needs);
        assert_eq!(readers.arrived(pieces[0]), []);
        readers.lost(pieces[0]);
        assert_eq!(readers.arrived(pieces[1]), []);
        assert_eq!(readers.arrived(pieces[0]), [Ticket(7)]);
        assert!(!readers.cancel(Ticket(7)));
    }
}
