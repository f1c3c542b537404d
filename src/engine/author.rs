//! Makes torrents of what is on disk: finds the files, and hashes them on all cores.
//!
//! Invariant: nothing is left out unsaid: what cannot be in a torrent is an error that names its path, but for
//! empty directories, which are returned by name. Memory is one buffer a thread, whatever the piece length.
//!
//! Not here: layout and encoding ([`crate::proto::author`]).

mod hash;
mod survey;

use std::io;
use std::path::PathBuf;

use crate::proto::author::AuthorError;

pub use hash::hash;
pub use survey::{Survey, survey};

/// Why no torrent can be made of what is on disk. Paths are quoted and escaped: they may hold anything.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system refused.
    #[error("cannot read {path:?}: {source}")]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A path without a name of its own, such as `/`.
    #[error("{0:?} has no name to give to the torrent")]
    Nameless(PathBuf),
    /// Torrents hold text names only.
    #[error("the name of {0:?} is not UTF-8, so no torrent can hold it")]
    NotText(PathBuf),
    /// A socket, a pipe or a device.
    #[error("{0:?} is neither a file nor a directory nor a link")]
    Special(PathBuf),
    /// A link that leads out of the directory, or nowhere.
    #[error("the link {0:?} does not lead to anything inside the directory")]
    Link(PathBuf),
    /// The file has another length than when it was found.
    #[error("{0:?} changed while it was read")]
    Changed(PathBuf),
    /// Readable, but no torrent.
    #[error(transparent)]
    Author(#[from] AuthorError),
}

impl DataError {
    fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
