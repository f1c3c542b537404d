//! What is true of each file, told from the pieces that are right and the lengths that were found.
//!
//! Invariant: a file is right only if all of its bytes are proven, and there are no others.
//!
//! Not here: looking and hashing ([`crate::engine::check`]).

use std::ops::Range;

use super::bitfield::Bitfield;
use super::metainfo::{File, FileKind, Metainfo};

/// How a file stands against what its torrent says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Every byte is the torrent's.
    Right,
    /// It is not there, or something else is in its place.
    Missing,
    /// It ends too early.
    Short {
        /// Its length in bytes.
        found: u64,
    },
    /// It has bytes past the torrent's.
    Long {
        /// Its length in bytes.
        found: u64,
    },
    /// Pieces of it alone, or that other files of full length share, are not the torrent's.
    Wrong {
        /// Bytes of the file in pieces that are not right.
        bytes: u64,
    },
    /// It may be right: all that fails is shared with a file whose bytes are missing.
    Unproven {
        /// Bytes of the file that nothing can be said of.
        bytes: u64,
    },
}

/// The state of every file, in the torrent's order; padding is always right.
///
/// `right` are the pieces whose hash is right, and `found` is the length of each file as it lies there,
/// `None` where there is none (for a link: whether it is there and points where it should).
pub fn inspect(metainfo: &Metainfo, right: &Bitfield, found: &[Option<u64>]) -> Vec<FileState> {
    let mut lacking = Bitfield::empty(metainfo.geometry.piece_count());
    for (file, &found) in metainfo.files.iter().zip(found) {
        if file.kind != FileKind::Padding {
            let here = found.unwrap_or(0).min(file.length);
            let gone = file.offset + here..file.offset + file.length;
            metainfo.geometry.pieces_in(&gone).for_each(|piece| {
                lacking.insert(piece);
            });
        }
    }
    let state = |(file, &found)| state_of(metainfo, right, &lacking, file, found);
    metainfo.files.iter().zip(found).map(state).collect()
}

fn state_of(
    metainfo: &Metainfo,
    right: &Bitfield,
    lacking: &Bitfield,
    file: &File,
    found: Option<u64>,
) -> FileState {
    let found = match (&file.kind, found) {
        (FileKind::Padding, _) | (FileKind::Symlink { .. }, Some(_)) => return FileState::Right,
        (_, None) => return FileState::Missing,
        (FileKind::Regular { .. }, Some(found)) => found,
    };
    if found < file.length {
        return FileState::Short { found };
    }
    if found > file.length {
        return FileState::Long { found };
    }
    let range = file.offset..file.offset + file.length;
    let bad = || metainfo.geometry.pieces_in(&range).filter(|&piece| !right.has(piece));
    let bytes = bad().map(|piece| overlap(&range, &metainfo.geometry.piece_range(piece))).sum();
    match bytes {
        0 => FileState::Right,
        _ if bad().all(|piece| lacking.has(piece)) => FileState::Unproven { bytes },
        _ => FileState::Wrong { bytes },
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}
