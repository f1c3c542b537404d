//! Who is to blame for a piece whose hash is wrong.
//!
//! One source: it lied. Several: the hash of each block is remembered with its giver, the piece is brought
//! again by one peer alone, and when it is right then, the givers of blocks that differ lied.
//!
//! Not here: the second download by one peer ([`crate::proto::picker::Picker::failed`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use sha1::{Digest, Sha1};

use super::units::PieceIndex;

/// Failed pieces that are remembered; beyond, the oldest index is forgotten.
const MAX_RECORDS: usize = 64;

/// One block as it was brought.
#[derive(Clone, Debug)]
struct Record {
    index: u32,
    hash: [u8; 20],
    by: SocketAddr,
}

/// What is known of failed pieces.
#[derive(Debug, Default)]
pub struct Blame {
    failed: BTreeMap<PieceIndex, Vec<Record>>,
}

impl Blame {
    /// Takes in a piece with a wrong hash, as `(block number, bytes, giver)`. Returns the liar when there was
    /// but one giver.
    pub fn failed<'a>(
        &mut self,
        piece: PieceIndex,
        blocks: impl Iterator<Item = (u32, &'a [u8], SocketAddr)>,
    ) -> Option<SocketAddr> {
        let records: Vec<_> = blocks
            .map(|(index, data, by)| Record { index, hash: Sha1::digest(data).into(), by })
            .collect();
        let givers: BTreeSet<_> = records.iter().map(|record| record.by).collect();
        if givers.len() == 1 {
            return givers.first().copied();
        }
        self.failed.entry(piece).or_default().extend(records);
        while self.failed.len() > MAX_RECORDS {
            self.failed.pop_first();
        }
        None
    }

    /// Takes in a piece with the right hash, as `(block number, bytes)`. Returns who brought other bytes for it.
    pub fn verified<'a>(
        &mut self,
        piece: PieceIndex,
        blocks: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> BTreeSet<SocketAddr> {
        let Some(records) = self.failed.remove(&piece) else { return BTreeSet::new() };
        let right: BTreeMap<u32, [u8; 20]> =
            blocks.map(|(index, data)| (index, Sha1::digest(data).into())).collect();
        let lied =
            |record: &&Record| right.get(&record.index).is_some_and(|hash| *hash != record.hash);
        records.iter().filter(lied).map(|record| record.by).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::geometry::Geometry;

    fn piece() -> PieceIndex {
        Geometry::new(32_768, 32_768).expect("legal").piece(0).expect("one piece")
    }

    fn ip(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 0))
    }

    #[test]
    fn a_single_source_of_a_bad_piece_is_the_liar() {
        let blocks: [(u32, &[u8], SocketAddr); 2] = [(0, b"x", ip(1)), (1, b"y", ip(1))];
        assert_eq!(Blame::default().failed(piece(), blocks.into_iter()), Some(ip(1)));
    }

    #[test]
    fn among_several_the_one_whose_block_differs_is_the_liar() {
        let mut blame = Blame::default();
        let bad: [(u32, &[u8], SocketAddr); 2] = [(0, b"right", ip(1)), (1, b"wrong", ip(2))];
        assert_eq!(blame.failed(piece(), bad.into_iter()), None);
        let good: [(u32, &[u8]); 2] = [(0, b"right"), (1, b"true")];
        assert_eq!(blame.verified(piece(), good.into_iter()), BTreeSet::from([ip(2)]));
    }
}
