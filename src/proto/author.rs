//! Making a torrent: order, piece length, and the dictionaries of BEP 3, 12, 27 and 47.
//!
//! Invariant: what [`Plan::encode`] returns is a torrent that [`Metainfo::parse`] reads back with the same names,
//! lengths and attributes. The same arguments give the same bytes.
//!
//! Not here: reading and hashing the data ([`crate::engine::author`]).

use std::ops::Range;

use serde::Serialize;
use serde_bytes::Bytes;

use super::bencode::{self, BencodeError};
use super::geometry::{Geometry, GeometryError};
use super::metainfo::{File, FileKind, Metainfo, MetainfoError, is_padding_name};
use super::names::{self, NameError, Names};
use super::units::{BLOCK_LEN, FileIndex};

/// Shortest piece that we make: one block.
pub const MIN_PIECE_LEN: u32 = BLOCK_LEN;

/// Longest piece that we choose by ourselves; an explicit one may be longer.
pub const MAX_CHOSEN_PIECE_LEN: u32 = 16 * 1024 * 1024;

/// We choose pieces so short that there are about this many: a reader waits for one whole piece, so short is
/// better, until the hashes (20 bytes a piece) and the announcements of pieces weigh more.
const WANTED_PIECES: u64 = 2000;

/// Why there can be no such torrent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// Not a power of two, or less than a block.
    #[error("piece length {0} is not a power of two of at least {MIN_PIECE_LEN}")]
    PieceLength(u32),
    /// Lengths that no torrent may have.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The lengths sum up to more than 64 bits.
    #[error("the files are longer than 2^63 bytes together")]
    TotalLength,
    /// Readers would see the file under another name.
    #[error("{0:?} cannot be in a torrent: clients would give it another name")]
    Name(String),
    /// Paths that readers refuse.
    #[error(transparent)]
    Paths(#[from] NameError),
    /// A link to something that the torrent does not hold.
    #[error("the link {0:?} does not lead to anything in the torrent")]
    Link(String),
    /// The hashes do not fit the pieces.
    #[error("{found} bytes of hashes for {pieces} pieces")]
    Hashes {
        /// Bytes given.
        found: usize,
        /// Pieces planned.
        pieces: u32,
    },
    /// The dictionary could not be written.
    #[error("the torrent cannot be written: {0}")]
    Encode(#[from] BencodeError),
    /// Our own reader would refuse the result.
    #[error("the torrent would be refused: {0}")]
    Unreadable(#[from] MetainfoError),
}

/// One file to go into a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path elements below the torrent's directory.
    pub path: Vec<String>,
    /// Bytes in the file; none for a link.
    pub length: u64,
    /// What it is.
    pub kind: FileKind,
}

/// What a torrent is to be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// One file, named like the torrent.
    Single {
        /// Bytes in the file.
        length: u64,
        /// BEP 47's `x`.
        executable: bool,
    },
    /// A directory, named like the torrent.
    Many(Vec<Source>),
}

/// What a torrent says beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// BEP 12: tiers of tracker URLs.
    pub trackers: Vec<Vec<String>>,
    /// BEP 27: peers only from these trackers.
    pub private: bool,
    /// Free text.
    pub comment: Option<String>,
    /// The program that makes the torrent.
    pub created_by: Option<String>,
    /// Now, in seconds since 1970.
    pub created: Option<i64>,
}

/// A finished torrent.
#[derive(Clone, Debug)]
pub struct Authored {
    /// The .torrent file.
    pub bytes: Vec<u8>,
    /// The same, read back.
    pub metainfo: Metainfo,
}

/// A torrent without its hashes: what lies where, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    name: String,
    geometry: Geometry,
    files: Vec<File>,
    single_file: bool,
}

/// A power of two that suits this many bytes.
pub fn choose_piece_len(total: u64) -> u32 {
    let wanted = (total / WANTED_PIECES).clamp(MIN_PIECE_LEN.into(), MAX_CHOSEN_PIECE_LEN.into());
    // The clamp keeps this within 32 bits and the power of two within the clamp.
    (wanted as u32).next_power_of_two()
}

impl Plan {
    /// Lays files out, ordered by path, in pieces of `piece_len` or of a length that suits them.
    ///
    /// # Errors
    /// When a name, a length or the piece length would not be read back as it is.
    pub fn new(
        name: String,
        content: Content,
        piece_len: Option<u32>,
    ) -> Result<Self, AuthorError> {
        if names::top(name.as_bytes()).as_deref() != Some(&name) {
            return Err(AuthorError::Name(name));
        }
        let single_file = matches!(content, Content::Single { .. });
        let mut sources = match content {
            Content::Single { length, executable } => {
                let kind = FileKind::Regular { executable };
                vec![Source { path: vec![name.clone()], length, kind }]
            }
            Content::Many(sources) => sources,
        };
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        let (files, total) = lay_out(sources)?;
        let piece_len = piece_len.unwrap_or_else(|| choose_piece_len(total));
        if piece_len < MIN_PIECE_LEN || !piece_len.is_power_of_two() {
            return Err(AuthorError::PieceLength(piece_len));
        }
        let geometry = Geometry::new(total, piece_len.into())?;
        Ok(Self { name, geometry, files, single_file })
    }

    /// Name of the torrent.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Pieces and blocks.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The files in torrent order.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Whether the torrent is one file without a directory.
    pub const fn is_single_file(&self) -> bool {
        self.single_file
    }

