//! Peers that others have announced to us.
//!
//! Invariant: at most [`MAX_TORRENTS`] torrents with [`MAX_PEERS`] peers each; whoever was announced the longest
//! ago goes first, and nobody stays for longer than [`LIFE`].
//! Invariant: a host is one peer of a torrent, so that nobody fills a list alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lru::LruCache;
use rand::Rng;
use rand::seq::IteratorRandom;

use super::contact::Host;
use crate::proto::announce::udp::Family;
use crate::proto::units::InfoHash;

/// Torrents that are remembered.
pub const MAX_TORRENTS: usize = 2000;

/// Peers that are remembered of one torrent.
pub const MAX_PEERS: usize = 500;

/// Time for which an announce holds.
pub const LIFE: Duration = Duration::from_secs(30 * 60);

/// Peers in one reply: as many as fit into a packet beside the nodes.
pub const fn given(family: Family) -> usize {
    match family {
        Family::V4 => 100,
        Family::V6 => 32,
    }
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    addr: SocketAddr,
    announced: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct PeerStore {
    /// Least recently announced first.
    torrents: LruCache<InfoHash, BTreeMap<Host, Peer>>,
}

impl Default for PeerStore {
    fn default() -> Self {
        Self { torrents: LruCache::unbounded() }
    }
}

impl PeerStore {
    /// Torrents that are remembered.
    pub fn torrents(&self) -> usize {
        self.torrents.len()
    }

    /// Peers that are remembered, of all torrents.
    pub fn peers(&self) -> usize {
        self.torrents.iter().map(|(_, peers)| peers.len()).sum()
    }

    /// A peer takes connections there.
    pub fn announce(&mut self, info_hash: InfoHash, addr: SocketAddr, now: Instant) {
        let peers = self.torrents.get_or_insert_mut(info_hash, BTreeMap::new);
        peers.insert(Host::of(&addr), Peer { addr, announced: now });
        if peers.len() > MAX_PEERS {
            let oldest = peers.iter().min_by_key(|(_, peer)| peer.announced).map(|(host, _)| *host);
            oldest.map(|host| peers.remove(&host));
        }
        if self.torrents.len() > MAX_TORRENTS {
            self.torrents.pop_lru();
        }
    }

    /// Some of the torrent's peers of one family, drawn at random.
    pub fn draw(
        &self,
        info_hash: &InfoHash,
        family: Family,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Vec<SocketAddr> {
        let Some(peers) = self.torrents.peek(info_hash) else { return Vec::new() };
        let alive = peers.values().filter(|peer| is_alive(peer, now)).map(|peer| peer.addr);
        alive.filter(|addr| Family::of(addr) == family).sample(rng, given(family))
    }

    /// Forgets what has lived its time.
    pub fn expire(&mut self, now: Instant) {
        for (_, peers) in self.torrents.iter_mut() {
            peers.retain(|_, peer| is_alive(peer, now));
        }
        // The least recently announced are empty first.
        while self.torrents.peek_lru().is_some_and(|(_, peers)| peers.is_empty()) {
            self.torrents.pop_lru();
        }
    }
}

fn is_alive(peer: &Peer, now: Instant) -> bool {
    now.saturating_duration_since(peer.announced) < LIFE
}
