//! Where a torrent's pieces live, and what an earlier run left there.
//!
//! Invariant: a piece counts as here only when its record vouches for it or its hash was right just now.
//!
//! Not here: the stores themselves ([`super::store`]) and the record ([`super::state`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::check::{Checked, check_all, check_some};
use super::content::Content;
use super::resources::Resources;
use super::state::{Recorded, StateFile};
use super::store::disk::{Access, Disk, Place};
use super::store::lock::{LockError, TorrentLock};
use super::store::{Memory, Store, StoreError};
use crate::proto::metainfo::Metainfo;
use crate::proto::units::TorrentId;

/// Where a torrent's pieces live.
#[derive(Clone, Debug)]
pub enum Home {
    /// Below a cache directory, evicted when the budget is used up.
    Cache(PathBuf),
    /// As ordinary files below `dir`; what is known of them is kept below `cache`.
    Kept {
        /// The files.
        dir: PathBuf,
        /// The state file.
        cache: PathBuf,
    },
    /// Files that are complete and stay as they are.
    Exact(PathBuf),
    /// Memory alone.
    Memory,
}

/// Why a torrent's data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Somebody else uses it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its place cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Home {
    /// Opens the place where the torrent's pieces live, and finds out which of them are there. Blocks.
    ///
    /// # Errors
    /// When it cannot be opened, or belongs to another process.
    pub(super) fn open(
        &self,
        id: TorrentId,
        metainfo: Arc<Metainfo>,
        resources: &Resources,
        mut progress: impl FnMut(&Checked),
    ) -> Result<(Arc<Content>, Option<TorrentLock>), HomeError> {
        let chunks = resources.chunks.clone();
        let disk = |place: &Place, access| {
            Disk::open(place, access, id, metainfo.clone(), resources.files.clone())
        };
        let (place, own) = match self {
            Self::Memory => {
                let store = Store::Memory(Memory::new(metainfo.geometry.clone()));
                return Ok((Arc::new(Content::new(id, metainfo, store, chunks, None)), None));
            }
            Self::Exact(path) => {
                let store = Store::Disk(disk(&Place::Exact(path.clone()), Access::ReadOnly)?);
                let content = Arc::new(Content::new(id, metainfo, store, chunks, None));
                check_all(&content, &resources.workers, progress);
                return Ok((content, None));
            }
            Self::Cache(dir) => {
                (Place::Cache(dir.clone()), dir.join(metainfo.info_hash.to_string()))
            }
            Self::Kept { dir, cache } => {
                (Place::Kept(dir.clone()), kept_state(cache, &metainfo, dir))
            }
        };
        let lock = TorrentLock::take(&own)?;
        let disk = disk(&place, Access::ReadWrite)?;
        if matches!(self, Self::Kept { .. }) {
            disk.materialise()?;
        }
        let (state, recorded) = StateFile::open(&own.join("state"), metainfo.clone(), &disk);
        let content = Arc::new(Content::new(id, metainfo, Store::Disk(disk), chunks, Some(state)));
        match recorded {
            Ok(recorded) => take_up(&content, &recorded, resources, &mut progress),
            Err(error) => {
                warn!(%error, "everything here is hashed anew");
                check_all(&content, &resources.workers, progress);
            }
        }
        account(&content, resources);
        info!(name = content.metainfo.name, here = content.have.count(), "opened");
        Ok((content, Some(lock)))
    }
}

/// Where what is known of files kept in `dir` is recorded: apart from what is known of the cache's own.
fn kept_state(cache: &Path, metainfo: &Metainfo, dir: &Path) -> PathBuf {
    let place = crc32fast::hash(dir.as_os_str().as_encoded_bytes());
    cache.join(metainfo.info_hash.to_string()).join(format!("kept-{place:08x}"))
}

/// Believes what the record vouches for, and hashes the rest of what is there.
fn take_up(
    content: &Arc<Content>,
    recorded: &Recorded,
    resources: &Resources,
    progress: &mut impl FnMut(&Checked),
) {
    if recorded.vouched.is_empty() && recorded.recheck.is_empty() {
        check_all(content, &resources.workers, progress);
        return;
    }
    for piece in recorded.vouched.iter() {
        content.have.insert(piece);
    }
    check_some(content, recorded.recheck.iter(), &resources.workers, progress);
}

/// Pieces that an earlier run left count against the budget; what no longer fits goes.
fn account(content: &Arc<Content>, resources: &Resources) {
    let here = content.have.snapshot();
    for piece in here.iter() {
        let bytes = u64::from(content.metainfo.geometry.piece_len(piece));
        let Ok(victims) = resources.budget.admit(content.id, piece, bytes) else { continue };
        let (mine, others): (Vec<_>, Vec<_>) =
            victims.into_iter().partition(|(torrent, _)| *torrent == content.id);
        resources.evict(others);
        for (_, victim) in mine {
            if let Err(error) = content.evict(victim) {
                warn!(?victim, %error, "could not give a piece's room back");
            }
        }
    }
}
