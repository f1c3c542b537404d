//! What the engine's tasks tell each other: the enums stand here, below every task, so that no task
//! imports another.

use std::net::{IpAddr, SocketAddr};

use tokio::sync::mpsc;

use crate::proto::units::PeerKey;
use crate::proto::wire::message::{Handshake, Message};

/// Batches that connections may have under way to their torrent.
///
/// The torrent's task is the slow side. When the queue is full the connection stops reading its socket,
/// and TCP holds the peer back.
pub const TO_TORRENT_CAPACITY: usize = 256;

/// Messages that a torrent may have under way to one connection.
///
/// The peer is the slow side. When the queue is full, the peer reads nothing and is closed.
pub const TO_PEER_CAPACITY: usize = 4096;

/// What connections tell the torrent that they belong to.
#[derive(Debug)]
pub enum FromPeer {
    /// The handshakes are exchanged; messages go out through `sender`, and dropping it closes the connection.
    Connected {
        /// The connection.
        key: PeerKey,
        /// Who is there.
        hello: Hello,
        /// The way out, of [`TO_PEER_CAPACITY`].
        sender: mpsc::Sender<Message>,
    },
    /// All whole messages of one read from the socket, in order.
    Messages {
        /// The connection.
        key: PeerKey,
        /// At least one message.
        batch: Vec<Message>,
    },
    /// Payload bytes of PIECE messages that the socket has taken.
    Sent {
        /// The connection.
        key: PeerKey,
        /// Bytes since the last such report.
        payload: u64,
    },
    /// The connection is gone; nothing more comes from it.
    Closed {
        /// The connection.
        key: PeerKey,
        /// Why, in words for `btfs why` and the log.
        reason: String,
    },
    /// A dial came to nothing.
    DialFailed {
        /// The address that was dialled.
        addr: SocketAddr,
        /// Why, in words.
        reason: String,
    },
}

/// The other end of a fresh connection.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// The socket's far end.
    pub addr: SocketAddr,
    /// Whether the peer dialled us.
    pub incoming: bool,
    /// What it said first.
    pub handshake: Handshake,
}

/// Events that a torrent's trackers may have under way to it.
///
/// The torrent's task is the slow side. When the queue is full the peers of an answer are dropped: the
/// next announce brings others, and waiting would hold up the trackers' own clock.
pub const FROM_TRACKER_CAPACITY: usize = 64;

/// What trackers tell the torrent that they announce.
#[derive(Debug)]
pub enum TrackerEvent {
    /// A tracker has named peers, perhaps known ones and ourselves.
    Peers {
        /// The tracker.
        url: String,
        /// At least one.
        addrs: Vec<SocketAddr>,
    },
    /// A tracker has told us from where it sees us (BEP 24).
    ExternalIp(IpAddr),
}
