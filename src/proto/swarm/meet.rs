//! Fresh connections: which are refused, and what is said first.

use super::{Parting, Swarm};
use crate::proto::config::Config;
use crate::proto::metadata::serve::Description;
use crate::proto::peer::Peer;
use crate::proto::welcome::{Guest, Welcome, hello};
use crate::proto::wire::extension::{ExtensionHandshake, HANDSHAKE_ID};
use crate::proto::wire::message::Message;

impl Swarm {
    /// What becomes of a fresh connection.
    pub(super) fn welcome(&self, guest: Guest) -> Welcome {
        if self.is_left_behind(guest.addr, guest.incoming) {
            return Welcome::Refused(Parting::OtherTracker);
        }
        if self.dials.candidates.is_banned(guest.addr, guest.since) {
            return Welcome::Refused(Parting::Banned);
        }
        let Config { max_peers, many_per_ip, .. } = self.config;
        let here = self.peers.values().map(|peer| (peer.key, peer.guest()));
        guest.welcome(self.peer_id, here, max_peers, many_per_ip)
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
            metadata_len: self.description.as_ref().map(Description::total),
            upload_only,
            ..hello(&self.spoken(), self.listen_port, &self.config, peer.addr.ip())
        };
        Message::Extended { id: HANDSHAKE_ID, payload: hello.encode() }
    }
}
