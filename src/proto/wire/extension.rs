//! The extension protocol (BEP 10): its handshake, who calls which extension by what number, and the
//! payloads of BEP 54 and of libtorrent's upload_only.
//!
//! Invariant: every field of an [`ExtensionHandshake`] that a peer sent is within its bounds; what is not,
//! or is of another type, counts as not sent.
//!
//! Not here: the payloads of ut_metadata (BEP 9), of ut_pex ([`super::pex`]) and of ut_holepunch
//! ([`super::holepunch`]), only their numbers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::proto::bencode::{self, BencodeError, Dict, Limits};

/// The number of the extension handshake itself, for both sides.
pub const HANDSHAKE_ID: u8 = 0;

/// Bytes of metadata that a peer may announce (BEP 9).
pub const MAX_METADATA_LEN: u32 = 16 * 1024 * 1024;

/// Bytes of a client's name that are kept.
const MAX_CLIENT_LEN: usize = 64;

/// An extension that we know. Which of them a torrent speaks is its swarm's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// BEP 11: peers that the sender is connected to. Never for private torrents (BEP 27).
    Pex,
    /// BEP 9: the info dictionary in pieces. Not for private torrents, as libtorrent has it: who has the dictionary of
    /// one has it from its site.
    Metadata,
    /// BEP 54: a piece that the sender had is gone.
    DontHave,
    /// libtorrent: whether the sender wants pieces, as in the handshake by BEP 21, when that changes.
    UploadOnly,
    /// BEP 55: two peers that cannot dial each other are brought together by a third.
    Holepunch,
}

/// Names, and our own numbers: those that peers use towards us.
const TABLE: [(Extension, &str, u8); 5] = [
    (Extension::Pex, "ut_pex", 1),
    (Extension::Metadata, "ut_metadata", 2),
    (Extension::DontHave, "lt_donthave", 3),
    (Extension::UploadOnly, "upload_only", 4),
    (Extension::Holepunch, "ut_holepunch", 5),
];

impl Extension {
    /// The extension that a peer's message to us belongs to.
    pub fn from_local_id(id: u8) -> Option<Self> {
        TABLE.iter().find(|row| row.2 == id).map(|row| row.0)
    }
}

/// One side's numbers for extensions; the other side uses them towards it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds([Option<u8>; TABLE.len()]);

impl ExtensionIds {
    /// Our numbers, for those extensions alone.
    pub fn local(spoken: &[Extension]) -> Self {
        Self(TABLE.map(|(extension, _, id)| spoken.contains(&extension).then_some(id)))
    }

    /// The number to put on a message to that side; `None` when it does not speak the extension.
    pub fn of(&self, extension: Extension) -> Option<u8> {
        self.0[extension as usize]
    }

    fn update(&mut self, names: &Dict<'_>) {
        for ((_, name, _), id) in TABLE.iter().zip(&mut self.0) {
            if let Some(told) = integer(names, name) {
                *id = u8::try_from(told).ok().filter(|&told| told != 0);
            }
        }
    }
}

/// What one side tells about itself. A peer may send it again, then only what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionHandshake {
    /// `m`: the sender's numbers.
    pub ids: ExtensionIds,
    /// `p`: the port where the sender listens.
    pub port: Option<u16>,
    /// `v`: the sender's name and version, without control characters.
    pub client: Option<String>,
    /// `reqq`: requests that the sender queues before it drops some.
    pub requests: Option<u16>,
    /// `yourip`: the receiver's address as the sender sees it.
    pub your_ip: Option<IpAddr>,
    /// `metadata_size`: bytes of the info dictionary, at most [`MAX_METADATA_LEN`] (BEP 9).
    pub metadata_len: Option<u32>,
    /// `upload_only`: whether the sender wants no pieces (BEP 21).
    pub upload_only: Option<bool>,
}

