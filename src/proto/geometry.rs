//! How a torrent's bytes fall into pieces and blocks.
//!
//! Invariant: `0 < piece_len <= MAX_PIECE_LEN`, `pieces <= MAX_PIECES` and
//! `pieces == ceil(total / piece_len)`; every index that leaves this module is in range.
//!
//! Not here: files ([`crate::proto::metainfo`]).

use std::ops::Range;

use super::units::{BLOCK_LEN, BlockRef, PieceIndex};

/// Longest piece that we accept: 512 MiB less one block, as libtorrent does.
pub const MAX_PIECE_LEN: u32 = 512 * 1024 * 1024 - BLOCK_LEN;

/// Most pieces that we accept in one torrent.
pub const MAX_PIECES: u32 = 2 * 1024 * 1024;

/// Longest span of a piece that a peer may ask for at once.
pub const MAX_REQUEST_LEN: u32 = 128 * 1024;

/// Why a pair of lengths is no torrent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The piece length is zero or above [`MAX_PIECE_LEN`].
    #[error("piece length {0} is not between 1 and {MAX_PIECE_LEN}")]
    PieceLength(i64),
    /// More than [`MAX_PIECES`] pieces.
    #[error("{0} pieces are more than the {MAX_PIECES} that are allowed")]
    TooManyPieces(u64),
    /// No payload at all.
    #[error("the torrent holds no bytes")]
    Empty,
}

/// A run of bytes in one piece, as a peer asks for it. Made by [`Geometry::span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The piece that holds all of the run.
    pub piece: PieceIndex,
    /// Offset of the first byte in the piece.
    pub begin: u32,
    /// Bytes in the run, from 1 to [`MAX_REQUEST_LEN`].
    pub len: u32,
}

/// The layout of one torrent in pieces and blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    total: u64,
    piece_len: u32,
    pieces: u32,
}

impl Geometry {
    /// Lays out `total` bytes in pieces of `piece_len`.
    ///
    /// # Errors
    /// When a length is outside the limits above.
    pub fn new(total: u64, piece_len: i64) -> Result<Self, GeometryError> {
        let short = u32::try_from(piece_len)
            .ok()
            .filter(|len| (1..=MAX_PIECE_LEN).contains(len))
            .ok_or(GeometryError::PieceLength(piece_len))?;
        if total == 0 {
            return Err(GeometryError::Empty);
        }
        let count = total.div_ceil(u64::from(short));
        let pieces = u32::try_from(count)
            .ok()
            .filter(|&n| n <= MAX_PIECES)
            .ok_or(GeometryError::TooManyPieces(count))?;
        Ok(Self { total, piece_len: short, pieces })
    }

    /// Bytes in the torrent.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Pieces in the torrent.
    pub const fn piece_count(&self) -> u32 {
        self.pieces
    }

