//! Local service discovery (BEP 14): the call by which peers on one network find each other, and when to call.
//!
//! Invariant: a torrent is called out at most once in [`AT_MOST`], however often somebody wishes it.
//! Invariant: at most [`MAX_HEARD`] calls a minute are listened to.
//!
//! Not here: sockets ([`crate::engine::lsd`]), who may be called out ([`super::origin`]).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::ration::Ration;
use super::units::InfoHash;

/// Where calls go over IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);

/// Where calls go over IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);

/// The port of both.
pub const PORT: u16 = 6771;

/// Bytes of a call that are written, and that are read: what passes in one packet everywhere.
pub const MAX_LEN: usize = 1400;

/// Time between two calls for one torrent.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// The same when peers are needed.
pub const AT_MOST: Duration = Duration::from_secs(60);

/// Torrents in one call: what [`MAX_LEN`] holds.
const MAX_TORRENTS: usize = 20;

/// Calls of others that are heard in a minute.
pub const MAX_HEARD: u32 = 500;

/// One call: somebody has these torrents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Where the caller takes connections, at the address that the call comes from.
    pub port: u16,
    /// At most 20 torrents.
    pub torrents: Vec<InfoHash>,
    /// By which callers know their own.
    pub cookie: Option<u32>,
}

impl Call {
    /// The datagram to this group.
    pub fn encode(&self, group: SocketAddr) -> Vec<u8> {
        let mut text = format!("BT-SEARCH * HTTP/1.1\r\nHost: {group}\r\nPort: {}\r\n", self.port);
        for torrent in self.torrents.iter().take(MAX_TORRENTS) {
            write!(text, "Infohash: {torrent}\r\n").expect("a string takes all");
        }
        if let Some(cookie) = self.cookie {
            write!(text, "cookie: {cookie:08x}\r\n").expect("a string takes all");
        }
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }

    /// Reads a datagram; `None` for what is no call that anything follows from.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let text = str::from_utf8(datagram.get(..datagram.len().min(MAX_LEN))?).ok()?;
        let mut lines = text.split("\r\n");
        lines.next().filter(|first| first.eq_ignore_ascii_case("BT-SEARCH * HTTP/1.1"))?;
        let (mut port, mut torrents, mut cookie) = (None, Vec::new(), None);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "port" => port = value.parse().ok().filter(|&port| port != 0),
                "infohash" if torrents.len() < MAX_TORRENTS => torrents.extend(info_hash(value)),
                // Those of others may be any text.
                "cookie" => cookie = u32::from_str_radix(value, 16).ok(),
                _ => {}
            }
        }
        let port = port?;
        (!torrents.is_empty()).then_some(Self { port, torrents, cookie })
    }
}

fn info_hash(text: &str) -> Option<InfoHash> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    Some(InfoHash(bytes.try_into().ok()?))
}

/// When which torrent is called out, and how many calls were heard.
#[derive(Debug)]
pub struct Calls {
    torrents: BTreeMap<InfoHash, Turn>,
    heard: Ration,
}

#[derive(Debug)]
struct Turn {
    next: Instant,
    last: Option<Instant>,
}

impl Calls {
    /// Without torrents.
    pub fn new(now: Instant) -> Self {
        Self { torrents: BTreeMap::new(), heard: Ration::new(MAX_HEARD, now) }
    }

    /// The torrent is called out at once, and again and again.
    pub fn join(&mut self, torrent: InfoHash, now: Instant) {
        self.torrents.entry(torrent).or_insert(Turn { next: now, last: None });
    }

    /// No more of this torrent.
    pub fn leave(&mut self, torrent: InfoHash) {
        self.torrents.remove(&torrent);
    }

    /// The torrent has too few peers, and is called out as soon as may be.
    pub fn seek(&mut self, torrent: InfoHash, now: Instant) {
        if let Some(turn) = self.torrents.get_mut(&torrent) {
            let soonest = turn.last.map_or(now, |last| now.max(last + AT_MOST));
            turn.next = turn.next.min(soonest);
        }
    }

    /// When somebody's turn comes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.torrents.values().map(|turn| turn.next).min()
    }

    /// The torrents of one call that is due now; none when none is.
    pub fn poll_call(&mut self, now: Instant) -> Vec<InfoHash> {
        let due = self.torrents.iter_mut().filter(|(_, turn)| turn.next <= now);
        let due = due.take(MAX_TORRENTS).map(|(torrent, turn)| {
            *turn = Turn { next: now + EVERY, last: Some(now) };
            *torrent
        });
        due.collect()
    }

    /// Whether a call that came is listened to.
    pub fn hear(&mut self, now: Instant) -> bool {
        self.heard.take(now)
    }
}
