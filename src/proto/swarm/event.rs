//! What a swarm would have its driver do.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::proto::geometry::Span;
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

/// Why we part from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Parting {
    /// It is ourselves.
    #[error("the peer is this process itself")]
    Ourselves,
    /// It has a connection already.
    #[error("the peer is connected already")]
    Duplicate,
    /// There are too many.
    #[error("enough peers are connected")]
    Crowded,
    /// It was proven to lie.
    #[error("the peer's address is banned for false data")]
    Banned,
    /// It broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violation(&'static str),
    /// It said nothing for too long.
    #[error("the peer has been silent for too long")]
    Silent,
    /// It gave nothing, and others wait to be met.
    #[error("the peer is of no use, and others wait")]
    Useless,
    /// It was named by a tracker that a private torrent no longer uses (BEP 27).
    #[error("the peer is of another tracker than the one now used")]
    OtherTracker,
    /// Neither side wants anything of the other: both have all, or are partial seeds (BEP 21).
    #[error("neither side wants anything of the other")]
    BothSeeds,
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
