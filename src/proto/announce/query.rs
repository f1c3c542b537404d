//! An announce or scrape as the query of a URL (BEP 3, 7, 23, 48), written and read.
//!
//! Invariant: reading what was written gives the same announce.
//!
//! Not here: HTTP itself, and the rest of the URL.

use std::fmt::Write;
use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use super::{Announce, Event, Progress};
use crate::proto::units::{InfoHash, PeerId};

/// Torrents that one scrape may name.
pub const MAX_SCRAPED: usize = 74;

/// All but the unreserved characters of RFC 3986 is escaped: trackers differ in what else they take.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The query of an announce, without the question mark.
pub fn write(announce: &Announce, tracker_id: Option<&[u8]>) -> String {
    let Progress { uploaded, downloaded, left } = announce.progress;
    let mut query = format!(
        "info_hash={}&peer_id={}&port={}&uploaded={uploaded}&downloaded={downloaded}&left={left}\
         &compact=1&no_peer_id=1&key={:08x}",
        percent_encode(&announce.info_hash.0, ESCAPED),
        percent_encode(&announce.peer_id.0, ESCAPED),
        announce.port,
        announce.key,
    );
    let optional = [
        ("event", announce.event.word().map(str::to_owned)),
        ("numwant", announce.wanted.map(|n| n.to_string())),
        ("ipv6", announce.ipv6.map(|ip| ip.to_string())),
        ("trackerid", tracker_id.map(|id| percent_encode(id, ESCAPED).to_string())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            write!(query, "&{name}={value}").expect("a String takes all");
        }
    }
    query
}

/// Whether a URL's own query names what only the announcing peer may say.
///
/// Such a URL would make us announce in words that its author chose.
pub fn speaks_for_the_peer(query: &str) -> bool {
    const OURS: [&[u8]; 8] = [
        b"info_hash",
        b"peer_id",
        b"port",
        b"uploaded",
        b"downloaded",
        b"left",
        b"event",
        b"compact",
    ];
    fields(query.as_bytes()).any(|(name, _)| OURS.contains(&name.as_slice()))
}

/// Why a query is no announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field says something impossible.
    #[error("{0} is not valid")]
    Invalid(&'static str),
}

/// Reads the query of an announce.
///
/// # Errors
/// A field that is missing, doubled in contradiction, or no value of its kind.
pub fn read(query: &[u8]) -> Result<Announce, QueryError> {
    let mut info_hash = None;
    let mut peer_id = None;
    let mut port = None;
    let mut left = None;
    let mut rest = Rest::default();
    for (name, value) in fields(query) {
        match name.as_slice() {
            b"info_hash" => info_hash = Some(twenty(&value, "info_hash")?),
            b"peer_id" => peer_id = Some(twenty(&value, "peer_id")?),
            b"port" => port = Some(number::<u16>(&value, "port")?),
            b"left" => left = Some(number::<u64>(&value, "left")?),
            name => rest.take(name, &value)?,
        }
    }
    Ok(Announce {
        info_hash: InfoHash(info_hash.ok_or(QueryError::Missing("info_hash"))?),
        peer_id: PeerId(peer_id.ok_or(QueryError::Missing("peer_id"))?),
        port: port.ok_or(QueryError::Missing("port"))?,
        // Peers that only know a magnet link may leave it out; they are surely no seeds.
        progress: Progress { left: left.unwrap_or(u64::MAX), ..rest.progress },
        event: rest.event,
        wanted: rest.wanted,
        key: rest.key,
        ipv6: rest.ipv6,
    })
}

/// The torrents that a scrape names (BEP 48), at most [`MAX_SCRAPED`].
///
/// # Errors
/// An info-hash that is not of 20 bytes.
pub fn read_scrape(query: &[u8]) -> Result<Vec<InfoHash>, QueryError> {
    fields(query)
        .filter(|(name, _)| name == b"info_hash")
        .take(MAX_SCRAPED)
        .map(|(_, value)| twenty(&value, "info_hash").map(InfoHash))
        .collect()
}

/// Fields that have a default.
#[derive(Default)]
struct Rest {
    progress: Progress,
    event: Event,
    wanted: Option<u32>,
    key: u32,
    ipv6: Option<Ipv6Addr>,
}

impl Rest {
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), QueryError> {
        match name {
            b"uploaded" => self.progress.uploaded = number(value, "uploaded")?,
            b"downloaded" => self.progress.downloaded = number(value, "downloaded")?,
            b"event" => self.event = event(value)?,
            // Some peers send -1 for "as many as you like".
            b"numwant" => self.wanted = number(value, "numwant").ok(),
            // Any word may be a key; only ours need to come back whole.
            b"key" => self.key = hex(value),
            b"ipv6" => self.ipv6 = text(value).and_then(|ip| ip.parse().ok()),
            _ => {}
        }
        Ok(())
    }
}

/// Decoded names and values, in order.
fn fields(query: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let decoded = |bytes: &[u8]| percent_decode(bytes).collect::<Vec<u8>>();
    query.split(|b| *b == b'&').filter(|field| !field.is_empty()).map(move |field| {
        let (name, value) = match field.iter().position(|b| *b == b'=') {
            Some(at) => (&field[..at], &field[at + 1..]),
            None => (field, &field[field.len()..]),
        };
        (decoded(name), decoded(value))
    })
}

fn twenty(value: &[u8], name: &'static str) -> Result<[u8; 20], QueryError> {
    value.try_into().map_err(|_| QueryError::Invalid(name))
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn number<T: std::str::FromStr>(value: &[u8], name: &'static str) -> Result<T, QueryError> {
    text(value).and_then(|digits| digits.parse().ok()).ok_or(QueryError::Invalid(name))
}

fn hex(value: &[u8]) -> u32 {
    text(value).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

fn event(value: &[u8]) -> Result<Event, QueryError> {
    match value {
        // BEP 21: a partial seed that wants nothing; it stays known.
        b"" | b"paused" => Ok(Event::None),
        b"started" => Ok(Event::Started),
        b"completed" => Ok(Event::Completed),
        b"stopped" => Ok(Event::Stopped),
        _ => Err(QueryError::Invalid("event")),
    }
}
