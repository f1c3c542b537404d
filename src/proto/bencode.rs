//! Bencode (BEP 3): the one door through which a stranger's bencode comes in, and the writer for ours.
//!
//! Invariant: `serde_bencode` sees only bytes that the scan has accepted. It recurses on input and takes
//! lengths on trust; the scan does neither, so nesting, counts and lengths are bounded before it starts.
//!
//! Not here: what the values mean ([`crate::proto::metainfo`], the tracker and extension messages).

mod scan;

use std::borrow::Cow;
use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

use scan::{Entry, Scan, scan};

/// How much a sender may ask of us, and which keys we show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Deepest nesting of lists and dictionaries. Stack use grows with it: a few KiB a level.
    pub depth: usize,
    /// Most values, keys counted. Time and transient memory grow with it: up to 16 bytes a token.
    pub tokens: usize,
    /// What becomes of keys that are not text.
    pub keys: Keys,
}

impl Limits {
    /// For what trackers and peers send.
    pub const MESSAGE: Self = Self { depth: 64, tokens: 2_000_000, keys: Keys::Text };
    /// For .torrent files and metadata: the file tree of BEP 52 nests up to 100 more.
    pub const TORRENT: Self = Self { depth: 164, tokens: 2_000_000, keys: Keys::Text };
}

impl Default for Limits {
    fn default() -> Self {
        Self::MESSAGE
    }
}

/// Which dictionary keys reach the type that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// An entry whose key is not UTF-8 is left out: one such key would make the whole struct unreadable.
    Text,
    /// All entries; the type must take its keys as bytes (the `files` of a scrape, BEP 48).
    Bytes,
}

/// Why bytes are not the bencode that we want. Offsets count from the first byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BencodeError {
    /// The input ends inside a value, or a string is longer than what is there.
    #[error("bencode ends too early, in the value at byte {0}")]
    Truncated(usize),
    /// No value, key or end may begin like this.
    #[error("unexpected byte {byte:#04x} at byte {at} of bencode")]
    Unexpected {
        /// Where.
        at: usize,
        /// What.
        byte: u8,
    },
    /// An integer with leading zeros, `-0`, a sign without digits, or outside 64 bits.
    #[error("the integer at byte {0} of bencode is not canonical or too large")]
    Integer(usize),
    /// A string's length with leading zeros or outside 32 bits.
    #[error("the string length at byte {0} of bencode is not canonical or too large")]
    Length(usize),
    /// A dictionary key that is no string.
    #[error("the dictionary key at byte {0} of bencode is not a string")]
    Key(usize),
    /// The same key twice in one dictionary, which ends here.
    #[error("the dictionary that ends at byte {0} of bencode has a key twice")]
    DuplicateKey(usize),
    /// Nested deeper than [`Limits::depth`].
    #[error("bencode is nested deeper than {0}")]
    Depth(usize),
    /// More values than [`Limits::tokens`].
    #[error("bencode has more than {0} values")]
    Tokens(usize),
    /// Bytes after the end of the value.
    #[error("bencode goes on after its end at byte {0}")]
    Trailing(usize),
    /// Legal bencode, but not of the wanted type.
    #[error("{0}")]
    Shape(String),
}

/// Reads a value that fills the whole input.
///
/// # Errors
/// Anything that [`BencodeError`] names.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T, BencodeError> {
    let found = scan(bytes, limits)?;
    if found.len < bytes.len() {
        return Err(BencodeError::Trailing(found.len));
    }
    read(bytes, &found)
}

/// Reads a value at the start of the input and returns what follows it: the payload after the header of a
/// metadata message (BEP 9).
///
/// # Errors
/// Anything that [`BencodeError`] names except `Trailing`.
pub fn parse_prefix<'a, T: DeserializeOwned>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<(T, &'a [u8]), BencodeError> {
    let found = scan(bytes, limits)?;
    let (value, rest) = bytes.split_at(found.len);
    Ok((read(value, &found)?, rest))
}

/// Where the value of a top-level key stands, byte for byte; `None` when the input is no dictionary with that key.
pub fn span_of(bytes: &[u8], key: &str) -> Option<Range<usize>> {
    Dict::scan(bytes, &Limits::TORRENT).ok()?.span(key)
}

/// Writes a value; dictionary keys come out sorted, and `None` leaves its entry out.
///
/// # Errors
/// When the type has no form in bencode (floats).
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, BencodeError> {
    serde_bencode::to_bytes(value).map_err(|e| BencodeError::Shape(e.to_string()))
}

/// A dictionary whose values are read one by one, so that one of the wrong type spoils no other.
#[derive(Debug)]
pub struct Dict<'a> {
    bytes: &'a [u8],
    limits: Limits,
    /// By key.
    entries: Vec<Entry>,
    sorted: bool,
}

impl<'a> Dict<'a> {
    /// Checks all of the input, which must be one dictionary and nothing more.
    ///
    /// # Errors
    /// Anything that [`BencodeError`] names.
    pub fn scan(bytes: &'a [u8], limits: &Limits) -> Result<Self, BencodeError> {
        let found = scan(bytes, limits)?;
        if found.len < bytes.len() {
            return Err(BencodeError::Trailing(found.len));
        }
        if bytes.first() != Some(&b'd') {
            return Err(BencodeError::Shape("not a dictionary".to_owned()));
        }
        Ok(Self { bytes, limits: *limits, entries: found.top, sorted: found.sorted })
    }

    /// Whether the keys of this dictionary and all inside it are in order, as BEP 3 demands.
    pub const fn is_sorted(&self) -> bool {
        self.sorted
    }

    /// Where the key's value stands in the input.
    pub fn span(&self, key: &str) -> Option<Range<usize>> {
        let found =
            self.entries.binary_search_by(|e| e.key(self.bytes).cmp(key.as_bytes())).ok()?;
        Some(self.entries[found].value())
    }

    /// The key's value, byte for byte.
    pub fn raw(&self, key: &str) -> Option<&'a [u8]> {
        self.span(key).map(|span| &self.bytes[span])
    }

    /// Where the bytes of the key's string stand in the input; `None` also when the value is no string.
    pub fn string_span(&self, key: &str) -> Option<Range<usize>> {
        let span = self.span(key)?;
        let colon = match self.bytes[span.start] {
            b'0'..=b'9' => self.bytes[span.clone()].iter().position(|&b| b == b':')?,
            _ => return None,
        };
        Some(span.start + colon + 1..span.end)
    }

    /// The bytes of the key's string; `None` also when the value is no string.
    pub fn string(&self, key: &str) -> Option<&'a [u8]> {
        self.string_span(key).map(|span| &self.bytes[span])
    }

    /// The key's value as `T`, if the key is there.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, BencodeError> {
        self.raw(key).map(|raw| parse(raw, &self.limits)).transpose()
    }
}

/// Hands scanned bytes to `serde_bencode`, without the entries that it could not read past.
fn read<T: DeserializeOwned>(bytes: &[u8], found: &Scan) -> Result<T, BencodeError> {
    serde_bencode::from_bytes(&without(bytes, &found.unreadable))
        .map_err(|e| BencodeError::Shape(e.to_string()))
}

fn without<'a>(bytes: &'a [u8], cuts: &[Range<usize>]) -> Cow<'a, [u8]> {
    if cuts.is_empty() {
        return Cow::Borrowed(bytes);
    }
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for cut in cuts {
        kept.extend_from_slice(&bytes[at..cut.start]);
        at = cut.end;
    }
    kept.extend_from_slice(&bytes[at..]);
    Cow::Owned(kept)
}
