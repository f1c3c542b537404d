//! The UDP tracker protocol (BEP 15, BEP 41), both directions of it, packet by packet.
//!
//! Invariant: a reply is read only against the transaction that it answers; nothing in it is believed
//! before action and transaction id are right.
//!
//! Not here: sending again, keeping connection ids, checking the source address (the engine's sockets),
//! making transaction ids (arguments).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::answer::Scraped;
use super::query::MAX_SCRAPED;
use super::{Announce, Answer, AnswerError, Event, Progress, compact, printable, put_compact};
use crate::proto::units::{InfoHash, PeerId};

/// Opens every connect request.
const PROTOCOL: u64 = 0x0417_2710_1980;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// BEP 41: option that carries a part of the URL's path and query.
const OPTION_URL_DATA: u8 = 2;

/// Bytes of URL that are sent; longer ones no tracker could mean.
const MAX_URL_DATA: usize = 1024;

/// Bytes of a datagram that we send or read.
pub const MAX_DATAGRAM: usize = 8 * 1024;

/// Proof, given by the tracker, that the peer receives at its source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId(pub u64);

/// What pairs a reply with its request; must be unpredictable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction(pub u32);

/// What a peer sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Asks for a connection id.
    Connect,
    /// Announces.
    Announce {
        /// From the tracker, at most a minute ago.
        connection: ConnectionId,
        /// What is announced. `ipv6` has no place in the packet.
        announce: Announce,
    },
    /// Asks for the numbers of torrents.
    Scrape {
        /// From the tracker, at most a minute ago.
        connection: ConnectionId,
        /// At most 74.
        torrents: Vec<InfoHash>,
    },
}

/// Writes the packet that asks for a connection id.
pub fn write_connect(transaction: Transaction) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    out.extend(PROTOCOL.to_be_bytes());
    out.extend(CONNECT.to_be_bytes());
    out.extend(transaction.0.to_be_bytes());
    out
}

/// Writes an announce; `url_data` is the URL's path and query (BEP 41), perhaps empty.
pub fn write_announce(
    connection: ConnectionId,
    transaction: Transaction,
    announce: &Announce,
    url_data: &str,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(98 + url_data.len() + 8);
    out.extend(connection.0.to_be_bytes());
    out.extend(ANNOUNCE.to_be_bytes());
    out.extend(transaction.0.to_be_bytes());
    out.extend(announce.info_hash.0);
    out.extend(announce.peer_id.0);
    out.extend(announce.progress.downloaded.to_be_bytes());
    out.extend(announce.progress.left.to_be_bytes());
    out.extend(announce.progress.uploaded.to_be_bytes());
    out.extend((announce.event as u32).to_be_bytes());
    // Our address: the one that we send from.
    out.extend([0; 4]);
    out.extend(announce.key.to_be_bytes());
    out.extend(announce.wanted.unwrap_or(u32::MAX).to_be_bytes());
    out.extend(announce.port.to_be_bytes());
    put_url_data(&mut out, url_data);
    out
}

/// An option's length is one byte, so the URL goes in parts.
fn put_url_data(out: &mut Vec<u8>, url_data: &str) {
    if matches!(url_data, "" | "/") || url_data.len() > MAX_URL_DATA {
        return;
    }
    for part in url_data.as_bytes().chunks(u8::MAX.into()) {
        out.extend([OPTION_URL_DATA, part.len() as u8]);
        out.extend(part);
    }
}

/// Writes a scrape.
pub fn write_scrape(
    connection: ConnectionId,
    transaction: Transaction,
    torrents: &[InfoHash],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + 20 * torrents.len());
    out.extend(connection.0.to_be_bytes());
    out.extend(SCRAPE.to_be_bytes());
    out.extend(transaction.0.to_be_bytes());
    torrents.iter().for_each(|info_hash| out.extend(info_hash.0));
    out
}

/// Reads what a peer sent; `None` for all that is no request.
pub fn read_request(packet: &[u8]) -> Option<(Transaction, Request)> {
    let mut input = Input(packet);
    let connection = input.u64()?;
    let action = input.u32()?;
    let transaction = Transaction(input.u32()?);
    let request = match action {
        CONNECT if connection == PROTOCOL => Request::Connect,
        ANNOUNCE => Request::Announce {
            connection: ConnectionId(connection),
            announce: read_announce(&mut input)?,
        },
        SCRAPE => Request::Scrape {
            connection: ConnectionId(connection),
            torrents: read_hashes(&mut input)?,
        },
        _ => return None,
    };
    Some((transaction, request))
}

fn read_announce(input: &mut Input<'_>) -> Option<Announce> {
    let info_hash = InfoHash(input.array()?);
    let peer_id = PeerId(input.array()?);
    let (downloaded, left, uploaded) = (input.u64()?, input.u64()?, input.u64()?);
    let event = match input.u32()? {
        0 => Event::None,
        1 => Event::Completed,
        2 => Event::Started,
        3 => Event::Stopped,
        _ => return None,
    };
    // The address that the peer would like to be known by: only its source address is believed.
    let _ip: [u8; 4] = input.array()?;
    let key = input.u32()?;
    let wanted = Some(input.u32()?).filter(|n| i32::try_from(*n).is_ok());
    let port = u16::from_be_bytes(input.array()?);
    let progress = Progress { uploaded, downloaded, left };
    Some(Announce { info_hash, peer_id, port, progress, event, wanted, key, ipv6: None })
}

