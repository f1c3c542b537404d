//! Magnet links and bare info-hashes (BEP 9, 53): a torrent by name only, and who may know it.
//!
//! Invariant: what leaves here is within the limits below, its name is legal, and its URLs and addresses are such
//! as could be asked; what is not is left out, but for the info-hash, without which there is no torrent.
//!
//! Not here: getting the torrent's description ([`super::metadata`]); torrents of BEP 52 alone.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use data_encoding::{BASE32_NOPAD, HEXLOWER_PERMISSIVE};
use percent_encoding::percent_decode_str;

use super::metainfo::{MAX_TRACKERS, MAX_WEB_SEEDS, tracker_url, web_seed_url};
use super::names;
use super::units::InfoHash;

/// Longest link, in bytes.
pub const MAX_LINK_LEN: usize = 8 * 1024;

/// Peers that are kept of one link.
pub const MAX_PEERS: usize = 64;

/// Runs of files that are kept of one link.
pub const MAX_SELECTED: usize = 128;

/// What a magnet link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Magnet {
    /// The torrent (`xt`).
    pub info_hash: InfoHash,
    /// A legal name to show until the torrent's own is known (`dn`).
    pub name: Option<String>,
    /// Trackers (`tr`), none twice; at most [`MAX_TRACKERS`].
    pub trackers: Vec<String>,
    /// Peers by address (`x.pe`); at most [`MAX_PEERS`].
    pub peers: Vec<SocketAddr>,
    /// Web seeds (`ws`), none twice; at most [`MAX_WEB_SEEDS`].
    pub web_seeds: Vec<String>,
    /// Files that the link is about (`so`, BEP 53), as runs of their indices; none means all. At most
    /// [`MAX_SELECTED`].
    pub selected: Vec<RangeInclusive<u32>>,
}

/// Why text is no magnet link that we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// Neither a link nor an info-hash.
    #[error("neither a magnet link nor an info-hash")]
    NotMagnet,
    /// Longer than [`MAX_LINK_LEN`].
    #[error("the magnet link is longer than {MAX_LINK_LEN} bytes")]
    TooLong,
    /// No `xt` names a torrent.
    #[error("the magnet link names no torrent: it has no xt=urn:btih:")]
    NoHash,
    /// The info-hash is neither 40 hexadecimal digits nor 32 of base 32.
    #[error("the magnet link's info-hash is neither 40 hexadecimal digits nor 32 of base 32")]
    BadHash,
    /// Two info-hashes.
    #[error("the magnet link names two torrents")]
    TwoTorrents,
    /// Only BEP 52 describes the content.
    #[error("v2-only torrents are not supported yet")]
    V2Only,
}

impl Magnet {
    /// Reads a magnet link or a bare info-hash.
    ///
    /// # Errors
    /// When it names no torrent, or not just one.
    pub fn parse(text: &str) -> Result<Self, MagnetError> {
        if text.len() > MAX_LINK_LEN {
            return Err(MagnetError::TooLong);
        }
        if let Some(info_hash) = bare_hash(text)? {
            return Ok(Self::of(info_hash));
        }
        let scheme = text.get(..SCHEME.len()).filter(|s| s.eq_ignore_ascii_case(SCHEME));
        let rest = scheme.map(|_| &text[SCHEME.len()..]).ok_or(MagnetError::NotMagnet)?;
        let query = rest.strip_prefix('?').unwrap_or(rest);
        let mut magnet = Self::of(topic(query)?);
        for (key, value) in fields(query) {
            magnet.take(key, value);
        }
        Ok(magnet)
    }

