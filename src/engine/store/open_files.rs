//! The files that are open, over all torrents: the ones used last, and no more than the process may have.
//!
//! Invariant: at most `limit` files are kept open here; one more may be in use on each thread.

use std::fs::File;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;

use crate::proto::cache::Cache;
use crate::proto::units::{FileIndex, TorrentId};

/// Most files kept open when the process may have that many and more.
const MOST: u64 = 512;

/// Open files by torrent and file.
#[derive(Debug)]
pub struct OpenFiles {
    files: Mutex<Cache<(TorrentId, FileIndex), Arc<File>>>,
}

impl OpenFiles {
    /// Keeps at most `limit` files open, and one at least.
    pub fn new(limit: u64) -> Self {
        Self { files: Mutex::new(Cache::new(limit.max(1))) }
    }

    /// As many as suit this process: a quarter of its descriptors, since peers need them too.
    pub fn for_this_process() -> Self {
        let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        Self::new((soft / 4).min(MOST))
    }

    /// Files that are open.
    pub fn len(&self) -> usize {
        self.files.lock().len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file, from here or freshly opened. Opening holds no lock: two threads may both do it.
    pub(super) fn fetch<E>(
        &self,
        torrent: TorrentId,
        file: FileIndex,
        open: impl FnOnce() -> Result<File, E>,
    ) -> Result<Arc<File>, E> {
        let key = (torrent, file);
        if let Some(file) = self.files.lock().lookup(&key) {
            return Ok(file.clone());
        }
        let opened = Arc::new(open()?);
        // What must go is closed after the lock is released.
        let closed = self.files.lock().insert(key, opened.clone(), 1, |_| false);
        drop(closed);
        Ok(opened)
    }

    /// Closes all files of a torrent.
    pub(super) fn forget(&self, torrent: TorrentId) {
        self.files.lock().retain(|(id, _)| *id != torrent);
    }
}
