//! How others see us: at which address, and whether they reach us unasked (BEP 42, BEP 43).
//!
//! Invariant: no single host decides what our address is.
//! Invariant: a node is read-only until it was reached from outside, or was seen at an address of this very
//! machine: behind a translation of addresses nobody could ask it, and tables would fill with such.
//! Invariant: a read-only node answers none but those that are so too, and name it to nobody.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::contact::Host;

/// Last votes that count.
const VOTES: usize = 16;

/// Votes that are needed to tell an address.
const QUORUM: usize = 4;

/// Hosts that we remember to have written to.
const MAX_WRITTEN: usize = 4096;

/// Time for which what we write to a host may leave an opening for its answers.
const OPENING: Duration = Duration::from_secs(10 * 60);

/// See the module; one for each family.
#[derive(Debug)]
pub struct Vantage {
    /// Where our socket is, as far as this machine knows.
    own: Vec<SocketAddr>,
    votes: VecDeque<(Host, IpAddr)>,
    written: LruCache<Host, Instant>,
    reached: bool,
}

impl Vantage {
    /// Of a node with these addresses of its own.
    pub fn new(own: Vec<SocketAddr>) -> Self {
        Self { own, votes: VecDeque::new(), written: LruCache::unbounded(), reached: false }
    }

    /// Whether nobody is known to reach us unasked.
    pub fn is_read_only(&self) -> bool {
        !self.reached
    }

    /// Whether this is our own socket.
    pub fn is_own(&self, addr: &SocketAddr) -> bool {
        self.own.contains(addr)
    }

    /// We write to a host.
    pub fn writes_to(&mut self, host: Host, now: Instant) {
        self.written.put(host, now);
        if self.written.len() > MAX_WRITTEN {
            self.written.pop_lru();
        }
    }

    /// A host asks us something.
    pub fn was_asked_by(&mut self, host: Host, now: Instant) {
        let written = self.written.peek(&host);
        let open = |at: &Instant| now.saturating_duration_since(*at) < OPENING;
        self.reached |= !written.is_some_and(open);
    }

    /// A host tells where it sees us.
    pub fn was_seen(&mut self, voter: Host, at: SocketAddr) {
        self.reached |= self.own.contains(&at);
        self.votes.retain(|(host, _)| *host != voter);
        self.votes.push_back((voter, at.ip()));
        if self.votes.len() > VOTES {
            self.votes.pop_front();
        }
    }

    /// Our address, if most of those who told it agree.
    pub fn external_ip(&self) -> Option<IpAddr> {
        let (_, last) = self.votes.back()?;
        let agree = self.votes.iter().filter(|(_, ip)| ip == last).count();
        (agree >= QUORUM && agree * 2 > self.votes.len()).then_some(*last)
    }
}
