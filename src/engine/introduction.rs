//! The task of a torrent that is known by its info-hash alone: feeds an [`Introduction`] what happened and the time,
//! does what it says, and hands its peers over, connected as they are, to the torrent's own task.
//!
//! Not here: any decision about peers ([`crate::proto::introduction`]); the torrent once it is known
//! ([`super::node::Node::adopt`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::clock::now;
use super::dial::dial;
use super::handle::DhtSearch;
use super::message::{Command, FromPeer, Hello, TrackerEvent};
use super::presence::Presence;
use super::resources::Resources;
use super::tracker::TrackerHandle;
use crate::proto::announce::tiers::TrackerStatus;
use crate::proto::dials::Dials;
use crate::proto::introduction::{Event, Introduction};
use crate::proto::magnet::Magnet;
use crate::proto::metadata::fetch::Standing;
use crate::proto::metainfo::{Metainfo, MetainfoError};
use crate::proto::origin::Origin;
use crate::proto::units::{PeerKey, TorrentId};
use crate::proto::wire::message::Message;

/// Time between two reports of how it stands.
const REPORT: Duration = Duration::from_millis(500);

/// Events of connections that are taken in before what they call for is done.
const BATCH: usize = super::message::TO_TORRENT_CAPACITY;

/// How the search for a torrent's description stands; about twice a second.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How much of it is here.
    pub standing: Standing,
    /// Peers connected.
    pub connected: usize,
    /// Dials under way.
    pub dials: usize,
    /// Addresses of peers that are known, the connected ones included.
    pub known: usize,
    /// How it stands with each tracker.
    pub trackers: Vec<TrackerStatus>,
    /// How it stands with the DHT, if it is asked.
    pub dht: Option<DhtSearch>,
    /// Why nothing will come of it, if so.
    pub trouble: Option<String>,
}

/// A torrent whose description is sought.
#[derive(Debug)]
pub struct Seeking {
    /// Its number in this process.
    pub id: TorrentId,
    /// What is known of it.
    pub magnet: Arc<Magnet>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) task: JoinHandle<Option<Result<Known, MetainfoError>>>,
}

impl Seeking {
    /// How it stands, to wait for changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until the description is here; `None` when the node was stopped before. Safe to drop and call again.
    ///
    /// # Errors
    /// When the description that peers gave is the right one, and none that we can use.
    pub async fn known(&mut self) -> Option<Result<Known, MetainfoError>> {
        // A panic there is told already.
        (&mut self.task).await.ok().flatten()
    }
}

/// A torrent that has become known, and those who told us.
#[derive(Debug)]
pub struct Known {
    /// What it is.
    pub metainfo: Arc<Metainfo>,
    pub(super) magnet: Arc<Magnet>,
    pub(super) id: TorrentId,
    pub(super) presence: Presence,
    pub(super) company: Company,
}

/// Those who were met before.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Addresses known, and dials under way.
    pub(super) met: Option<Dials>,
    /// What the torrent's task would have heard of them.
    pub(super) heard: Vec<FromPeer>,
}

/// Starts the task; to be called inside the runtime.
pub(super) fn seek(
    id: TorrentId,
    magnet: Arc<Magnet>,
    introduction: Introduction,
    presence: Presence,
    resources: Arc<Resources>,
) -> Seeking {
    let (status, watch_status) = watch::channel(Status::default());
    let introducer = Introducer {
        id,
        magnet: magnet.clone(),
        introduction,
        presence,
        resources,
        connections: BTreeMap::new(),
        status,
        reported: now(),
    };
    Seeking { id, magnet, status: watch_status, task: tokio::spawn(introducer.run()) }
}

/// The task.
struct Introducer {
    id: TorrentId,
    magnet: Arc<Magnet>,
    introduction: Introduction,
    presence: Presence,
    resources: Arc<Resources>,
    connections: BTreeMap<PeerKey, (Hello, mpsc::Sender<Message>)>,
    status: watch::Sender<Status>,
    reported: Instant,
}

