//! What ut_pex carries (BEP 11): peers that the sender has come to know and has lost since it last told.
//!
//! Invariant: no exchange names more than [`MAX_NAMED`] peers of a kind, read or written.
//!
//! Not here: when it is told and who is believed ([`crate::proto::gossip`]).

use std::net::SocketAddr;

use bytes::Bytes;
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::proto::announce::{entries, put_compact};
use crate::proto::bencode::{self, BencodeError, Dict, Limits};

/// Peers that one exchange adds, and that it drops, at most (BEP 11).
pub const MAX_NAMED: usize = 50;

/// What the sender knows of a peer that it adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits(pub u8);

impl Traits {
    /// It prefers encrypted connections.
    pub const ENCRYPTS: Self = Self(0x01);
    /// It wants no pieces: a seed, or a partial one (BEP 21).
    pub const UPLOAD_ONLY: Self = Self(0x02);
    /// It speaks uTP (BEP 29).
    pub const UTP: Self = Self(0x04);
    /// It speaks ut_holepunch (BEP 55).
    pub const HOLEPUNCH: Self = Self(0x08);
    /// The sender has reached it by dialling.
    pub const REACHABLE: Self = Self(0x10);

    /// Whether all of these are among them.
    pub const fn has(self, those: Self) -> bool {
        self.0 & those.0 == those.0
    }

    /// These too, if it is so.
    #[must_use]
    pub const fn with(self, those: Self, so: bool) -> Self {
        if so { Self(self.0 | those.0) } else { self }
    }
}

/// One message of ut_pex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Peers that the sender has connected to.
    pub added: Vec<(SocketAddr, Traits)>,
    /// Peers that it has lost.
    pub dropped: Vec<SocketAddr>,
}

#[derive(Default, Serialize)]
struct Wire {
    added: ByteBuf,
    #[serde(rename = "added.f")]
    added_traits: ByteBuf,
    added6: ByteBuf,
    #[serde(rename = "added6.f")]
    added6_traits: ByteBuf,
    dropped: ByteBuf,
    dropped6: ByteBuf,
}

impl Exchange {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty()
    }

    /// The payload of the message.
    pub fn encode(&self) -> Bytes {
        let mut wire = Wire::default();
        for (addr, traits) in self.added.iter().take(MAX_NAMED) {
            let (list, all) = match addr {
                SocketAddr::V4(_) => (&mut wire.added, &mut wire.added_traits),
                SocketAddr::V6(_) => (&mut wire.added6, &mut wire.added6_traits),
            };
            put_compact(list, addr);
            all.push(traits.0);
        }
        for addr in self.dropped.iter().take(MAX_NAMED) {
            put_compact(if addr.is_ipv4() { &mut wire.dropped } else { &mut wire.dropped6 }, addr);
        }
        bencode::encode(&wire).expect("strings in one dictionary have their bencode").into()
    }

    /// Reads a payload; what is beyond [`MAX_NAMED`] is passed over, and so are lists of another type.
    ///
    /// # Errors
    /// When the payload is no bencoded dictionary.
    pub fn parse(payload: &[u8]) -> Result<Self, BencodeError> {
        let dict = Dict::scan(payload, &Limits::MESSAGE)?;
        let list = |key| dict.string(key).unwrap_or_default();
        let traits = |key| {
            let told = list(key).iter().copied().map(Traits);
            told.chain(std::iter::repeat(Traits::default()))
        };
        let v4 = entries::<4>(list("added")).zip(traits("added.f"));
        let v6 = entries::<16>(list("added6")).zip(traits("added6.f"));
        let dropped = entries::<4>(list("dropped")).chain(entries::<16>(list("dropped6")));
        Ok(Self {
            added: v4.chain(v6).take(MAX_NAMED).collect(),
            dropped: dropped.take(MAX_NAMED).collect(),
        })
    }
}
