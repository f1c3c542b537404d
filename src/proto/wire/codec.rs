//! Values to bytes: the handshake both ways, and messages as a head and a payload.
//!
//! Invariant: every id and every length limit of the wire stands here, once.
//!
//! Not here: bytes to messages ([`super::decoder`]), the payloads of extensions ([`super::extension`]).

use bytes::Bytes;
use thiserror::Error;

use super::message::{Handshake, Message, Request, Reserved};
use crate::proto::units::{InfoHash, PeerId};

/// Bytes in a handshake (BEP 3).
pub const HANDSHAKE_LEN: usize = 68;

/// Bytes of data in a PIECE message: 16 KiB is asked for, and old clients are known to go up to this.
pub const MAX_BLOCK_LEN: u32 = 128 * 1024;

/// Bytes of payload in a message of an extension.
pub const MAX_EXTENDED_LEN: u32 = 128 * 1024;

/// Bytes in a BITFIELD message: 2 Mi pieces.
pub const MAX_BITFIELD_LEN: u32 = 2 * 1024 * 1024 / 8;

/// Bytes after the id in a message that we do not know and skip.
pub const MAX_UNKNOWN_LEN: u32 = 128 * 1024;

/// Bytes in front of a PIECE message's data: length, id, piece, begin.
pub const PIECE_HEAD_LEN: usize = 13;

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// Message ids, as the BEPs number them.
pub(super) mod id {
    pub(crate) const CHOKE: u8 = 0;
    pub(crate) const UNCHOKE: u8 = 1;
    pub(crate) const INTERESTED: u8 = 2;
    pub(crate) const NOT_INTERESTED: u8 = 3;
    pub(crate) const HAVE: u8 = 4;
    pub(crate) const BITFIELD: u8 = 5;
    pub(crate) const REQUEST: u8 = 6;
    pub(crate) const PIECE: u8 = 7;
    pub(crate) const CANCEL: u8 = 8;
    pub(crate) const PORT: u8 = 9;
    pub(crate) const SUGGEST: u8 = 13;
    pub(crate) const HAVE_ALL: u8 = 14;
    pub(crate) const HAVE_NONE: u8 = 15;
    pub(crate) const REJECT: u8 = 16;
    pub(crate) const ALLOWED_FAST: u8 = 17;
    pub(crate) const EXTENDED: u8 = 20;
}

/// The 68 bytes are no BitTorrent handshake: another protocol, or an encrypted stream.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the peer does not speak BitTorrent")]
pub struct NotBitTorrent;

impl Handshake {
    /// The handshake as it goes on the wire (BEP 3; reserved bits of BEP 5, 6 and 10).
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[25] = if self.reserved.extended { 0x10 } else { 0 };
        bytes[27] = if self.reserved.fast { 0x04 } else { 0 } | u8::from(self.reserved.dht);
        bytes[28..48].copy_from_slice(&self.info_hash.0);
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// Reads what a peer sent first; reserved bits that we do not know are passed over.
    pub fn parse(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, NotBitTorrent> {
        if !bytes.starts_with(PROTOCOL) {
            return Err(NotBitTorrent);
        }
        let reserved = Reserved {
            extended: bytes[25] & 0x10 != 0,
            fast: bytes[27] & 0x04 != 0,
            dht: bytes[27] & 0x01 != 0,
        };
        let twenty = |at: usize| std::array::from_fn(|i| bytes[at + i]);
        Ok(Self { reserved, info_hash: InfoHash(twenty(28)), peer_id: PeerId(twenty(48)) })
    }
}

impl Message {
    /// Appends the message to `out`, all but a PIECE's data and an extension's payload: those are returned, and must
    /// follow.
    #[must_use = "what is returned must follow"]
    pub fn encode(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        match self {
            Self::KeepAlive => out.extend_from_slice(&[0; 4]),
            Self::Choke => head(out, id::CHOKE, 0),
            Self::Unchoke => head(out, id::UNCHOKE, 0),
            Self::Interested => head(out, id::INTERESTED, 0),
            Self::NotInterested => head(out, id::NOT_INTERESTED, 0),
            Self::Have(piece) => number(out, id::HAVE, *piece),
            Self::Bitfield(bits) => {
                head(out, id::BITFIELD, bits.len());
                out.extend_from_slice(bits);
            }
            Self::Request(wanted) => request(out, id::REQUEST, *wanted),
            Self::Piece { piece, begin, data } => {
                head(out, id::PIECE, 8 + data.len());
                out.extend_from_slice(&piece.to_be_bytes());
                out.extend_from_slice(&begin.to_be_bytes());
                return Some(data);
            }
            Self::Cancel(wanted) => request(out, id::CANCEL, *wanted),
            Self::Port(port) => {
                head(out, id::PORT, 2);
                out.extend_from_slice(&port.to_be_bytes());
            }
            Self::Suggest(piece) => number(out, id::SUGGEST, *piece),
            Self::HaveAll => head(out, id::HAVE_ALL, 0),
            Self::HaveNone => head(out, id::HAVE_NONE, 0),
            Self::Reject(wanted) => request(out, id::REJECT, *wanted),
            Self::AllowedFast(piece) => number(out, id::ALLOWED_FAST, *piece),
            Self::Extended { id, payload } => {
                head(out, id::EXTENDED, 1 + payload.len());
                out.push(*id);
                return Some(payload);
            }
        }
        None
    }
}

/// Length prefix and id of a message with `len` bytes after the id.
fn head(out: &mut Vec<u8>, id: u8, len: usize) {
    let len = u32::try_from(1 + len).expect("we make no message of 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.push(id);
}

fn number(out: &mut Vec<u8>, id: u8, number: u32) {
    head(out, id, 4);
    out.extend_from_slice(&number.to_be_bytes());
}

fn request(out: &mut Vec<u8>, id: u8, request: Request) {
    head(out, id, 12);
    for number in [request.piece, request.begin, request.len] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}