impl Introducer {
    /// Seeks until it is known what the torrent is, or it is told to stop.
    async fn run(mut self) -> Option<Result<Known, MetainfoError>> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if let Some(info) = self.drain() {
                return Some(self.finish(&info).await);
            }
            let wake = self.introduction.poll_timeout().into();
            tokio::select! {
                _ = self.presence.from_peers.recv_many(&mut batch, BATCH) => {
                    batch.drain(..).for_each(|event| self.hear(event));
                }
                Some(command) = self.presence.command_inbox.recv() => match command {
                    Command::Stop { .. } => {
                        self.presence.end(&self.resources).await;
                        return None;
                    }
                    command => self.obey(command),
                },
                Some(event) = self.presence.trackers.recv() => self.meet(event),
                () = sleep_until(wake) => self.introduction.handle_timeout(now()),
            }
        }
    }

    fn hear(&mut self, event: FromPeer) {
        let (now, introduction) = (now(), &mut self.introduction);
        match event {
            FromPeer::Connected { key, hello, sender } => {
                self.connections.insert(key, (hello, sender));
                introduction.handle_connected(
                    key,
                    hello.addr,
                    hello.incoming,
                    hello.handshake,
                    now,
                );
            }
            FromPeer::Messages { key, batch } => introduction.handle_messages(key, batch, now),
            // Nothing is uploaded.
            FromPeer::Sent { .. } => {}
            FromPeer::Closed { key, reason } => {
                debug!(?key, reason, "connection closed");
                self.connections.remove(&key);
                introduction.handle_disconnected(key, now);
            }
            FromPeer::DialFailed { addr, reason } => {
                debug!(%addr, reason, "dial failed");
                introduction.handle_dial_failed(addr, now);
            }
            FromPeer::DialledOurselves { addr } => {
                introduction.handle_dialled_ourselves(addr, now);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Meet { addrs, origin } => {
                debug!(?origin, count = addrs.len(), "peers are named");
                self.introduction.handle_candidates(addrs, origin, now());
            }
            Command::ReachedAt(addr) => self.introduction.handle_seen_at(addr.ip()),
            // There is nothing yet to read, to keep or to upload; and the stop is taken out by `run`.
            Command::Open(..)
            | Command::Close(_)
            | Command::Advance(..)
            | Command::Read { .. }
            | Command::Cancel(_)
            | Command::Evict(_)
            | Command::Lost(_)
            | Command::EndUpload
            | Command::Stop { .. } => {}
        }
    }

    fn meet(&mut self, event: TrackerEvent) {
        match event {
            TrackerEvent::Peers { url, addrs } => {
                debug!(url, count = addrs.len(), "peers from a tracker");
                self.introduction.handle_candidates(addrs, Origin::Tracker, now());
            }
            TrackerEvent::ExternalIp(ip) => self.introduction.handle_seen_at(ip),
        }
    }

    /// Does all that is to be done now; the info dictionary once it is here.
    fn drain(&mut self) -> Option<Bytes> {
        let now = now();
        let mut known = None;
        loop {
            while let Some((key, message)) = self.introduction.poll_transmit() {
                self.transmit(key, message, now);
            }
            let Some(event) = self.introduction.poll_event() else { break };
            match event {
                Event::Dial(addr) => {
                    let (network, door) = (&self.resources.network, &self.presence.door);
                    tokio::spawn(dial(network.clone(), door.clone(), addr));
                }
                Event::Close(key, parting) => {
                    debug!(?key, %parting, "parting from a peer");
                    self.connections.remove(&key);
                }
                Event::NeedPeers => {
                    self.presence.tracker.iter().for_each(TrackerHandle::need_peers);
                    self.resources.seek(self.magnet.info_hash);
                }
                Event::Known(info) => known = Some(info),
            }
        }
        if now - self.reported >= REPORT {
            self.report(now, None);
        }
        known
    }

    fn transmit(&mut self, key: PeerKey, message: Message, now: Instant) {
        let Some((_, sender)) = self.connections.get(&key) else { return };
        if sender.try_send(message).is_err() {
            debug!(?key, "the peer reads nothing, or is gone");
            self.connections.remove(&key);
            self.introduction.handle_disconnected(key, now);
        }
    }

    fn report(&mut self, now: Instant, trouble: Option<String>) {
        self.reported = now;
        let tracker = self.presence.tracker.as_ref();
        self.status.send_replace(Status {
            standing: self.introduction.standing(),
            connected: self.introduction.peers().len(),
            dials: self.introduction.dials(),
            known: self.introduction.known_addresses(),
            trackers: tracker.map(TrackerHandle::status).unwrap_or_default(),
            dht: self.dht_search(),
            trouble,
        });
    }

    fn dht_search(&self) -> Option<DhtSearch> {
        let dht = self.resources.dht.as_ref().filter(|_| self.presence.door.dht)?;
        let status = dht.status();
        Some(DhtSearch { nodes: status.nodes, found: status.found(self.magnet.info_hash) })
    }

    async fn finish(mut self, info: &[u8]) -> Result<Known, MetainfoError> {
        match Metainfo::parse(&self.magnet.torrent(info)) {
            Ok(metainfo) => {
                info!(name = metainfo.name, "it is known now what the torrent is");
                Ok(self.hand_over(metainfo))
            }
            Err(error) => {
                warn!(%error, "the torrent cannot be used");
                self.report(now(), Some(error.to_string()));
                self.presence.end(&self.resources).await;
                Err(error)
            }
        }
    }

    fn hand_over(mut self, metainfo: Metainfo) -> Known {
        let company = self.introduction.into_company();
        let mut heard = Vec::new();
        for (key, peer) in company.peers {
            let Some((hello, sender)) = self.connections.remove(&key) else { continue };
            heard.push(FromPeer::Connected { key, hello, sender });
            heard.push(FromPeer::Messages { key, batch: peer.into_words() });
        }
        let company = Company { met: Some(company.dials), heard };
        let (metainfo, magnet) = (Arc::new(metainfo), self.magnet);
        Known { metainfo, magnet, id: self.id, presence: self.presence, company }
    }
}
