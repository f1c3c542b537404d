//! The state of every piece and block, and which are asked of a peer next.
//!
//! ```text
//! listed in `rarity` ──pick──▶ under way (`partial`) ──verified──▶ had ──evicted──▶ listed
//! ```
//!
//! Invariant: a piece is had, doubted, under way (`partial`), or listed in `rarity`; exactly one of them. No block is
//! asked of a peer that lacks its piece, nor of more than [`MAX_COPIES`](super::partial::MAX_COPIES) peers.
//!
//! Not here: who delivers soonest and how deep a peer's queue is ([`crate::proto::peer`]), what readers
//! want ([`crate::proto::readahead`]).

mod doubt;
mod pick;
mod waited;

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::bitfield::Bitfield;
use super::geometry::Geometry;
use super::partial::{Askers, Partial};
use super::rarity::Rarity;
use super::units::{BlockRef, PeerKey, PieceIndex};

pub use pick::{RANDOM_FIRST, View};

/// A piece that a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The piece.
    pub piece: PieceIndex,
    /// Whether a read waits for it now; else it is in a window.
    pub blocked: bool,
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

    fn open_piece(&mut self, piece: PieceIndex) {
        if !self.partial.contains_key(&piece) {
            self.rarity.remove(piece);
            self.partial.insert(piece, Partial::new(self.geometry.block_count(piece)));
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
