//! What all connections of the process share: their numbers, their limits, and the torrents' doors.
//!
//! Invariant: a [`PeerKey`] is given out once.
//!
//! Not here: how many connections a torrent wants, and how many from one address (the swarm closes
//! those beyond).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::egress::Egress;
use super::message::FromPeer;
use super::pool::Pool;
use super::throttle::{Rates, Throttle};
use super::udp_port::UdpPort;
use super::utp::Utp;
use crate::proto::blocklist::Blocklist;
use crate::proto::mse::{Encryption, obscured};
use crate::proto::units::{BLOCK_LEN, InfoHash, PeerId, PeerKey};

/// Dials under way at once; further ones wait for their turn.
pub const HALF_OPEN: usize = 50;

/// Incoming handshakes under way at once, over TCP and over uTP each, where an address is easily forged; further
/// ones wait in the kernel's backlog, or are reset.
pub const SHAKING: usize = 50;

/// Connections at once, over all torrents and both ways; further ones are refused.
pub const CONNECTIONS: usize = 200;

/// Free block buffers kept for the next burst, unless [`Network::recycling`] says more: 4 MiB.
const FREE_BLOCKS: usize = 256;

/// How connections of one torrent introduce themselves, and where they report.
#[derive(Clone, Debug)]
pub struct Door {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Our name in its swarm.
    pub peer_id: PeerId,
    /// Whether peers are told that we are a node of the DHT.
    pub dht: bool,
    /// Pieces in the torrent, once that is known.
    pub pieces: Option<u32>,
    /// The torrent's task.
    pub to_torrent: mpsc::Sender<FromPeer>,
}

/// How connections are made, by us or by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// Whether they may be, or must be, encrypted.
    pub encryption: Encryption,
    /// Whether over TCP.
    pub tcp: bool,
    /// Whether over uTP (BEP 29).
    pub utp: bool,
}

impl Default for Transports {
    /// Any way.
    fn default() -> Self {
        Self { encryption: Encryption::default(), tcp: true, utp: true }
    }
}

/// One for the process, shared by every dial, listener and torrent.
#[derive(Debug)]
pub struct Network {
    pub(super) egress: Egress,
    /// Who is neither dialled nor heard.
    pub(super) blocklist: Arc<Blocklist>,
    pub(super) pool: Pool,
    pub(super) up: Throttle,
    pub(super) down: Throttle,
    pub(super) transports: Transports,
    udp: Option<Arc<UdpPort>>,
    pub(super) utp: Option<Utp>,
    pub(super) half_open: Semaphore,
    connections: Semaphore,
    pub(super) shaking: Arc<Semaphore>,
    pub(super) shaking_utp: Arc<Semaphore>,
    doors: RwLock<HashMap<InfoHash, Door>>,
    next_key: AtomicU64,
}

impl Network {
    /// A network without torrents, whose connections leave by `egress`.
    pub fn new(egress: impl Into<Egress>) -> Self {
        Self {
            egress: egress.into(),
            blocklist: Arc::default(),
            pool: Pool::new(FREE_BLOCKS),
            up: Throttle::default(),
            down: Throttle::default(),
            transports: Transports::default(),
            udp: None,
            utp: None,
            half_open: Semaphore::new(HALF_OPEN),
            connections: Semaphore::new(CONNECTIONS),
            shaking: Arc::new(Semaphore::new(SHAKING)),
            shaking_utp: Arc::new(Semaphore::new(SHAKING)),
            doors: RwLock::default(),
            next_key: AtomicU64::new(0),
        }
    }

    /// The same without those on the list.
    #[must_use]
    pub fn without(self, blocklist: Arc<Blocklist>) -> Self {
        Self { blocklist, ..self }
    }

    /// The same with limits on what connections carry. Call it inside the runtime.
    #[must_use]
    pub fn limited(self, rates: Rates) -> Self {
        Self { up: Throttle::new(rates.up), down: Throttle::new(rates.down), ..self }
    }

    /// The same with a UDP port.
    #[must_use]
    pub fn with_udp(self, udp: Option<Arc<UdpPort>>) -> Self {
        Self { udp, ..self }
    }

    /// The same with so many bytes of block buffers kept for use again. As many as may be under way: given back
    /// to the allocator, those of one burst would stand beside those of the next, in the heaps of other threads.
    #[must_use]
    pub fn recycling(self, bytes: u64) -> Self {
        let blocks = usize::try_from(bytes / u64::from(BLOCK_LEN)).unwrap_or(usize::MAX);
        Self { pool: Pool::new(blocks.max(FREE_BLOCKS)), ..self }
    }

    /// The same with connections made in other ways.
    #[must_use]
    pub fn by(self, transports: Transports) -> Self {
        Self { transports, ..self }
    }

    /// The UDP side of the port where we listen, if there is one.
    pub fn udp_port(&self) -> Option<&Arc<UdpPort>> {
        self.udp.as_ref()
    }

    /// The same with uTP, which then is dialled too.
    #[must_use]
    pub fn with_utp(self, utp: Option<Utp>) -> Self {
        Self { utp, ..self }
    }

    /// Lets incoming connections through to the torrent; a second door of a torrent replaces its first.
    pub fn open(&self, door: Door) {
        self.doors.write().insert(door.info_hash, door);
    }

    /// Turns incoming connections for the torrent away from now on.
    pub fn shut(&self, info_hash: InfoHash) {
        self.doors.write().remove(&info_hash);
    }

    /// The torrent's door, while it is open.
    pub fn door(&self, info_hash: InfoHash) -> Option<Door> {
        self.doors.read().get(&info_hash).cloned()
    }

    /// The open door of the torrent that a peer names so (see [`obscured`]).
    pub(super) fn door_named(&self, name: [u8; 20]) -> Option<Door> {
        let doors = self.doors.read();
        doors.values().find(|door| obscured(door.info_hash) == name).cloned()
    }

    /// A place among the connections, given back on drop; `None` while all are taken.
    pub(super) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.connections.try_acquire().ok()
    }

    pub(super) fn next_key(&self) -> PeerKey {
        PeerKey(self.next_key.fetch_add(1, Ordering::Relaxed))
    }
}

/// The address with an IPv4-mapped IPv6 address as what it is, so that one peer has one address.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
