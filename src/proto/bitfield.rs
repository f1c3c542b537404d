//! A set of a torrent's pieces, and its form on the wire (BEP 3).
//!
//! Invariant: `len` is the torrent's piece count and `ones` the number of pieces in the set.

use fixedbitset::FixedBitSet;

use super::units::PieceIndex;

/// A set of pieces of one torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    bits: FixedBitSet,
    ones: u32,
}

impl Bitfield {
    /// The empty set for a torrent of `pieces` pieces.
    pub fn empty(pieces: u32) -> Self {
        Self { bits: FixedBitSet::with_capacity(pieces as usize), ones: 0 }
    }

    /// The full set for a torrent of `pieces` pieces.
    pub fn full(pieces: u32) -> Self {
        let mut bits = FixedBitSet::with_capacity(pieces as usize);
        bits.insert_range(..);
        Self { bits, ones: pieces }
    }

    /// Reads a BITFIELD message; `None` when it has another length than this torrent's or a spare bit set.
    pub fn from_wire(bytes: &[u8], pieces: u32) -> Option<Self> {
        if bytes.len() != (pieces as usize).div_ceil(8) {
            return None;
        }
        let spare = (8 - pieces % 8) % 8;
        if bytes.last().is_some_and(|last| last & ((1u16 << spare) - 1) as u8 != 0) {
            return None;
        }
        let mut field = Self::empty(pieces);
        for (at, byte) in bytes.iter().enumerate().filter(|&(_, &byte)| byte != 0) {
            for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                field.bits.insert(at * 8 + bit);
            }
        }
        field.ones = field.bits.count_ones(..) as u32;
        Some(field)
    }

    /// The set as the payload of a BITFIELD message: the first piece is the first byte's highest bit.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bits.len().div_ceil(8)];
        for piece in self.bits.ones() {
            bytes[piece / 8] |= 0x80 >> (piece % 8);
        }
        bytes
    }

    /// Pieces in the torrent.
    pub fn len(&self) -> u32 {
        self.bits.len() as u32
    }

    /// Whether the set has no piece.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether the set has every piece.
    pub fn is_full(&self) -> bool {
        self.ones == self.len()
    }

    /// Pieces in the set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether the piece is in the set.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.bits.contains(piece.slot())
    }

    /// Adds the piece; true when it was not there.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        let new = !self.bits.put(piece.slot());
        self.ones += u32::from(new);
        new
    }

    /// Takes the piece out; true when it was there.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        let had = self.has(piece);
        self.bits.set(piece.slot(), false);
        self.ones -= u32::from(had);
        had
    }

    /// Adds every piece of a set of the same torrent.
    pub fn union_with(&mut self, other: &Self) {
        self.bits.union_with(&other.bits);
        self.ones = self.bits.count_ones(..) as u32;
    }

    /// Every piece in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.bits.ones().map(|at| PieceIndex::new(at as u32))
    }

    /// Whether `self` has a piece that `other` lacks.
    pub fn has_more_than(&self, other: &Self) -> bool {
        !self.bits.is_subset(&other.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_puts_piece_0_in_the_highest_bit() {
        let mut field = Bitfield::empty(10);
        field.insert(PieceIndex::new(0));
        field.insert(PieceIndex::new(9));
        assert_eq!(field.to_wire(), [0x80, 0x40]);
        assert_eq!(Bitfield::from_wire(&[0x80, 0x40], 10), Some(field));
    }

    #[test]
    fn a_spare_bit_or_another_length_is_refused() {
        assert_eq!(Bitfield::from_wire(&[0xff, 0xc0], 10), Some(Bitfield::full(10)));
        assert_eq!(Bitfield::from_wire(&[0xff, 0xe0], 10), None);
        assert_eq!(Bitfield::from_wire(&[0xff], 10), None);
        assert_eq!(Bitfield::from_wire(&[0xff, 0xc0, 0], 10), None);
    }

    #[test]
    fn a_union_counts_each_piece_once() {
        let mut field = Bitfield::from_wire(&[0xc0], 3).expect("legal");
        field.union_with(&Bitfield::from_wire(&[0x60], 3).expect("legal"));
        assert_eq!(field, Bitfield::full(3));
    }

    #[test]
    fn counting_survives_double_inserts_and_removes() {
        let mut field = Bitfield::empty(3);
        let piece = PieceIndex::new(1);
        assert!(field.insert(piece));
        assert!(!field.insert(piece));
        assert_eq!(field.count(), 1);
        assert!(field.remove(piece));
        assert!(!field.remove(piece));
        assert!(field.is_empty());
    }
}
