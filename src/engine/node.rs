//! This process as a BitTorrent peer: starts what torrents share, adds torrents, ends them all.

mod ports;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use ports::Ports;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use super::check::Checked;
use super::clock;
use super::dht::{self, Dht};
use super::egress::{Egress, LocalAddrs};
use super::handle::{Handle, Status};
use super::home::{Home, HomeError, Opened};
use super::listen;
use super::lsd::Lsd;
use super::message::{COMMAND_CAPACITY, TO_TORRENT_CAPACITY};
use super::network::{Door, Network, Transports};
use super::port_map::{PortMap, PortMapper};
use super::resources::Resources;
use super::throttle::Rates;
use super::torrent::{Inboxes, Outlets, Torrent};
use super::tracker::{self, Job};
use super::workers::Workers;
use crate::proto::announce::Progress;
use crate::proto::announce::tiers::Pace;
use crate::proto::blocklist::Blocklist;
use crate::proto::config::Config;
use crate::proto::metainfo::Metainfo;
use crate::proto::origin::Origin;
use crate::proto::swarm::{Setup, Swarm};
use crate::proto::units::TorrentId;
use crate::proto::web_seed;

/// Replies of workers that may wait for a torrent's task; the workers wait when there are more.
const DONE_CAPACITY: usize = 256;

/// What a process takes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of verified pieces, pieces under way and the write queue.
    pub memory_bytes: u64,
    /// Bytes of pieces in stores that may be evicted.
    pub store_bytes: u64,
    /// Bytes a second over all connections.
    pub rates: Rates,
}

/// By what ways the process finds and reaches others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// How packets leave; from the address at which peers reach us, whatever `local` says.
    pub egress: Egress,
    /// How it connects to those found.
    pub transports: Transports,
    /// As a node of the DHT (BEP 5).
    pub dht: Option<dht::Settings>,
    /// Calling on the local network (BEP 14).
    pub lsd: bool,
    /// Who is neither dialled nor heard.
    pub blocklist: Arc<Blocklist>,
    /// Whether the router is asked to let peers in.
    pub port_map: PortMap,
}

/// Whether and where the process is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// No peer, no tracker: what is here is all there is.
    Offline,
    /// We dial, and nobody can dial us.
    Outward,
    /// Every address, at the first port from 6881 that is free.
    Anywhere,
    /// This address; port 0 takes a free one.
    At(SocketAddr),
}

/// How a torrent is to be added.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its pieces live.
    pub home: Home,
    /// Peers that the user named.
    pub peers: Vec<SocketAddr>,
    /// Trackers that the user named, beside the torrent's own.
    pub trackers: Vec<String>,
    /// The knobs; `open_bytes` and `upload_limited` are set from [`Limits`], `blocklist` from [`Ways`].
    pub config: Config,
}

