//! Which blocks next, from one peer's view.
//!
//! Three queues, in this order: the demands of readers that wait, the windows of readers that will want
//! more, and fill. Fill goes on with the peer's own piece; else it takes what the peer suggests, what another left
//! unfinished, random pieces until it has [`RANDOM_FIRST`], and then the rarest. When every piece is under way, blocks
//! are asked of a second peer (end-game).
//!
//! Not here: what becomes of a block that was asked for ([`super`]).

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};

use super::{Demand, Picker};
use crate::proto::bitfield::Bitfield;
use crate::proto::partial::Partial;
use crate::proto::units::{BlockRef, PeerKey, PieceIndex};

/// Pieces that are picked at random before the rarest come first: a newcomer needs something to trade soon,
/// and rare pieces are slow to come.
pub const RANDOM_FIRST: u32 = 4;

/// One in so many picks goes to fill while windows are open but nobody waits: we need something to trade.
const FILL_SHARE: u64 = 8;

/// Pieces of windows that may always be under way, whatever fill began before.
const LEAST_WINDOW: usize = 2;

/// Askers of one block in end-game.
pub(super) const END_GAME_COPIES: usize = 2;
/// The peer that blocks are picked for.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Its connection.
    pub key: PeerKey,
    /// What it has.
    pub pieces: &'a Bitfield,
    /// Pieces that it does not want to give.
    pub refused: &'a BTreeSet<PieceIndex>,
    /// While it chokes us: the pieces that it gives all the same (BEP 6).
    pub only: Option<&'a BTreeSet<PieceIndex>>,
    /// Pieces that it would have us take first (BEP 6), oldest first.
    pub suggested: &'a VecDeque<PieceIndex>,
    /// Blocks asked of others that it would bring sooner; asked of it too in end-game.
    pub again: &'a BTreeSet<BlockRef>,
}

impl View<'_> {
    pub(super) fn offers(&self, piece: PieceIndex) -> bool {
        self.pieces.has(piece)
            && !self.refused.contains(&piece)
            && self.only.is_none_or(|only| only.contains(&piece))
    }
}
impl Picker {
    /// Up to `count` blocks to ask of the peer now; each counts as requested. `room` says whether memory
    /// allows another piece to be begun for which no read waits.
    pub fn pick(&mut self, view: View<'_>, count: usize, room: bool) -> Vec<BlockRef> {
        let mut picked = Vec::new();
        while picked.len() < count {
            let Some(block) = self.pick_one(view, room) else { break };
            self.picks += 1;
            picked.push(block);
        }
        picked
    }

    fn pick_one(&mut self, view: View<'_>, room: bool) -> Option<BlockRef> {
        let share = self.fill && !self.is_blocked() && self.picks.is_multiple_of(FILL_SHARE);
        if share && let Some(block) = self.pick_fill(view, room) {
            return Some(block);
        }
        self.pick_demanded(view, false, room)
            .or_else(|| self.pick_late(view))
            .or_else(|| if self.fill { self.pick_fill(view, room) } else { None })
            .or_else(|| self.pick_again(view))
    }

    /// A block that a reader waits for, to ask of the peer now: a missing one, or one that is late.
    pub fn pick_blocked(&mut self, view: View<'_>) -> Option<BlockRef> {
        self.pick_demanded(view, true, true).or_else(|| self.pick_late(view))
    }

    fn pick_demanded(
        &mut self,
        view: View<'_>,
        only_blocked: bool,
        room: bool,
    ) -> Option<BlockRef> {
        while let Some(demand) = self.demands.get(self.served) {
            if self.has_missing(demand.piece) {
                break;
            }
            self.served += 1;
        }
        let room = room && self.may_open_window();
        let mut ahead = self.demands.iter().skip(self.served);
        let demand = ahead.find(|demand| {
            let piece = demand.piece;
            let begun = self.partial.contains_key(&piece);
            (demand.blocked || room || begun)
                && view.offers(piece)
                && self.has_missing(piece)
                && self.admits(piece, view)
        })?;
        if only_blocked && !demand.blocked {
            return None;
        }
        self.ask(demand.piece, view)
    }

    fn pick_fill(&mut self, view: View<'_>, room: bool) -> Option<BlockRef> {
        let own = self.begun(view, |partial| partial.owner == Some(view.key));
        let piece = match own {
            Some(own) => own,
            None => self.next_to_fill(view, room && self.may_open(view))?,
        };
        self.ask(piece, view)
    }

