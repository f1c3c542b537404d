//! A first seed's care that each piece goes out once before any goes out twice.
//!
//! Leeches cannot see what others ask of a seed, so they ask for the same pieces at the same time, and while the
//! only uplink that has new pieces sends old ones, all others run dry. BEP 16 hides pieces to prevent that; here
//! nothing is hidden: each peer is pointed (Suggest, BEP 6) at pieces that nobody has and nobody else was pointed
//! at. A reader's demand still goes before any suggestion. When all pieces are pointed out, who has finished his own
//! is pointed at what the slowest have not begun: otherwise everyone would wait for them, or ask for the same.
//!
//! Where more want to be served than are, each has a turn of few whole pieces: then all have something soon that
//! others lack, and no line stands idle for want of it.
//!
//! Invariant: no piece is pointed out to two peers at once.
//!
//! Not here: what a leech makes of a suggestion ([`crate::proto::picker`]); whose turn is next
//! ([`crate::proto::choker`]).

use std::collections::{BTreeMap, BTreeSet};

use super::geometry::{Geometry, Span};
use super::units::{PeerKey, PieceIndex};

/// Pieces that a peer keeps when another is pointed at the rest: one to fetch, one to go on with.
const KEPT: usize = 2;

/// Pieces that a peer may finish beyond its turn.
const MOST_PARTS: usize = 2;

/// Pieces that one peer is to get first, and that nobody has.
#[derive(Debug, Default)]
struct List {
    /// It has asked for something of them; bytes that it was given of each.
    begun: BTreeMap<PieceIndex, u32>,
    ahead: BTreeSet<PieceIndex>,
    turn: Turn,
}

/// When others are served in the peer's place, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    len: u64,
    given: u64,
}

impl List {
    fn len(&self) -> usize {
        self.begun.len() + self.ahead.len()
    }

    fn contains(&self, piece: PieceIndex) -> bool {
        self.begun.contains_key(&piece) || self.ahead.contains(&piece)
    }

    /// Pieces that it was given only a part of.
    fn parts(&self, geometry: &Geometry) -> usize {
        let begun = self.begun.iter();
        begun.filter(|(piece, given)| is_part(**piece, **given, geometry)).count()
    }
}

fn is_part(piece: PieceIndex, given: u32, geometry: &Geometry) -> bool {
    given > 0 && given < geometry.piece_len(piece)
}

/// Which peer is to get which piece first.
#[derive(Debug)]
pub struct Spread {
    /// The next piece to point out, as a number.
    cursor: u32,
    /// Pieces before the walk has been once around.
    left: u32,
    /// Pieces whose peer went away without them.
    returned: BTreeSet<PieceIndex>,
    pointed: BTreeMap<PeerKey, List>,
}

impl Spread {
    /// Begins at this piece: seeds that begin elsewhere spread other pieces.
    pub fn new(first: u32, geometry: &Geometry) -> Self {
        let count = geometry.piece_count();
        Self {
            cursor: first % count,
            left: count,
            returned: BTreeSet::new(),
            pointed: BTreeMap::new(),
        }
    }

    /// Whether a piece is left that nobody has.
    pub fn goes_on(&self) -> bool {
        self.left > 0
            || !self.returned.is_empty()
            || self.pointed.values().any(|list| list.len() > 0)
    }

    /// Pieces that the peer was pointed at and that nobody has yet.
    pub fn pending(&self, key: PeerKey) -> usize {
        self.pointed.get(&key).map_or(0, List::len)
    }

    /// One more piece to point out to the peer; `None` when each is out or on its way. `is_out`: somebody has it.
    pub fn point(
        &mut self,
        key: PeerKey,
        geometry: &Geometry,
        is_out: impl Fn(PieceIndex) -> bool,
    ) -> Option<PieceIndex> {
        let fresh = self.returned(&is_out).or_else(|| self.walk(geometry, is_out));
        let piece = fresh.or_else(|| self.relieve(key))?;
        self.pointed.entry(key).or_default().ahead.insert(piece);
        Some(piece)
    }

    fn returned(&mut self, is_out: impl Fn(PieceIndex) -> bool) -> Option<PieceIndex> {
        while let Some(piece) = self.returned.pop_first() {
            if !is_out(piece) {
                return Some(piece);
            }
        }
        None
    }

