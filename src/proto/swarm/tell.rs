//! Who is told which pieces are here.
//!
//! Invariant: where pieces may be thrown out again, only peers that can be told of that (BEP 54) hear what is here;
//! others would go on asking for what is gone.
//!
//! Not here: what they are given ([`super::serve`]): whoever asks gets what is here.

use std::time::Instant;

use super::Swarm;
use crate::proto::peer::Peer;
use crate::proto::units::PeerKey;
use crate::proto::wire::extension::Extension;
use crate::proto::wire::message::Message;

impl Swarm {
    /// Whether the peer is told of our pieces.
    pub(super) fn hears_of_pieces(&self, peer: &Peer) -> bool {
        !self.config.evicts || peer.said.ids.of(Extension::DontHave).is_some()
    }

    /// The peer has said what it speaks. If it did not hear of our pieces before and does from here on, it is told
    /// of them all, by a bitfield: those who speak BEP 54 take one at any time.
    pub(super) fn tell_pieces(&mut self, key: PeerKey, heard: bool, now: Instant) {
        let hears = self.peers.get(&key).is_some_and(|peer| self.hears_of_pieces(peer));
        if hears && !heard && !self.have().is_empty() {
            self.say(key, Message::Bitfield(self.have().to_wire().into()), now);
        }
    }
}
