//! Which pieces the store holds, shared between the threads that read and the workers that write.
//!
//! A reader looks without a lock: note [`HaveMap::epoch`], see that the bits are set, read the bytes,
//! then see that the bits are still set and the epoch is still the same. An eviction clears its bit and
//! moves the epoch before it touches a byte, so a reader that saw neither has read verified bytes; the
//! epoch also tells a piece that left and came back meanwhile from one that stayed.
//!
//! Invariant: a set bit means that the whole piece is in the store and was verified.
//! Invariant: `count` is the number of set bits once no call is under way.
//!
//! Not here: chunks that are verified and not yet stored ([`super::content`]).

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::units::PieceIndex;

/// The set of stored pieces of one torrent.
#[derive(Debug)]
pub struct HaveMap {
    geometry: Geometry,
    words: Box<[AtomicU64]>,
    count: AtomicU32,
    epoch: AtomicU64,
}

impl HaveMap {
    /// The empty set.
    pub fn new(geometry: Geometry) -> Self {
        let words = (0..geometry.piece_count().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { geometry, words, count: AtomicU32::new(0), epoch: AtomicU64::new(0) }
    }

    /// Whether the piece is stored.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.word(piece.slot() / 64) & bit(piece) != 0
    }

    /// Whether every byte of the torrent's range is stored.
    pub fn has_range(&self, range: &Range<u64>) -> bool {
        self.geometry.pieces_in(range).all(|piece| self.has(piece))
    }

    /// Notes a piece whose verified bytes the store has taken; true when it was not there.
    pub fn insert(&self, piece: PieceIndex) -> bool {
        let new = self.words[piece.slot() / 64].fetch_or(bit(piece), SeqCst) & bit(piece) == 0;
        if new {
            self.count.fetch_add(1, SeqCst);
        }
        new
    }

    /// Notes all pieces of a set, as an earlier run left them.
    pub fn adopt(&self, pieces: &Bitfield) {
        for piece in pieces.iter() {
            self.insert(piece);
        }
    }

    /// Takes a piece out, to be called before its bytes are touched; true when it was there.
    pub fn evict(&self, piece: PieceIndex) -> bool {
        let had = self.words[piece.slot() / 64].fetch_and(!bit(piece), SeqCst) & bit(piece) != 0;
        if had {
            self.count.fetch_sub(1, SeqCst);
        }
        self.epoch.fetch_add(1, SeqCst);
        had
    }

    /// How many evictions there were: equal before and after means none between.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Pieces stored.
    pub fn count(&self) -> u32 {
        self.count.load(SeqCst)
    }

    /// Whether the store has every piece.
    pub fn is_full(&self) -> bool {
        self.count() == self.geometry.piece_count()
    }

    /// The set at this instant.
    pub fn snapshot(&self) -> Bitfield {
        let mut field = Bitfield::empty(self.geometry.piece_count());
        for piece in self.geometry.pieces().filter(|&piece| self.has(piece)) {
            field.insert(piece);
        }
        field
    }

    /// Bytes of the torrent's range that are stored.
    pub fn resident_bytes(&self, range: &Range<u64>) -> u64 {
        let end = range.end.min(self.geometry.total());
        let mut pieces = self.geometry.pieces_in(range);
        let (Some(first), last) = (pieces.next(), pieces.next_back()) else { return 0 };
        let edge = |piece: PieceIndex| {
            let bytes = self.geometry.piece_range(piece);
            let inside = bytes.start.max(range.start)..bytes.end.min(end);
            if self.has(piece) { inside.end - inside.start } else { 0 }
        };
        let whole = self.count_between(first.slot() + 1, last.map_or(0, PieceIndex::slot));
        edge(first) + last.map_or(0, edge) + whole * u64::from(self.geometry.nominal_piece_len())
    }

    /// Stored pieces with `from <= slot < to`.
    fn count_between(&self, from: usize, to: usize) -> u64 {
        let mut slot = from;
        let mut count = 0;
        while slot < to {
            let stop = ((slot / 64 + 1) * 64).min(to);
            let mask = u64::MAX >> (64 - (stop - slot));
            count += u64::from((self.word(slot / 64) >> (slot % 64) & mask).count_ones());
            slot = stop;
        }
        count
    }

    fn word(&self, index: usize) -> u64 {
        self.words[index].load(SeqCst)
    }
}

fn bit(piece: PieceIndex) -> u64 {
    1 << (piece.slot() % 64)
}
