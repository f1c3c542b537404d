//! Which blocks next, from one peer's view.
//!
//! Three queues, in this order: the demands of readers that wait, the windows of readers that will want
//! more, and fill. Fill goes on with the peer's own piece; else it takes what the peer suggests, what another left
//! unfinished, random pieces until it has [`RANDOM_FIRST`], and then the rarest. When every piece is under way, blocks
//! are asked of a second peer (end-game).
//!
//! Invariant: a piece is had, doubted, under way (`partial`), or listed in `rarity`; exactly one of them. No block is
//! asked of a peer that lacks its piece, nor of more than [`MAX_COPIES`](super::partial::MAX_COPIES) peers.
//!
//! Not here: who delivers soonest and how deep a peer's queue is ([`crate::proto::peer`]), what readers
//! want ([`crate::proto::readahead`]).

mod doubt;
mod waited;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::bitfield::Bitfield;
use super::geometry::Geometry;
use super::partial::{Askers, Partial};
use super::rarity::Rarity;
use super::units::{BlockRef, PeerKey, PieceIndex};

/// Pieces that are picked at random before the rarest come first: a newcomer needs something to trade soon,
/// and rare pieces are slow to come.
pub const RANDOM_FIRST: u32 = 4;

/// One in so many picks goes to fill while windows are open but nobody waits: we need something to trade.
const FILL_SHARE: u64 = 8;

/// Pieces of windows that may always be under way, whatever fill began before.
const LEAST_WINDOW: usize = 2;

/// Askers of one block in end-game.
const END_GAME_COPIES: usize = 2;

/// A piece that a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The piece.
    pub piece: PieceIndex,
    /// Whether a read waits for it now; else it is in a window.
    pub blocked: bool,
}

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
    fn offers(&self, piece: PieceIndex) -> bool {
        self.pieces.has(piece)
            && !self.refused.contains(&piece)
            && self.only.is_none_or(|only| only.contains(&piece))
    }
}

/// What became of a block that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Nobody needs it: it is here already, or its piece is not under way.
    Redundant,
    /// It was needed.
    New {
        /// Who was asked for it, the giver included.
        askers: Askers,
        /// Whether its piece now has every block.
        whole: bool,
    },
}

/// Chooses blocks, and knows the state of each.
#[derive(Debug)]
pub struct Picker {
    geometry: Geometry,
    have: Bitfield,
    /// May be here: not to be asked for before that is known.
    doubted: Bitfield,
    partial: BTreeMap<PieceIndex, Partial>,
    rarity: Rarity,
    seeds: u32,
    demands: Vec<Demand>,
    /// Demands before this one have no missing block.
    served: usize,
    fill: bool,
    max_open: usize,
    /// Pieces under way beyond which fill begins none.
    fill_room: usize,
    picks: u64,
    rng: StdRng,
}

impl Picker {
    /// A picker for a torrent of which `have` is here. At most `open_bytes` of pieces are under way for fill and
    /// windows, half of them for fill while there are windows.
    pub fn new(geometry: Geometry, have: Bitfield, fill: bool, open_bytes: u64, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut rarity = Rarity::new(geometry.piece_count());
        for piece in geometry.pieces().filter(|&piece| !have.has(piece)) {
            rarity.insert(piece, &mut rng);
        }
        let max_open = pieces_in(open_bytes, &geometry);
        Self {
            doubted: Bitfield::empty(geometry.piece_count()),
            geometry,
            have,
            partial: BTreeMap::new(),
            rarity,
            seeds: 0,
            demands: Vec::new(),
            served: 0,
            fill,
            max_open,
            fill_room: usize::MAX,
            picks: 0,
            rng,
        }
    }

    /// The pieces that are here and verified.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Whether anything is wanted of anyone: fill goes on, or a reader asks.
    pub fn wants_anything(&self) -> bool {
        !self.demands.is_empty() || (self.fill && !self.have.is_full())
    }

    /// Whether fill has begun every piece: now blocks may be asked of a second peer.
    pub fn is_end_game(&self) -> bool {
        self.fill && self.rarity.is_empty() && self.doubted.is_empty() && !self.partial.is_empty()
    }