    /// A suggestion is the one hint at what nobody has: it goes before what another left unfinished.
    fn next_to_fill(&mut self, view: View<'_>, may_open: bool) -> Option<PieceIndex> {
        let suggested = if may_open { self.suggested(view) } else { None };
        suggested
            .or_else(|| self.begun(view, |partial| partial.owner.is_none()))
            .or_else(|| if may_open { self.untouched(view) } else { None })
            .or_else(|| self.begun(view, |partial| !partial.exclusive))
    }

    /// A piece under way of this kind that the peer can help with.
    fn begun(&self, view: View<'_>, kind: impl Fn(&Partial) -> bool) -> Option<PieceIndex> {
        let helps = |(piece, partial): &(&PieceIndex, &Partial)| {
            partial.missing() > 0 && view.offers(**piece) && kind(partial)
        };
        self.partial.iter().find(helps).map(|(piece, _)| *piece)
    }

    fn suggested(&self, view: View<'_>) -> Option<PieceIndex> {
        let fresh = |piece: &&PieceIndex| view.offers(**piece) && self.rarity.lists(**piece);
        view.suggested.iter().find(fresh).copied()
    }

    fn untouched(&mut self, view: View<'_>) -> Option<PieceIndex> {
        if let Some(only) = view.only {
            let listed = |piece: &PieceIndex| self.rarity.lists(*piece);
            return only.iter().copied().find(|piece| view.offers(*piece) && listed(piece));
        }
        let mut offered = Cow::Borrowed(view.pieces);
        for &piece in view.refused.iter().filter(|piece| view.pieces.has(**piece)) {
            offered.to_mut().remove(piece);
        }
        if self.have.count() < RANDOM_FIRST {
            return self.rarity.random(&offered, &mut self.rng);
        }
        self.rarity.rarest(&offered)
    }

    /// Whether a piece may be begun that a reader will want.
    fn may_open_window(&self) -> bool {
        let begun = |demand: &&Demand| self.partial.contains_key(&demand.piece);
        self.partial.len() < self.max_open
            || self.demands.iter().filter(begun).nth(LEAST_WINDOW - 1).is_none()
    }

    /// Whether the peer may begin a piece: there is room, or it can help with nothing that was begun, and
    /// works on none itself. So pieces that nobody can finish never stop the others. What cannot be stored is never
    /// begun.
    fn may_open(&self, view: View<'_>) -> bool {
        let most = if self.demands.is_empty() { self.max_open } else { self.max_open.div_ceil(2) };
        let spare = self.partial.len() < most
            || self.partial.values().all(|partial| partial.owner != Some(view.key))
                && !self.partial.keys().any(|piece| view.offers(*piece));
        spare && self.partial.len() < self.fill_room
    }

    /// A block that a reader waits for and that others were asked for too long ago.
    fn pick_late(&mut self, view: View<'_>) -> Option<BlockRef> {
        let blocked: Vec<_> =
            self.demands.iter().take_while(|d| d.blocked).map(|d| d.piece).collect();
        blocked.into_iter().find_map(|piece| self.ask_late(piece, view))
    }

    /// End-game: a block that one other peer was asked for.
    fn pick_again(&mut self, view: View<'_>) -> Option<BlockRef> {
        if !self.is_end_game() {
            return None;
        }
        let few = |block: &&BlockRef| match self.partial.get(&block.piece) {
            Some(partial) if view.offers(block.piece) && !partial.exclusive => {
                partial.may_ask_again(block.index, view.key, END_GAME_COPIES)
            }
            Some(_) | None => false,
        };
        let block = *view.again.iter().find(few)?;
        self.partial.get_mut(&block.piece)?.ask_one_again(block.index, view.key);
        Some(block)
    }

    fn ask(&mut self, piece: PieceIndex, view: View<'_>) -> Option<BlockRef> {
        self.open_piece(piece);
        let partial = self.partial.get_mut(&piece)?;
        partial.owner.get_or_insert(view.key);
        let index = partial.ask_missing(view.key)?;
        self.geometry.block(piece, index)
    }

    fn ask_late(&mut self, piece: PieceIndex, view: View<'_>) -> Option<BlockRef> {
        if !view.offers(piece) {
            return None;
        }
        let partial = self.partial.get_mut(&piece)?;
        if partial.exclusive {
            return None;
        }
        let index = partial.ask_late(view.key)?;
        self.geometry.block(piece, index)
    }

    pub(super) fn has_missing(&self, piece: PieceIndex) -> bool {
        !self.have.has(piece)
            && self.partial.get(&piece).is_none_or(|partial| partial.missing() > 0)
    }

    fn admits(&self, piece: PieceIndex, view: View<'_>) -> bool {
        self.partial.get(&piece).is_none_or(|partial| {
            !partial.exclusive || partial.owner.is_none_or(|owner| owner == view.key)
        })
    }
}