    /// Nothing but the torrent is known.
    pub fn of(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            name: None,
            trackers: Vec::new(),
            peers: Vec::new(),
            web_seeds: Vec::new(),
            selected: Vec::new(),
        }
    }

    /// The name of the directory that stands for it: the link's, or else the info-hash.
    pub fn directory(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.info_hash.to_string())
    }

    /// A .torrent file of this info dictionary, with the trackers and web seeds of the link.
    pub fn torrent(&self, info: &[u8]) -> Vec<u8> {
        let text = |url: &String| format!("{}:{url}", url.len());
        // Each in a tier of its own, in the link's order.
        let tiers: String = self.trackers.iter().map(|url| format!("l{}e", text(url))).collect();
        let seeds: String = self.web_seeds.iter().map(text).collect();
        let mut torrent = format!("d13:announce-listl{tiers}e4:info").into_bytes();
        torrent.extend_from_slice(info);
        torrent.extend_from_slice(format!("8:url-listl{seeds}ee").as_bytes());
        torrent
    }

    fn take(&mut self, key: &str, value: &str) {
        let decoded = || percent_decode_str(value).collect::<Vec<u8>>();
        match key {
            "dn" if self.name.is_none() => {
                let spaced = value.replace('+', " ");
                self.name = names::top(&percent_decode_str(&spaced).collect::<Vec<u8>>());
            }
            "tr" => keep(&mut self.trackers, tracker_url(&decoded()), MAX_TRACKERS),
            "ws" => keep(&mut self.web_seeds, web_seed_url(&decoded()), MAX_WEB_SEEDS),
            "x.pe" => keep(&mut self.peers, address(&decoded()), MAX_PEERS),
            "so" if self.selected.is_empty() => self.selected = selection(&decoded()),
            _ => {}
        }
    }
}

impl fmt::Display for Magnet {
    /// The shortest link to the same torrent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}?xt=urn:btih:{}", self.info_hash)
    }
}

const SCHEME: &str = "magnet:";
const V1: &str = "urn:btih:";
const V2: &str = "urn:btmh:";

/// Names and values, still escaped. A number after a name, as in `tr.1`, only tells several apart.
fn fields(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter_map(|field| field.split_once('=')).map(|(key, value)| {
        match key.rsplit_once('.') {
            Some((name, count)) if count.bytes().all(|b| b.is_ascii_digit()) => (name, value),
            _ => (key, value),
        }
    })
}

/// The one torrent that a link names.
fn topic(query: &str) -> Result<InfoHash, MagnetError> {
    let mut found = None;
    let mut has_v2 = false;
    for (_, value) in fields(query).filter(|(key, _)| *key == "xt") {
        let topic = percent_decode_str(value).decode_utf8_lossy();
        let begins =
            |urn: &str| topic.get(..urn.len()).is_some_and(|s| s.eq_ignore_ascii_case(urn));
        has_v2 |= begins(V2);
        if begins(V1) {
            let hash = info_hash(&topic[V1.len()..]).ok_or(MagnetError::BadHash)?;
            if found.is_some_and(|other| other != hash) {
                return Err(MagnetError::TwoTorrents);
            }
            found = Some(hash);
        }
    }
    found.ok_or(if has_v2 { MagnetError::V2Only } else { MagnetError::NoHash })
}

/// The torrent, when the text is nothing but its info-hash.
fn bare_hash(text: &str) -> Result<Option<InfoHash>, MagnetError> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(MagnetError::V2Only);
    }
    Ok(info_hash(text))
}

/// 40 hexadecimal digits, or 32 of base 32.
fn info_hash(digits: &str) -> Option<InfoHash> {
    let bytes = match digits.len() {
        40 => HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?,
        32 => BASE32_NOPAD.decode(digits.to_ascii_uppercase().as_bytes()).ok()?,
        _ => return None,
    };
    bytes.try_into().ok().map(InfoHash)
}

fn keep<T: PartialEq>(kept: &mut Vec<T>, found: Option<T>, most: usize) {
    kept.extend(found.filter(|found| kept.len() < most && !kept.contains(found)));
}

fn address(value: &[u8]) -> Option<SocketAddr> {
    let addr: SocketAddr = std::str::from_utf8(value).ok()?.parse().ok()?;
    (addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast()).then_some(addr)
}

/// `0,2,4-6`: kept as runs, since a run may be as long as its author likes.
fn selection(value: &[u8]) -> Vec<RangeInclusive<u32>> {
    let run = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let run = first.parse().ok()?..=last.parse().ok()?;
        (!run.is_empty()).then_some(run)
    };
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.split(',').filter_map(run).take(MAX_SELECTED).collect()
}
