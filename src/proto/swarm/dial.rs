//! Whom a swarm hears of, and dials.
//!
//! Not here: when each address may be dialled ([`crate::proto::candidates`]), and how many are ([`crate::proto::dials`]).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Event, Swarm};
use crate::proto::origin::Origin;
use crate::proto::peer::Peer;

impl Swarm {
    /// Addresses of peers; those that the torrent may not have from there are left out.
    pub fn handle_candidates(
        &mut self,
        addrs: impl IntoIterator<Item = SocketAddr>,
        origin: Origin,
        now: Instant,
    ) {
        self.dials.add(addrs, origin, &self.config, now);
        self.dial(now);
    }

    /// Connections from outside that arrive there come to us.
    pub fn handle_reached_at(&mut self, addr: SocketAddr) {
        self.listen_port = addr.port();
        self.handle_seen_at(addr.ip());
    }

    /// A tracker sees us there.
    pub fn handle_seen_at(&mut self, ip: IpAddr) {
        self.dials.candidates.seen_at(ip.to_canonical());
    }

    /// A dial came to nothing.
    pub fn handle_dial_failed(&mut self, addr: SocketAddr, now: Instant) {
        self.dials.failed(addr, now);
        self.ask_for_help(addr, now);
        self.dial(now);
    }

    /// A dial came to our own listener: trackers name us among the others.
    pub fn handle_dialled_ourselves(&mut self, addr: SocketAddr, now: Instant) {
        self.dials.forget(addr);
        self.dial(now);
    }

    /// Dials while fewer peers are connected than sought. A seed waits to be found, but for those it was told of.
    pub(super) fn dial(&mut self, now: Instant) {
        let (connected, seeding) = (self.peers.len(), self.wants_no_more());
        let listens = |peer: &Peer, addr| peer.addr == addr || peer.listens_at == Some(addr);
        let is_met = |addr| self.peers.values().any(|peer| listens(peer, addr));
        while let Some(addr) = self.dials.next(connected, &self.config, seeding, is_met, now) {
            self.events.push_back(Event::Dial(addr));
        }
        // A knot of leeches that lack the same piece would wait for it for ever.
        let is_of_use = self.peers.values().any(|peer| peer.am_interested);
        if !seeding && self.dials.call(connected, is_of_use, now) {
            self.events.push_back(Event::NeedPeers);
        }
    }
}
