//! What a tracker remembers: which peers have which torrent, and since when it heard of them.
//!
//! Every announce costs time in proportion to the peers that it is given, not to those that there are:
//! peers stand in order of their last announce, so the ones to forget are at the front, and in one dense
//! list for each kind, so a random subset is a draw of indices.
//!
//! Invariant: torrents, peers of a torrent and peers in all never exceed [`Config`]; the least recently
//! heard of goes first.
//! Invariant: nobody is given himself, and a seed is given no seeds.
//!
//! Not here: packets and queries ([`super::announce`]), sockets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lru::LruCache;
use rand::Rng;

use super::announce::answer::Scraped;
use super::announce::{Answer, Event};
use super::units::InfoHash;

mod swarm;

use swarm::Swarm;

/// What a tracker allows. A peer takes some 200 bytes, a torrent some 1000.
#[derive(Clone, Debug)]
pub struct Config {
    /// What peers are told to wait between announces. Default 15 min. A peer is forgotten after twice
    /// that.
    pub interval: Duration,
    /// What peers are told to wait at least. Default 30 s, so that a small swarm finds itself soon.
    pub min_interval: Duration,
    /// Torrents known at once. Default 100,000.
    pub max_torrents: usize,
    /// Peers known of one torrent. Default 20,000.
    pub max_swarm: usize,
    /// Peers known in all. Default 500,000.
    pub max_peers: usize,
    /// Peers given to one that does not say how many it wants. Default 50.
    pub given: usize,
    /// Peers given at most. Default 200: an answer over UDP is then some 1.2 KB, in one packet.
    pub max_given: usize,
    /// Serves only these torrents, if any are named.
    pub only: Option<BTreeSet<InfoHash>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15 * 60),
            min_interval: Duration::from_secs(30),
            max_torrents: 100_000,
            max_swarm: 20_000,
            max_peers: 500_000,
            given: 50,
            max_given: 200,
            only: None,
        }
    }
}

/// One announce as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Where the visitor listens: the address that it was seen at, the port that it named.
    pub addr: SocketAddr,
    /// Bytes that it lacks.
    pub left: u64,
    /// Why it comes.
    pub event: Event,
    /// How many peers it wants.
    pub wanted: Option<u32>,
    /// Whether the answer can hold peers of the other family.
    pub families: Families,
}

/// Which addresses an answer can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Of the visitor's family (UDP).
    Own,
    /// Of both, those of its own first (HTTP, BEP 7).
    Both,
}

/// The torrent is not one of [`Config::only`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this tracker does not serve that torrent")]
pub struct NotServed;

/// What a tracker remembers.
#[derive(Debug)]
pub struct Registry {
    config: Config,
    /// Least recently announced first.
    torrents: LruCache<InfoHash, Swarm>,
    peers: usize,
}

impl Registry {
    /// Knows nobody.
    pub fn new(config: Config) -> Self {
        Self { config, torrents: LruCache::unbounded(), peers: 0 }
    }

    /// Torrents known.
    pub fn torrents(&self) -> usize {
        self.torrents.len()
    }

    /// Peers known, each once for each of its torrents and addresses.
    pub const fn peers(&self) -> usize {
        self.peers
    }

    /// Takes an announce in and draws peers for it.
    ///
    /// # Errors
    /// The torrent is not served.
    pub fn announce(
        &mut self,
        visit: &Visit,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<Answer, NotServed> {
        if self.config.only.as_ref().is_some_and(|only| !only.contains(&visit.info_hash)) {
            return Err(NotServed);
        }
        let addr = SocketAddr::new(visit.addr.ip().to_canonical(), visit.addr.port());
        self.forget(now);
        let answer = match visit.event {
            Event::Stopped => self.remove(visit.info_hash, addr, now),
            _ => self.admit(visit, addr, now, rng),
        };
        self.keep_bounds();
        Ok(answer)
    }

    /// The numbers of one torrent; zeros for an unknown one.
    pub fn scrape(&mut self, info_hash: &InfoHash, now: Instant) -> Scraped {
        let life = self.life();
        let Some(swarm) = self.torrents.peek_mut(info_hash) else { return Scraped::default() };
        self.peers -= swarm.forget(now, life);
        swarm.numbers()
    }

    fn life(&self) -> Duration {
        self.config.interval * 2
    }

    fn admit(
        &mut self,
        visit: &Visit,
        addr: SocketAddr,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Answer {
        let life = self.life();
        let swarm = self.torrents.get_or_insert_mut(visit.info_hash, Swarm::default);
        let before = swarm.len();
        swarm.forget(now, life);
        // Port 0 tells that nobody can dial it; it may ask all the same.
        if addr.port() != 0 {
            swarm.admit(addr, visit.left == 0, visit.event == Event::Completed, now);
        }
        while swarm.len() > self.config.max_swarm {
            swarm.drop_oldest();
        }
        let (after, numbers) = (swarm.len(), swarm.numbers());
        let wanted =
            visit.wanted.map_or(self.config.given, |n| n as usize).min(self.config.max_given);
        let peers = swarm.draw(addr, visit.left == 0, visit.families, wanted, rng);
        self.peers = self.peers - before + after;
        self.answer(peers, numbers)
    }

    fn remove(&mut self, info_hash: InfoHash, addr: SocketAddr, now: Instant) -> Answer {
        let life = self.life();
        let Some(swarm) = self.torrents.peek_mut(&info_hash) else {
            return self.answer(Vec::new(), Scraped::default());
        };
        let before = swarm.len();
        swarm.forget(now, life);
        swarm.remove(addr);
        let (after, numbers) = (swarm.len(), swarm.numbers());
        self.peers = self.peers - before + after;
        self.answer(Vec::new(), numbers)
    }

    fn answer(&self, peers: Vec<SocketAddr>, numbers: Scraped) -> Answer {
        Answer {
            peers,
            interval: Some(self.config.interval),
            min_interval: Some(self.config.min_interval),
            seeds: Some(numbers.seeds),
            leechers: Some(numbers.leechers),
            ..Answer::default()
        }
    }

    /// Forgets torrents of which nothing was heard for a peer's life; each is forgotten once.
    fn forget(&mut self, now: Instant) {
        let life = self.life();
        while let Some((_, oldest)) = self.torrents.peek_lru() {
            if !oldest.is_stale(now, life) {
                return;
            }
            self.drop_oldest();
        }
    }

    fn keep_bounds(&mut self) {
        while self.torrents.len() > self.config.max_torrents.max(1) {
            self.drop_oldest();
        }
        while self.peers > self.config.max_peers && self.torrents.len() > 1 {
            self.drop_oldest();
        }
        // One torrent alone may be over the bound.
        if let Some((_, last)) =
            self.torrents.iter_mut().next().filter(|_| self.peers > self.config.max_peers)
        {
            while self.peers > self.config.max_peers && last.drop_oldest() {
                self.peers -= 1;
            }
        }
        debug_assert!(self.peers <= self.config.max_peers);
    }

    fn drop_oldest(&mut self) {
        if let Some((_, swarm)) = self.torrents.pop_lru() {
            self.peers -= swarm.len();
        }
    }
}
