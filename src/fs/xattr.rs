//! The extended attributes `user.btfs.*`: what the mount tells about a node in text.
//!
//! | attribute | on | value |
//! | --- | --- | --- |
//! | `user.btfs.is_btfs` | the root | `1` |
//! | `user.btfs.pid` | the root | number of the process that serves the mount |
//! | `user.btfs.infohash` | all of a torrent | 40 hexadecimal digits |
//! | `user.btfs.metadata` | directories of a torrent | `here`, or `awaited` and its blocks so far, `awaited 3/12` |
//! | `user.btfs.have` | all | bytes here: of the file, of the torrent for a directory, of all for the root |
//! | `user.btfs.progress` | all | the same in per cent with one decimal, rounded down |
//! | `user.btfs.pieces` | files | `here/all` and the runs of pieces that are here, `3/8 0-1,7` |
//! | `user.btfs.why` | all | what readers wait for: of the file, of the torrent for a directory, of all for the root |
//! | `user.btfs.why.json` | all | the same for programs |

use std::fmt::Write as _;

use super::source::{MAX_WHY_LEN, Metadata, Pieces, Totals};

/// Longest value; the kernel takes no more than 64 KiB.
pub const MAX_VALUE_LEN: usize = MAX_WHY_LEN;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xattr {
    /// Marks the mount as ours.
    IsBtfs,
    /// The serving process.
    Pid,
    /// The torrent's info-hash.
    InfoHash,
    /// Whether it is known what the torrent is.
    Metadata,
    /// Bytes here.
    Have,
    /// Bytes here in per cent.
    Progress,
    /// Pieces here.
    Pieces,
    /// What readers wait for, in words.
    Why,
    /// The same as JSON.
    WhyJson,
}

/// What kind of node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The mount's root.
    Root,
    /// A directory of a torrent.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
}

impl Xattr {
    const ALL: [Self; 9] = [
        Self::IsBtfs,
        Self::Pid,
        Self::InfoHash,
        Self::Metadata,
        Self::Have,
        Self::Progress,
        Self::Pieces,
        Self::Why,
        Self::WhyJson,
    ];

    /// Its full name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IsBtfs => "user.btfs.is_btfs",
            Self::Pid => "user.btfs.pid",
            Self::InfoHash => "user.btfs.infohash",
            Self::Metadata => "user.btfs.metadata",
            Self::Have => "user.btfs.have",
            Self::Progress => "user.btfs.progress",
            Self::Pieces => "user.btfs.pieces",
            Self::Why => "user.btfs.why",
            Self::WhyJson => "user.btfs.why.json",
        }
    }

    /// The attributes of such a node.
    pub fn at(place: Place) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |attribute| attribute.is_at(place))
    }

    /// The attribute of this name, if such a node has it.
    pub fn named(name: &str, place: Place) -> Option<Self> {
        Self::at(place).find(|attribute| attribute.name() == name)
    }

    fn is_at(self, place: Place) -> bool {
        match self {
            Self::IsBtfs | Self::Pid => place == Place::Root,
            Self::InfoHash => matches!(place, Place::Directory | Place::File),
            Self::Have | Self::Progress | Self::Why | Self::WhyJson => place != Place::Symlink,
            Self::Metadata => place == Place::Directory,
            Self::Pieces => place == Place::File,
        }
    }
}

/// Per cent with one decimal, rounded down: 100.0 is said only when all is here.
pub fn progress(totals: Totals) -> String {
    let here = u128::from(totals.here.min(totals.bytes));
    let tenths = match (totals.bytes, totals.more) {
        (0, true) => 0,
        (0, false) => 1000,
        (bytes, more) => (here * 1000 / u128::from(bytes)).min(if more { 999 } else { 1000 }),
    };
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// What the torrent is, as far as it is known.
pub fn metadata(metadata: Metadata) -> String {
    match metadata {
        Metadata::Here => "here".to_owned(),
        Metadata::Awaited { blocks: None, .. } => "awaited".to_owned(),
        Metadata::Awaited { blocks: Some(blocks), here } => format!("awaited {here}/{blocks}"),
    }
}

/// The pieces of a file as text, numbered from its own first; what is too long ends in `…`.
pub fn pieces(pieces: &Pieces) -> String {
    let here: usize = pieces.here.iter().map(ExactSizeIterator::len).sum();
    let mut text = format!("{here}/{}", pieces.all.len());
    for (i, run) in pieces.here.iter().enumerate() {
        if text.len() > MAX_VALUE_LEN {
            text.push('…');
            break;
        }
        text.push(if i == 0 { ' ' } else { ',' });
        let first = run.start - pieces.all.start;
        let last = (run.end - pieces.all.start).saturating_sub(1);
        let written =
            if first == last { write!(text, "{first}") } else { write!(text, "{first}-{last}") };
        written.expect("a string takes all");
    }
    text
}