/// Why the process cannot be a peer, or the torrent not be added.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The listening socket.
    #[error("cannot listen at {addr}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The chosen network interface.
    #[error("cannot use the network interface {device}")]
    Device {
        /// Its name.
        device: String,
        /// What the system said.
        source: io::Error,
    },
    /// The threads.
    #[error("cannot start worker threads")]
    Threads(#[source] io::Error),
    /// The torrent must not be announced there.
    #[error("the torrent is private (BEP 27), and {0} is not one of its trackers")]
    ForeignTracker(String),
    /// The torrent's data.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// The process as a peer.
#[derive(Debug)]
pub struct Node {
    resources: Arc<Resources>,
    reach: Reach,
    port: u16,
    limits: Limits,
    listeners: Vec<JoinHandle<()>>,
    port_mapper: Mutex<Option<PortMapper>>,
    torrents: Mutex<Vec<(Handle, JoinHandle<()>)>>,
    next_id: AtomicU32,
}

impl Node {
    /// Starts threads and listeners; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is taken, the interface is not there or the system gives no thread.
    pub fn start(reach: Reach, ways: &Ways, limits: Limits) -> Result<Self, NodeError> {
        let local = match reach {
            Reach::At(SocketAddr::V4(addr)) if !addr.ip().is_unspecified() => {
                LocalAddrs { v4: Some(*addr.ip()), v6: None }
            }
            Reach::At(SocketAddr::V6(addr)) if !addr.ip().is_unspecified() => {
                LocalAddrs { v4: None, v6: Some(*addr.ip()) }
            }
            Reach::At(_) | Reach::Anywhere | Reach::Outward | Reach::Offline => {
                LocalAddrs::default()
            }
        };
        let egress = Egress { local, ..ways.egress.clone() };
        if let Some(device) = egress.device.clone() {
            egress.check().map_err(|source| NodeError::Device { device, source })?;
        }
        let Ports { tcp, udp, port } = Ports::open(reach, &egress, ways.dht.is_some())?;
        let lsd = (ways.lsd && reach != Reach::Offline).then(|| Lsd::start(&egress, port));
        let network = Network::new(egress).by(ways.transports).without(ways.blocklist.clone());
        let network = network.limited(limits.rates).recycling(limits.memory_bytes);
        let network = Arc::new(network.with_udp(udp.map(Arc::new)));
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let workers = Workers::start(cores.clamp(2, 4)).map_err(NodeError::Threads)?;
        let dht = ways.dht.clone().zip(network.udp_port().cloned());
        let dht = dht.map(|(settings, port)| Dht::start(settings, port));
        let mut resources =
            Resources::new(network, workers, limits.memory_bytes, limits.store_bytes);
        (resources.lsd, resources.dht) = (lsd, dht);
        let listeners = tcp
            .into_iter()
            .map(|socket| tokio::spawn(listen::serve(resources.network.clone(), socket)))
            .collect();
        let resources = Arc::new(resources);
        let port_mapper = NonZeroU16::new(port).and_then(|port| {
            let told = resources.clone();
            let egress = &resources.network.egress;
            PortMapper::start(ways.port_map, port, egress, move |addr| told.reached_at(addr))
        });
        Ok(Self {
            resources,
            reach,
            port,
            limits,
            listeners,
            port_mapper: Mutex::new(port_mapper),
            torrents: Mutex::default(),
            next_id: AtomicU32::new(0),
        })
    }

    /// The port where peers reach us; 0 when they cannot.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Adds a torrent. What an earlier run left is taken up; `progress` hears of what has to be hashed before that.
    ///
    /// # Errors
    /// When its data cannot be opened or belongs to another process, or it is private and a tracker is not its own.
    pub async fn add(
        &self,
        metainfo: Arc<Metainfo>,
        options: Options,
        progress: impl FnMut(&Checked) + Send + 'static,
    ) -> Result<Handle, NodeError> {
        let may_announce =
            |url: &&String| Origin::of_tracker(url, &metainfo.trackers).may_serve(metainfo.private);
        if let Some(url) = options.trackers.iter().find(|url| !may_announce(url)) {
            return Err(NodeError::ForeignTracker(url.clone()));
        }
        let id = TorrentId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let resources = self.resources.clone();
        let home = options.home.clone();
        let opened = spawn_blocking(move || home.open(id, metainfo, &resources, progress));
        let opened = opened.await.expect("opening a store does not panic")?;
        Ok(self.serve(opened, options))
    }

    /// Ends every torrent, and returns when their state is saved.
    pub async fn stop(&self) {
        self.listeners.iter().for_each(JoinHandle::abort);
        let port_mapper = self.port_mapper.lock().take();
        let unmapped = port_mapper.map(|port_mapper| tokio::spawn(port_mapper.stop()));
        let torrents = std::mem::take(&mut *self.torrents.lock());
        let goodbyes: Vec<_> = torrents
            .into_iter()
            .map(|(handle, task)| {
                tokio::spawn(async move {
                    handle.stop().await;
                    // A panic there is told already.
                    let _ = task.await;
                })
            })
            .collect();
        for goodbye in goodbyes.into_iter().chain(unmapped) {
            let _ = goodbye.await;
        }
        if let Some(dht) = &self.resources.dht {
            dht.stop().await;
        }
    }

    fn serve(&self, opened: Opened, options: Options) -> Handle {
        let Opened { content, doubted, lock } = opened;
        let metainfo = content.metainfo.clone();
        let (to_torrent, from_peers) = mpsc::channel(TO_TORRENT_CAPACITY);
        let (commands, command_inbox) = mpsc::channel(COMMAND_CAPACITY);
        let (done, done_inbox) = mpsc::channel(DONE_CAPACITY);
        let (to_trackers, trackers) = mpsc::channel(TO_TORRENT_CAPACITY);
        // Right from the first announce on: trackers count seeds by it, and give them other peers.
        let total = metainfo.geometry.total();
        let have_bytes = content.have.resident_bytes(&(0..total));
        let left = total - have_bytes;
        let have = content.have.count();
        let (status, watch_status) =
            watch::channel(Status { have, have_bytes, ..Status::default() });
        let (progress, watch_progress) = watch::channel(Progress { left, ..Progress::default() });
        let peer_id = clock::peer_id();
        let dht = self.resources.dht.as_ref();
        let dht = dht.filter(|_| Origin::Dht.may_serve(metainfo.private));
        let door = Door {
            info_hash: metainfo.info_hash,
            peer_id,
            dht: dht.is_some(),
            pieces: Some(metainfo.geometry.piece_count()),
            to_torrent,
        };
        let online = self.reach != Reach::Offline;
        let now = clock::now();
        let mut config = options.config;
        config.blocklist = self.resources.network.blocklist.clone();
        config.dht = dht.is_some();
        config.upload_limited = self.limits.rates.up.is_some();
        config.open_bytes = self.resources.assembling.share(content.id, 0);
        // A window must not push its own pieces out of the store.
        config.max_window = config.max_window.min(self.limits.store_bytes / 4);
        let fill = config.fill && online;
        let mut swarm = Swarm::new(
            Setup {
                geometry: metainfo.geometry.clone(),
                have: content.have.snapshot(),
                private: metainfo.private,
                peer_id,
                listen_port: self.port,
                config,
                seed: clock::seed(),
            },
            now,
        );
        swarm.doubt(&doubted, now);
        let tracker = online.then(|| {
            self.resources.network.open(door.clone());
            swarm.handle_candidates(options.peers, Origin::User, now);
            let web_seeds = (0..).zip(&metainfo.web_seeds).map(|(n, _)| web_seed::address(n));
            swarm.handle_candidates(web_seeds, Origin::Torrent, now);
            let mut tiers = metainfo.trackers.clone();
            tiers.extend(options.trackers.into_iter().map(|url| vec![url]));
            let job = Job {
                tiers,
                info_hash: metainfo.info_hash,
                private: metainfo.private,
                peer_id,
                port: self.port,
                pace: Pace::default(),
                seed: clock::seed(),
            };
            tracker::spawn(job, self.resources.trackers.clone(), watch_progress, to_trackers)
        });
        self.resources.enlist(content.id, commands.clone());
        if let Some(lsd) = &self.resources.lsd
            && Origin::Lsd.may_serve(metainfo.private)
        {
            lsd.join(metainfo.info_hash, commands.clone());
        }
        if let Some(dht) = dht {
            dht.enter_by(metainfo.nodes.clone());
            dht.join(metainfo.info_hash, commands.clone());
        }
        let inboxes = Inboxes { from_peers, commands: command_inbox, done: done_inbox, trackers };
        let outlets = Outlets { done, commands: commands.clone(), status, progress };
        let resources = self.resources.clone();
        let torrent =
            Torrent::new(swarm, content.clone(), resources.clone(), door, tracker, outlets, fill);
        let handle = Handle::new(content, resources, commands, watch_status);
        let task = tokio::spawn(async move {
            torrent.run(inboxes).await;
            drop(lock);
        });
        self.torrents.lock().push((handle.clone(), task));
        handle
    }
}
