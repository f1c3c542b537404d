//! Where one torrent's verified bytes live.
//!
//! All calls block, and belong on worker or FUSE threads; each may come from several threads at once.
//!
//! Invariant: only whole pieces enter and leave; what a piece needs is never taken with its neighbour.
//!
//! Not here: which pieces are stored ([`super::have_map`]), what must go to make room, and any check of
//! a hash: callers write verified bytes only.

pub mod disk;
pub mod lock;
pub mod memory;
pub mod open_files;
mod tree;
pub mod witness;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::proto::units::{FileIndex, PieceIndex};

pub use disk::Disk;
pub use memory::Memory;

/// A store on disk or in memory.
#[derive(Debug)]
pub enum Store {
    /// The torrent's files under a directory.
    Disk(Disk),
    /// Pieces in memory; gone with the process.
    Memory(Memory),
}

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system is full, or the user's quota is used up.
    #[error("no space left to write {path}")]
    NoSpace {
        /// The file that was to grow.
        path: PathBuf,
    },
    /// Something that is no regular file, or a symbolic link, stands where a file belongs.
    #[error(
        "{path} is in the way: one of the torrent's files belongs there, and this is no regular file"
    )]
    NotAFile {
        /// What is in the way.
        path: PathBuf,
    },
    /// Something that is no directory, or a symbolic link, stands where a directory belongs.
    #[error("{path} is in the way: one of the torrent's directories belongs there")]
    NotADirectory {
        /// What is in the way.
        path: PathBuf,
    },
    /// A file has bytes past the end of the torrent's; cutting them off might destroy someone's data.
    #[error("{path} has {found} bytes, but the torrent's file only {expected}")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length that the torrent gives it.
        expected: u64,
    },
    /// The file, or this part of it, does not exist.
    #[error("{path} does not have these bytes")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused for another reason.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The worker that did it panicked: a fault in this program.
    #[error("a disk worker failed")]
    Panicked,
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Self::Missing { path },
            _ => Self::Io { action, path, source },
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NoSpace { .. } => io::ErrorKind::StorageFull,
            StoreError::NotAFile { .. }
            | StoreError::NotADirectory { .. }
            | StoreError::TooLong { .. } => io::ErrorKind::InvalidData,
            StoreError::Missing { .. } => io::ErrorKind::NotFound,
            StoreError::Io { source, .. } => source.kind(),
            StoreError::Panicked => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl Store {
    /// Takes the bytes of a whole, verified piece, cut into blocks in any way.
    ///
    /// # Errors
    /// When they could not all be taken; the piece must then be taken for lost.
    pub fn write(&self, piece: PieceIndex, blocks: &[Bytes]) -> Result<(), StoreError> {
        match self {
            Self::Disk(disk) => disk.write(piece, blocks),
            Self::Memory(memory) => {
                memory.write(piece, blocks);
                Ok(())
            }
        }
    }

    /// Makes the place for the piece. `cut` hears first of files that lost bytes since they were written.
    ///
    /// # Errors
    /// When the place cannot be made.
    pub(super) fn lengthen(
        &self,
        piece: PieceIndex,
        cut: impl FnMut(FileIndex),
    ) -> Result<(), StoreError> {
        match self {
            Self::Disk(disk) => disk.lengthen(piece, cut),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Fills `buf` from the torrent's bytes at `offset`; whether they are verified the have-map knows.
    ///
    /// # Errors
    /// When the bytes are not there or cannot be read.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        match self {
            Self::Disk(disk) => disk.read(offset, buf),
            Self::Memory(memory) => memory.read(offset, buf),
        }
    }

    /// Gives the piece's room back; its bytes are gone. The have-map must have lost the piece before.
    ///
    /// # Errors
    /// When the file system cannot punch holes.
    pub fn punch(&self, piece: PieceIndex) -> Result<(), StoreError> {
        match self {
            Self::Disk(disk) => disk.punch(piece),
            Self::Memory(memory) => {
                memory.punch(piece);
                Ok(())
            }
        }
    }

    /// What is stored of the piece is wrong; its room is given back where nothing else is lost by that.
    pub(super) fn discard(&self, piece: PieceIndex) -> Result<(), StoreError> {
        match self {
            Self::Disk(disk) => disk.discard(piece),
            Self::Memory(_) => Ok(()),
        }
    }

    /// What is stored of the piece was found right, though this process did not write it.
    pub(super) fn adopt(&self, piece: PieceIndex) {
        match self {
            Self::Disk(disk) => disk.adopt(piece),
            Self::Memory(_) => {}
        }
    }

    /// Whether nothing at all is stored of the piece: its bytes read as zeros or not at all.
    pub fn is_hole(&self, piece: PieceIndex) -> bool {
        match self {
            Self::Disk(disk) => disk.is_hole(piece),
            Self::Memory(memory) => !memory.holds(piece),
        }
    }

    /// The open file that holds all of a torrent's file at the same offsets, if there is one.
    pub fn backing(&self, file: FileIndex) -> Option<Arc<File>> {
        match self {
            Self::Disk(disk) => disk.backing(file),
            Self::Memory(_) => None,
        }
    }
}