    /// Bytes in every piece but the last.
    pub const fn nominal_piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Every piece, in order.
    pub fn pieces(
        &self,
    ) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        (0..self.pieces).map(PieceIndex::new)
    }

    /// The piece with this number on the wire, if the torrent has it.
    pub fn piece(&self, raw: u32) -> Option<PieceIndex> {
        (raw < self.pieces).then(|| PieceIndex::new(raw))
    }

    /// The pieces that hold a range of the torrent's bytes, in order; what lies past the end is left out.
    pub fn pieces_in(
        &self,
        range: &Range<u64>,
    ) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        let end = range.end.min(self.total);
        let piece = u64::from(self.piece_len);
        let numbers = if range.start < end {
            (range.start / piece) as u32..end.div_ceil(piece) as u32
        } else {
            0..0
        };
        numbers.map(PieceIndex::new)
    }

    /// Offset of the piece's first byte in the torrent.
    pub fn piece_start(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.raw()) * u64::from(self.piece_len)
    }

    /// Bytes in the piece: the last one may be shorter.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        u64::from(self.piece_len).min(self.total - self.piece_start(piece)) as u32
    }

    /// The piece's bytes as a range of the torrent.
    pub fn piece_range(&self, piece: PieceIndex) -> Range<u64> {
        let start = self.piece_start(piece);
        start..start + u64::from(self.piece_len(piece))
    }

    /// Blocks in the piece.
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.piece_len(piece).div_ceil(BLOCK_LEN)
    }

    /// Every block of the piece, in order.
    pub fn blocks(&self, piece: PieceIndex) -> impl Iterator<Item = BlockRef> + use<> {
        (0..self.block_count(piece)).map(move |index| BlockRef::new(piece, index))
    }

    /// The piece's block with this number, if it has one.
    pub fn block(&self, piece: PieceIndex, index: u32) -> Option<BlockRef> {
        (index < self.block_count(piece)).then(|| BlockRef::new(piece, index))
    }

    /// Bytes in the block: the last of a piece may be shorter.
    pub fn block_len(&self, block: BlockRef) -> u32 {
        BLOCK_LEN.min(self.piece_len(block.piece) - block.begin())
    }

    /// The block as the span to ask for.
    pub fn block_span(&self, block: BlockRef) -> Span {
        Span { piece: block.piece, begin: block.begin(), len: self.block_len(block) }
    }

    /// The block that these numbers from the wire name, if they name a whole one exactly.
    pub fn block_exactly(&self, piece: u32, begin: u32, len: u32) -> Option<BlockRef> {
        let piece = self.piece(piece)?;
        let block = self.block(piece, begin / BLOCK_LEN)?;
        (block.begin() == begin && self.block_len(block) == len).then_some(block)
    }

    /// The span that these numbers from the wire name, if it lies inside one piece and is not too long.
    pub fn span(&self, piece: u32, begin: u32, len: u32) -> Option<Span> {
        let piece = self.piece(piece)?;
        let end = begin.checked_add(len)?;
        (0 < len && len <= MAX_REQUEST_LEN && end <= self.piece_len(piece)).then_some(Span {
            piece,
            begin,
            len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_piece_and_its_last_block_are_shorter() {
        let geometry = Geometry::new(100_000, 32_768).expect("legal lengths");
        let last = geometry.piece(3).expect("four pieces");
        assert_eq!(geometry.piece_count(), 4);
        assert_eq!(geometry.piece_len(last), 100_000 - 3 * 32_768);
        assert_eq!(geometry.block_count(last), 1);
        assert_eq!(geometry.piece(4), None);
    }

    #[test]
    fn a_span_must_lie_inside_its_piece() {
        let geometry = Geometry::new(100_000, 32_768).expect("legal lengths");
        assert!(geometry.span(0, 16_384, 16_384).is_some());
        for (piece, begin, len) in
            [(0, 16_385, 16_384), (4, 0, 1), (0, 0, 0), (0, u32::MAX, 2), (3, 0, 16_384)]
        {
            assert_eq!(geometry.span(piece, begin, len), None, "{piece} {begin} {len}");
        }
    }

    #[test]
    fn a_block_from_the_wire_is_whole_or_refused() {
        let geometry = Geometry::new(40_000, 20_000).expect("legal lengths");
        assert!(geometry.block_exactly(0, 0, 16_384).is_some());
        assert!(geometry.block_exactly(0, 16_384, 20_000 - 16_384).is_some());
        for (piece, begin, len) in
            [(0, 0, 16_383), (0, 1, 16_384), (0, 16_384, 16_384), (2, 0, 16_384)]
        {
            assert_eq!(geometry.block_exactly(piece, begin, len), None, "{piece} {begin} {len}");
        }
    }

    #[test]
    fn lengths_outside_the_limits_are_refused() {
        assert_eq!(Geometry::new(0, 16_384), Err(GeometryError::Empty));
        assert_eq!(Geometry::new(1, 0), Err(GeometryError::PieceLength(0)));
        assert_eq!(Geometry::new(1, -1), Err(GeometryError::PieceLength(-1)));
        assert_eq!(Geometry::new(1, 1 << 32), Err(GeometryError::PieceLength(1 << 32)));
        assert_eq!(
            Geometry::new(u64::MAX, 16_384),
            Err(GeometryError::TooManyPieces(u64::MAX.div_ceil(16_384)))
        );
    }
}
