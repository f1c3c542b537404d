//! Untouched pieces, sorted by how many peers have them.
//!
//! Invariant: `order` is sorted by `count`; pieces with count c fill `bucket_end[c - 1]..bucket_end[c]`;
//! `place` is the inverse of `order`. A HAVE moves a piece by one swap, whatever the torrent's size.
//! Ties are broken as a piece enters its bucket, by the generator that the caller passes in.
//!
//! Not here: seeds, which count alike for every piece ([`crate::proto::picker`] keeps their number).

use rand::{Rng, RngExt};

use super::bitfield::Bitfield;
use super::units::PieceIndex;

const ABSENT: u32 = u32::MAX;

/// The pieces that nobody has been asked for, rarest first.
#[derive(Clone, Debug)]
pub struct Rarity {
    count: Vec<u16>,
    order: Vec<PieceIndex>,
    place: Vec<u32>,
    bucket_end: Vec<u32>,
}

impl Rarity {
    /// No piece listed, no peer known.
    pub fn new(pieces: u32) -> Self {
        Self {
            count: vec![0; pieces as usize],
            order: Vec::new(),
            place: vec![ABSENT; pieces as usize],
            bucket_end: vec![0],
        }
    }

    /// Peers, seeds apart, that have the piece.
    pub fn count(&self, piece: PieceIndex) -> u16 {
        self.count[piece.slot()]
    }

    /// Whether the piece is listed.
    pub fn lists(&self, piece: PieceIndex) -> bool {
        self.place[piece.slot()] != ABSENT
    }

    /// Pieces listed.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no piece is listed.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Lists the piece.
    pub fn insert(&mut self, piece: PieceIndex, rng: &mut impl Rng) {
        if self.place[piece.slot()] != ABSENT {
            return;
        }
        let count = usize::from(self.count(piece));
        self.ensure_bucket(count);
        self.place[piece.slot()] = self.order.len() as u32;
        self.order.push(piece);
        for bucket in (count..self.bucket_end.len()).rev() {
            self.bucket_end[bucket] += 1;
            if bucket > count {
                let first = self.bucket_end[bucket - 1];
                self.swap(self.place[piece.slot()], first);
            }
        }
        self.shuffle_in(piece, rng);
    }

    /// Takes the piece off the list.
    pub fn remove(&mut self, piece: PieceIndex) {
        if self.place[piece.slot()] == ABSENT {
            return;
        }
        for bucket in usize::from(self.count(piece))..self.bucket_end.len() {
            self.bucket_end[bucket] -= 1;
            let last = self.bucket_end[bucket];
            self.swap(self.place[piece.slot()], last);
        }
        self.order.pop();
        self.place[piece.slot()] = ABSENT;
    }

    /// One more peer has the piece.
    pub fn gain(&mut self, piece: PieceIndex, rng: &mut impl Rng) {
        let count = usize::from(self.count(piece));
        if count == usize::from(u16::MAX) {
            return;
        }
        self.count[piece.slot()] += 1;
        self.ensure_bucket(count + 1);
        if self.place[piece.slot()] == ABSENT {
            return;
        }
        self.bucket_end[count] -= 1;
        let last = self.bucket_end[count];
        self.swap(self.place[piece.slot()], last);
        self.shuffle_in(piece, rng);
    }

    /// One peer fewer has the piece.
    pub fn lose(&mut self, piece: PieceIndex, rng: &mut impl Rng) {
        let count = usize::from(self.count(piece));
        if count == 0 {
            return;
        }
        self.count[piece.slot()] -= 1;
        if self.place[piece.slot()] == ABSENT {
            return;
        }
        let first = self.bucket_end[count - 1];
        self.bucket_end[count - 1] += 1;
        self.swap(self.place[piece.slot()], first);
        self.shuffle_in(piece, rng);
    }

    /// The rarest listed piece that the peer has.
    pub fn rarest(&self, peer: &Bitfield) -> Option<PieceIndex> {
        if peer.is_full() {
            return self.order.first().copied();
        }
        if (peer.count() as usize) < self.order.len() / 8 {
            let listed = peer.iter().filter(|piece| self.place[piece.slot()] != ABSENT);
            return listed.min_by_key(|piece| self.place[piece.slot()]);
        }
        self.order.iter().copied().find(|&piece| peer.has(piece))
    }

    /// A listed piece that the peer has, any one alike.
    pub fn random(&self, peer: &Bitfield, rng: &mut impl Rng) -> Option<PieceIndex> {
        if self.order.is_empty() {
            return None;
        }
        let from = rng.random_range(0..self.order.len());
        let (before, after) = self.order.split_at(from);
        after.iter().chain(before).copied().find(|&piece| peer.has(piece))
    }

    /// Names the rule that does not hold, if any.
    pub fn invariants(&self) -> Result<(), String> {
        for (at, &piece) in self.order.iter().enumerate() {
            if self.place[piece.slot()] as usize != at {
                return Err(format!("{piece:?} is at {at}, but its place says otherwise"));
            }
            let bucket = usize::from(self.count(piece));
            let start = if bucket == 0 { 0 } else { self.bucket_end[bucket - 1] };
            if !(start..self.bucket_end[bucket]).contains(&(at as u32)) {
                return Err(format!("{piece:?} is outside the bucket of its count {bucket}"));
            }
        }
        let listed = self.place.iter().filter(|&&place| place != ABSENT).count();
        let end = self.bucket_end.last().copied().unwrap_or(0) as usize;
        if listed != self.order.len() || end != listed {
            return Err(format!(
                "{listed} places, {} listed, buckets end at {end}",
                self.order.len()
            ));
        }
        Ok(())
    }

    fn ensure_bucket(&mut self, count: usize) {
        let end = self.order.len() as u32;
        while self.bucket_end.len() <= count {
            self.bucket_end.push(end);
        }
    }

    fn shuffle_in(&mut self, piece: PieceIndex, rng: &mut impl Rng) {
        let bucket = usize::from(self.count(piece));
        let start = if bucket == 0 { 0 } else { self.bucket_end[bucket - 1] };
        let other = rng.random_range(start..self.bucket_end[bucket]);
        self.swap(self.place[piece.slot()], other);
    }

    fn swap(&mut self, a: u32, b: u32) {
        self.order.swap(a as usize, b as usize);
        self.place[self.order[a as usize].slot()] = a;
        self.place[self.order[b as usize].slot()] = b;
    }
}
