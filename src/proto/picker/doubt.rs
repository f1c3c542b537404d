//! Pieces that may be here: nobody is asked for them until that is known.
//!
//! Not here: how it comes to be known ([`crate::proto::swarm`]).

use super::Picker;
use crate::proto::bitfield::Bitfield;
use crate::proto::units::PieceIndex;

impl Picker {
    /// The pieces that may be here.
    pub fn doubted(&self) -> &Bitfield {
        &self.doubted
    }

    /// The piece may be here: nobody is asked for it until [`Self::resolve`]. One that is under way is not doubted.
    pub fn doubt(&mut self, piece: PieceIndex) {
        if self.rarity.lists(piece) {
            self.rarity.remove(piece);
            self.doubted.insert(piece);
        }
    }

    /// The doubted piece is here, or it is missing; false when nobody doubted it.
    pub fn resolve(&mut self, piece: PieceIndex, here: bool) -> bool {
        if !self.doubted.remove(piece) {
            return false;
        }
        if here {
            self.have.insert(piece);
        } else {
            self.rarity.insert(piece, &mut self.rng);
        }
        true
    }
}
