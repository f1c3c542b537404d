//! A peer of a torrent that we know nothing about, and what it said.
//!
//! Invariant: replayed in order, what is kept leaves the same impression as all that was said.

use std::net::SocketAddr;
use std::time::Instant;

use crate::proto::bencode::BencodeError;
use crate::proto::gossip::Gossip;
use crate::proto::welcome::Guest;
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::message::{Handshake, Message};

/// Bytes of words that are kept beside the bitfield: some thousand HAVEs.
pub const MAX_KEPT: usize = 128 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Acquaintance {
    /// The socket's far end.
    pub addr: SocketAddr,
    /// Whether it dialled us.
    pub incoming: bool,
    /// What it said first.
    pub handshake: Handshake,
    /// What it told of itself (BEP 10).
    pub said: ExtensionHandshake,
    /// When it connected.
    pub since: Instant,
    /// When it last said anything.
    pub heard: Instant,
    /// When we last said anything.
    pub spoke: Instant,
    /// Whether it serves us not.
    pub choking: bool,
    /// What it told of others.
    pub(super) gossip: Gossip,
    offered: bool,
    kept: Vec<Message>,
    kept_bytes: usize,
}

impl Acquaintance {
    pub(super) fn new(
        addr: SocketAddr,
        incoming: bool,
        handshake: Handshake,
        now: Instant,
    ) -> Self {
        Self {
            addr,
            incoming,
            handshake,
            said: ExtensionHandshake::default(),
            since: now,
            heard: now,
            spoke: now,
            choking: true,
            gossip: Gossip::new(now),
            offered: false,
            kept: Vec::new(),
            kept_bytes: 0,
        }
    }

    /// As whom it was met.
    pub(super) fn guest(&self) -> Guest {
        let Self { addr, incoming, since, .. } = *self;
        Guest { addr, incoming, id: self.handshake.peer_id, since }
    }

    /// Where it takes connections, or else where it calls from.
    pub fn contact(&self) -> SocketAddr {
        let told = self.said.port.filter(|_| self.incoming);
        told.map_or(self.addr, |port| SocketAddr::new(self.addr.ip(), port))
    }

    /// All that it said and that still matters, in order.
    pub fn into_words(self) -> Vec<Message> {
        self.kept
    }

    /// It tells of itself.
    pub(super) fn learn(&mut self, payload: &[u8]) -> Result<(), BencodeError> {
        self.said.update(payload)
    }

    /// Whether this is the first that we hear of pieces that it has.
    pub(super) fn first_offer(&mut self, message: &Message) -> bool {
        let offers = match message {
            Message::Have(_) | Message::HaveAll => true,
            Message::Bitfield(bits) => bits.iter().any(|byte| *byte != 0),
            _ => false,
        };
        offers && !std::mem::replace(&mut self.offered, true)
    }

    /// Keeps what may matter later; false when it is more than there is room for.
    pub(super) fn keep(&mut self, message: Message) -> bool {
        match &message {
            // Nobody was asked for pieces, and nobody is served.
            Message::KeepAlive
            | Message::Request(_)
            | Message::Cancel(_)
            | Message::Reject(_)
            | Message::Piece { .. } => return true,
            Message::Choke | Message::Unchoke => {
                self.choking = message == Message::Choke;
                self.forget(|old| matches!(old, Message::Choke | Message::Unchoke));
            }
            Message::Interested | Message::NotInterested => {
                self.forget(|old| matches!(old, Message::Interested | Message::NotInterested));
            }
            // Said again it names all that the peer has.
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone => {
                self.forget(is_of_pieces);
            }
            Message::Have(_)
            | Message::Port(_)
            | Message::Suggest(_)
            | Message::AllowedFast(_)
            | Message::Extended { .. } => {}
        }
        self.kept_bytes += cost(&message);
        self.kept.push(message);
        self.kept_bytes <= MAX_KEPT
    }

    fn forget(&mut self, is_stale: impl Fn(&Message) -> bool) {
        self.kept.retain(|old| !is_stale(old));
        self.kept_bytes = self.kept.iter().map(cost).sum();
    }
}

fn is_of_pieces(message: &Message) -> bool {
    let whole = matches!(message, Message::Bitfield(_) | Message::HaveAll | Message::HaveNone);
    whole || matches!(message, Message::Have(_))
}

fn cost(message: &Message) -> usize {
    let payload = match message {
        Message::Extended { payload, .. } => payload.len(),
        // There is one at most.
        _ => 0,
    };
    size_of::<Message>() + payload
}
