//! What the engine's tasks tell each other: the enums stand here, below every task, so that no task
//! imports another.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::proto::origin::Origin;
use crate::proto::units::{PeerKey, PieceIndex, ReaderId, Ticket};
use crate::proto::wire::message::{Handshake, Message};
use crate::proto::wire::pex::Traits;

/// Batches that connections may have under way to their torrent.
///
/// The torrent's task is the slow side. When the queue is full the connections stop reading their sockets,
/// and TCP holds the peers back. A batch holds up to 64 KiB of payload: 2 MiB, and as much again that the task
/// has taken out, however many peers there are.
pub const TO_TORRENT_CAPACITY: usize = 32;

/// Messages that a torrent may have under way to one connection.
///
/// The peer is the slow side. When the queue is full, the peer reads nothing and is closed. Filled with HAVEs it
/// takes 96 KiB, 19 MiB over all peers; blocks of data are bounded by the peer's credit. At once a peer may be sent
/// as many requests, cancels and rejects as it has outstanding, 500 each, and some hundred HAVEs.
pub const TO_PEER_CAPACITY: usize = 2048;

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
    /// A dial came to our own listener.
    DialledOurselves {
        /// The address that was dialled, which is ours.
        addr: SocketAddr,
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
    /// How long the line took for a message without payload and its answer, where that was seen.
    pub round_trip: Option<Duration>,
    /// What the connection shows of the peer, for others (BEP 11).
    pub traits: Traits,
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

/// Commands that may wait for a torrent's task.
///
/// The task is the slow side, by microseconds. When the queue is full a read fails at once, which the kernel's
/// own limit on waiting reads keeps from happening, and a note of progress is dropped.
pub const COMMAND_CAPACITY: usize = 8192;

/// Why a waiting read has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// The store failed.
    #[error("the store failed to read what it has")]
    Storage,
    /// It is not here, and nobody is asked.
    #[error("the bytes are not here, and nobody is asked for them")]
    Offline,
    /// The torrent's task has ended.
    #[error("the torrent is no longer served")]
    Stopped,
}

/// Takes the bytes of a waiting read; called once, from any thread.
pub type Deliver = Box<dyn for<'a> FnOnce(Result<&'a [u8], ReadFailure>) + Send>;

/// What the rest of the program asks of a torrent's task. Ranges are of the torrent's bytes.
pub enum Command {
    /// A handle was opened on the file that fills this range.
    Open(ReaderId, Range<u64>),
    /// The handle is closed.
    Close(ReaderId),
    /// The reader has got these bytes from what is here.
    Advance(ReaderId, Range<u64>),
    /// The reader waits for these bytes.
    Read {
        /// To cancel it by.
        ticket: Ticket,
        /// The handle.
        reader: ReaderId,
        /// The bytes.
        range: Range<u64>,
        /// Takes them.
        deliver: Deliver,
    },
    /// Nobody waits for the ticket any more.
    Cancel(Ticket),
    /// The piece has to leave the store.
    Evict(PieceIndex),
    /// These pieces were found to be gone from the store: somebody else changed its files.
    Lost(Vec<PieceIndex>),
    /// Somebody names peers: perhaps known ones, and ourselves.
    Meet {
        /// Where they take connections.
        addrs: Vec<SocketAddr>,
        /// Who names them.
        origin: Origin,
    },
    /// Connections from outside that arrive there come to us.
    ReachedAt(SocketAddr),
    /// Nothing is uploaded from now on.
    EndUpload,
    /// Say good-bye, save, and end; `done` is dropped when that has happened.
    Stop {
        /// Dropped at the end.
        done: oneshot::Sender<()>,
    },
}

impl Command {
    /// Whether readers want something else afterwards.
    pub(super) fn moves_readers(&self) -> bool {
        match self {
            Self::Open(..)
            | Self::Close(_)
            | Self::Advance(..)
            | Self::Read { .. }
            | Self::Cancel(_) => true,
            Self::Evict(_)
            | Self::Lost(_)
            | Self::Meet { .. }
            | Self::ReachedAt(_)
            | Self::EndUpload
            | Self::Stop { .. } => false,
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(reader, file) => write!(f, "Open({reader:?}, {file:?})"),
            Self::Close(reader) => write!(f, "Close({reader:?})"),
            Self::Advance(reader, range) => write!(f, "Advance({reader:?}, {range:?})"),
            Self::Read { ticket, reader, range, .. } => {
                write!(f, "Read({ticket:?}, {reader:?}, {range:?})")
            }
            Self::Cancel(ticket) => write!(f, "Cancel({ticket:?})"),
            Self::Evict(piece) => write!(f, "Evict({piece:?})"),
            Self::Lost(pieces) => write!(f, "Lost({pieces:?})"),
            Self::Meet { addrs, origin } => write!(f, "Meet({} of {origin:?})", addrs.len()),
            Self::ReachedAt(addr) => write!(f, "ReachedAt({addr})"),
            Self::EndUpload => f.write_str("EndUpload"),
            Self::Stop { .. } => f.write_str("Stop"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_small_as_the_queue_to_a_peer_reckons() {
        assert_eq!(TO_PEER_CAPACITY * size_of::<Message>(), 96 * 1024);
    }
}
