//! This process as a BitTorrent peer: starts what torrents share, adds torrents, ends them all.

mod ports;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use ports::Ports;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use url::Url;

use super::check::Checked;
use super::clock;
use super::content::Content;
use super::description;
use super::dht::{self, Dht};
use super::egress::{Egress, LocalAddrs};
use super::handle::{Handle, Status};
use super::home::{Home, HomeError, Opened};
use super::introduction::{self, Company, Known, Seeking};
use super::listen;
use super::lsd::Lsd;
use super::message::Command;
use super::network::{Network, Transports};
use super::port_map::{Carrier, PortMap, PortMapper};
use super::presence::{Announced, Presence};
use super::resources::Resources;
use super::throttle::Rates;
use super::torrent::{Inboxes, Outlets, Torrent};
use super::tracker::FetchError;
use super::utp::Utp;
use super::workers::Workers;
use crate::proto::announce::Progress;
use crate::proto::bitfield::Bitfield;
use crate::proto::blocklist::Blocklist;
use crate::proto::config::Config;
use crate::proto::dials::Dials;
use crate::proto::introduction::{Introduction, Setup as Beginning};
use crate::proto::magnet::Magnet;
use crate::proto::metainfo::Metainfo;
use crate::proto::origin::Origin;
use crate::proto::swarm::{Setup, Swarm};
use crate::proto::units::{BLOCK_LEN, TorrentId};
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
    /// The knobs; `open_bytes` and `upload_limited` are set from [`Limits`], `blocklist` and `punch` from [`Ways`].
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
    /// What is to be fetched is elsewhere, and nobody is asked.
    #[error("is not here, and nothing is fetched (--offline)")]
    Offline,
    /// A document from a web server.
    #[error("cannot be fetched")]
    Fetch(#[from] FetchError),
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
    /// Torrents that are not known yet, or were not when they were added: their tasks, and the sign that these ended.
    seeks: Mutex<Vec<(mpsc::Sender<Command>, watch::Receiver<introduction::Status>)>>,
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
        let with_udp = ways.transports.utp || ways.dht.is_some();
        let Ports { tcp, udp, port } = Ports::open(reach, &egress, with_udp)?;
        let lsd = (ways.lsd && reach != Reach::Offline).then(|| Lsd::start(&egress, port));
        let udp = udp.map(Arc::new);
        let utp = udp.clone().filter(|_| ways.transports.utp).map(Utp::start);
        let network = Network::new(egress).by(ways.transports).without(ways.blocklist.clone());
        let network = network.with_udp(udp).with_utp(utp);
        let network = network.limited(limits.rates).recycling(limits.memory_bytes);
        let network = Arc::new(network);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let workers = Workers::start(cores.clamp(2, 4)).map_err(NodeError::Threads)?;
        let dht = ways.dht.clone().zip(network.udp_port().cloned());
        let dht = dht.map(|(settings, port)| Dht::start(settings, port, ways.blocklist.clone()));
        let mut resources =
            Resources::new(network, workers, limits.memory_bytes, limits.store_bytes);
        (resources.lsd, resources.dht) = (lsd, dht);
        let network = &resources.network;
        let listeners = tcp
            .into_iter()
            .filter(|_| ways.transports.tcp)
            .map(|socket| tokio::spawn(listen::serve(network.clone(), socket)))
            .chain([tokio::spawn(listen::serve_utp(network.clone()))])
            .collect();
        let resources = Arc::new(resources);
        let port_mapper = NonZeroU16::new(port).and_then(|port| {
            let told = resources.clone();
            let tcp = ways.transports.tcp.then_some(Carrier::Tcp);
            let udp = with_udp.then_some(Carrier::Udp);
            let (carriers, egress) = (tcp.into_iter().chain(udp), &resources.network.egress);
            let told = move |addr| told.reached_at(addr);
            PortMapper::start(ways.port_map, port, carriers, egress, told)
        });
        Ok(Self {
            resources,
            reach,
            port,
            limits,
            listeners,
            port_mapper: Mutex::new(port_mapper),
            torrents: Mutex::default(),
            seeks: Mutex::default(),
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
        if let Some(url) = options.trackers.iter().find(|url| !may_announce(url, &metainfo)) {
            return Err(NodeError::ForeignTracker(url.clone()));
        }
        let id = self.next_id();
        let opened = self.open(id, metainfo, &options, progress).await?;
        let presence = self.presence(&opened, &options);
        Ok(self.serve(opened, options, presence, Company::default()))
    }

    /// The document at a URL that the user typed, of so many bytes at most; from nowhere when offline.
    ///
    /// # Errors
    /// When it cannot be had, is longer, or the URL leads where none may.
    pub async fn fetch(&self, url: &Url, most: usize) -> Result<Vec<u8>, NodeError> {
        if self.online().is_none() {
            return Err(NodeError::Offline);
        }
        Ok(self.resources.trackers.fetch(url, most).await?)
    }

    /// Begins to ask peers what the torrent is that a magnet link names. Once it is known, [`Self::adopt`] it.
    pub fn seek(&self, magnet: Magnet, options: &Options) -> Seeking {
        let id = self.next_id();
        let tiers = magnet.trackers.iter().chain(&options.trackers).map(|url| vec![url.clone()]);
        let announced = Announced {
            info_hash: magnet.info_hash,
            pieces: None,
            private: false,
            tiers: tiers.collect(),
            // How much is not known; none would mean a seed.
            progress: Progress { left: u64::from(BLOCK_LEN), ..Progress::default() },
            nodes: Vec::new(),
        };
        let presence = Presence::new(announced, &self.resources, self.online());
        let beginning = Beginning {
            info_hash: magnet.info_hash,
            peer_id: presence.peer_id(),
            listen_port: self.port,
            config: Config {
                blocklist: self.resources.network.blocklist.clone(),
                ..options.config.clone()
            },
            seed: clock::seed(),
        };
        let now = clock::now();
        let mut introduction = Introduction::new(beginning, now);
        let named = options.peers.iter().chain(&magnet.peers).copied();
        introduction.handle_candidates(named, Origin::User, now);
        let (commands, resources) = (presence.commands.clone(), self.resources.clone());
        let seeking = introduction::seek(id, Arc::new(magnet), introduction, presence, resources);
        self.seeks.lock().push((commands, seeking.watch()));
        seeking
    }

    /// Adds a torrent that has become known, with the options that it was sought with; peers that are connected stay
    /// so, unless it is private. It is kept what it is, for the next time.
    ///
    /// # Errors
    /// When its data cannot be opened or belongs to another process.
    pub async fn adopt(&self, known: Known, mut options: Options) -> Result<Handle, NodeError> {
        let Known { metainfo, magnet, id, mut presence, company } = known;
        // Whoever asked for them did not know; from here on BEP 27 holds.
        options.trackers.retain(|url| may_announce(url, &metainfo));
        let (home, info) = (options.home.clone(), metainfo.info.clone());
        let opened = match self.open(id, metainfo, &options, |_| {}).await {
            Ok(opened) => opened,
            Err(error) => {
                presence.end(&self.resources).await;
                return Err(error);
            }
        };
        // In its own time: nobody waits for it.
        spawn_blocking(move || description::save(&home, &magnet, &info));
        let metainfo = opened.content.metainfo.clone();
        if metainfo.private {
            presence.end(&self.resources).await;
            presence = self.presence(&opened, &options);
            return Ok(self.serve(opened, options, presence, Company::default()));
        }
        presence.known(metainfo.geometry.piece_count(), &self.resources);
        Ok(self.serve(opened, options, presence, company))
    }

    /// Only what the torrent is was asked for: lets those go who told us, and says good-bye to the trackers.
    pub async fn decline(&self, known: Known) -> Arc<Metainfo> {
        known.presence.end(&self.resources).await;
        known.metainfo
    }

    /// Ends every torrent, and returns when their state is saved.
    pub async fn stop(&self) {
        self.listeners.iter().for_each(JoinHandle::abort);
        let port_mapper = self.port_mapper.lock().take();
        let unmapped = port_mapper.map(|port_mapper| tokio::spawn(port_mapper.stop()));
        let seeks = std::mem::take(&mut *self.seeks.lock());
        let mut goodbyes: Vec<_> = seeks
            .into_iter()
            .map(|(commands, mut status)| {
                tokio::spawn(async move {
                    let (done, _) = oneshot::channel();
                    let _ = commands.try_send(Command::Stop { done });
                    // An error is the sign: the task has dropped its end.
                    while status.changed().await.is_ok() {}
                })
            })
            .collect();
        let torrents = std::mem::take(&mut *self.torrents.lock());
        goodbyes.extend(torrents.into_iter().map(|(handle, task)| {
            tokio::spawn(async move {
                handle.stop().await;
                // A panic there is told already.
                let _ = task.await;
            })
        }));
        for goodbye in goodbyes.into_iter().chain(unmapped) {
            let _ = goodbye.await;
        }
        if let Some(dht) = &self.resources.dht {
            dht.stop().await;
        }
    }

    fn next_id(&self) -> TorrentId {
        TorrentId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// The port to announce, unless nobody is to hear of us.
    fn online(&self) -> Option<u16> {
        (self.reach != Reach::Offline).then_some(self.port)
    }

    async fn open(
        &self,
        id: TorrentId,
        metainfo: Arc<Metainfo>,
        options: &Options,
        progress: impl FnMut(&Checked) + Send + 'static,
    ) -> Result<Opened, NodeError> {
        let (resources, home) = (self.resources.clone(), options.home.clone());
        let opened = spawn_blocking(move || home.open(id, metainfo, &resources, progress));
        Ok(opened.await.expect("opening a store does not panic")?)
    }

    fn presence(&self, opened: &Opened, options: &Options) -> Presence {
        let metainfo = &opened.content.metainfo;
        let mut tiers = metainfo.trackers.clone();
        tiers.extend(options.trackers.iter().map(|url| vec![url.clone()]));
        // Right from the first announce on: trackers count seeds by it, and give them other peers.
        let total = metainfo.geometry.total();
        let left = total - opened.content.have.resident_bytes(&(0..total));
        let announced = Announced {
            info_hash: metainfo.info_hash,
            pieces: Some(metainfo.geometry.piece_count()),
            private: metainfo.private,
            tiers,
            progress: Progress { left, ..Progress::default() },
            nodes: metainfo.nodes.clone(),
        };
        Presence::new(announced, &self.resources, self.online())
    }

    fn serve(
        &self,
        opened: Opened,
        options: Options,
        presence: Presence,
        company: Company,
    ) -> Handle {
        let Opened { content, doubted, lock } = opened;
        let fill = options.config.fill && self.online().is_some();
        let swarm = self.swarm(&content, &doubted, options, &presence, company.met);
        let (done, done_inbox) = mpsc::channel(DONE_CAPACITY);
        let total = content.metainfo.geometry.total();
        let have_bytes = content.have.resident_bytes(&(0..total));
        let have = content.have.count();
        let (status, watch_status) =
            watch::channel(Status { have, have_bytes, ..Status::default() });
        let Presence { door, tracker, progress, commands, from_peers, command_inbox, trackers } =
            presence;
        self.resources.enlist(content.id, commands.clone());
        let inboxes = Inboxes { from_peers, commands: command_inbox, done: done_inbox, trackers };
        let outlets = Outlets { done, commands: commands.clone(), status, progress };
        let resources = self.resources.clone();
        let torrent =
            Torrent::new(swarm, content.clone(), resources.clone(), door, tracker, outlets, fill);
        let handle = Handle::new(content, resources, commands, watch_status);
        let task = tokio::spawn(async move {
            torrent.run(inboxes, company.heard).await;
            drop(lock);
        });
        self.torrents.lock().push((handle.clone(), task));
        handle
    }

    /// The swarm of a torrent that is open, with those who were `met` before it was known what it is.
    fn swarm(
        &self,
        content: &Content,
        doubted: &Bitfield,
        options: Options,
        presence: &Presence,
        met: Option<Dials>,
    ) -> Swarm {
        let (metainfo, network, now) = (&content.metainfo, &self.resources.network, clock::now());
        let config = Config {
            blocklist: network.blocklist.clone(),
            dht: presence.door.dht,
            // Routers let in what comes from where a datagram went; a proxy carries none, and so there is no uTP.
            punch: network.utp.is_some(),
            upload_limited: self.limits.rates.up.is_some(),
            open_bytes: self.resources.assembling.share(content.id, 0),
            // A window must not push its own pieces out of the store.
            max_window: options.config.max_window.min(self.limits.store_bytes / 4),
            ..options.config
        };
        let setup = Setup {
            geometry: metainfo.geometry.clone(),
            have: content.have.snapshot(),
            private: metainfo.private,
            peer_id: presence.peer_id(),
            listen_port: self.port,
            config,
            seed: clock::seed(),
        };
        let mut swarm = Swarm::new(setup, now);
        swarm.describe(metainfo.info.clone());
        if let Some(dials) = met {
            swarm.adopt(dials, now);
        }
        swarm.doubt(doubted, now);
        if self.online().is_some() {
            swarm.handle_candidates(options.peers, Origin::User, now);
            let web_seeds = (0..).zip(&metainfo.web_seeds).map(|(n, _)| web_seed::address(n));
            swarm.handle_candidates(web_seeds, Origin::Torrent, now);
        }
        swarm
    }
}

/// Whether a tracker that the user names may hear of the torrent.
fn may_announce(url: &str, metainfo: &Metainfo) -> bool {
    Origin::of_tracker(url, &metainfo.trackers).may_serve(metainfo.private)
}
