//! The info dictionary from peer to peer (BEP 9, ut_metadata): what is said on the wire.
//!
//! Invariant: a number from a peer is bounded before anything is made of it.
//!
//! Not here: whom to ask for what ([`fetch`]), answering others ([`serve`]), the numbers and sizes of the extension
//! handshake ([`super::wire::extension`]).

pub mod fetch;
pub mod serve;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bencode::{self, Limits};
use super::units::BLOCK_LEN;

/// What one side says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The sender wants this block.
    Request(u32),
    /// A block.
    Data {
        /// Which.
        block: u32,
        /// Bytes of the whole dictionary, as the sender has it.
        total: u32,
        /// The block's bytes.
        data: Bytes,
    },
    /// The sender does not give this block.
    Reject(u32),
}

const REQUEST: u8 = 0;
const DATA: u8 = 1;
const REJECT: u8 = 2;

#[derive(Serialize, Deserialize)]
struct Head {
    msg_type: i64,
    piece: i64,
    total_size: Option<i64>,
}

impl Word {
    /// Reads a message of the extension; `None` when it is none that BEP 9 knows.
    pub fn parse(payload: &Bytes) -> Option<Self> {
        let (head, rest): (Head, _) = bencode::parse_prefix(payload, &Limits::MESSAGE).ok()?;
        let block = u32::try_from(head.piece).ok()?;
        match u8::try_from(head.msg_type).ok()? {
            REQUEST => Some(Self::Request(block)),
            DATA => {
                let total = u32::try_from(head.total_size?).ok()?;
                let data = payload.slice(payload.len() - rest.len()..);
                Some(Self::Data { block, total, data })
            }
            REJECT => Some(Self::Reject(block)),
            _ => None,
        }
    }

    /// The message's payload.
    pub fn encode(&self) -> Bytes {
        let (kind, block, total, data): (_, _, _, &[u8]) = match self {
            Self::Request(block) => (REQUEST, block, None, &[]),
            Self::Data { block, total, data } => (DATA, block, Some(i64::from(*total)), data),
            Self::Reject(block) => (REJECT, block, None, &[]),
        };
        let head = Head { msg_type: kind.into(), piece: (*block).into(), total_size: total };
        let mut payload = bencode::encode(&head).expect("three integers have their bencode");
        payload.extend_from_slice(data);
        payload.into()
    }
}

/// Blocks of a dictionary of so many bytes.
pub const fn block_count(total: u32) -> u32 {
    total.div_ceil(BLOCK_LEN)
}

/// Bytes of one of its blocks; 0 for one that it does not have.
pub const fn block_len(total: u32, block: u32) -> u32 {
    let left = (total as u64).saturating_sub(block as u64 * BLOCK_LEN as u64);
    if left < BLOCK_LEN as u64 { left as u32 } else { BLOCK_LEN }
}
