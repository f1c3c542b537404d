//! What ut_holepunch carries (BEP 55): two peers that cannot dial each other are told by a third to dial at once.
//!
//! Not here: who asks whom, and who helps (the swarm).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

/// One message of ut_holepunch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// 0: the sender would reach this peer, with which the receiver is connected.
    Rendezvous(SocketAddr),
    /// 1: the receiver should dial this peer now, which dials it too.
    Connect(SocketAddr),
    /// 2: the receiver cannot be brought together with this peer.
    Refused(SocketAddr, Refusal),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 1: no peer could be there.
    NoSuchPeer = 1,
    /// 2: the helper is not connected with it.
    NotConnected = 2,
    /// 3: it does not speak ut_holepunch.
    NoSupport = 3,
    /// 4: it is who asks.
    NoSelf = 4,
}

impl Refusal {
    const ALL: [Self; 4] = [Self::NoSuchPeer, Self::NotConnected, Self::NoSupport, Self::NoSelf];
}

impl Word {
    /// The payload.
    pub fn encode(&self) -> Bytes {
        let (kind, addr, refusal) = match *self {
            Self::Rendezvous(addr) => (0, addr, 0),
            Self::Connect(addr) => (1, addr, 0),
            Self::Refused(addr, refusal) => (2, addr, refusal as u32),
        };
        let mut out = vec![kind, u8::from(addr.is_ipv6())];
        match addr.ip() {
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
        out.extend(addr.port().to_be_bytes());
        out.extend(refusal.to_be_bytes());
        out.into()
    }

    /// Reads a payload; `None` when it makes no sense. libtorrent leaves the code out where there is no error.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (&[kind, family], rest) = payload.split_first_chunk()?;
        let (ip, rest): (IpAddr, _) = match family {
            0 => rest.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest))?,
            1 => rest.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest))?,
            _ => return None,
        };
        let (port, rest) = rest.split_first_chunk()?;
        let addr = SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(*port));
        match kind {
            0 => Some(Self::Rendezvous(addr)),
            1 => Some(Self::Connect(addr)),
            2 => {
                let code = u32::from_be_bytes(*rest.first_chunk()?);
                let refusal = Refusal::ALL.into_iter().find(|known| *known as u32 == code)?;
                Some(Self::Refused(addr, refusal))
            }
            _ => None,
        }
    }
}
