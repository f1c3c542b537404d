//! Names of DHT nodes and how far they are apart (BEP 5), and which names an address may bear (BEP 42).
//!
//! Not here: who is believed ([`super::table`], [`super::lookup`]).

use std::fmt;
use std::net::IpAddr;

use rand::{Rng, RngExt};

use crate::proto::candidates::is_local;
use crate::proto::units::InfoHash;

/// Bits of an id.
pub const ID_BITS: usize = 160;

/// Which bits of an address decide its ids (BEP 42): the further to the right, the easier they are to change.
const MASK_V4: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];
const MASK_V6: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];

/// Name of a node, in the space of info-hashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 20]);

/// How far two ids are apart: their XOR as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance(pub [u8; 20]);

impl NodeId {
    /// Any id.
    pub fn random(rng: &mut impl Rng) -> Self {
        Self(rng.random())
    }

    /// An id that a node at this address should have (BEP 42).
    pub fn of_ip(ip: IpAddr, rng: &mut impl Rng) -> Self {
        let mut id = Self::random(rng);
        let [first, second, third] = prefix(ip, id.0[19]);
        id.0[0] = first;
        id.0[1] = second;
        id.0[2] = third | (id.0[2] & 0x07);
        id
    }

    /// Whether a node at this address may bear the id (BEP 42); in a local network it may bear any.
    pub fn fits(&self, ip: IpAddr) -> bool {
        let [first, second, third] = prefix(ip, self.0[19]);
        is_local(ip) || [self.0[0], self.0[1], self.0[2] & 0xf8] == [first, second, third]
    }

    /// An id that has exactly so many leading bits in common with this one.
    pub fn sharing(&self, bits: usize, rng: &mut impl Rng) -> Self {
        let mut id = Self::random(rng);
        for bit in 0..=bits.min(ID_BITS - 1) {
            let (byte, mask) = (bit / 8, 0x80 >> (bit % 8));
            let same = (self.0[byte] & mask != 0) == (bit < bits);
            id.0[byte] = if same { id.0[byte] | mask } else { id.0[byte] & !mask };
        }
        id
    }

    /// How far it is to the other.
    pub fn distance(&self, other: &Self) -> Distance {
        Distance(std::array::from_fn(|n| self.0[n] ^ other.0[n]))
    }

    /// Leading bits that both have in common; [`ID_BITS`] for the same id.
    pub fn shared_bits(&self, other: &Self) -> usize {
        let Distance(apart) = self.distance(other);
        let same = apart.iter().take_while(|byte| **byte == 0).count();
        same * 8 + apart.get(same).map_or(0, |byte| byte.leading_zeros() as usize)
    }
}

impl From<InfoHash> for NodeId {
    fn from(info_hash: InfoHash) -> Self {
        Self(info_hash.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The first 21 bits of an address's ids; `salt` is the id's last byte.
fn prefix(ip: IpAddr, salt: u8) -> [u8; 3] {
    let salt = salt & 0x07;
    let crc = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mut masked: [u8; 4] = std::array::from_fn(|n| ip.octets()[n] & MASK_V4[n]);
            masked[0] |= salt << 5;
            crc32c(&masked)
        }
        IpAddr::V6(ip) => {
            let mut masked: [u8; 8] = std::array::from_fn(|n| ip.octets()[n] & MASK_V6[n]);
            masked[0] |= salt << 5;
            crc32c(&masked)
        }
    };
    let [first, second, third, _] = crc.to_be_bytes();
    [first, second, third & 0xf8]
}

/// CRC-32 by Castagnoli's polynomial, bit by bit: it sees eight bytes at a time at most.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}
