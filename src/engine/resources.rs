//! What all torrents of the process share: sockets, threads, memory and budgets.
//!
//! Not here: who starts and ends them ([`super::node`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::mpsc;

use super::budget::Budget;
use super::chunks::Chunks;
use super::message::Command;
use super::network::Network;
use super::store::open_files::OpenFiles;
use super::tracker::Dialer;
use super::workers::Workers;
use crate::proto::units::{PieceIndex, TorrentId};

/// One for the process.
#[derive(Debug)]
pub struct Resources {
    /// Connections and listeners.
    pub network: Arc<Network>,
    /// Threads that hash, write and read.
    pub workers: Workers,
    /// Verified pieces in memory.
    pub chunks: Arc<Chunks>,
    /// Pieces in stores, by their last use.
    pub budget: Budget,
    /// The way to trackers.
    pub trackers: Arc<Dialer>,
    /// File descriptors of stores.
    pub files: Arc<OpenFiles>,
    torrents: RwLock<BTreeMap<TorrentId, mpsc::Sender<Command>>>,
}

impl Resources {
    /// Resources without torrents.
    pub fn new(
        network: Arc<Network>,
        workers: Workers,
        chunk_bytes: u64,
        store_bytes: u64,
    ) -> Self {
        Self {
            trackers: Dialer::new(network.local),
            network,
            workers,
            chunks: Arc::new(Chunks::new(chunk_bytes)),
            budget: Budget::new(store_bytes),
            files: Arc::new(OpenFiles::for_this_process()),
            torrents: RwLock::default(),
        }
    }

    /// A torrent's task takes commands here from now on.
    pub fn enlist(&self, torrent: TorrentId, commands: mpsc::Sender<Command>) {
        self.torrents.write().insert(torrent, commands);
    }

    /// The torrent's task is gone.
    pub fn dismiss(&self, torrent: TorrentId) {
        self.torrents.write().remove(&torrent);
        self.budget.forget_torrent(torrent);
    }

    /// Tells the torrents that these pieces have to go; a task that is gone has no more pieces.
    pub fn evict(&self, victims: Vec<(TorrentId, PieceIndex)>) {
        let torrents = self.torrents.read();
        for (torrent, piece) in victims {
            if let Some(commands) = torrents.get(&torrent) {
                // A full queue leaves the piece in its store until the next eviction finds room to say so.
                let _ = commands.try_send(Command::Evict(piece));
            }
        }
    }
}