/// The dictionary as it goes on the wire.
#[derive(Serialize)]
struct Wire<'a> {
    m: BTreeMap<&'static str, u8>,
    metadata_size: Option<u32>,
    p: Option<u16>,
    reqq: Option<u16>,
    upload_only: Option<u8>,
    v: Option<&'a str>,
    yourip: Option<ByteBuf>,
}

impl ExtensionHandshake {
    /// The payload of message [`HANDSHAKE_ID`].
    pub fn encode(&self) -> Bytes {
        let named = TABLE.iter().zip(self.ids.0);
        let wire = Wire {
            m: named.filter_map(|((_, name, _), id)| Some((*name, id?))).collect(),
            metadata_size: self.metadata_len,
            p: self.port,
            reqq: self.requests,
            upload_only: self.upload_only.map(u8::from),
            v: self.client.as_deref(),
            yourip: self.your_ip.map(octets),
        };
        bencode::encode(&wire)
            .expect("integers, strings and one dictionary have their bencode")
            .into()
    }

    /// Reads a peer's first extension handshake.
    ///
    /// # Errors
    /// When the payload is no bencoded dictionary.
    pub fn parse(payload: &[u8]) -> Result<Self, BencodeError> {
        let mut told = Self::default();
        told.update(payload)?;
        Ok(told)
    }

    /// Takes in one more from the same peer: what it does not name stays as it was.
    ///
    /// # Errors
    /// When the payload is no bencoded dictionary; nothing has changed then.
    pub fn update(&mut self, payload: &[u8]) -> Result<(), BencodeError> {
        let dict = Dict::scan(payload, &Limits::MESSAGE)?;
        if let Some(Ok(names)) = dict.raw("m").map(|raw| Dict::scan(raw, &Limits::MESSAGE)) {
            self.ids.update(&names);
        }
        let port = integer(&dict, "p").and_then(|port| u16::try_from(port).ok());
        replace(&mut self.port, port.filter(|&port| port != 0));
        replace(&mut self.client, dict.string("v").map(client_name));
        replace(&mut self.requests, integer(&dict, "reqq").map(queue_len));
        replace(&mut self.your_ip, dict.string("yourip").and_then(address));
        let len = integer(&dict, "metadata_size").and_then(|len| u32::try_from(len).ok());
        replace(&mut self.metadata_len, len.filter(|len| (1..=MAX_METADATA_LEN).contains(len)));
        replace(&mut self.upload_only, integer(&dict, "upload_only").map(|flag| flag != 0));
        Ok(())
    }
}

/// The payload of lt_donthave (BEP 54).
pub fn encode_dont_have(piece: u32) -> Bytes {
    Bytes::copy_from_slice(&piece.to_be_bytes())
}

/// The number of the piece that a peer has no longer; `None` for a payload of another length than 4.
pub fn parse_dont_have(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

/// The payload of upload_only.
pub fn encode_upload_only(upload_only: bool) -> Bytes {
    Bytes::copy_from_slice(&[upload_only.into()])
}

/// Whether a peer wants no pieces; `None` for a payload of another length than 1.
pub fn parse_upload_only(payload: &[u8]) -> Option<bool> {
    <[u8; 1]>::try_from(payload).ok().map(|[flag]| flag != 0)
}

fn integer(dict: &Dict<'_>, key: &str) -> Option<i64> {
    dict.read(key).ok().flatten()
}

fn replace<T>(field: &mut Option<T>, told: Option<T>) {
    if told.is_some() {
        *field = told;
    }
}

fn client_name(bytes: &[u8]) -> String {
    let name = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_CLIENT_LEN)]);
    name.chars().filter(|c| !c.is_control()).collect()
}

/// A queue holds one request at least, and none of ours is longer than this type's largest.
fn queue_len(told: i64) -> u16 {
    told.clamp(1, i64::from(u16::MAX)) as u16
}

fn octets(addr: IpAddr) -> ByteBuf {
    match addr {
        IpAddr::V4(addr) => ByteBuf::from(addr.octets()),
        IpAddr::V6(addr) => ByteBuf::from(addr.octets()),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddr::from(Ipv6Addr::from(v6)).to_canonical())
}
