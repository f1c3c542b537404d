//! Message stream encryption: how two peers agree on keys, and on whether to go on enciphered, before they shake
//! hands.
//!
//! It hides the protocol from those who look for its first bytes, and turns nobody away who knows the info-hash: it
//! is no secrecy. Who dials ([`initiator`]) sends its half of a Diffie-Hellman exchange; who accepts ([`receiver`])
//! sends the other, and both pad theirs, so that neither has a length to be known by. After that the initiator names
//! the torrent by a hash of its info-hash, and sends its handshake along, so that one round trip is added, not two.
//!
//! ```text
//! initiator                                                        receiver
//!   key, 0–512 bytes of padding                              ─▶
//!   ◀─                                 key, 0–512 bytes of padding
//!   hash(req1) hash(req2)^hash(req3)  { 0⁸ methods pad handshake } ─▶     {…}: RC4, keys by direction
//!   ◀─                                 { 0⁸ method pad } handshake
//! ```
//!
//! Invariant: a side never asks for a byte beyond the exchange ([`Side::wants`]), so none has to be given back.
//! Invariant: what is kept of a peer's bytes is less than [`MOST_KEPT`]; every length is checked before its bytes
//! are read.
//!
//! Not here: sockets and time (the engine); the handshake within (`wire::codec`).

pub mod initiator;
mod keys;
pub mod receiver;
mod search;

pub use keys::{Keystream, obscured};

use keys::Secret;
use rand::{Rng, RngExt};
use thiserror::Error;

use super::units::InfoHash;

/// Most bytes of padding in one place.
pub const MAX_PAD: usize = 512;

/// Bytes of one side's half of the Diffie-Hellman exchange.
pub const KEY_LEN: usize = 96;

/// Bytes that a side keeps of the other at most: the key, or the padding with the pattern at its end.
pub const MOST_KEPT: usize = MAX_PAD + 64;

/// What both sides encipher first, so that the other knows the key to be the same.
const VERIFICATION: [u8; 8] = [0; 8];

/// How far peers may do without, or with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// Neither offered nor accepted.
    Off,
    /// Dials go out in the clear, and again encrypted where that is closed: most peers take both, and the exchange
    /// costs them and us a round trip before the first byte. Incoming peers choose.
    #[default]
    Prefer,
    /// Peers in the clear are turned away, both ways, and all that is said is enciphered.
    Require,
}

/// What is done with the bytes after the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// They go as they are.
    Plaintext,
    /// They go through RC4.
    Rc4,
}

impl Encryption {
    /// The mask of what we offer.
    fn methods(self) -> u32 {
        let suiting = Method::ALL.into_iter().filter(|method| method.suits(self));
        suiting.map(Method::bit).sum()
    }
}

impl Method {
    /// The cheaper first.
    const ALL: [Self; 2] = [Self::Plaintext, Self::Rc4];

    /// Its bit in the masks of the exchange.
    const fn bit(self) -> u32 {
        match self {
            Self::Plaintext => 1,
            Self::Rc4 => 2,
        }
    }

    /// The one of this bit alone.
    fn of_bit(bit: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.bit() == bit)
    }

    /// Whether this side goes along with it.
    fn suits(self, ours: Encryption) -> bool {
        match (self, ours) {
            (_, Encryption::Prefer) | (Self::Rc4, Encryption::Require) => true,
            (Self::Plaintext, Encryption::Require) | (_, Encryption::Off) => false,
        }
    }
}

/// Why no keys came of it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MseError {
    /// A key by which anybody could tell the secret.
    #[error("the peer's key is none")]
    BadKey,
    /// What must follow the padding did not.
    #[error("the peer speaks neither BitTorrent nor its encryption")]
    NoSynchronisation,
    /// It asked for a torrent that is not here.
    #[error("the peer asked for a torrent that is not here")]
    UnknownTorrent,
    /// What should decipher to zeros does not.
    #[error("the peer's encryption has another key")]
    WrongKey,
    /// Padding of so many bytes.
    #[error("the peer announces {0} bytes of padding where {MAX_PAD} may be")]
    TooLong(usize),
    /// It takes no method of ours, or chose one that was not offered.
    #[error("no common method of encryption")]
    NoCommonMethod,
    /// The exchange has ended before, well or not.
    #[error("the exchange is over")]
    Over,
}

/// What came of an exchange.
#[derive(Debug)]
pub struct Agreed {
    /// The torrent that both sides know.
    pub torrent: InfoHash,
    /// What the peer has said already, deciphered: the beginning of its handshake.
    pub said: Vec<u8>,
    /// What all further bytes go through; `None`: they go as they are.
    pub ciphers: Option<Ciphers>,
}

/// The keystreams of a connection, one a direction.
#[derive(Debug)]
pub struct Ciphers {
    /// For what the peer sends.
    pub inward: Keystream,
    /// For what we send.
    pub outward: Keystream,
}

impl Ciphers {
    /// As the other side has them.
    fn swapped(self) -> Self {
        Self { inward: self.outward, outward: self.inward }
    }

    /// What is left of them under the method agreed on.
    fn under(self, method: Method) -> Option<Self> {
        match method {
            Method::Plaintext => None,
            Method::Rc4 => Some(self),
        }
    }
}

/// What either side says first: its key and padding.
fn begin(rng: &mut impl Rng, out: &mut Vec<u8>) -> Secret {
    let secret = Secret::new(rng);
    out.extend(secret.public());
    let from = out.len();
    out.resize(from + rng.random_range(0..=MAX_PAD), 0);
    rng.fill_bytes(&mut out[from..]);
    secret
}

/// An announced length of padding.
fn pad_len(bytes: [u8; 2]) -> Result<usize, MseError> {
    let len = usize::from(u16::from_be_bytes(bytes));
    if len > MAX_PAD { Err(MseError::TooLong(len)) } else { Ok(len) }
}

/// One side of an exchange, fed with what the other says.
pub trait Side {
    /// Bytes that surely still come: as many may be read, and no more. Never 0 before the end.
    fn wants(&self) -> usize;

    /// Takes in bytes, at most as many as wanted, and appends to `out` what is to be sent; the result ends it.
    ///
    /// # Errors
    /// The peer keeps to no such protocol, or does not want what we want.
    fn handle(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<Agreed>, MseError>;
}
