//! A tracker's answer over HTTP as bencode (BEP 3, 7, 23, 24, 31, 48), read and written.
//!
//! Invariant: no allocation here is larger than the body that asks for it.
//!
//! Not here: the limits of bencode itself ([`crate::proto::bencode`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_bytes::ByteBuf;

use super::{Answer, AnswerError, MAX_PEERS, Retry, compact, is_dialable, printable, put_compact};
use crate::proto::bencode::{self, Limits};
use crate::proto::units::InfoHash;

/// Bytes of an answer's body, as sent and as inflated.
pub const MAX_BODY: usize = 1024 * 1024;

/// Bytes of a tracker id that are sent back.
const MAX_TRACKER_ID: usize = 256;

/// Reads the body of an announce's answer.
///
/// # Errors
/// The tracker's refusal, or what is wrong with the body.
pub fn read(body: &[u8]) -> Result<Answer, AnswerError> {
    if body.len() > MAX_BODY {
        return Err(AnswerError::Malformed("too long"));
    }
    let raw: Raw = bencode::parse(body, &Limits::MESSAGE)
        .map_err(|_| AnswerError::Malformed("no bencoded dictionary"))?;
    if let Some(reason) = raw.failure {
        return Err(AnswerError::Refused {
            reason: printable(&reason),
            retry: raw.retry.and_then(|r| r.0),
        });
    }
    let mut peers = raw.peers.0;
    peers.extend(compact::<16>(&raw.peers6));
    peers.truncate(MAX_PEERS);
    Ok(Answer {
        peers,
        interval: raw.interval.and_then(seconds),
        min_interval: raw.min_interval.and_then(seconds),
        seeds: raw.complete.and_then(|n| n.try_into().ok()),
        leechers: raw.incomplete.and_then(|n| n.try_into().ok()),
        warning: raw.warning.map(|words| printable(&words)),
        external_ip: raw.external_ip.as_deref().and_then(|ip| address(ip)),
        tracker_id: raw.tracker_id.map(ByteBuf::into_vec).filter(|id| id.len() <= MAX_TRACKER_ID),
    })
}

/// Writes an answer: always compact, as BEP 23 lets a tracker do.
pub fn write(answer: &Answer) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for addr in &answer.peers {
        put_compact(if addr.is_ipv4() { &mut v4 } else { &mut v6 }, addr);
    }
    let mut out = Vec::with_capacity(160 + v4.len() + v6.len());
    out.push(b'd');
    put_number(&mut out, "complete", answer.seeds.map(u64::from));
    put_bytes(&mut out, "external ip", answer.external_ip.map(octets).as_deref());
    put_number(&mut out, "incomplete", answer.leechers.map(u64::from));
    put_number(&mut out, "interval", answer.interval.map(|d| d.as_secs()));
    put_number(&mut out, "min interval", answer.min_interval.map(|d| d.as_secs()));
    put_bytes(&mut out, "peers", Some(&v4));
    put_bytes(&mut out, "peers6", (!v6.is_empty()).then_some(&v6));
    put_bytes(&mut out, "warning message", answer.warning.as_ref().map(String::as_bytes));
    out.push(b'e');
    out
}

/// Writes a refusal.
pub fn write_refusal(reason: &str) -> Vec<u8> {
    let mut out = vec![b'd'];
    put_bytes(&mut out, "failure reason", Some(reason.as_bytes()));
    out.push(b'e');
    out
}

/// What a scrape tells of one torrent (BEP 48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scraped {
    /// Peers that have all.
    pub seeds: u32,
    /// Downloads that came to their end since the tracker knows the torrent.
    pub downloads: u32,
    /// Peers that do not have all.
    pub leechers: u32,
}

