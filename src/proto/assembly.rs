//! The bytes of pieces under way, block by block, until their hash is known.
//!
//! Invariant: `bytes` is the sum of all blocks held; only blocks that came in take memory, never a length
//! that a stranger named.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;

use super::units::{BlockRef, PieceIndex};

/// One block that came in, and who brought it.
#[derive(Clone, Debug)]
pub struct Brought {
    /// The block's number in its piece.
    pub index: u32,
    /// The bytes.
    pub data: Bytes,
    /// Who brought it, as [`culprit`](super::candidates::culprit) names it.
    pub by: SocketAddr,
}

/// Blocks that wait for their pieces to become whole and verified.
#[derive(Debug, Default)]
pub struct Assembly {
    pieces: BTreeMap<PieceIndex, BTreeMap<u32, Brought>>,
    bytes: u64,
}

impl Assembly {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps a block.
    pub fn insert(&mut self, block: BlockRef, data: Bytes, by: SocketAddr) {
        self.bytes += data.len() as u64;
        let brought = Brought { index: block.index, data, by };
        if let Some(old) = self.pieces.entry(block.piece).or_default().insert(block.index, brought)
        {
            self.bytes -= old.data.len() as u64;
        }
    }

    /// The piece's blocks in order.
    pub fn blocks(&self, piece: PieceIndex) -> impl Iterator<Item = &Brought> {
        self.pieces.get(&piece).into_iter().flat_map(BTreeMap::values)
    }

    /// Lets go of the piece's blocks, and hands them out in order.
    pub fn take(&mut self, piece: PieceIndex) -> Vec<Brought> {
        let blocks: Vec<_> =
            self.pieces.remove(&piece).into_iter().flat_map(BTreeMap::into_values).collect();
        self.bytes -= blocks.iter().map(|block| block.data.len() as u64).sum::<u64>();
        blocks
    }
}
