//! The task that owns our node of the DHT, and its handle.
//!
//! ```text
//! UdpPort ─ datagrams ─┐                  ┌─▶ UdpPort
//! torrents ─ orders ───┼─▶ proto::dht ────┼─▶ peers, to the torrents' tasks
//! hosts ── addresses ──┘                  └─▶ status, and the file for the next run
//! ```
//!
//! Not here: any decision about nodes, lookups and announces ([`crate::proto::dht`]), and whether a torrent may be
//! known here (who calls [`Dht::join`] asks [`crate::proto::origin`]).

mod hosts;
mod table_file;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::debug;

use super::clock::{self, now};
use super::egress::Egress;
use super::message::Command;
use super::udp_port::{Datagram, UdpPort};
use crate::proto::announce::udp::Family;
use crate::proto::blocklist::Blocklist;
use crate::proto::dht::{self as node, Event, Setup};
use crate::proto::origin::Origin;
use crate::proto::units::InfoHash;
use table_file::TableFile;

/// Where a network is entered when nothing else is known and the user names nothing: nodes that other clients run
/// for that purpose.
pub const PUBLIC_ROUTERS: [(&str, u16); 3] = [
    ("router.bittorrent.com", 6881),
    ("dht.transmissionbt.com", 6881),
    ("dht.libtorrent.org", 25401),
];

/// Orders that may wait for the task, which is the slow side by microseconds. A full queue drops a wish; those that
/// matter come again.
const ORDERS: usize = 256;

/// Time after which the table is saved for the first time, and between two times.
const FIRST_SAVE: Duration = Duration::from_secs(60);
const SAVE: Duration = Duration::from_secs(15 * 60);

/// How to take part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Hosts and ports of nodes by which the network is entered.
    pub bootstrap: Vec<(String, u16)>,
    /// Directory in which id and table are kept between runs, if they are.
    pub dir: Option<PathBuf>,
}

/// How the DHT stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DhtStatus {
    /// Nodes that are known and not known to be gone, of both families.
    pub nodes: usize,
    /// Peers that the last lookup of each torrent found in each network.
    searches: BTreeMap<InfoHash, BTreeMap<Family, usize>>,
}

impl DhtStatus {
    /// Peers that the last lookup of the torrent found; `None` before one has ended.
    pub fn found(&self, torrent: InfoHash) -> Option<usize> {
        self.searches.get(&torrent).map(|found| found.values().sum())
    }
}

/// Our node, for whoever has torrents. Dropping it ends the task without saving.
#[derive(Debug)]
pub struct Dht {
    egress: Egress,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<DhtStatus>,
}

#[derive(Debug)]
enum Order {
    Join(InfoHash, mpsc::Sender<Command>),
    Leave(InfoHash),
    Seek(InfoHash),
    Node(SocketAddr),
    Routers(Vec<SocketAddr>),
    Stop(oneshot::Sender<()>),
}

impl Dht {
    /// Takes part through this port, without those on the list; must be called inside a tokio runtime. Reads the
    /// table of an earlier run, which takes a moment.
    pub fn start(settings: Settings, port: Arc<UdpPort>, blocklist: Arc<Blocklist>) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (status_writer, status) = watch::channel(DhtStatus::default());
        let egress = port.egress().clone();
        let bound = port.local_addrs();
        let file = settings.dir.as_deref().and_then(TableFile::open);
        let saved = file.as_ref().map(TableFile::load).unwrap_or_default();
        let setup = Setup { own: own_addrs(&bound), saved, blocklist, seed: clock::secret() };
        let now = now();
        let task = Task {
            listen_port: bound.first().map_or(0, SocketAddr::port),
            node: node::Dht::new(setup, now),
            datagrams: port.take_dht(),
            port,
            torrents: BTreeMap::new(),
            status: status_writer,
            file: file.filter(TableFile::is_ours),
            save_at: now + FIRST_SAVE,
        };
        tokio::spawn(task.run(inbox));
        let dht = Self { egress, orders, status };
        dht.enter_by(settings.bootstrap);
        dht
    }

    /// The torrent is announced and looked up from now on, and `commands` hears of its peers.
    pub fn join(&self, torrent: InfoHash, commands: mpsc::Sender<Command>) {
        self.order(Order::Join(torrent, commands));
    }

    /// The torrent is gone.
    pub fn leave(&self, torrent: InfoHash) {
        self.order(Order::Leave(torrent));
    }

    /// The torrent has too few peers; may be said as often as it is true.
    pub fn seek(&self, torrent: InfoHash) {
        self.order(Order::Seek(torrent));
    }

    /// Somebody has a node there.
    pub fn add_node(&self, addr: SocketAddr) {
        self.order(Order::Node(addr));
    }

    /// Hosts that have nodes; their names are resolved in the background, as often as it takes.
    pub fn enter_by(&self, hosts: Vec<(String, u16)>) {
        for host in hosts {
            let orders = self.orders.clone();
            tokio::spawn(hosts::resolve(self.egress.clone(), host, move |addrs| {
                orders.try_send(Order::Routers(addrs)).is_ok() || orders.is_closed()
            }));
        }
    }

    /// How it stands.
    pub fn status(&self) -> watch::Ref<'_, DhtStatus> {
        self.status.borrow()
    }

    /// Saves the table and ends; returns when that is done.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            // An error is the sign: the task has dropped its end.
            let _ = ended.await;
        }
    }

    fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }
}

