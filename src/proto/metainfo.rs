//! A .torrent file as a checked value.

use bytes::Bytes;

use super::geometry::Geometry;
use super::units::{FileIndex, InfoHash, PieceIndex};

/// A torrent's description, everything in it checked.
#[derive(Clone, Debug)]
pub struct Metainfo {
    /// SHA-1 of `info`.
    pub info_hash: InfoHash,
    /// The info dictionary as it stood in the file, byte for byte.
    pub info: Bytes,
    /// A legal name for the torrent's file or top directory.
    pub name: String,
    /// Pieces and blocks.
    pub geometry: Geometry,
    /// Every file in torrent order, padding included; offsets ascend without gaps.
    pub files: Vec<File>,
    /// Whether `name` is the one file, not a directory.
    pub single_file: bool,
    /// BEP 27: peers only from the torrent's own trackers.
    pub private: bool,
    /// BEP 12: tiers of tracker URLs.
    pub trackers: Vec<Vec<String>>,
    /// When the torrent was made, in seconds since 1970.
    pub created: Option<i64>,
    hashes: Bytes,
}

/// One file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Legal, unique path elements below the torrent's directory (for a single file: its name alone).
    pub path: Vec<String>,
    /// Where the file's bytes begin in the torrent.
    pub offset: u64,
    /// Bytes in the file.
    pub length: u64,
    /// What the file is (BEP 47).
    pub kind: FileKind,
}

/// BEP 47 attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An ordinary file, perhaps with the executable bit.
    Regular {
        /// Attribute `x`.
        executable: bool,
    },
    /// Attribute `p`: zeros that are never shown and never stored.
    Padding,
    /// Attribute `l`: a link to another file of the torrent, as path elements below its directory.
    Symlink {
        /// Where it points; inside the torrent.
        target: Vec<String>,
    },
}

impl Metainfo {
    /// The SHA-1 that the piece must have.
    pub fn piece_hash(&self, piece: PieceIndex) -> [u8; 20] {
        let at = piece.slot() * 20;
        self.hashes[at..at + 20].try_into().expect("20 bytes a piece were checked by parse")
    }

    /// The file with this index.
    pub fn file(&self, index: FileIndex) -> Option<&File> {
        self.files.get(index.slot())
    }
}
