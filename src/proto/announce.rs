//! What a peer and a tracker say to each other (BEP 3, 7, 12, 15, 23, 24, 31, 41), as values.
//!
//! The same value goes over HTTP ([`query`], [`answer`]) and UDP ([`udp`]); each of those files reads
//! and writes its form, so our client and our tracker share one understanding of it.
//!
//! Invariant: an [`Answer`] holds at most [`MAX_PEERS`] addresses, none unspecified, none with port 0.
//!
//! Not here: when which tracker is asked ([`tiers`]), which addresses may be asked ([`reach`]), what a
//! tracker remembers ([`super::registry`]), sockets.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::units::{InfoHash, PeerId};

pub mod answer;
pub mod query;
pub mod reach;
pub mod tiers;
pub mod udp;

/// Addresses taken from one answer; what a tracker sends beyond them is left out.
pub const MAX_PEERS: usize = 1000;

/// Characters kept of what a tracker says in words.
const MAX_WORDS: usize = 250;

/// Why a peer announces itself. The numbers are those of BEP 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// At the interval, or for more peers.
    #[default]
    None,
    /// The last missing byte has just come.
    Completed,
    /// For the first time.
    Started,
    /// For the last time.
    Stopped,
}

impl Event {
    /// The word in an HTTP query; a regular announce has none.
    pub const fn word(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Completed => Some("completed"),
            Self::Started => Some("started"),
            Self::Stopped => Some("stopped"),
        }
    }
}

/// How far a peer is, in bytes since it started with the torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Payload sent to peers.
    pub uploaded: u64,
    /// Payload got from peers.
    pub downloaded: u64,
    /// Bytes of the torrent that are missing; 0 makes the peer a seed.
    pub left: u64,
}

/// One announce, the same for HTTP and UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Who announces.
    pub peer_id: PeerId,
    /// TCP port on which the peer listens.
    pub port: u16,
    /// How far the peer is.
    pub progress: Progress,
    /// Why it announces.
    pub event: Event,
    /// Peers wanted; `None` leaves it to the tracker.
    pub wanted: Option<u32>,
    /// A number by which a tracker knows the peer again when its address changes.
    pub key: u32,
    /// An IPv6 address of the peer beside the one that it announces from (BEP 7).
    pub ipv6: Option<Ipv6Addr>,
}

/// What a tracker answers to an announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Peers in the tracker's order, each once for each list that names it.
    pub peers: Vec<SocketAddr>,
    /// Until the next regular announce, as the tracker says; not yet made sane.
    pub interval: Option<Duration>,
    /// Before it no announce, except for an event.
    pub min_interval: Option<Duration>,
    /// Peers that have all.
    pub seeds: Option<u32>,
    /// Peers that do not.
    pub leechers: Option<u32>,
    /// For the user; the announce counted.
    pub warning: Option<String>,
    /// From where the tracker saw us (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// To be sent back with the next announce.
    pub tracker_id: Option<Vec<u8>>,
}

/// An announce that came to nothing, in the tracker's words or because of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The tracker refused.
    #[error("the tracker refused: {reason}")]
    Refused {
        /// Its words, made printable and short.
        reason: String,
        /// When to come again (BEP 31).
        retry: Option<Retry>,
    },
    /// The answer is none.
    #[error("the tracker's answer makes no sense: {0}")]
    Malformed(&'static str),
}

/// When a tracker that refused wants to be asked again (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not before so long.
    After(Duration),
    /// Not again while we run.
    Never,
}

/// Whether this can be a peer's address at all.
fn is_dialable(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// A stranger's words, fit for a terminal and a log.
fn printable(words: &[u8]) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    String::from_utf8_lossy(words).chars().take(MAX_WORDS).map(plain).collect()
}

/// Addresses of a compact list that can be a peer's.
pub(super) fn compact<const IP: usize>(list: &[u8]) -> impl Iterator<Item = SocketAddr>
where
    IpAddr: From<[u8; IP]>,
{
    entries(list).filter(is_dialable).take(MAX_PEERS)
}

/// All entries of a compact list (BEP 23, 7): `IP` bytes of address and two of port each.
pub(super) fn entries<const IP: usize>(list: &[u8]) -> impl Iterator<Item = SocketAddr>
where
    IpAddr: From<[u8; IP]>,
{
    list.chunks_exact(IP + 2).map(|entry| {
        let (ip, port) = entry.split_at(IP);
        let ip: [u8; IP] = ip.try_into().expect("split there");
        SocketAddr::new(IpAddr::from(ip), u16::from_be_bytes([port[0], port[1]]))
    })
}

/// Writes one entry of a compact list: 6 bytes for IPv4, 18 for IPv6.
pub(super) fn put_compact(out: &mut Vec<u8>, addr: &SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(addr.port().to_be_bytes());
}
