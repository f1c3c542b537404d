//! A tracker: one desk that remembers, and its windows over HTTP and UDP.
//!
//! ```text
//! TCP ─▶ http ─┐
//!              ├─▶ Desk (one lock, held for one announce) ─▶ Registry
//! UDP ─▶ udp  ─┘
//! ```
//!
//! Invariant: a peer is known by the address that it was seen at; `ip=` and the like are never believed,
//! or anyone could send a swarm against a third party.
//!
//! Not here: who is remembered and given ([`crate::proto::registry`]).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::proto::announce::Answer;
use crate::proto::announce::answer::Scraped;
use crate::proto::registry::{NotServed, Registry, Visit};
use crate::proto::units::InfoHash;

mod http;
mod udp;

/// Connections that the kernel holds until we accept them.
const BACKLOG: i32 = 1024;

/// Bytes that the kernel holds of datagrams until we read them: some 10,000 announces.
const UDP_BUFFER: usize = 2 * 1024 * 1024;

/// Ports tried when the kernel shall choose one that is free for TCP and UDP.
const PORT_TRIES: usize = 16;

/// A running tracker; it ends when dropped.
#[derive(Debug)]
pub struct TrackerServer {
    addrs: Vec<SocketAddr>,
    desk: Arc<Desk>,
    windows: JoinSet<()>,
}

impl TrackerServer {
    /// Listens on each address over TCP and UDP, `[::]` for IPv4 as well; must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// When a socket cannot be bound.
    pub fn bind(listen: &[SocketAddr], registry: Registry) -> io::Result<Self> {
        let desk = Arc::new(Desk::new(registry));
        let mut windows = JoinSet::new();
        let mut addrs = Vec::new();
        for addr in listen {
            let (tcp, udp) = bind_both(*addr)?;
            addrs.push(tcp.local_addr()?);
            windows.spawn(http::serve(tcp, Arc::clone(&desk)));
            windows.spawn(udp::serve(udp, Arc::clone(&desk)));
        }
        Ok(Self { addrs, desk, windows })
    }

    /// Where it listens, with the real ports.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// What it knows and has done.
    pub fn summary(&self) -> Summary {
        self.desk.summary()
    }

    /// Closes all sockets and returns when that is done.
    pub async fn stop(mut self) {
        self.windows.shutdown().await;
    }
}

/// What a tracker knows and has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Torrents known.
    pub torrents: usize,
    /// Peers known.
    pub peers: usize,
    /// Announces answered since the start.
    pub announces: u64,
}

/// Where all announces come together.
#[derive(Debug)]
struct Desk {
    state: Mutex<(Registry, StdRng)>,
    announces: AtomicU64,
}

impl Desk {
    fn new(registry: Registry) -> Self {
        let rng = StdRng::seed_from_u64(rand::random());
        Self { state: Mutex::new((registry, rng)), announces: AtomicU64::new(0) }
    }

    fn announce(&self, visit: &Visit) -> Result<Answer, NotServed> {
        self.announces.fetch_add(1, Ordering::Relaxed);
        let outcome = {
            let (registry, rng) = &mut *self.state.lock();
            registry.announce(visit, Instant::now(), rng)
        };
        tell(visit, &outcome);
        outcome
    }

    fn scrape(&self, torrents: &[InfoHash]) -> Vec<Scraped> {
        let now = Instant::now();
        tracing::debug!(torrents = torrents.len(), "scrape");
        let (registry, _) = &mut *self.state.lock();
        torrents.iter().map(|info_hash| registry.scrape(info_hash, now)).collect()
    }

    fn summary(&self) -> Summary {
        let (registry, _) = &*self.state.lock();
        Summary {
            torrents: registry.torrents(),
            peers: registry.peers(),
            announces: self.announces.load(Ordering::Relaxed),
        }
    }
}

/// Logs an announce and what came of it.
fn tell(visit: &Visit, outcome: &Result<Answer, NotServed>) {
    let Visit { info_hash, addr, left, event, .. } = visit;
    match outcome {
        Ok(answer) => {
            let named = answer.peers.len();
            tracing::debug!(%addr, %info_hash, ?event, left, named, "announce");
        }
        Err(refused) => tracing::debug!(%addr, %info_hash, %refused, "announce refused"),
    }
}

/// TCP and UDP on the same port.
fn bind_both(addr: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    for _ in 1..PORT_TRIES {
        match bind_once(addr) {
            // The kernel chose a TCP port whose UDP twin is taken.
            Err(e) if addr.port() == 0 && e.kind() == io::ErrorKind::AddrInUse => {}
            // A machine without IPv6: its unspecified address then means IPv4's.
            Err(e) if addr.is_ipv6() && addr.ip().is_unspecified() && lacks_family(&e) => {
                return bind_both((Ipv4Addr::UNSPECIFIED, addr.port()).into());
            }
            outcome => return outcome,
        }
    }
    bind_once(addr)
}

fn lacks_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind_once(addr: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let tcp = socket(addr, Type::STREAM, Protocol::TCP)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&addr.into())?;
    tcp.listen(BACKLOG)?;
    let tcp = TcpListener::from_std(tcp.into())?;
    let udp = socket(addr, Type::DGRAM, Protocol::UDP)?;
    // The kernel may grant less; then a burst loses some announces, which peers send again.
    let _ = udp.set_recv_buffer_size(UDP_BUFFER);
    udp.bind(&tcp.local_addr()?.into())?;
    Ok((tcp, UdpSocket::from_std(udp.into())?))
}

fn socket(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
