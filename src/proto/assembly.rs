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
    pieces: BTreeMap<PieceIndex, Blocks>,
    bytes: u64,
    inserted: u64,
}

/// What is here of one piece.
#[derive(Debug, Default)]
struct Blocks {
    brought: BTreeMap<u32, Brought>,
    /// How many blocks had come in, of all pieces, when the last of this one did.
    last: u64,
}

impl Assembly {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps a block.
    pub fn insert(&mut self, block: BlockRef, data: Bytes, by: SocketAddr) {
        self.bytes += data.len() as u64;
        self.inserted += 1;
        let blocks = self.pieces.entry(block.piece).or_default();
        blocks.last = self.inserted;
        let brought = Brought { index: block.index, data, by };
        if let Some(old) = blocks.brought.insert(block.index, brought) {
            self.bytes -= old.data.len() as u64;
        }
    }

    /// The piece's blocks in order.
    pub fn blocks(&self, piece: PieceIndex) -> impl Iterator<Item = &Brought> {
        self.pieces.get(&piece).into_iter().flat_map(|blocks| blocks.brought.values())
    }

    /// Of the pieces that `may_go` lets go, the one that got nothing for longest.
    pub fn oldest(&self, may_go: impl Fn(PieceIndex) -> bool) -> Option<PieceIndex> {
        let going = self.pieces.iter().filter(|(piece, _)| may_go(**piece));
        going.min_by_key(|(_, blocks)| blocks.last).map(|(piece, _)| *piece)
    }

    /// Lets go of the piece's blocks, and hands them out in order.
    pub fn take(&mut self, piece: PieceIndex) -> Vec<Brought> {
        let blocks = self.pieces.remove(&piece).unwrap_or_default();
        let blocks: Vec<_> = blocks.brought.into_values().collect();
        self.bytes -= blocks.iter().map(|block| block.data.len() as u64).sum::<u64>();
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::geometry::Geometry;

    #[test]
    fn the_oldest_is_the_one_that_got_nothing_for_longest() {
        let geometry = Geometry::new(1 << 20, 65_536).expect("legal");
        let by = SocketAddr::from(([10, 0, 0, 1], 1));
        let piece = |raw| geometry.piece(raw).expect("in range");
        let mut assembly = Assembly::default();
        for (raw, index) in [(3, 0), (5, 0), (1, 0), (3, 1)] {
            let block = geometry.block(piece(raw), index).expect("in range");
            assembly.insert(block, Bytes::from_static(&[0; 10]), by);
        }
        assert_eq!(assembly.oldest(|_| true), Some(piece(5)));
        assert_eq!(assembly.oldest(|asked| asked != piece(5)), Some(piece(1)));
        assert_eq!(assembly.take(piece(3)).len(), 2);
        assert_eq!((assembly.bytes(), assembly.oldest(|asked| asked == piece(3))), (20, None));
    }
}
