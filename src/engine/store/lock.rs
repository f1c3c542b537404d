//! One process at a time for a torrent's directory.
//!
//! Not here: sharing a torrent through the process that has it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};

/// Name of the lock file in a torrent's directory.
const NAME: &str = "lock";

/// The right to use a torrent's directory, given back when it is dropped and when the process ends.
///
/// The lock is advisory and belongs to the open file: a process that forks shares it with its child, so
/// take it after a daemon has gone to the background.
#[derive(Debug)]
pub struct TorrentLock {
    _file: Flock<File>,
}

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another btfs is using this torrent's data in {dir}")]
    Busy {
        /// The torrent's directory.
        dir: PathBuf,
    },
    /// The lock file cannot be made or locked.
    #[error("cannot lock {path}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl TorrentLock {
    /// Takes the torrent's directory, which is made when missing, and never waits.
    ///
    /// # Errors
    /// [`LockError::Busy`] when somebody has it, in this process or another.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(NAME);
        let failed = |source| LockError::Io { path: path.clone(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(&path)
            .map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(LockError::Busy { dir: dir.to_path_buf() })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}
