//! Typed ids: a number in hand says what it counts.
//!
//! Invariant: a [`PieceIndex`] or [`BlockRef`] exists only for a piece that the torrent has;
//! [`crate::proto::geometry::Geometry`] is their only maker, so nobody who takes one checks it again.
//!
//! Not here: lengths and ranges of bytes (plain `u64` and `Range<u64>`, named for their unit).

use std::fmt;

/// Bytes in a block, the unit of a request on the wire (BEP 3). Only a piece's last block is shorter.
pub const BLOCK_LEN: u32 = 16 * 1024;

/// Index of a piece, the unit that is hashed. Made by `Geometry::piece`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(u32);

impl PieceIndex {
    pub(super) const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number that goes on the wire.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The number as an index into a table with one entry for each piece.
    pub const fn slot(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// One block of a piece. Made by `Geometry::block` and its like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// The piece that the block is part of; a block never spans two.
    pub piece: PieceIndex,
    /// Number of the block in its piece, from 0.
    pub index: u32,
}

impl BlockRef {
    pub(super) const fn new(piece: PieceIndex, index: u32) -> Self {
        Self { piece, index }
    }

    /// Byte offset of the block in its piece.
    pub const fn begin(self) -> u32 {
        self.index * BLOCK_LEN
    }
}

impl fmt::Debug for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.b{}", self.piece, self.index)
    }
}

/// Index of a file in its torrent, padding files counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIndex(pub u32);

impl FileIndex {
    /// The number as an index into the torrent's file table.
    pub const fn slot(self) -> usize {
        self.0 as usize
    }
}

/// Number of a torrent in this process; given out by the engine, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TorrentId(pub u32);

/// Number of a connection in this process; given out by the engine, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u64);

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer{}", self.0)
    }
}

/// One open handle of a file: position and window belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u64);

/// One waiting read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// SHA-1 of the raw bytes of a torrent's info dictionary (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Name of a peer for the time that it runs (BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}