    /// Whether a reader waits for the piece, or will want it soon.
    pub fn is_demanded(&self, piece: PieceIndex) -> bool {
        self.demands.iter().any(|demand| demand.piece == piece)
    }

    /// What readers want and is not here, most urgent first.
    pub fn demands(&self) -> &[Demand] {
        &self.demands
    }

    /// Pieces under way.
    pub fn open(&self) -> usize {
        self.partial.len()
    }

    /// Peers that have the piece.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        u32::from(self.rarity.count(piece)) + self.seeds
    }

    /// The piece's blocks, when it is under way.
    pub fn partial(&self, piece: PieceIndex) -> Option<&Partial> {
        self.partial.get(&piece)
    }

    /// Whether what nobody reads is fetched too.
    pub fn is_filling(&self) -> bool {
        self.fill
    }

    /// Turns fill on or off.
    pub fn set_fill(&mut self, fill: bool) {
        self.fill = fill;
    }

    /// Changes how many bytes of pieces may be under way.
    pub fn set_open_bytes(&mut self, bytes: u64) {
        self.max_open = pieces_in(bytes, &self.geometry);
    }

    /// While so many pieces are under way, fill begins no other: there would be no room to store it.
    pub fn set_fill_room(&mut self, pieces: usize) {
        self.fill_room = pieces;
    }

    /// What readers want, most urgent first, blocked ones before all others. Pieces that are here, or may be, are
    /// left out.
    pub fn set_demands(&mut self, demands: impl IntoIterator<Item = Demand>) {
        self.demands.clear();
        let wanted = |piece| !self.have.has(piece) && !self.doubted.has(piece);
        self.demands.extend(demands.into_iter().filter(|demand| wanted(demand.piece)));
        self.served = 0;
    }

    /// A peer with these pieces has come.
    pub fn peer_came(&mut self, pieces: &Bitfield) {
        if pieces.is_full() {
            self.seeds += 1;
            return;
        }
        for piece in pieces.iter() {
            self.rarity.gain(piece, &mut self.rng);
        }
    }

    /// A peer with these pieces has gone; the blocks asked of it are to be released one by one.
    pub fn peer_left(&mut self, pieces: &Bitfield) {
        if pieces.is_full() {
            self.seeds = self.seeds.saturating_sub(1);
            return;
        }
        for piece in pieces.iter() {
            self.rarity.lose(piece, &mut self.rng);
        }
    }

    /// A peer that had `before` now has `piece` too. The one that becomes a seed moves to the seeds' counter.
    pub fn peer_gained(&mut self, before: &Bitfield, piece: PieceIndex) {
        if before.count() + 1 < before.len() {
            self.rarity.gain(piece, &mut self.rng);
            return;
        }
        self.peer_left(before);
        self.seeds += 1;
    }

    /// A peer that had `before` has lost `piece` (BEP 54).
    pub fn peer_lost(&mut self, before: &Bitfield, piece: PieceIndex) {
        if !before.is_full() {
            self.rarity.lose(piece, &mut self.rng);
            return;
        }
        self.peer_left(before);
        let mut after = before.clone();
        after.remove(piece);
        self.peer_came(&after);
    }

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

    fn open_piece(&mut self, piece: PieceIndex) {
        if !self.partial.contains_key(&piece) {
            self.rarity.remove(piece);
            self.partial.insert(piece, Partial::new(self.geometry.block_count(piece)));
        }
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

    fn has_missing(&self, piece: PieceIndex) -> bool {
        !self.have.has(piece)
            && self.partial.get(&piece).is_none_or(|partial| partial.missing() > 0)
    }

    fn admits(&self, piece: PieceIndex, view: View<'_>) -> bool {
        self.partial.get(&piece).is_none_or(|partial| {
            !partial.exclusive || partial.owner.is_none_or(|owner| owner == view.key)
        })
    }

    /// A block has come in. `asked`: it still stood in the peer's queue, so it is welcome even when its piece was
    /// given up meanwhile. What was never asked for opens no piece, and never mixes into a piece that one other
    /// peer alone is to bring.
    pub fn receive(&mut self, block: BlockRef, from: PeerKey, asked: bool) -> Receipt {
        if asked && !self.have.has(block.piece) && !self.doubted.has(block.piece) {
            self.open_piece(block.piece);
        }
        let Some(partial) = self.partial.get_mut(&block.piece) else { return Receipt::Redundant };
        if partial.exclusive && partial.owner != Some(from) {
            return Receipt::Redundant;
        }
        match partial.receive(block.index) {
            None => Receipt::Redundant,
            Some(askers) => Receipt::New { askers, whole: partial.is_whole() },
        }
    }

    /// The peer will not bring the block: it choked us, refused, took too long or left.
    pub fn release(&mut self, block: BlockRef, key: PeerKey) {
        let Some(partial) = self.partial.get_mut(&block.piece) else { return };
        if !partial.release(block.index, key) {
            return;
        }
        self.served = 0;
        if partial.is_untouched() && !partial.exclusive {
            self.partial.remove(&block.piece);
            self.rarity.insert(block.piece, &mut self.rng);
        }
    }

    /// The peer no longer fills pieces by itself: it left, choked us or was snubbed.
    pub fn disown(&mut self, key: PeerKey) {
        for partial in self.partial.values_mut().filter(|partial| partial.owner == Some(key)) {
            partial.owner = None;
        }
    }

    /// So many peers have had the block for too long: when these are all that were asked, one more may be.
    pub fn mark_late(&mut self, block: BlockRef, askers: usize) {
        if let Some(partial) = self.partial.get_mut(&block.piece) {
            partial.mark_late(block.index, askers);
        }
    }

    /// The piece is whole and its hash is right.
    pub fn verified(&mut self, piece: PieceIndex) {
        self.partial.remove(&piece);
        self.rarity.remove(piece);
        self.have.insert(piece);
        self.demands.retain(|demand| demand.piece != piece);
        self.served = 0;
    }

    /// The piece's hash is wrong: all of it is missing again, and one peer alone brings it next.
    pub fn failed(&mut self, piece: PieceIndex) {
        let mut partial = Partial::new(self.geometry.block_count(piece));
        partial.exclusive = true;
        self.partial.insert(piece, partial);
        self.served = 0;
    }

    /// What came of the piece is dropped, by no peer's fault: all of it is missing again.
    pub fn dropped(&mut self, piece: PieceIndex) {
        if self.partial.remove(&piece).is_some() {
            self.rarity.insert(piece, &mut self.rng);
            self.served = 0;
        }
    }

    /// The peer does not finish the failed pieces that it alone was to bring: what it brought of them is
    /// dropped, and all is asked anew of another. Returns these pieces.
    pub fn restart_exclusive(&mut self, key: PeerKey) -> Vec<PieceIndex> {
        let of_peer = |partial: &Partial| partial.exclusive && partial.owner == Some(key);
        let pieces: Vec<_> = self
            .partial
            .iter()
            .filter(|(_, p)| of_peer(p) && !p.is_whole())
            .map(|(p, _)| *p)
            .collect();
        for &piece in &pieces {
            self.failed(piece);
        }
        pieces
    }

    /// The piece has been thrown out: it is missing again.
    pub fn evicted(&mut self, piece: PieceIndex) {
        if self.have.remove(piece) {
            self.rarity.insert(piece, &mut self.rng);
        }
    }

    /// Names the rule that does not hold, if any.
    pub fn invariants(&self) -> Result<(), String> {
        for (piece, partial) in &self.partial {
            if self.have.has(*piece) {
                return Err(format!("{piece:?} is had and under way"));
            }
            partial.invariants().map_err(|rule| format!("{piece:?}: {rule}"))?;
        }
        let resting = self.have.count() + self.doubted.count();
        let all = resting as usize + self.partial.len() + self.rarity.len();
        if all != self.geometry.piece_count() as usize {
            return Err(format!("{all} pieces are had, doubted, under way or listed"));
        }
        Ok(())
    }
}

/// Pieces that may be under way when so many bytes may.
fn pieces_in(bytes: u64, geometry: &Geometry) -> usize {
    (bytes / u64::from(geometry.nominal_piece_len())).max(2) as usize
}
