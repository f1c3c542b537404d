//! What the tree is made of: nodes, their numbers, and the names that lead to them.

use std::sync::Arc;

use crate::proto::units::{FileIndex, TorrentId};

/// Number of a node in the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The mount's root.
    pub const ROOT: Self = Self(1);

    /// The number that a node with this hash asks for.
    pub(super) fn wanted(seed: &[u8; 20]) -> Self {
        let head = seed.first_chunk().expect("eight of twenty bytes");
        Self(u64::from_be_bytes(*head) >> 1).or_after_root()
    }

    /// The number to try when this one is taken.
    pub(super) fn next(self) -> Self {
        Self((self.0 + 1) & (u64::MAX >> 1)).or_after_root()
    }

    fn or_after_root(self) -> Self {
        if self <= Self::ROOT { Self(2) } else { self }
    }
}

/// One file of one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileRef {
    /// The torrent.
    pub torrent: TorrentId,
    /// The file in it.
    pub file: FileIndex,
}

/// A directory, file or link.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its number.
    pub ino: Ino,
    /// The directory that it is in; the root is in itself.
    pub parent: Ino,
    /// The torrent that it is of; none for the root.
    pub torrent: Option<TorrentId>,
    /// What it is.
    pub kind: NodeKind,
}

impl Node {
    /// The torrent's file behind the node, if it is a file.
    pub fn file(&self) -> Option<FileRef> {
        match (self.torrent, &self.kind) {
            (Some(torrent), &NodeKind::File { file, .. }) => Some(FileRef { torrent, file }),
            _ => None,
        }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// A directory.
    Directory {
        /// What is in it, in byte order of names. Shared, so that a listing under way keeps its own.
        entries: Arc<[Entry]>,
        /// How many of them are directories.
        subdirectories: u32,
    },
    /// A file with content.
    File {
        /// Which file of its torrent.
        file: FileIndex,
        /// Bytes in it.
        length: u64,
        /// BEP 47 attribute `x`.
        executable: bool,
    },
    /// A link to another node of the same torrent.
    Symlink {
        /// Relative path, as readlink tells it.
        target: String,
    },
}

impl NodeKind {
    pub(super) fn directory(list: impl IntoIterator<Item = Entry>) -> Self {
        let entries: Arc<[Entry]> = list.into_iter().collect();
        let inner = entries.iter().filter(|entry| entry.kind == EntryKind::Directory);
        let subdirectories = inner.count() as u32;
        Self::Directory { entries, subdirectories }
    }

    pub(super) fn entry_kind(&self) -> EntryKind {
        match self {
            Self::Directory { .. } => EntryKind::Directory,
            Self::File { .. } => EntryKind::File,
            Self::Symlink { .. } => EntryKind::Symlink,
        }
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Box<str>,
    /// The node that it names.
    pub ino: Ino,
    /// What that node is.
    pub kind: EntryKind,
}

/// A node's kind, as a listing tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file with content.
    File,
    /// A symbolic link.
    Symlink,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_skip_zero_and_the_root() {
        assert_eq!(Ino::wanted(&[0; 20]), Ino(2));
        assert_eq!(Ino::wanted(&[0xff; 20]), Ino(u64::MAX >> 1));
        assert_eq!(Ino(u64::MAX >> 1).next(), Ino(2));
        assert_eq!(Ino(41).next(), Ino(42));
    }
}
