//! What readers want: the pieces that their reads wait for, and a window ahead of each.
//!
//! A reader is an open handle. While it reads on, its window grows with the run of bytes read, from nothing at
//! the first read to [`Config::max_window`](super::config::Config::max_window) shared by all readers; a jump
//! closes it. So a player gets ahead, and a scanner that looks at heads moves only what it looks at.
//!
//! Invariant: a ticket is answered once: when every piece of its range is here, or never again after its
//! cancel. No two readers share a position.
//!
//! Not here: who is asked ([`crate::proto::picker`]), the bytes (they go from the cache to the reader).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::bitfield::Bitfield;
use super::geometry::Geometry;
use super::picker::Demand;
use super::units::{PieceIndex, ReaderId, Ticket};

/// Jumps shorter than this are no jumps: the kernel reorders the reads of one stream.
const NEAR: u64 = 1 << 20;

/// First window of a reader that has begun to read on.
const FIRST_WINDOW: u64 = 1 << 20;

#[derive(Clone, Debug)]
struct Reader {
    /// The file, as a range of the torrent's bytes.
    file: Range<u64>,
    /// End of the furthest byte of this run.
    position: u64,
    /// Bytes read on since the last jump.
    run: u64,
    /// Reads since the last jump.
    reads: u32,
}

impl Reader {
    fn read(&mut self, range: &Range<u64>) {
        let near =
            self.position.saturating_sub(NEAR)..=self.position + NEAR.max(self.run.min(4 * NEAR));
        if self.reads > 0 && !near.contains(&range.start) {
            self.run = 0;
            self.reads = 0;
            self.position = range.start;
        }
        if self.reads == 0 {
            self.position = range.start;
        }
        self.reads += 1;
        self.run += range.end.saturating_sub(self.position);
        self.position = self.position.max(range.end);
    }

    fn window(&self, max: u64) -> Range<u64> {
        let ahead = if self.reads < 2 { 0 } else { (2 * self.run).max(FIRST_WINDOW).min(max) };
        self.position..(self.position + ahead).min(self.file.end)
    }
}

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
        let position = file.start;
        self.readers.insert(id, Reader { file, position, run: 0, reads: 0 });
    }

    /// The handle is closed; reads of it that wait stay until they are cancelled.
    pub fn close(&mut self, id: ReaderId) {
        self.readers.remove(&id);
    }

    /// The reader has read this range, from bytes that were here or as a ticket that waits.
    pub fn advance(&mut self, id: ReaderId, range: &Range<u64>) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.read(range);
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
    /// reads came; then the windows, in order of distance from their readers.
    pub fn demands(&self, geometry: &Geometry, have: &Bitfield, max_window: u64) -> Vec<Demand> {
        let mut seen = BTreeSet::new();
        let mut demands = Vec::new();
        for piece in self.waiting.values().flat_map(|waiting| waiting.missing.iter().copied()) {
            if seen.insert(piece) {
                demands.push(Demand { piece, blocked: true });
            }
        }
        let max = max_window / self.readers.len().max(1) as u64;
        let mut ahead = Vec::new();
        for reader in self.readers.values() {
            let window = reader.window(max);
            for piece in geometry.pieces_in(&window).filter(|&piece| !have.has(piece)) {
                ahead.push((geometry.piece_start(piece).saturating_sub(window.start), piece));
            }
        }
        ahead.sort_unstable();
        let fresh = ahead.into_iter().filter(|(_, piece)| seen.insert(*piece));
        demands.extend(fresh.map(|(_, piece)| Demand { piece, blocked: false }));
        demands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 256 * 1024;

    fn scene() -> (Readers, Geometry, Bitfield) {
        let geometry = Geometry::new(64 * PIECE, PIECE as i64).expect("legal");
        let have = Bitfield::empty(64);
        let mut readers = Readers::default();
        readers.open(ReaderId(1), 0..64 * PIECE);
        (readers, geometry, have)
    }

    fn wanted(readers: &Readers, geometry: &Geometry, have: &Bitfield) -> Vec<u32> {
        let demands = readers.demands(geometry, have, 4 << 20);
        demands.iter().map(|demand| demand.piece.raw()).collect()
    }

    #[test]
    fn one_read_opens_no_window_and_reading_on_does() {
        let (mut readers, geometry, have) = scene();
        readers.advance(ReaderId(1), &(0..65_536));
        assert_eq!(wanted(&readers, &geometry, &have), [] as [u32; 0]);
        readers.advance(ReaderId(1), &(65_536..131_072));
        assert_eq!(wanted(&readers, &geometry, &have), [0, 1, 2, 3, 4]);
        readers.advance(ReaderId(1), &(131_072..4 * PIECE));
        assert_eq!(wanted(&readers, &geometry, &have), Vec::from_iter(4..12));
    }

    #[test]
    fn a_jump_closes_the_window_and_a_reordered_read_does_not() {
        let (mut readers, geometry, have) = scene();
        for at in [0, 2, 1, 3u64] {
            readers.advance(ReaderId(1), &(at * 131_072..(at + 1) * 131_072));
        }
        assert_eq!(wanted(&readers, &geometry, &have), Vec::from_iter(2..6));
        readers.advance(ReaderId(1), &(50 * PIECE..50 * PIECE + 10));
        assert_eq!(wanted(&readers, &geometry, &have), [] as [u32; 0]);
    }

    #[test]
    fn a_ticket_is_ready_when_its_last_piece_arrives() {
        let (mut readers, geometry, _) = scene();
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