struct Task {
    node: node::Dht,
    port: Arc<UdpPort>,
    datagrams: mpsc::Receiver<Datagram>,
    torrents: BTreeMap<InfoHash, mpsc::Sender<Command>>,
    status: watch::Sender<DhtStatus>,
    file: Option<TableFile>,
    save_at: Instant,
    /// Where we take connections.
    listen_port: u16,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            self.drain();
            let wake = self.node.poll_timeout().min(self.save_at);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Stop(_done)) => return self.save().await,
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some((datagram, from)) = self.datagrams.recv() => {
                    self.node.handle_datagram(&datagram, from, now());
                }
                () = sleep_until(wake.into()) => self.wake().await,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let now = now();
        match order {
            Order::Join(torrent, commands) => {
                self.torrents.insert(torrent, commands);
                self.node.enlist(torrent, Some(self.listen_port), now);
            }
            Order::Leave(torrent) => {
                self.torrents.remove(&torrent);
                self.node.forget(torrent);
                self.status.send_modify(|status| drop(status.searches.remove(&torrent)));
            }
            Order::Seek(torrent) => self.node.need_peers(torrent, now),
            Order::Node(addr) => self.node.add_node(addr, now),
            Order::Routers(addrs) => self.node.add_routers(addrs, now),
            // Taken out by `run`.
            Order::Stop(_) => {}
        }
    }

    async fn wake(&mut self) {
        let now = now();
        self.node.handle_timeout(now);
        if now >= self.save_at {
            self.save_at = now + SAVE;
            self.save().await;
        }
    }

    fn drain(&mut self) {
        while let Some((to, datagram)) = self.node.poll_transmit() {
            if let Err(error) = self.port.try_send_to(&datagram, to) {
                debug!(%to, %error, "cannot write to a node");
            }
        }
        while let Some(event) = self.node.poll_event() {
            self.tell(event);
        }
        let nodes = self.node.nodes(now());
        self.status.send_if_modified(|status| std::mem::replace(&mut status.nodes, nodes) != nodes);
    }

    fn tell(&self, event: Event) {
        match event {
            Event::Peers { info_hash, addrs } => {
                if let Some(commands) = self.torrents.get(&info_hash) {
                    // A full queue drops the names; the next lookup brings them again.
                    let _ = commands.try_send(Command::Meet { addrs, origin: Origin::Dht });
                }
            }
            Event::Searched { info_hash, family, answered, peers, told } => {
                let nodes = self.node.nodes(now());
                debug!(%info_hash, ?family, nodes, answered, peers, told, "DHT lookup ended");
                if self.torrents.contains_key(&info_hash) {
                    self.status.send_modify(|status| {
                        status.searches.entry(info_hash).or_default().insert(family, peers);
                    });
                }
            }
        }
    }

    async fn save(&mut self) {
        if let Some(file) = self.file.take() {
            self.file = file.save(self.node.save()).await;
        }
    }
}

/// Our addresses with our port: where others see us, if nobody stands between.
fn own_addrs(bound: &[SocketAddr]) -> Vec<SocketAddr> {
    let everywhere: Vec<IpAddr> = match getifaddrs() {
        Ok(interfaces) => interfaces.filter_map(|interface| ip_of(&interface.address?)).collect(),
        Err(_) => Vec::new(),
    };
    let mut own = Vec::new();
    for addr in bound {
        let here = everywhere.iter().filter(|ip| ip.is_ipv4() == addr.is_ipv4());
        match addr.ip().is_unspecified() {
            true => own.extend(here.map(|ip| SocketAddr::new(*ip, addr.port()))),
            false => own.push(*addr),
        }
    }
    own
}

fn ip_of(addr: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = addr.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())))
}
