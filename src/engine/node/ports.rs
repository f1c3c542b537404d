//! Where the process listens: TCP and, if somebody needs it, UDP, in both families at one port.
//!
//! Not here: who is heard there ([`crate::engine::listen`], [`crate::engine::udp_port`]).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;
use tracing::warn;

use super::{NodeError, Reach};
use crate::engine::egress::Egress;
use crate::engine::listen;
use crate::engine::udp_port::UdpPort;

/// The first port that is tried when the user names none, and how many after it.
const PORTS: std::ops::Range<u16> = 6881..6981;

/// Times that the system may choose a port which turns out to be taken for UDP.
const CHOICES: u32 = 16;

/// What listens.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) tcp: Vec<TcpListener>,
    /// `None` also when somebody else has it: a port that the user names is worth having without.
    pub(super) udp: Option<UdpPort>,
    /// 0 when nothing listens.
    pub(super) port: u16,
}

impl Ports {
    /// Listens within this reach. Call it inside the runtime.
    pub(super) fn open(reach: Reach, egress: &Egress, with_udp: bool) -> Result<Self, NodeError> {
        match reach {
            Reach::Offline | Reach::Outward => Ok(Self::default()),
            Reach::At(addr) => Self::at(addr, egress, with_udp),
            Reach::Anywhere => Self::anywhere(egress, with_udp),
        }
    }

    fn at(addr: SocketAddr, egress: &Egress, with_udp: bool) -> Result<Self, NodeError> {
        let mut ports = Self::beside(vec![bind(egress, addr)?], egress, with_udp)?;
        let choices = if addr.port() == 0 { CHOICES } else { 1 };
        for _ in 1..choices {
            if ports.udp.is_some() == with_udp {
                break;
            }
            ports = Self::beside(vec![bind(egress, addr)?], egress, with_udp)?;
        }
        if ports.udp.is_some() != with_udp {
            warn!(%addr, "another program has this UDP port; there will be neither DHT nor uTP");
        }
        Ok(ports)
    }

    fn anywhere(egress: &Egress, with_udp: bool) -> Result<Self, NodeError> {
        let mut refused = None;
        for port in PORTS {
            let v4 = bind(egress, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
            let v6 = bind(egress, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
            let tcp = match (v4, v6) {
                (Ok(v4), Ok(v6)) => vec![v4, v6],
                // A machine without IPv6 has the other family alone.
                (Ok(v4), Err(NodeError::Listen { source, .. }))
                    if source.kind() != io::ErrorKind::AddrInUse =>
                {
                    vec![v4]
                }
                (Err(error), _) | (_, Err(error)) => {
                    refused = Some(error);
                    continue;
                }
            };
            let ports = Self::beside(tcp, egress, with_udp)?;
            if ports.udp.is_some() == with_udp || port + 1 == PORTS.end {
                return Ok(ports);
            }
        }
        Err(refused.expect("the last port is refused where it does not return"))
    }

    /// Listens for UDP where these do, if that is wanted and nobody else has it.
    fn beside(tcp: Vec<TcpListener>, egress: &Egress, with_udp: bool) -> Result<Self, NodeError> {
        let addrs = tcp.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>();
        let addrs = addrs.map_err(|source| NodeError::Listen {
            addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            source,
        })?;
        let port = addrs.first().map_or(0, SocketAddr::port);
        let udp = with_udp.then(|| UdpPort::bind(egress, &addrs)).and_then(Result::ok);
        Ok(Self { tcp, udp, port })
    }
}

fn bind(egress: &Egress, addr: SocketAddr) -> Result<TcpListener, NodeError> {
    listen::bind(egress, addr).map_err(|source| NodeError::Listen { addr, source })
}
