//! Whom a swarm hears of, and dials.
//!
//! Not here: when each address may be dialled ([`crate::proto::candidates`]).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Event, Swarm};
use crate::proto::origin::Origin;

impl Swarm {
    /// Addresses of peers; those that the torrent may not have from there are left out.
    pub fn handle_candidates(
        &mut self,
        addrs: impl IntoIterator<Item = SocketAddr>,
        origin: Origin,
        now: Instant,
    ) {
        let blocklist = self.config.blocklist.clone();
        for addr in addrs.into_iter().filter(|addr| !blocklist.contains(addr.ip())) {
            self.candidates.add(addr, origin, now);
        }
        self.dial(now);
    }

    /// Connections from outside that arrive there come to us.
    pub fn handle_reached_at(&mut self, addr: SocketAddr) {
        self.listen_port = addr.port();
        self.handle_seen_at(addr.ip());
    }

    /// A tracker sees us there.
    pub fn handle_seen_at(&mut self, ip: IpAddr) {
        self.candidates.seen_at(ip.to_canonical());
    }

    /// A dial came to nothing.
    pub fn handle_dial_failed(&mut self, addr: SocketAddr, now: Instant) {
        self.dialling.remove(&addr);
        self.candidates.failed(addr, now);
        self.ask_for_help(addr, now);
        self.dial(now);
    }

    /// A dial came to our own listener: trackers name us among the others.
    pub fn handle_dialled_ourselves(&mut self, addr: SocketAddr, now: Instant) {
        self.dialling.remove(&addr);
        self.candidates.forget(addr);
        self.dial(now);
    }

    /// Dials while fewer peers are connected than sought. A seed waits to be found, but for those it was told of.
    pub(super) fn dial(&mut self, now: Instant) {
        while self.peers.len() + self.dialling.len() < self.config.target_peers
            && self.dialling.len() < self.config.max_dials
            && let Some(addr) = self.candidates.next(self.wants_no_more(), now)
        {
            if self.peers.values().any(|peer| peer.addr == addr || peer.listens_at == Some(addr)) {
                continue;
            }
            self.dialling.insert(addr);
            self.events.push_back(Event::Dial(addr));
        }
        let starving = !self.wants_no_more() && self.lacks_peers();
        let patient = self.asked_for_peers.is_some_and(|at| now - at < Duration::from_secs(30));
        if starving && !patient {
            self.asked_for_peers = Some(now);
            self.events.push_back(Event::NeedPeers);
        }
    }

    /// Whether too few peers are there, or none of them has anything that we want: a knot of leeches that lack the
    /// same piece would wait for it for ever.
    fn lacks_peers(&self) -> bool {
        let few = self.peers.len() + self.dialling.len() < 3;
        few || self.dialling.is_empty() && !self.peers.values().any(|peer| peer.am_interested)
    }
}
