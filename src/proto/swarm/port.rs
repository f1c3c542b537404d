//! PORT messages (BEP 5): peers that are DHT nodes tell each other so, and where.
//!
//! Whoever dialled asks the other's node first: only somebody to whom we have not written yet can show us that we are
//! reached unasked (BEP 43).
//!
//! Not here: what becomes of the nodes ([`crate::proto::dht`], by way of the driver).

use std::net::SocketAddr;

use super::{Event, Swarm};
use crate::proto::origin::Origin;
use crate::proto::peer::Peer;
use crate::proto::units::PeerKey;
use crate::proto::wire::message::Message;

impl Swarm {
    /// Tells a fresh peer of our node, if it has one too.
    pub(super) fn tell_port(&mut self, peer: &Peer) {
        if peer.dht && self.is_in_dht() {
            self.transmit.push_back((peer.key, Message::Port(self.listen_port)));
        }
    }

    /// The peer tells of its node. Once is enough: its word makes us write to a port of its choice.
    pub(super) fn hear_port(&mut self, key: PeerKey, port: u16) -> Result<(), &'static str> {
        let asks_first = self.is_in_dht();
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if port == 0 || std::mem::replace(&mut peer.named_node, true) {
            return self.odd(key);
        }
        if asks_first && !peer.incoming {
            let addr = SocketAddr::new(peer.addr.ip(), port);
            self.events.push_back(Event::DhtNode(addr));
        }
        Ok(())
    }

    fn is_in_dht(&self) -> bool {
        self.config.dht && Origin::Dht.may_serve(self.private)
    }
}
