//! What torrents of the process share and none may use up: the room of stored pieces, and that of pieces under way.
//!
//! [`Budget`] tells which stored pieces must go for `--cache-size` to hold, [`Assembling`] how many bytes each
//! torrent may have under way for `--memory` to hold.
//!
//! Invariant: the pieces known here, and so those in the stores once their victims are evicted, sum up to
//! at most the budget.
//!
//! Not here: evicting them ([`super::workers::Work::Evict`]), and torrents that are kept: they stay out.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use parking_lot::Mutex;

use crate::proto::cache::Cache;
use crate::proto::units::{PieceIndex, TorrentId};

/// The stored pieces by last use.
#[derive(Debug)]
pub struct Budget {
    pieces: Mutex<Pieces>,
}

#[derive(Debug)]
struct Pieces {
    by_use: Cache<(TorrentId, PieceIndex), ()>,
    /// What readers of each torrent have need of.
    spared: BTreeMap<TorrentId, Vec<RangeInclusive<PieceIndex>>>,
}

/// The budget is used up by pieces that must stay: fill stops, and the piece is not to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache budget is used up by pieces that are in use")]
pub struct BudgetFull;

impl Budget {
    /// No pieces yet, and at most `bytes` of them.
    pub fn new(bytes: u64) -> Self {
        Self { pieces: Mutex::new(Pieces { by_use: Cache::new(bytes), spared: BTreeMap::new() }) }
    }

    /// These pieces of the torrent go last from now on, and no others of it.
    pub fn spare(&self, torrent: TorrentId, pieces: Vec<RangeInclusive<PieceIndex>>) {
        self.pieces.lock().spared.insert(torrent, pieces);
    }

    /// Makes room for a piece that is about to be stored; returns whom to evict for it.
    ///
    /// # Errors
    /// [`BudgetFull`], and nobody has to go.
    pub fn admit(
        &self,
        torrent: TorrentId,
        piece: PieceIndex,
        bytes: u64,
    ) -> Result<Vec<(TorrentId, PieceIndex)>, BudgetFull> {
        let Pieces { by_use, spared } = &mut *self.pieces.lock();
        let is_spared = |(torrent, piece): &(TorrentId, PieceIndex)| {
            spared.get(torrent).is_some_and(|all| all.iter().any(|range| range.contains(piece)))
        };
        let victims = by_use.insert((torrent, piece), (), bytes, is_spared);
        Ok(victims.map_err(|_| BudgetFull)?.into_iter().map(|(name, ())| name).collect())
    }

    /// Notes a use.
    pub fn touch(&self, torrent: TorrentId, piece: PieceIndex) {
        self.pieces.lock().by_use.touch(&(torrent, piece));
    }

    /// Keeps a piece until as many [`Self::unpin`]; false when it is not known here.
    pub fn pin(&self, torrent: TorrentId, piece: PieceIndex) -> bool {
        self.pieces.lock().by_use.pin(&(torrent, piece))
    }

    /// Takes a pin back.
    pub fn unpin(&self, torrent: TorrentId, piece: PieceIndex) {
        self.pieces.lock().by_use.unpin(&(torrent, piece));
    }

    /// The piece is not stored after all, or no longer.
    pub fn forget(&self, torrent: TorrentId, piece: PieceIndex) {
        self.pieces.lock().by_use.remove(&(torrent, piece));
    }

    /// All of a torrent's pieces are out of the account.
    pub fn forget_torrent(&self, torrent: TorrentId) {
        let mut pieces = self.pieces.lock();
        pieces.by_use.retain(|(id, _)| *id != torrent);
        pieces.spared.remove(&torrent);
    }

    /// Bytes stored.
    pub fn used(&self) -> u64 {
        self.pieces.lock().by_use.used()
    }

    /// Whether pieces of `bytes` may be pinned for as long as it pleases somebody else: a quarter of the
    /// budget is left for what is read beside them.
    pub fn may_hold(&self, bytes: u64) -> bool {
        let pieces = &self.pieces.lock().by_use;
        pieces.pinned().saturating_add(bytes) <= pieces.budget() / 4 * 3
    }

    /// Bytes that would be admitted without evicting any: what fill may ask for.
    pub fn room(&self) -> u64 {
        let pieces = &self.pieces.lock().by_use;
        pieces.budget() - pieces.used()
    }
}

/// Bytes of the pieces that each torrent has under way.
#[derive(Debug)]
pub struct Assembling {
    bytes: u64,
    held: Mutex<BTreeMap<TorrentId, u64>>,
}

impl Assembling {
    /// At most `bytes` over all torrents, but for what one that had them all has still to finish when another
    /// begins.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, held: Mutex::default() }
    }

    /// Notes that the torrent has `held` bytes under way, and tells how many it may have: what the others leave,
    /// and never less than its part among those that have any.
    pub fn share(&self, torrent: TorrentId, held: u64) -> u64 {
        let mut all = self.held.lock();
        all.remove(&torrent);
        let others = all.values().sum();
        let part = self.bytes / (all.len() as u64 + 1);
        if held > 0 {
            all.insert(torrent, held);
        }
        self.bytes.saturating_sub(others).max(part)
    }
}
