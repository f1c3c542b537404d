//! What all torrents of the process share: sockets, threads, memory and budgets.
//!
//! What memory is bounded by, with M for `--memory` and all [`CONNECTIONS`] in use:
//!
//! - verified pieces, in the cache or on their way into the store: M / 2 ([`Chunks`]);
//! - pieces under way, hashing included: M / 2 over all torrents ([`Assembling`]), but for two pieces that each
//!   may always have, those that reads wait for, and peers that can help with nothing else, up to M in all;
//! - block buffers that wait for their next use: what was in use at most, and no more than M ([`Network`]);
//! - messages on their way to a torrent: 4 MiB for each ([`TO_TORRENT_CAPACITY`]);
//! - for each peer: one unfinished message, a block or up to 128 KiB of something else; messages out,
//!   [`TO_PEER_CAPACITY`]; its requests, 8 KiB; whom it was told of, 10 KiB; what it has, a bit a piece; and while it
//!   is served, blocks for 1/32 s of its rate, at least 64 KiB ([`crate::proto::upload`]);
//! - for each stream of uTP what TCP leaves to the kernel: 65 KiB when nothing moves, and each way up to its window
//!   ([`super::utp`]) of what has not arrived in order or is not acknowledged.
//!
//! `scripts/bench-memory` shows that over TCP it comes to M and less than 32 MiB. The library of uTP has no bound for
//! all streams together.
//!
//! [`CONNECTIONS`]: super::network::CONNECTIONS
//! [`TO_TORRENT_CAPACITY`]: super::message::TO_TORRENT_CAPACITY
//! [`TO_PEER_CAPACITY`]: super::message::TO_PEER_CAPACITY
//!
//! Not here: who starts and ends them ([`super::node`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::mpsc;

use super::budget::{Assembling, Budget};
use super::chunks::Chunks;
use super::dht::Dht;
use super::lsd::Lsd;
use super::message::Command;
use super::network::Network;
use super::store::open_files::OpenFiles;
use super::tracker::Dialer;
use super::workers::Workers;
use crate::proto::units::{InfoHash, PieceIndex, TorrentId};

/// One for the process.
#[derive(Debug)]
pub struct Resources {
    /// Connections and listeners.
    pub network: Arc<Network>,
    /// Threads that hash, write and read.
    pub workers: Workers,
    /// Verified pieces in memory.
    pub chunks: Arc<Chunks>,
    /// Pieces under way, by their bytes.
    pub assembling: Assembling,
    /// Pieces in stores, by their last use.
    pub budget: Budget,
    /// The way to trackers.
    pub trackers: Arc<Dialer>,
    /// The local network, if it is asked; set before any torrent is there, as is the next.
    pub lsd: Option<Lsd>,
    /// Our node of the DHT, if we have one.
    pub dht: Option<Dht>,
    /// File descriptors of stores.
    pub files: Arc<OpenFiles>,
    torrents: RwLock<Enlisted>,
}

/// Those who take commands, and what a new one of them has to know.
#[derive(Debug, Default)]
struct Enlisted {
    commands: BTreeMap<TorrentId, mpsc::Sender<Command>>,
    reached_at: Option<SocketAddr>,
}

impl Resources {
    /// Resources without torrents. Half of `memory_bytes` is for verified pieces, half for those under way.
    pub fn new(
        network: Arc<Network>,
        workers: Workers,
        memory_bytes: u64,
        store_bytes: u64,
    ) -> Self {
        Self {
            trackers: Dialer::new(network.egress.clone()),
            network,
            workers,
            lsd: None,
            dht: None,
            chunks: Arc::new(Chunks::new(memory_bytes / 2)),
            assembling: Assembling::new(memory_bytes / 2),
            budget: Budget::new(store_bytes),
            files: Arc::new(OpenFiles::for_this_process()),
            torrents: RwLock::default(),
        }
    }

    /// A torrent's task takes commands here from now on.
    pub fn enlist(&self, torrent: TorrentId, commands: mpsc::Sender<Command>) {
        let mut torrents = self.torrents.write();
        if let Some(addr) = torrents.reached_at {
            // The queue is as new as the torrent.
            let _ = commands.try_send(Command::ReachedAt(addr));
        }
        torrents.commands.insert(torrent, commands);
    }

    /// The torrent's task is gone.
    pub fn dismiss(&self, torrent: TorrentId) {
        self.torrents.write().commands.remove(&torrent);
        self.budget.forget_torrent(torrent);
        self.assembling.share(torrent, 0);
    }

    /// Asks the local network and the DHT for peers of the torrent, as far as it was made known there.
    pub fn seek(&self, info_hash: InfoHash) {
        self.lsd.iter().for_each(|lsd| lsd.seek(info_hash));
        self.dht.iter().for_each(|dht| dht.seek(info_hash));
    }

    /// Nobody reaches the torrent any more, and nobody hears of it, but for trackers.
    pub fn withdraw(&self, info_hash: InfoHash) {
        self.network.shut(info_hash);
        self.lsd.iter().for_each(|lsd| lsd.leave(info_hash));
        self.dht.iter().for_each(|dht| dht.leave(info_hash));
    }

    /// Tells torrents and trackers, those to come as well, that peers reach us there from outside.
    pub fn reached_at(&self, addr: SocketAddr) {
        self.trackers.reached_at(addr.port());
        let mut torrents = self.torrents.write();
        torrents.reached_at = Some(addr);
        for commands in torrents.commands.values() {
            // A full queue costs a torrent the best order of dialling until the next renewal.
            let _ = commands.try_send(Command::ReachedAt(addr));
        }
    }

    /// Tells the torrents that these pieces have to go; a task that is gone has no more pieces.
    pub fn evict(&self, victims: Vec<(TorrentId, PieceIndex)>) {
        let torrents = self.torrents.read();
        for (torrent, piece) in victims {
            if let Some(commands) = torrents.commands.get(&torrent) {
                // A full queue leaves the piece in its store until the next eviction finds room to say so.
                let _ = commands.try_send(Command::Evict(piece));
            }
        }
    }
}