fn read_hashes(input: &mut Input<'_>) -> Option<Vec<InfoHash>> {
    let (hashes, rest) = input.0.as_chunks::<20>();
    let fits = !hashes.is_empty() && hashes.len() <= MAX_SCRAPED && rest.is_empty();
    fits.then(|| hashes.iter().copied().map(InfoHash).collect())
}

/// Writes the reply to a connect request.
pub fn write_connected(transaction: Transaction, connection: ConnectionId) -> Vec<u8> {
    let mut out = reply(CONNECT, transaction, 8);
    out.extend(connection.0.to_be_bytes());
    out
}

/// Writes the reply to an announce; of the peers only those of the asker's family.
pub fn write_announced(transaction: Transaction, answer: &Answer, asker: IpAddr) -> Vec<u8> {
    let mut out = reply(ANNOUNCE, transaction, 12 + 18 * answer.peers.len());
    let interval = answer.interval.unwrap_or_default().as_secs();
    out.extend(u32::try_from(interval).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(answer.leechers.unwrap_or_default().to_be_bytes());
    out.extend(answer.seeds.unwrap_or_default().to_be_bytes());
    let same_family = answer.peers.iter().filter(|addr| addr.is_ipv4() == asker.is_ipv4());
    same_family.for_each(|addr| put_compact(&mut out, addr));
    out
}

/// Writes the reply to a scrape, in the order of its torrents.
pub fn write_scraped(transaction: Transaction, torrents: &[Scraped]) -> Vec<u8> {
    let mut out = reply(SCRAPE, transaction, 12 * torrents.len());
    for scraped in torrents {
        out.extend(scraped.seeds.to_be_bytes());
        out.extend(scraped.downloads.to_be_bytes());
        out.extend(scraped.leechers.to_be_bytes());
    }
    out
}

/// Writes a refusal.
pub fn write_refusal(transaction: Transaction, reason: &str) -> Vec<u8> {
    let mut out = reply(ERROR, transaction, reason.len());
    out.extend(reason.as_bytes());
    out
}

fn reply(action: u32, transaction: Transaction, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + len);
    out.extend(action.to_be_bytes());
    out.extend(transaction.0.to_be_bytes());
    out
}

/// Reads the reply to a connect request; `None` when the packet answers something else.
///
/// # Errors
/// The tracker's refusal, or a packet of ours that is cut short.
pub fn read_connected(
    packet: &[u8],
    transaction: Transaction,
) -> Option<Result<ConnectionId, AnswerError>> {
    read_reply(packet, transaction, CONNECT, |mut input| input.u64().map(ConnectionId))
}

/// Reads the reply to an announce made from an address of `family`; `None` when the packet answers
/// something else.
///
/// # Errors
/// The tracker's refusal, or a packet of ours that is cut short.
pub fn read_announced(
    packet: &[u8],
    transaction: Transaction,
    family: Family,
) -> Option<Result<Answer, AnswerError>> {
    read_reply(packet, transaction, ANNOUNCE, |mut input| {
        let interval = Duration::from_secs(input.u32()?.into());
        let leechers = input.u32()?;
        let seeds = input.u32()?;
        Some(Answer {
            peers: family.peers(input.0),
            interval: Some(interval),
            seeds: Some(seeds),
            leechers: Some(leechers),
            ..Answer::default()
        })
    })
}

/// Reads the reply to a scrape; `None` when the packet answers something else.
///
/// # Errors
/// The tracker's refusal, or a packet of ours that is cut short.
pub fn read_scraped(
    packet: &[u8],
    transaction: Transaction,
) -> Option<Result<Vec<Scraped>, AnswerError>> {
    read_reply(packet, transaction, SCRAPE, |mut input| {
        let mut torrents = Vec::new();
        while let (Some(seeds), Some(downloads), Some(leechers)) =
            (input.u32(), input.u32(), input.u32())
        {
            torrents.push(Scraped { seeds, downloads, leechers });
        }
        Some(torrents)
    })
}

/// Which addresses a reply holds: those of the family that the packets travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Entries of 6 bytes.
    V4,
    /// Entries of 18 bytes.
    V6,
}

impl Family {
    /// The family of this address.
    pub const fn of(addr: &SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn peers(self, list: &[u8]) -> Vec<SocketAddr> {
        match self {
            Self::V4 => compact::<4>(list).collect(),
            Self::V6 => compact::<16>(list).collect(),
        }
    }
}

fn read_reply<T>(
    packet: &[u8],
    transaction: Transaction,
    wanted: u32,
    body: impl FnOnce(Input<'_>) -> Option<T>,
) -> Option<Result<T, AnswerError>> {
    let mut input = Input(packet);
    let action = input.u32()?;
    if Transaction(input.u32()?) != transaction {
        return None;
    }
    if action == ERROR {
        return Some(Err(AnswerError::Refused { reason: printable(input.0), retry: None }));
    }
    if action != wanted {
        return None;
    }
    Some(body(input).ok_or(AnswerError::Malformed("a packet that is too short")))
}

/// The unread rest of a packet.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}