    fn walk(
        &mut self,
        geometry: &Geometry,
        is_out: impl Fn(PieceIndex) -> bool,
    ) -> Option<PieceIndex> {
        while self.left > 0 {
            let piece = geometry.piece(self.cursor)?;
            self.cursor = (self.cursor + 1) % geometry.piece_count();
            self.left -= 1;
            if !is_out(piece) && !self.is_pointed_out(piece) {
                return Some(piece);
            }
        }
        None
    }

    /// A piece that the peer with the longest list has not begun, for one that has next to none.
    fn relieve(&mut self, key: PeerKey) -> Option<PieceIndex> {
        if self.pending(key) >= KEPT {
            return None;
        }
        let others = self.pointed.iter_mut().filter(|(other, _)| **other != key);
        let (_, longest) = others.max_by_key(|(_, list)| list.len())?;
        if longest.len() > KEPT { longest.ahead.pop_last() } else { None }
    }

    fn is_pointed_out(&self, piece: PieceIndex) -> bool {
        self.pointed.values().any(|list| list.contains(piece))
    }

    /// The peer takes a piece that nobody has, pointed at it or not: others are pointed elsewhere.
    pub fn takes(&mut self, key: PeerKey, piece: PieceIndex) {
        let list = self.pointed.entry(key).or_default();
        if list.ahead.remove(&piece) {
            list.begun.insert(piece, 0);
        } else if !self.is_pointed_out(piece) {
            self.returned.remove(&piece);
            self.pointed.entry(key).or_default().begun.insert(piece, 0);
        }
    }

    /// The peer's turn begins, for so many bytes. What it was given only a part of in an earlier one is pointed out
    /// anew.
    pub fn begin(&mut self, key: PeerKey, bytes: u64, geometry: &Geometry) {
        let list = self.pointed.entry(key).or_default();
        list.turn = Turn { len: bytes, given: 0 };
        let begun = std::mem::take(&mut list.begun).into_iter();
        let parts = begun.filter(|(piece, given)| is_part(*piece, *given, geometry));
        self.returned.extend(parts.map(|(piece, _)| piece));
    }

    /// These bytes go to the peer.
    pub fn gives(&mut self, key: PeerKey, span: Span) {
        let Some(list) = self.pointed.get_mut(&key) else { return };
        list.turn.given += u64::from(span.len);
        if let Some(given) = list.begun.get_mut(&span.piece) {
            *given += span.len;
        }
    }

    /// Whether the peer has had its turn. It may finish what it has begun, unless these are many pieces.
    pub fn is_over(&self, key: PeerKey, geometry: &Geometry) -> bool {
        let Some(list) = self.pointed.get(&key) else { return true };
        let parts = list.parts(geometry);
        list.turn.given >= list.turn.len && (parts == 0 || parts > MOST_PARTS)
    }

    /// The peer's turn ends: others are pointed at what it was given nothing of.
    pub fn end(&mut self, key: PeerKey) {
        let Some(list) = self.pointed.get_mut(&key) else { return };
        list.turn = Turn::default();
        self.returned.append(&mut list.ahead);
        self.returned.extend(list.begun.iter().filter(|(_, given)| **given == 0).map(|(p, _)| *p));
        list.begun.retain(|_, given| *given > 0);
    }

    /// Somebody has the piece.
    pub fn is_out(&mut self, piece: PieceIndex) {
        for list in self.pointed.values_mut() {
            list.begun.remove(&piece);
            list.ahead.remove(&piece);
        }
    }

