//! Where nodes and peers are, in the compact forms of BEP 5 and BEP 32, and which addresses count as one place.
//!
//! Invariant: an address that was read here can be sent to, and is no nearer than the node that named it: nobody
//! out there makes us talk to what is inside.

use std::net::{IpAddr, SocketAddr};

use super::node_id::NodeId;
use crate::proto::announce::reach::Reach;
use crate::proto::announce::udp::Family;
use crate::proto::announce::{compact, put_compact};
use crate::proto::candidates::is_local;

/// A node by name and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contact {
    /// What it calls itself, or somebody else calls it.
    pub id: NodeId,
    /// Where it takes datagrams.
    pub addr: SocketAddr,
}

/// Addresses that one owner has: an IPv4 address, an IPv6 network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host([u8; 8]);

/// Addresses that one owner gets cheaply: an IPv4 network of 24 bits, an IPv6 network of 48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net([u8; 6]);

impl Host {
    /// The address's host; in a local network each socket is one of its own.
    pub fn of(addr: &SocketAddr) -> Self {
        let local = is_local(addr.ip());
        let [high, low] = if local { addr.port().to_be_bytes() } else { [0; 2] };
        match addr.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                // No global IPv6 address begins like this.
                Self([0, 0, a, b, c, d, high, low])
            }
            IpAddr::V6(ip) if local => {
                let [.., a, b, c, d] = ip.octets();
                Self([0xfd, 0, a, b, c, d, high, low])
            }
            IpAddr::V6(ip) => {
                let octets = ip.octets();
                Self(std::array::from_fn(|n| octets[n]))
            }
        }
    }
}

impl Net {
    /// The address's network; `None` in a local one, where nobody is a stranger's doing.
    pub fn of(ip: IpAddr) -> Option<Self> {
        match ip {
            _ if is_local(ip) => None,
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Some(Self([0, 0, 0, a, b, c]))
            }
            IpAddr::V6(ip) => {
                let octets = ip.octets();
                Some(Self(std::array::from_fn(|n| octets[n])))
            }
        }
    }
}

/// The address's bytes, port included.
pub fn put_addr(addr: &SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(18);
    put_compact(&mut out, addr);
    out
}

/// An address by itself, whoever named it; its length tells the family.
pub fn read_addr(bytes: &[u8]) -> Option<SocketAddr> {
    match bytes.len() {
        6 => compact::<4>(bytes).next(),
        18 => compact::<16>(bytes).next(),
        _ => None,
    }
}

/// The nodes of one family, in their compact form.
pub fn put_nodes(nodes: &[Contact], family: Family) -> Vec<u8> {
    let mut out = Vec::new();
    for node in nodes.iter().filter(|node| Family::of(&node.addr) == family) {
        out.extend(node.id.0);
        put_compact(&mut out, &node.addr);
    }
    out
}

/// Nodes from their compact form; what stands behind the last whole one is left out.
pub fn read_nodes(bytes: &[u8], family: Family) -> impl Iterator<Item = Contact> {
    let addr_len = match family {
        Family::V4 => 6,
        Family::V6 => 18,
    };
    bytes.chunks_exact(20 + addr_len).filter_map(|entry| {
        let (id, addr) = entry.split_first_chunk::<20>()?;
        Some(Contact { id: NodeId(*id), addr: read_addr(addr)? })
    })
}

/// Whether a node there may name this address to us.
pub fn may_name(source: IpAddr, named: IpAddr) -> bool {
    Reach::of(source).is_some_and(|reach| reach.allows(named))
}
