//! The first 68 bytes of each side, exchanged over any stream.
//!
//! Invariant: a whole exchange ends within [`LIMIT`], however the other side trickles.
//!
//! Not here: their form ([`crate::proto::wire::codec`]).

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::network::{CONNECTIONS, Door};
use crate::proto::units::{InfoHash, PeerId};
use crate::proto::wire::codec::{HANDSHAKE_LEN, NotBitTorrent};
use crate::proto::wire::message::{Handshake, Reserved};

/// Time for connecting and both handshakes together.
pub const LIMIT: Duration = Duration::from_secs(5);

/// What we speak beside BEP 3.
const RESERVED: Reserved = Reserved { extended: true, fast: true, dht: false };

/// Why no connection came of it.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The socket failed or was closed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side let [`LIMIT`] pass.
    #[error("no handshake within {} s", LIMIT.as_secs())]
    TimedOut,
    /// The other side speaks something else.
    #[error(transparent)]
    NotBitTorrent(#[from] NotBitTorrent),
    /// It answered for another torrent than asked.
    #[error("the peer answered for torrent {0}")]
    WrongTorrent(InfoHash),
    /// It asked for a torrent that is not here.
    #[error("the peer asked for torrent {0}, which is not here")]
    UnknownTorrent(InfoHash),
    /// As many connections are open as there may be.
    #[error("{CONNECTIONS} connections are open, which is the limit")]
    Full,
    /// It has our own peer id.
    #[error("the peer is ourselves")]
    Ourselves,
}

/// Runs an exchange, connecting included, against the clock.
pub async fn within_limit<T>(
    exchange: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    timeout(LIMIT, exchange).await.unwrap_or(Err(HandshakeError::TimedOut))
}

/// The dialling side: speaks first, and takes no answer but the torrent's.
pub async fn offer<S>(stream: &mut S, door: &Door) -> Result<Handshake, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(stream, door).await?;
    let theirs = receive(stream).await?;
    if theirs.info_hash != door.info_hash {
        return Err(HandshakeError::WrongTorrent(theirs.info_hash));
    }
    refuse_ourselves(&theirs, door.peer_id)?;
    Ok(theirs)
}

/// The accepting side: says nothing until the peer has named a torrent behind an open door.
pub async fn answer<S>(
    stream: &mut S,
    door: impl FnOnce(InfoHash) -> Option<Door>,
) -> Result<(Handshake, Door), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let theirs = receive(stream).await?;
    let unknown = HandshakeError::UnknownTorrent(theirs.info_hash);
    let door = door(theirs.info_hash).ok_or(unknown)?;
    // Before the check of the id: a dial to ourselves then learns why it ends.
    send(stream, &door).await?;
    refuse_ourselves(&theirs, door.peer_id)?;
    Ok((theirs, door))
}

fn refuse_ourselves(theirs: &Handshake, ours: PeerId) -> Result<(), HandshakeError> {
    if theirs.peer_id == ours { Err(HandshakeError::Ourselves) } else { Ok(()) }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), door: &Door) -> io::Result<()> {
    let ours = Handshake { reserved: RESERVED, info_hash: door.info_hash, peer_id: door.peer_id };
    stream.write_all(&ours.encode()).await?;
    stream.flush().await
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<Handshake, HandshakeError> {
    let mut bytes = [0; HANDSHAKE_LEN];
    stream.read_exact(&mut bytes).await.map_err(closed_early)?;
    Ok(Handshake::parse(&bytes)?)
}

/// The library's words for an early end say nothing to a user.
fn closed_early(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "closed during the handshake"),
        _ => error,
    }
}
