//! A .torrent file as a checked value.
//!
//! Invariant: a [`Metainfo`] keeps every limit on torrents, pieces and paths; its files' lengths sum up to the
//! geometry's total, and it has one hash for each piece. The info-hash is of the bytes as they came.
//!
//! Not here: legal names ([`crate::proto::names`]), making torrents ([`crate::proto::author`]),
//! BEP 52 (such torrents are told apart, not read).

mod files;
mod urls;

use bytes::Bytes;
use serde::Deserialize;
use sha1::{Digest, Sha1};

use super::bencode::{BencodeError, Dict, Limits};
use super::geometry::{Geometry, GeometryError};
use super::names::{self, NameError};
use super::units::{FileIndex, InfoHash, PieceIndex};

pub(super) use files::is_padding_name;
pub use urls::{MAX_NODES, MAX_TRACKERS, MAX_WEB_SEEDS, tracker_url, web_seed_url};

/// Longest .torrent file and longest info dictionary that we read.
pub const MAX_TORRENT_LEN: usize = 16 * 1024 * 1024;

/// Longest comment, creator or source that we keep, in characters.
const MAX_REMARK_CHARS: usize = 4096;

/// Why bytes are no torrent that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// Longer than [`MAX_TORRENT_LEN`].
    #[error("{0} bytes are more than the {MAX_TORRENT_LEN} that a torrent may have")]
    TooLong(usize),
    /// Not bencode, or not a dictionary.
    #[error("not a torrent: {0}")]
    Bencode(#[from] BencodeError),
    /// A key that must be there is not, or its value has the wrong type.
    #[error("the torrent's `{0}` is missing or of the wrong type")]
    Field(&'static str),
    /// The key's value has the wrong shape.
    #[error("the torrent's `{key}` cannot be read: {error}")]
    Shape {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        error: BencodeError,
    },
    /// Only BEP 52 describes the content.
    #[error("v2-only torrents are not supported yet")]
    V2Only,
    /// Neither `length` nor `files`, or both.
    #[error("the torrent must have either `length` or `files`")]
    Layout,
    /// The file has no length, or a negative one.
    #[error("file {0} has no length or a negative one")]
    FileLength(usize),
    /// The lengths sum up to more than 63 bits.
    #[error("the files are longer than 2^63 bytes together")]
    TotalLength,
    /// Lengths that no torrent may have.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// `pieces` is not 20 bytes for each piece.
    #[error("the torrent has {found} bytes of piece hashes where its length asks for {expected}")]
    Hashes {
        /// Bytes that the pieces need.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// Paths that cannot be shown.
    #[error(transparent)]
    Names(#[from] NameError),
}

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
    /// BEP 12: tiers of tracker URLs, `http`, `https` or `udp`; at most [`MAX_TRACKERS`] in all, none twice.
    pub trackers: Vec<Vec<String>>,
    /// BEP 19: web seeds, `http` or `https`; at most [`MAX_WEB_SEEDS`].
    pub web_seeds: Vec<String>,
    /// BEP 5: DHT nodes by host and port; at most [`MAX_NODES`].
    pub nodes: Vec<(String, u16)>,
    /// When the torrent was made, in seconds since 1970.
    pub created: Option<i64>,
    /// What made the torrent; free of control characters.
    pub created_by: Option<String>,
    /// What its maker says; free of control characters other than line breaks.
    pub comment: Option<String>,
    /// Where it comes from, as private trackers mark it; free of control characters.
    pub source: Option<String>,
    /// Whether a BEP 52 description is there too (a hybrid torrent).
    pub has_v2: bool,
    hashes: Bytes,
}

/// One file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Legal, unique path elements below the torrent's directory (for a single file: its name alone).
    /// Padding is `.pad` and its number, outside the uniqueness: it is never shown.
    pub path: Vec<String>,
    /// Where the file's bytes begin in the torrent.
    pub offset: u64,
    /// Bytes in the file.
    pub length: u64,
    /// What the file is (BEP 47).
    pub kind: FileKind,
}

/// BEP 47 attributes. `h` (hidden) means nothing on the systems that we run on.
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
    /// Reads a .torrent file.
    ///
    /// # Errors
    /// When the bytes are no v1 torrent or break a limit.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        check_len(bytes)?;
        let outer = Dict::scan(bytes, &Limits::TORRENT)?;
        let info = outer.raw("info").ok_or(MetainfoError::Field("info"))?;
        let mut torrent = Self::from_info(Bytes::copy_from_slice(info))?;
        torrent.trackers = urls::trackers(&outer);
        torrent.web_seeds = urls::web_seeds(&outer);
        torrent.nodes = urls::nodes(&outer);
        torrent.created = outer.read("creation date").ok().flatten();
        torrent.created_by = remark(&outer, "created by");
        torrent.comment = outer.string("comment").map(|raw| {
            let text = String::from_utf8_lossy(raw);
            let lines: Vec<String> = text.lines().map(names::printable).collect();
            lines.join("\n").chars().take(MAX_REMARK_CHARS).collect()
        });
        Ok(torrent)
    }

    /// Reads an info dictionary alone, as peers send it for a magnet link (BEP 9): there are no trackers and no
    /// remarks. Whether it is the one that was asked for is the caller's to check, by its hash.
    ///
    /// # Errors
    /// When the bytes are no v1 info dictionary or break a limit.
    pub fn from_info(info: Bytes) -> Result<Self, MetainfoError> {
        check_len(&info)?;
        let dict = Dict::scan(&info, &Limits::TORRENT)?;
        let has_v2 =
            dict.read("meta version").ok().flatten() == Some(2) || dict.raw("file tree").is_some();
        if has_v2 && dict.raw("pieces").is_none() {
            return Err(MetainfoError::V2Only);
        }
        let info_hash = InfoHash(Sha1::digest(&info).into());
        let name = name(&dict, info_hash);
        let layout = files::layout(&dict, &name)?;
        let piece_len = required(&dict, "piece length")?;
        let geometry = Geometry::new(layout.total, piece_len)?;
        let span = dict.string_span("pieces").ok_or(MetainfoError::Field("pieces"))?;
        let expected = geometry.piece_count() as usize * 20;
        if span.len() != expected {
            return Err(MetainfoError::Hashes { expected, found: span.len() });
        }
        Ok(Self {
            info_hash,
            name,
            geometry,
            files: layout.files,
            single_file: layout.single_file,
            private: dict.read("private").ok().flatten() == Some(1),
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            nodes: Vec::new(),
            created: None,
            created_by: None,
            comment: None,
            source: remark(&dict, "source"),
            has_v2,
            hashes: info.slice(span),
            info: info.clone(),
        })
    }

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

fn check_len(bytes: &[u8]) -> Result<(), MetainfoError> {
    if bytes.len() > MAX_TORRENT_LEN {
        return Err(MetainfoError::TooLong(bytes.len()));
    }
    Ok(())
}

/// The value of a key that must be there and have the right type.
fn required<T>(dict: &Dict<'_>, key: &'static str) -> Result<T, MetainfoError>
where
    T: for<'de> Deserialize<'de>,
{
    dict.read(key)
        .map_err(|error| MetainfoError::Shape { key, error })?
        .ok_or(MetainfoError::Field(key))
}

/// The torrent's name; the info-hash when nothing of it is legal.
fn name(dict: &Dict<'_>, info_hash: InfoHash) -> String {
    let utf8 = dict.string("name.utf-8").filter(|raw| std::str::from_utf8(raw).is_ok());
    let raw = utf8.or_else(|| dict.string("name")).unwrap_or_default();
    names::top(raw).unwrap_or_else(|| info_hash.to_string())
}

/// One line that its author wrote.
fn remark(dict: &Dict<'_>, key: &str) -> Option<String> {
    let text = String::from_utf8_lossy(dict.string(key)?);
    Some(names::printable(&text).chars().take(MAX_REMARK_CHARS).collect())
}
