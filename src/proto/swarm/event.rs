//! What a swarm would have its driver do.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::proto::geometry::Span;
use crate::proto::parting::Parting;
use crate::proto::units::{PeerKey, PieceIndex, Ticket};

/// What the driver should do, beside sending messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every piece that the ticket's read needs is here.
    Ready(Ticket),
    /// Connect to this address; answer with `handle_connected` or `handle_dial_failed`.
    Dial(SocketAddr),
    /// Close this connection; no `handle_disconnected` is needed.
    Close(PeerKey, Parting),
    /// The piece is verified, as `have` now says.
    Have(PieceIndex),
    /// Every piece is here.
    Complete,
    /// Bytes from this culprit were proven false; port 0 stands for all ports.
    Banned(SocketAddr),
    /// Too few peers are known: ask the trackers, the DHT, the local network.
    NeedPeers,
    /// A peer has a node of the DHT there.
    DhtNode(SocketAddr),
}

/// Work that takes a disk or a core.
#[derive(Clone, Debug)]
pub enum Job {
    /// Hash the piece; answer with `handle_verified`, and when it is right and kept, with `handle_stored`.
    Verify {
        /// The piece.
        piece: PieceIndex,
        /// Its bytes, in order.
        blocks: Vec<Bytes>,
    },
    /// Hash what the store has of a doubted piece; answer with `handle_checked`.
    Check {
        /// The piece.
        piece: PieceIndex,
    },
    /// Load these bytes to upload them; answer with `handle_loaded`.
    Load {
        /// For whom.
        key: PeerKey,
        /// What, in order.
        spans: Vec<Span>,
    },
}
