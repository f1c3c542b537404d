//! A directory below which files are opened without ever leaving it.
//!
//! Invariant: below the root no symbolic link is followed and no name is anything but one element, so
//! whatever somebody plants there, nothing outside is read or written.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use super::StoreError;

const DIRECTORY: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The directory, open.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// To be read; it must be there.
    Read,
    /// To be read and written; it must be there.
    Write,
    /// To be read and written; it and its directories are made when missing.
    Create {
        /// Whether a new file may be run, as far as the umask lets it.
        executable: bool,
    },
}

impl Tree {
    /// Opens `trusted`, links in it followed, and from there on down through `below`.
    pub(super) fn open(trusted: &Path, below: &[String], create: bool) -> Result<Self, StoreError> {
        if create {
            DirBuilder::new()
                .recursive(true)
                .mode(0o777)
                .create(trusted)
                .map_err(|e| StoreError::io("create", trusted, e))?;
        }
        let start = File::open(trusted).map_err(|e| StoreError::io("open", trusted, e))?;
        let mut path = trusted.to_path_buf();
        let root = descend(OwnedFd::from(start), below, &mut path, create)?;
        Ok(Self { root, path })
    }

    /// Where an element's path lies, for messages.
    pub(super) fn locate(&self, elements: &[String]) -> PathBuf {
        elements.iter().fold(self.path.clone(), |path, element| path.join(element))
    }

    /// Opens a regular file.
    pub(super) fn file(&self, elements: &[String], opening: Opening) -> Result<File, StoreError> {
        let whole = || self.locate(elements);
        let Some((name, above)) = elements.split_last() else {
            return Err(StoreError::NotAFile { path: whole() });
        };
        let parent = self.directory(above, matches!(opening, Opening::Create { .. }))?;
        // Non-blocking, so that a planted FIFO cannot hold the thread; it changes nothing for files.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let (access, mode) = match opening {
            Opening::Read => (OFlag::O_RDONLY, 0),
            Opening::Write => (OFlag::O_RDWR, 0),
            Opening::Create { executable: false } => (OFlag::O_RDWR | OFlag::O_CREAT, 0o666),
            Opening::Create { executable: true } => (OFlag::O_RDWR | OFlag::O_CREAT, 0o777),
        };
        let mode = Mode::from_bits_truncate(mode);
        let opened = openat(parent.as_fd(), name.as_str(), flags | access, mode);
        let file = File::from(opened.map_err(|errno| match errno {
            Errno::ELOOP | Errno::EISDIR | Errno::ENXIO => StoreError::NotAFile { path: whole() },
            other => StoreError::io("open", &whole(), other.into()),
        })?);
        let kind = file.metadata().map_err(|e| StoreError::io("look at", &whole(), e))?;
        if !kind.is_file() {
            return Err(StoreError::NotAFile { path: whole() });
        }
        Ok(file)
    }

    /// Makes a symbolic link, unless the same one stands there. Nothing here ever follows it.
    pub(super) fn link(&self, elements: &[String], target: &Path) -> Result<(), StoreError> {
        let path = self.locate(elements);
        let Some((name, above)) = elements.split_last() else {
            return Err(StoreError::NotAFile { path });
        };
        let parent = self.directory(above, true)?;
        match symlinkat(target, parent.as_fd(), name.as_str()) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => match readlinkat(parent.as_fd(), name.as_str()) {
                Ok(there) if there == target => Ok(()),
                _ => Err(StoreError::NotAFile { path }),
            },
            Err(errno) => Err(StoreError::io("make a link at", &path, errno.into())),
        }
    }

    /// Opens a directory, and makes it when missing if asked to.
    pub(super) fn directory(
        &self,
        elements: &[String],
        create: bool,
    ) -> Result<OwnedFd, StoreError> {
        let start = self.root.try_clone().map_err(|e| StoreError::io("open", &self.path, e))?;
        descend(start, elements, &mut self.path.clone(), create)
    }
}

fn descend(
    start: OwnedFd,
    elements: &[String],
    path: &mut PathBuf,
    create: bool,
) -> Result<OwnedFd, StoreError> {
    elements.iter().try_fold(start, |above, element| {
        path.push(element);
        enter(above.as_fd(), element, create).map_err(|errno| match errno {
            Errno::ENOTDIR | Errno::ELOOP => StoreError::NotADirectory { path: path.clone() },
            other => StoreError::io("open", path, io::Error::from(other)),
        })
    })
}

fn enter(above: BorrowedFd<'_>, name: &str, create: bool) -> Result<OwnedFd, Errno> {
    match openat(above, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT) if create => {}
        done => return done,
    }
    match mkdirat(above, name, Mode::from_bits_truncate(0o777)) {
        Ok(()) | Err(Errno::EEXIST) => openat(above, name, DIRECTORY, Mode::empty()),
        Err(errno) => Err(errno),
    }
}
