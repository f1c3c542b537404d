//! Pieces that may be here: an earlier run left bytes that nobody vouches for. They are checked before they
//! are used: those that a read waits for at once, then those of windows, and behind them, where all of the
//! torrent is wanted, the others.
//!
//! Invariant: a doubted piece is not had: it is neither told of nor given; and it is not asked for.
//!
//! Not here: how one is checked ([`Job::Check`]'s driver), and which are doubted at the start.

use std::ops::Range;
use std::time::Instant;

use super::{Job, Swarm};
use crate::proto::bitfield::Bitfield;
use crate::proto::picker::Demand;
use crate::proto::units::PieceIndex;

/// Checks under way of pieces that nobody waits for, while nobody reads; one while somebody does, who may need
/// the disk and the core himself.
const CHECKS: usize = 2;

impl Swarm {
    /// These pieces may be here. To be called before the first peer comes.
    pub fn doubt(&mut self, pieces: &Bitfield, now: Instant) {
        for piece in pieces.iter() {
            self.picker.doubt(piece);
        }
        self.want(now);
    }

    /// Whether each byte of the range is here, or may be.
    pub fn may_have(&self, range: &Range<u64>) -> bool {
        let (have, doubted) = (self.picker.have(), self.picker.doubted());
        self.geometry.pieces_in(range).all(|piece| have.has(piece) || doubted.has(piece))
    }

    /// The verdict on a piece that [`Job::Check`] gave out.
    pub fn handle_checked(&mut self, piece: PieceIndex, right: bool, now: Instant) {
        self.checking.remove(&piece);
        if self.picker.resolve(piece, right) && right {
            self.is_here(piece, now);
        }
        self.take_in_demands(now);
        if !right {
            self.clear_the_way(now);
        }
        self.wake_all();
        self.settle(now);
    }

    /// Gives out what is to be checked next, since readers have these demands.
    pub(super) fn check_doubted(&mut self, demands: &[Demand]) {
        let doubted = self.picker.doubted();
        if doubted.is_empty() {
            return;
        }
        let blocked = demands.iter().filter(|demand| demand.blocked).map(|demand| demand.piece);
        let ahead = demands.iter().filter(|demand| !demand.blocked).map(|demand| demand.piece);
        let others = doubted.iter().filter(|_| self.config.fill);
        let most = if self.readers.is_active() { 1 } else { CHECKS };
        let room = most.saturating_sub(self.checking.len());
        let resting = |piece: &PieceIndex| doubted.has(*piece) && !self.checking.contains(piece);
        let behind = ahead.chain(others).filter(resting).take(room);
        let next: Vec<_> = blocked.filter(resting).chain(behind).collect();
        for piece in next {
            if self.checking.insert(piece) {
                self.jobs.push_back(Job::Check { piece });
            }
        }
    }
}
