//! Fresh connections: which are refused, and what is said first.

use std::net::SocketAddr;
use std::time::Instant;

use super::{CROSSING, Parting, Swarm};
use crate::proto::candidates::is_local;
use crate::proto::metadata::serve::Description;
use crate::proto::peer::Peer;
use crate::proto::units::{PeerId, PeerKey};
use crate::proto::wire::extension::{ExtensionHandshake, ExtensionIds, HANDSHAKE_ID};
use crate::proto::wire::message::Message;

impl Swarm {
    /// Two peers that dial each other at once must both give up the same connection: the one that the lower
    /// name dialled. Tells ours, when it is that one.
    pub(super) fn crossed(&self, id: PeerId, incoming: bool, now: Instant) -> Option<PeerKey> {
        let twin = self.peers.values().find(|peer| peer.id == id)?;
        let young = now.saturating_duration_since(twin.since) < CROSSING;
        let newer_wins = incoming == (id.0 > self.peer_id.0);
        (young && twin.incoming != incoming && newer_wins).then_some(twin.key)
    }

    /// Why this peer is not wanted, if so.
    pub(super) fn refusal(
        &self,
        addr: SocketAddr,
        incoming: bool,
        id: PeerId,
        now: Instant,
    ) -> Option<Parting> {
        if id == self.peer_id {
            return Some(Parting::Ourselves);
        }
        if self.is_left_behind(addr, incoming) {
            return Some(Parting::OtherTracker);
        }
        if self.dials.candidates.is_banned(addr, now) {
            return Some(Parting::Banned);
        }
        let alone = !self.config.many_per_ip && !is_local(addr.ip());
        let twin = |peer: &Peer| peer.id == id || (alone && peer.addr.ip() == addr.ip());
        if self.peers.values().any(twin) {
            return Some(Parting::Duplicate);
        }
        (self.peers.len() >= self.config.max_peers).then_some(Parting::Crowded)
    }

    /// The first messages to a fresh peer: what we speak and what we have.
    pub(super) fn greet(&mut self, peer: &Peer) {
        if peer.extended {
            let message = self.hello(peer, self.wants_no_more().then_some(true));
            self.transmit.push_back((peer.key, message));
        }
        let have = self.picker.have();
        let nothing = have.is_empty() || !self.hears_of_pieces(peer);
        let pieces = match (peer.fast, nothing, have.is_full()) {
            (true, true, _) => Some(Message::HaveNone),
            (true, _, true) => Some(Message::HaveAll),
            (false, true, _) => None,
            _ => Some(Message::Bitfield(have.to_wire().into())),
        };
        self.transmit.extend(pieces.map(|message| (peer.key, message)));
        self.tell_port(peer);
    }

    /// The extension handshake to this peer (BEP 10). It is whole each time: libtorrent takes what a later one
    /// leaves out as taken back.
    pub(super) fn hello(&self, peer: &Peer, upload_only: Option<bool>) -> Message {
        let hello = ExtensionHandshake {
            ids: ExtensionIds::local(&self.spoken()),
            port: (self.listen_port != 0).then_some(self.listen_port),
            client: Some(concat!("btfs ", env!("CARGO_PKG_VERSION")).into()),
            requests: u16::try_from(self.config.max_incoming_requests).ok(),
            your_ip: Some(peer.addr.ip()),
            metadata_len: self.description.as_ref().map(Description::total),
            upload_only,
        };
        Message::Extended { id: HANDSHAKE_ID, payload: hello.encode() }
    }
}