    /// The peer is gone: others are pointed at what it did not get.
    pub fn forget(&mut self, key: PeerKey) {
        let List { begun, ahead, .. } = self.pointed.remove(&key).unwrap_or_default();
        self.returned.extend(begun.into_keys().chain(ahead));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_takes_by_itself_is_pointed_out_to_nobody_else() {
        let geometry = Geometry::new(3 * 16_384, 16_384).expect("legal");
        let mut spread = Spread::new(0, &geometry);
        let (one, two) = (PeerKey(1), PeerKey(2));
        spread.takes(one, geometry.piece(1).expect("a piece"));
        let mut point = || spread.point(two, &geometry, |_| false).map(PieceIndex::raw);
        assert_eq!([point(), point(), point()], [Some(0), Some(2), None]);
        spread.takes(one, geometry.piece(2).expect("a piece"));
        assert_eq!((spread.pending(one), spread.pending(two)), (1, 2), "it is two's already");
    }

    #[test]
    fn who_has_finished_takes_over_what_the_slowest_has_not_begun() {
        let geometry = Geometry::new(6 * 16_384, 16_384).expect("legal");
        let mut spread = Spread::new(0, &geometry);
        let (slow, fast) = (PeerKey(1), PeerKey(2));
        let mut point = |key| spread.point(key, &geometry, |_| false).map(PieceIndex::raw);
        let walked: Vec<_> = [slow, slow, slow, slow, slow, fast].map(&mut point).to_vec();
        assert_eq!(walked, [0, 1, 2, 3, 4, 5].map(Some));
        for piece in geometry.pieces().take(3) {
            spread.takes(slow, piece);
        }
        spread.is_out(geometry.piece(5).expect("a piece"));
        let mut point = |key| spread.point(key, &geometry, |_| false).map(PieceIndex::raw);
        assert_eq!(point(slow), None, "it has enough");
        assert_eq!([point(fast), point(fast), point(fast)], [Some(4), Some(3), None]);
        assert_eq!((spread.pending(slow), spread.pending(fast)), (3, 2));
    }

    #[test]
    fn a_turn_is_over_after_whole_pieces_and_others_get_what_was_not_given() {
        const BLOCK: u32 = 16_384;
        let geometry = Geometry::new(6 * 32_768, 32_768).expect("legal");
        let mut spread = Spread::new(0, &geometry);
        let (one, two) = (PeerKey(1), PeerKey(2));
        let piece = |number| geometry.piece(number).expect("a piece");
        let block = |number, at| geometry.span(number, at * BLOCK, BLOCK).expect("inside");
        spread.begin(one, u64::from(BLOCK), &geometry);
        for number in 0..3 {
            assert_eq!(spread.point(one, &geometry, |_| false), Some(piece(number)));
        }
        [0, 1].into_iter().for_each(|number| spread.takes(one, piece(number)));
        assert!(!spread.is_over(one, &geometry), "it was given nothing");
        spread.gives(one, block(0, 0));
        assert!(!spread.is_over(one, &geometry), "half a piece is of no use to anybody");
        spread.gives(one, block(0, 1));
        assert!(spread.is_over(one, &geometry));
        spread.end(one);
        assert_eq!(spread.pending(one), 1, "it will soon have what it was given");
        let mut point = |key| spread.point(key, &geometry, |_| false).map(PieceIndex::raw);
        assert_eq!([point(two), point(two), point(two)], [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn who_is_given_parts_of_many_pieces_has_no_turn_without_end() {
        const BLOCK: u32 = 16_384;
        let geometry = Geometry::new(6 * 32_768, 32_768).expect("legal");
        let mut spread = Spread::new(0, &geometry);
        let (one, two) = (PeerKey(1), PeerKey(2));
        spread.begin(one, 32_768, &geometry);
        for number in 0..3 {
            assert!(!spread.is_over(one, &geometry), "{number}");
            spread.takes(one, geometry.piece(number).expect("a piece"));
            spread.gives(one, geometry.span(number, 0, BLOCK).expect("inside"));
        }
        assert!(spread.is_over(one, &geometry));
        spread.end(one);
        assert_eq!(spread.point(two, &geometry, |_| false).map(PieceIndex::raw), Some(3));
        spread.begin(one, 32_768, &geometry);
        assert_eq!(spread.pending(one), 0);
        assert_eq!(spread.point(one, &geometry, |_| false).map(PieceIndex::raw), Some(0));
    }

    #[test]
    fn each_piece_is_pointed_out_once_and_again_when_its_peer_left() {
        let geometry = Geometry::new(6 * 16_384, 16_384).expect("legal");
        let mut spread = Spread::new(4, &geometry);
        let out = |piece: PieceIndex| piece.raw() == 5;
        let (one, two) = (PeerKey(1), PeerKey(2));
        let mut point = |key| spread.point(key, &geometry, out).map(PieceIndex::raw);
        let walked: Vec<_> = [one, two, one, two, one, two].map(&mut point).to_vec();
        assert_eq!(walked, [Some(4), Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!((spread.pending(one), spread.pending(two)), (3, 2));
        spread.is_out(geometry.piece(4).expect("a piece"));
        assert_eq!(spread.pending(one), 2);
        spread.forget(one);
        assert_eq!(spread.point(two, &geometry, |p| p.raw() == 1).map(PieceIndex::raw), Some(3));
        assert_eq!(spread.point(two, &geometry, |p| p.raw() == 1), None);
        assert!(spread.goes_on(), "two has none of its pieces yet");
        geometry.pieces().for_each(|piece| spread.is_out(piece));
        assert!(!spread.goes_on());
    }
}
