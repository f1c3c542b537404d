//! Peers tell each other of peers (BEP 11): we of those whose door we know, they of whomever they like.
//!
//! Invariant: nobody out there is told of an address inside, or believed about one.
//!
//! Not here: the pace ([`crate::proto::gossip`]), how many of them are kept ([`crate::proto::candidates`]).

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::{HOUSEKEEPING, Swarm, Violation};
use crate::proto::announce::reach::Reach;
use crate::proto::gossip::Hearing;
use crate::proto::origin::Origin;
use crate::proto::peer::Peer;
use crate::proto::units::PeerKey;
use crate::proto::web_seed;
use crate::proto::wire::extension::Extension;
use crate::proto::wire::message::Message;
use crate::proto::wire::pex::{Exchange, Traits};

impl Swarm {
    /// Whether we speak ut_pex at all.
    pub(super) fn gossips(&self) -> bool {
        self.config.exchange && Origin::Pex.may_serve(self.private)
    }

    /// A connection shows this of its peer.
    pub fn handle_traits(&mut self, key: PeerKey, traits: Traits) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.traits = traits;
        }
    }

    /// Tells those whose turn it is.
    pub(super) fn gossip(&mut self, now: Instant) {
        if !self.gossips() {
            return;
        }
        let due =
            |peer: &&Peer| peer.said.ids.of(Extension::Pex).is_some() && peer.gossip.is_due(now);
        let listeners: Vec<_> = self.peers.values().filter(due).map(|peer| peer.key).collect();
        for key in listeners {
            self.gossip_to(key, now);
        }
    }

    /// Whoever comes alone may know nobody else, and is told at once. Of those who come together each would hear of
    /// those before it alone, and then of nobody for a while: they are told when all are here.
    pub(super) fn gossip_to_newcomer(&mut self, key: PeerKey, now: Instant) {
        let is_settled = |peer: &Peer| now.saturating_duration_since(peer.since) >= HOUSEKEEPING;
        let is_alone = self.peers.values().all(|peer| peer.key == key || is_settled(peer));
        let is_due = self.peers.get(&key).is_some_and(|peer| peer.gossip.is_due(now));
        if self.gossips() && is_alone && is_due {
            self.gossip_to(key, now);
        }
    }

    fn gossip_to(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get(&key) else { return };
        let Some(id) = peer.said.ids.of(Extension::Pex) else { return };
        let reach = Reach::of_neighbour(peer.addr.ip());
        let others = self.peers.values().filter(|other| other.key != key);
        let here: BTreeMap<_, _> = others
            .filter_map(|other| Some((other.listens_at?, traits(other))))
            .filter(|(addr, _)| reach.allows(addr.ip()) && web_seed::index(*addr).is_none())
            .collect();
        let peer = self.peers.get_mut(&key);
        if let Some(news) = peer.and_then(|peer| peer.gossip.news(&here, now)) {
            self.say(key, Message::Extended { id, payload: news.encode() }, now);
        }
    }

    /// The peer names others.
    pub(super) fn hear_gossip(
        &mut self,
        key: PeerKey,
        payload: &Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        match peer.gossip.hear(now) {
            Hearing::Timely => {}
            Hearing::TooSoon => return Ok(()),
            Hearing::Flood => return Err("peers exchanged more often than once a minute"),
        }
        let reach = Reach::of_neighbour(peer.addr.ip());
        let Ok(exchange) = Exchange::parse(payload) else { return self.odd(key) };
        for (addr, traits) in exchange.added {
            if self.config.blocklist.contains(addr.ip()) || !reach.allows(addr.ip()) {
                continue;
            }
            if traits.has(Traits::HOLEPUNCH) {
                self.note_helper(key, addr);
            }
            if self.dials.candidates.is_known(addr) {
                continue;
            }
            self.dials.candidates.add(addr, Origin::Pex, now);
            if traits.has(Traits::UPLOAD_ONLY) {
                self.dials.candidates.has_all(addr);
            }
        }
        self.dial(now);
        Ok(())
    }
}

/// What others are told of a peer of ours.
fn traits(peer: &Peer) -> Traits {
    peer.traits
        .with(Traits::UPLOAD_ONLY, peer.wants_no_more())
        .with(Traits::HOLEPUNCH, peer.said.ids.of(Extension::Holepunch).is_some())
        .with(Traits::REACHABLE, !peer.incoming)
}
