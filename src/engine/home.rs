//! Where a torrent's pieces live, and what an earlier run left there.
//!
//! Invariant: a piece counts as here only when its record vouches for it or its hash was right in this run.
//! What may be here besides is doubted, and left to the swarm to have checked when it is wanted.
//!
//! Not here: the stores themselves ([`super::store`]) and the record ([`super::state`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::check::{Checked, check_all};
use super::content::Content;
use super::resources::Resources;
use super::state::StateFile;
use super::store::disk::{Access, Disk, Place};
use super::store::lock::{LockError, TorrentLock};
use super::store::{Memory, Store, StoreError};
use crate::proto::bitfield::Bitfield;
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

/// A torrent's data, ready for use.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) content: Arc<Content>,
    /// Pieces that may be here, to be checked before they are used.
    pub(super) doubted: Bitfield,
    pub(super) lock: Option<TorrentLock>,
}

impl Opened {
    fn sure(content: Content) -> Self {
        let doubted = Bitfield::empty(content.metainfo.geometry.piece_count());
        Self { content: Arc::new(content), doubted, lock: None }
    }
}

impl Home {
    /// Opens the place where the torrent's pieces live, and finds out which of them are there. Blocks; only
    /// [`Self::Exact`] reads them all, and tells `progress`.
    ///
    /// # Errors
    /// When it cannot be opened, or belongs to another process.
    pub(super) fn open(
        &self,
        id: TorrentId,
        metainfo: Arc<Metainfo>,
        resources: &Resources,
        progress: impl FnMut(&Checked),
    ) -> Result<Opened, HomeError> {
        let chunks = resources.chunks.clone();
        let disk = |place: &Place, access| {
            Disk::open(place, access, id, metainfo.clone(), resources.files.clone())
        };
        let (place, own) = match self {
            Self::Memory => {
                let store = Store::Memory(Memory::new(metainfo.geometry.clone()));
                return Ok(Opened::sure(Content::new(id, metainfo, store, chunks, None)));
            }
            Self::Exact(path) => {
                let store = Store::Disk(disk(&Place::Exact(path.clone()), Access::ReadOnly)?);
                let opened = Opened::sure(Content::new(id, metainfo, store, chunks, None));
                check_all(&opened.content, &resources.workers, progress);
                return Ok(opened);
            }
            Self::Cache(dir) => {
                (Place::Cache(dir.clone()), dir.join(metainfo.info_hash.to_string()))
            }
            Self::Kept { dir, cache } => {
                (Place::Kept(dir.clone()), kept_state(cache, &metainfo, dir))
            }
        };
        let lock = Some(TorrentLock::take(&own)?);
        let disk = disk(&place, Access::ReadWrite)?;
        if matches!(self, Self::Kept { .. }) {
            disk.materialise()?;
        }
        let (state, recorded) = StateFile::open(&own.join("state"), metainfo.clone(), &disk)?;
        let content = Arc::new(Content::new(id, metainfo, Store::Disk(disk), chunks, Some(state)));
        content.have.adopt(&recorded.vouched);
        let mut opened = Opened { content, doubted: recorded.doubted, lock };
        account(&mut opened, resources);
        let (here, doubted) = (opened.content.have.count(), opened.doubted.count());
        info!(name = opened.content.metainfo.name, here, doubted, "opened");
        Ok(opened)
    }
}

/// Where what is known of files kept in `dir` is recorded: apart from what is known of the cache's own.
fn kept_state(cache: &Path, metainfo: &Metainfo, dir: &Path) -> PathBuf {
    let place = crc32fast::hash(dir.as_os_str().as_encoded_bytes());
    cache.join(metainfo.info_hash.to_string()).join(format!("kept-{place:08x}"))
}

/// Pieces that an earlier run left count against the budget, the doubted ones too; what no longer fits goes.
fn account(opened: &mut Opened, resources: &Resources) {
    let content = &opened.content;
    let left: Vec<_> = opened.doubted.iter().chain(content.have.snapshot().iter()).collect();
    for piece in left {
        let bytes = u64::from(content.metainfo.geometry.piece_len(piece));
        let Ok(victims) = resources.budget.admit(content.id, piece, bytes) else { continue };
        let (mine, others): (Vec<_>, Vec<_>) =
            victims.into_iter().partition(|(torrent, _)| *torrent == content.id);
        resources.evict(others);
        for (_, victim) in mine {
            opened.doubted.remove(victim);
            if let Err(error) = content.evict(victim) {
                warn!(?victim, %error, "could not give a piece's room back");
            }
        }
    }
}
