//! What two peers say to each other: the handshake and the messages of BEP 3, 6 and 10.
//!
//! Numbers stay raw here, since a peer may speak before the torrent's geometry is known (BEP 9); the
//! swarm turns each into a checked index as it takes the message in.
//!
//! Not here: their bytes ([`super::codec`]), the payloads of extensions ([`super::extension`]).

use bytes::Bytes;

use crate::proto::units::{InfoHash, PeerId};

/// Reserved bits of the handshake that we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// BEP 10, bit 20: extension protocol.
    pub extended: bool,
    /// BEP 6, bit 2 from the end: Fast extension.
    pub fast: bool,
    /// BEP 5, last bit: has a DHT node.
    pub dht: bool,
}

/// The first 68 bytes that each side sends (BEP 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What the sender speaks beside BEP 3.
    pub reserved: Reserved,
    /// The torrent that the sender wants to talk about.
    pub info_hash: InfoHash,
    /// The sender's name.
    pub peer_id: PeerId,
}

/// One message after the handshake. Ids as the BEPs number them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Length 0: nothing but a sign of life.
    KeepAlive,
    /// 0: the sender will not answer requests.
    Choke,
    /// 1: the sender will answer requests.
    Unchoke,
    /// 2: the receiver has pieces that the sender wants.
    Interested,
    /// 3: the receiver has no piece that the sender wants.
    NotInterested,
    /// 4: the sender has this piece, verified.
    Have(u32),
    /// 5: the pieces that the sender has, as on the wire.
    Bitfield(Bytes),
    /// 6: the sender wants these bytes.
    Request(Request),
    /// 7: bytes that were asked for.
    Piece {
        /// Number of the piece.
        piece: u32,
        /// Offset in the piece.
        begin: u32,
        /// The bytes.
        data: Bytes,
    },
    /// 8: the sender no longer wants these bytes.
    Cancel(Request),
    /// 9 (BEP 5): UDP port of the sender's DHT node.
    Port(u16),
    /// 13 (BEP 6): the sender proposes this piece.
    Suggest(u32),
    /// 14 (BEP 6): the sender has every piece.
    HaveAll,
    /// 15 (BEP 6): the sender has no piece.
    HaveNone,
    /// 16 (BEP 6): the sender will not answer this request.
    Reject(Request),
    /// 17 (BEP 6): the receiver may ask for this piece while choked.
    AllowedFast(u32),
    /// 20 (BEP 10): a message of an extension; id 0 is the extension handshake.
    Extended {
        /// The receiver's number for the extension.
        id: u8,
        /// What the extension says.
        payload: Bytes,
    },
}

/// A run of bytes that is asked for, taken back or refused, with the numbers as the peer sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// Number of the piece.
    pub piece: u32,
    /// Offset in the piece.
    pub begin: u32,
    /// Bytes asked for.
    pub len: u32,
}