    /// The runs of file bytes that make up a range of the torrent, in order.
    pub fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (FileIndex, Range<u64>)> {
        let first = self.files.partition_point(|f| f.offset + f.length <= range.start);
        let near = self.files[first..].iter().take_while(move |f| f.offset < range.end);
        let runs = near.enumerate().map(move |(n, f)| {
            let start = range.start.max(f.offset) - f.offset;
            let end = range.end.min(f.offset + f.length) - f.offset;
            (FileIndex((first + n) as u32), start..end)
        });
        runs.filter(|(_, run)| !run.is_empty())
    }

    /// Whether the torrent can be written: what would be refused at the end is refused before hours of hashing.
    ///
    /// # Errors
    /// When [`Plan::encode`] would refuse.
    pub fn rehearse(&self, terms: &Terms) -> Result<(), AuthorError> {
        self.encode(&vec![0; self.geometry.piece_count() as usize * 20], terms).map(|_| ())
    }

    /// Writes the torrent, given the pieces' SHA-1 in order.
    ///
    /// # Errors
    /// When there are not 20 bytes a piece, or the result breaks a limit of our own reader.
    pub fn encode(&self, hashes: &[u8], terms: &Terms) -> Result<Authored, AuthorError> {
        let pieces = self.geometry.piece_count();
        if hashes.len() != pieces as usize * 20 {
            return Err(AuthorError::Hashes { found: hashes.len(), pieces });
        }
        let tiers = Some(&terms.trackers).filter(|tiers| tiers.iter().flatten().count() > 1);
        let bytes = bencode::encode(&TorrentDict {
            announce: terms.trackers.iter().flatten().next(),
            announce_list: tiers,
            comment: terms.comment.as_deref(),
            created_by: terms.created_by.as_deref(),
            creation_date: terms.created,
            info: self.info(hashes, terms.private),
        })?;
        let metainfo = Metainfo::parse(&bytes)?;
        debug_assert_eq!(metainfo.files, self.files, "lay_out lets only readable files pass");
        Ok(Authored { bytes, metainfo })
    }

    fn info<'a>(&'a self, hashes: &'a [u8], private: bool) -> InfoDict<'a> {
        let single = self.files.first().filter(|_| self.single_file);
        let files = || self.files.iter().map(FileDict::new).collect();
        InfoDict {
            attr: single.and_then(|file| attributes(&file.kind)),
            files: single.is_none().then(files),
            length: single.map(|file| file.length),
            name: &self.name,
            piece_length: self.geometry.nominal_piece_len(),
            pieces: Bytes::new(hashes),
            private: private.then_some(1),
        }
    }
}

/// Gives every file its offset, and checks that readers will see it as it is.
fn lay_out(sources: Vec<Source>) -> Result<(Vec<File>, u64), AuthorError> {
    let paths: Vec<&[String]> = sources.iter().map(|source| source.path.as_slice()).collect();
    let names = Names::assign(&paths)?;
    for (index, source) in sources.iter().enumerate() {
        if names.path(index) != source.path || source.path.last().is_some_and(is_padding_name) {
            return Err(AuthorError::Name(source.path.join("/")));
        }
        if matches!(&source.kind, FileKind::Symlink { target } if !leads_inside(target, &names)) {
            return Err(AuthorError::Link(source.path.join("/")));
        }
    }
    let mut total: u64 = 0;
    let mut files = Vec::with_capacity(sources.len());
    for Source { path, length, kind } in sources {
        files.push(File { path, offset: total, length, kind });
        total = total
            .checked_add(length)
            .filter(|&end| i64::try_from(end).is_ok())
            .ok_or(AuthorError::TotalLength)?;
    }
    Ok((files, total))
}

fn leads_inside(target: &[String], names: &Names) -> bool {
    !target.is_empty() && names.contains(target)
}

/// BEP 47's letters for a file that has any.
const fn attributes(kind: &FileKind) -> Option<&'static str> {
    match kind {
        FileKind::Regular { executable: false } => None,
        FileKind::Regular { executable: true } => Some("x"),
        FileKind::Padding => Some("p"),
        FileKind::Symlink { .. } => Some("l"),
    }
}

#[derive(Serialize)]
struct TorrentDict<'a> {
    announce: Option<&'a String>,
    #[serde(rename = "announce-list")]
    announce_list: Option<&'a Vec<Vec<String>>>,
    comment: Option<&'a str>,
    #[serde(rename = "created by")]
    created_by: Option<&'a str>,
    #[serde(rename = "creation date")]
    creation_date: Option<i64>,
    info: InfoDict<'a>,
}

#[derive(Serialize)]
struct InfoDict<'a> {
    attr: Option<&'static str>,
    files: Option<Vec<FileDict<'a>>>,
    length: Option<u64>,
    name: &'a str,
    #[serde(rename = "piece length")]
    piece_length: u32,
    pieces: &'a Bytes,
    private: Option<u8>,
}

#[derive(Serialize)]
struct FileDict<'a> {
    attr: Option<&'static str>,
    length: u64,
    path: &'a [String],
    #[serde(rename = "symlink path")]
    symlink_path: Option<&'a [String]>,
}

impl<'a> FileDict<'a> {
    fn new(file: &'a File) -> Self {
        let symlink_path = match &file.kind {
            FileKind::Symlink { target } => Some(target.as_slice()),
            FileKind::Regular { .. } | FileKind::Padding => None,
        };
        Self { attr: attributes(&file.kind), length: file.length, path: &file.path, symlink_path }
    }
}
