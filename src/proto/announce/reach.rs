//! Which addresses a tracker's or web seed's URL, or a peer that names others, may lead to.
//!
//! Anyone can write a torrent, so a tracker's URL is a stranger's wish that this machine send a request
//! somewhere. Without these rules it could be aimed at services that trust their own machine or network.
//!
//! Invariant: link-local addresses (where clouds keep credentials) are never allowed.
//!
//! Not here: resolving names; whoever dials asks [`Reach::allows`] for the very address it dials.

use std::net::{IpAddr, Ipv6Addr};

/// How near an address may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Only the open internet.
    Global,
    /// Also private networks, but not this machine.
    Private,
    /// Also this machine.
    Loopback,
}

impl Reach {
    /// All, from the strictest.
    pub const ALL: [Self; 3] = [Self::Global, Self::Private, Self::Loopback];

    /// For an HTTP URL with this path; `came_from` is the server that redirected to it, if any.
    pub fn of_http(path: &str, came_from: Option<IpAddr>) -> Self {
        match came_from {
            // A server out there has no business with the inside.
            Some(ip) if distance(ip) == Some(Self::Global) => Self::Global,
            _ if path.starts_with("/announce") => Self::Loopback,
            _ => Self::Private,
        }
    }

    /// For a web seed with a query in its URL or without. What trusts its own machine or network may heed a query; a
    /// path alone asks for a file.
    pub fn of_web_seed(has_query: bool, came_from: Option<IpAddr>) -> Self {
        match came_from {
            Some(ip) if distance(ip) == Some(Self::Global) => Self::Global,
            _ if has_query => Self::Global,
            _ => Self::Loopback,
        }
    }

    /// For a UDP tracker. Its packets cannot be mistaken for another protocol's.
    pub const fn of_udp() -> Self {
        Self::Loopback
    }

    /// For an address that is named by whoever is at this one: nobody out there is believed about the inside, and
    /// nobody out there is told of it.
    pub fn of_neighbour(ip: IpAddr) -> Self {
        distance(ip).unwrap_or(Self::Global)
    }

    /// How near the address is; `None` for those that are never dialled.
    pub fn of(ip: IpAddr) -> Option<Self> {
        distance(ip)
    }

    /// Whether the address may be dialled.
    pub fn allows(self, ip: IpAddr) -> bool {
        distance(ip).is_some_and(|distance| distance <= self)
    }
}

/// How near this address is; `None` for those that are never dialled.
fn distance(ip: IpAddr) -> Option<Reach> {
    match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() => Some(Reach::Loopback),
        IpAddr::V4(ip) if ip.is_link_local() || ip.is_broadcast() || ip.is_multicast() => None,
        // 0.0.0.0/8 reaches this machine on Linux.
        IpAddr::V4(ip) if ip.octets()[0] == 0 => None,
        IpAddr::V4(ip) if ip.is_private() || is_shared(ip.octets()) => Some(Reach::Private),
        IpAddr::V4(_) => Some(Reach::Global),
        IpAddr::V6(ip) => distance_v6(ip),
    }
}

fn distance_v6(ip: Ipv6Addr) -> Option<Reach> {
    if ip.is_loopback() {
        return Some(Reach::Loopback);
    }
    if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() {
        return None;
    }
    if let Some(inside) = translated(ip) {
        return distance(IpAddr::V4(inside.into()));
    }
    let private = ip.is_unique_local() || ip.segments()[0] & 0xffc0 == 0xfec0;
    Some(if private { Reach::Private } else { Reach::Global })
}

/// Carrier-grade NAT, 100.64.0.0/10.
const fn is_shared(octets: [u8; 4]) -> bool {
    octets[0] == 100 && octets[1] & 0xc0 == 64
}

/// The IPv4 address inside a NAT64 (64:ff9b::/96) or 6to4 (2002::/16) address.
fn translated(ip: Ipv6Addr) -> Option<[u8; 4]> {
    let o = ip.octets();
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some([o[12], o[13], o[14], o[15]]),
        [0x2002, ..] => Some([o[2], o[3], o[4], o[5]]),
        _ => None,
    }
}
