//! What readers wait for: it is asked for before all else, and of a second peer where that brings it sooner.
//!
//! Not here: who brings it sooner ([`crate::proto::swarm`]).

use super::pick::END_GAME_COPIES;
use super::{Demand, Picker, View};
use crate::proto::units::{BlockRef, PieceIndex};

impl Picker {
    fn waited(&self) -> impl Iterator<Item = &Demand> {
        self.demands.iter().take_while(|demand| demand.blocked)
    }

    /// Whether a reader waits for a piece that is not here.
    pub fn is_blocked(&self) -> bool {
        self.demands.first().is_some_and(|demand| demand.blocked)
    }

    /// Whether a reader waits for the piece.
    pub fn is_waited_for(&self, piece: PieceIndex) -> bool {
        self.waited().any(|demand| demand.piece == piece)
    }

    /// Blocks of the pieces that readers wait for, those included that are here.
    pub fn waited_blocks(&self) -> usize {
        self.waited().map(|demand| self.geometry.block_count(demand.piece) as usize).sum()
    }

    /// Whether a block that readers wait for is asked of nobody.
    pub fn lacks_askers(&self) -> bool {
        self.waited().any(|demand| self.has_missing(demand.piece))
    }

    /// Whether the peer may be asked too for a block that another was asked for; if so, it is.
    pub fn ask_too(&mut self, block: BlockRef, view: View<'_>) -> bool {
        let Some(partial) = self.partial.get_mut(&block.piece) else { return false };
        let may = view.offers(block.piece)
            && !partial.exclusive
            && partial.may_ask_again(block.index, view.key, END_GAME_COPIES);
        if may {
            partial.ask_one_again(block.index, view.key);
        }
        may
    }
}
