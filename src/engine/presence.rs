//! A torrent's place in the world: its door, its trackers, and the ends of the channels that lead to it. It is the
//! same before it is known what the torrent is and after, so what is connected stays connected.
//!
//! Not here: what becomes of what arrives ([`super::introduction`] at first, then [`super::torrent`]).

use tokio::sync::{mpsc, watch};

use super::clock;
use super::message::{COMMAND_CAPACITY, Command, FromPeer, TO_TORRENT_CAPACITY, TrackerEvent};
use super::network::Door;
use super::resources::Resources;
use super::tracker::{self, Job, TrackerHandle};
use crate::proto::announce::Progress;
use crate::proto::announce::tiers::Pace;
use crate::proto::origin::Origin;
use crate::proto::units::{InfoHash, PeerId};

/// Who is announced, and to whom.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) info_hash: InfoHash,
    /// Pieces in the torrent, once that is known.
    pub(super) pieces: Option<u32>,
    /// Whether BEP 27 holds.
    pub(super) private: bool,
    /// Tiers of trackers (BEP 12).
    pub(super) tiers: Vec<Vec<String>>,
    /// What they are told at first.
    pub(super) progress: Progress,
    /// Nodes of the DHT by which to enter it.
    pub(super) nodes: Vec<(String, u16)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) door: Door,
    pub(super) tracker: Option<TrackerHandle>,
    /// What the trackers are told.
    pub(super) progress: watch::Sender<Progress>,
    /// Into `command_inbox`.
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) from_peers: mpsc::Receiver<FromPeer>,
    pub(super) command_inbox: mpsc::Receiver<Command>,
    pub(super) trackers: mpsc::Receiver<TrackerEvent>,
}

impl Presence {
    /// Opens the door and begins to announce, with the port where peers reach us; without one nobody hears of it.
    pub(super) fn new(announced: Announced, resources: &Resources, online: Option<u16>) -> Self {
        let Announced { info_hash, pieces, private, tiers, nodes, progress } = announced;
        let (to_torrent, from_peers) = mpsc::channel(TO_TORRENT_CAPACITY);
        let (commands, command_inbox) = mpsc::channel(COMMAND_CAPACITY);
        let (to_trackers, trackers) = mpsc::channel(TO_TORRENT_CAPACITY);
        let (progress, watch_progress) = watch::channel(progress);
        let peer_id = clock::peer_id();
        let dht = resources.dht.as_ref().filter(|_| Origin::Dht.may_serve(private));
        let door = Door { info_hash, peer_id, dht: dht.is_some(), pieces, to_torrent };
        if let Some(dht) = dht {
            dht.enter_by(nodes);
            dht.join(info_hash, commands.clone());
        }
        if let Some(lsd) = &resources.lsd
            && Origin::Lsd.may_serve(private)
        {
            lsd.join(info_hash, commands.clone());
        }
        let tracker = online.map(|port| {
            resources.network.open(door.clone());
            let (pace, seed) = (Pace::default(), clock::seed());
            let job = Job { tiers, info_hash, private, peer_id, port, pace, seed };
            tracker::spawn(job, resources.trackers.clone(), watch_progress, to_trackers)
        });
        Self { door, tracker, progress, commands, from_peers, command_inbox, trackers }
    }

    /// Our name among the torrent's peers.
    pub(super) fn peer_id(&self) -> PeerId {
        self.door.peer_id
    }

    /// It is known now how many pieces the torrent has.
    pub(super) fn known(&mut self, pieces: u32, resources: &Resources) {
        self.door.pieces = Some(pieces);
        resources.network.open(self.door.clone());
    }

    /// Lets everyone go, and says good-bye to the trackers.
    pub(super) async fn end(self, resources: &Resources) {
        resources.withdraw(self.door.info_hash);
        drop(self.from_peers);
        if let Some(tracker) = self.tracker {
            tracker.stop().await;
        }
    }
}