/// Writes the answer to a scrape.
pub fn write_scrape(torrents: &[(InfoHash, Scraped)]) -> Vec<u8> {
    let mut sorted = torrents.to_vec();
    sorted.sort_unstable_by_key(|(info_hash, _)| *info_hash);
    sorted.dedup_by_key(|(info_hash, _)| *info_hash);
    let mut out = b"d5:filesd".to_vec();
    for (info_hash, scraped) in sorted {
        out.extend(b"20:");
        out.extend(info_hash.0);
        out.push(b'd');
        put_number(&mut out, "complete", Some(scraped.seeds.into()));
        put_number(&mut out, "downloaded", Some(scraped.downloads.into()));
        put_number(&mut out, "incomplete", Some(scraped.leechers.into()));
        out.push(b'e');
    }
    out.extend(b"ee");
    out
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "failure reason")]
    failure: Option<ByteBuf>,
    #[serde(rename = "retry in")]
    retry: Option<RetryIn>,
    #[serde(rename = "warning message")]
    warning: Option<ByteBuf>,
    interval: Option<i64>,
    #[serde(rename = "min interval")]
    min_interval: Option<i64>,
    complete: Option<i64>,
    incomplete: Option<i64>,
    #[serde(default)]
    peers: PeerList,
    #[serde(default)]
    peers6: ByteBuf,
    #[serde(rename = "external ip")]
    external_ip: Option<ByteBuf>,
    #[serde(rename = "tracker id")]
    tracker_id: Option<ByteBuf>,
}

/// `peers` in either of its forms.
#[derive(Default)]
struct PeerList(Vec<SocketAddr>);

/// One entry of the form that BEP 23 calls original.
#[derive(Deserialize)]
struct PeerDict {
    ip: ByteBuf,
    port: i64,
}

impl PeerDict {
    /// A tracker may name a host here; such a peer is left out.
    fn addr(&self) -> Option<SocketAddr> {
        let ip: IpAddr = std::str::from_utf8(&self.ip).ok()?.parse().ok()?;
        let port = self.port.try_into().ok()?;
        Some(SocketAddr::new(ip, port)).filter(is_dialable)
    }
}

impl<'de> Deserialize<'de> for PeerList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PeerListVisitor)
    }
}

struct PeerListVisitor;

impl<'de> Visitor<'de> for PeerListVisitor {
    type Value = PeerList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a compact or plain list of peers")
    }

    fn visit_bytes<E>(self, list: &[u8]) -> Result<PeerList, E> {
        Ok(PeerList(compact::<4>(list).collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PeerList, A::Error> {
        let mut peers = Vec::new();
        while peers.len() < MAX_PEERS {
            let Some(entry) = list.next_element::<PeerDict>()? else { return Ok(PeerList(peers)) };
            peers.extend(entry.addr());
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(PeerList(peers))
    }
}

/// BEP 31: minutes, or the word "never".
struct RetryIn(Option<Retry>);

impl<'de> Deserialize<'de> for RetryIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RetryVisitor)
    }
}

struct RetryVisitor;

impl Visitor<'_> for RetryVisitor {
    type Value = RetryIn;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("minutes or never")
    }

    fn visit_i64<E: serde::de::Error>(self, minutes: i64) -> Result<RetryIn, E> {
        Ok(RetryIn(seconds(minutes.saturating_mul(60)).map(Retry::After)))
    }

    fn visit_bytes<E: serde::de::Error>(self, word: &[u8]) -> Result<RetryIn, E> {
        if word == b"never" {
            return Ok(RetryIn(Some(Retry::Never)));
        }
        let minutes = std::str::from_utf8(word).ok().and_then(|digits| digits.parse().ok());
        minutes.map_or(Ok(RetryIn(None)), |minutes| self.visit_i64(minutes))
    }
}

/// A span that a tracker names; no negative ones, and none that could overflow a clock.
fn seconds(n: i64) -> Option<Duration> {
    u32::try_from(n.min(u32::MAX.into())).ok().map(|n| Duration::from_secs(n.into()))
}

/// BEP 24 wants raw bytes; some trackers send text.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        return Some(v6.into());
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn put_bytes(out: &mut Vec<u8>, key: &str, value: Option<&[u8]>) {
    let Some(value) = value else { return };
    put_key(out, key);
    out.extend(value.len().to_string().as_bytes());
    out.push(b':');
    out.extend(value);
}

fn put_number(out: &mut Vec<u8>, key: &str, value: Option<u64>) {
    let Some(value) = value else { return };
    put_key(out, key);
    out.push(b'i');
    out.extend(value.to_string().as_bytes());
    out.push(b'e');
}

fn put_key(out: &mut Vec<u8>, key: &str) {
    out.extend(key.len().to_string().as_bytes());
    out.push(b':');
    out.extend(key.as_bytes());
}
