//! The first 68 bytes of each side, exchanged over any stream, in the clear or encrypted.
//!
//! Invariant: a whole exchange ends within [`LIMIT`], however the other side trickles.
//!
//! Invariant: nothing is read beyond them, so that what follows is the connection's.
//!
//! Not here: their form ([`crate::proto::wire::codec`]), that of the encryption ([`crate::proto::mse`]).

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::network::{CONNECTIONS, Door, Network};
use crate::proto::mse::initiator::Initiator;
use crate::proto::mse::receiver::Receiver;
use crate::proto::mse::{Agreed, Ciphers, Encryption, MOST_KEPT, MseError, Side};
use crate::proto::units::InfoHash;
use crate::proto::wire::codec::{HANDSHAKE_LEN, NotBitTorrent};
use crate::proto::wire::message::{Handshake, Reserved};

/// Time for connecting and both handshakes together.
pub const LIMIT: Duration = Duration::from_secs(5);

/// What we speak beside BEP 3, whatever the torrent.
const RESERVED: Reserved = Reserved { extended: true, fast: true, dht: false };

/// Why no connection came of it.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The socket failed.
    #[error("{0}")]
    Io(io::Error),
    /// The other side ended the connection instead of answering.
    #[error("closed during the handshake")]
    Closed,
    /// The other side let [`LIMIT`] pass.
    #[error("no handshake within {} s", LIMIT.as_secs())]
    TimedOut,
    /// The other side speaks something else.
    #[error(transparent)]
    NotBitTorrent(#[from] NotBitTorrent),
    /// No keys could be agreed on.
    #[error(transparent)]
    Encryption(#[from] MseError),
    /// The other side does not encrypt.
    #[error("the peer speaks in the clear, which --encryption require refuses")]
    InTheClear,
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

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // With bytes of ours unread, a close becomes a reset.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Runs an exchange, connecting included, against the clock.
pub async fn within_limit<T>(
    exchange: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    timeout(LIMIT, exchange).await.unwrap_or(Err(HandshakeError::TimedOut))
}

/// What both sides have said, and what comes after it.
#[derive(Debug)]
pub struct Shaken {
    /// The peer's.
    pub handshake: Handshake,
    /// What all further bytes go through; `None`: they go as they are.
    pub ciphers: Option<Ciphers>,
}

/// The dialling side: speaks first, and takes no answer but the torrent's.
pub async fn offer<S>(stream: &mut S, door: &Door) -> Result<Shaken, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(stream, &ours(door)).await?;
    let theirs = receive(stream, &[], None).await?;
    check(&theirs, door)?;
    Ok(Shaken { handshake: theirs, ciphers: None })
}

/// The dialling side, encrypted.
pub async fn offer_encrypted<S>(
    stream: &mut S,
    door: &Door,
    encryption: Encryption,
) -> Result<Shaken, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = Vec::new();
    let (torrent, ours) = (door.info_hash, ours(door));
    let side = Initiator::new(torrent, encryption, ours, &mut rand::rng(), &mut out);
    let Agreed { said, mut ciphers, .. } = exchange(stream, side, &[], &mut out).await?;
    let theirs = receive(stream, &said, ciphers.as_mut()).await?;
    check(&theirs, door)?;
    Ok(Shaken { handshake: theirs, ciphers })
}

/// The accepting side: says nothing of a torrent until the peer has named one behind an open door.
pub async fn answer<S>(stream: &mut S, network: &Network) -> Result<(Shaken, Door), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // As many bytes come in either case: a key is longer than a handshake.
    let mut bytes = [0; HANDSHAKE_LEN];
    stream.read_exact(&mut bytes).await?;
    match (Handshake::parse(&bytes), network.transports.encryption) {
        (Ok(_), Encryption::Require) => Err(HandshakeError::InTheClear),
        (Ok(theirs), Encryption::Prefer | Encryption::Off) => {
            let unknown = HandshakeError::UnknownTorrent(theirs.info_hash);
            let door = network.door(theirs.info_hash).ok_or(unknown)?;
            // Before the check of the id: a dial to ourselves then learns why it ends.
            send(stream, &ours(&door)).await?;
            check(&theirs, &door)?;
            Ok((Shaken { handshake: theirs, ciphers: None }, door))
        }
        (Err(error), Encryption::Off) => Err(error.into()),
        (Err(_), Encryption::Prefer | Encryption::Require) => {
            answer_encrypted(stream, network, &bytes).await
        }
    }
}

/// The accepting side, to a peer whose first bytes are no handshake.
async fn answer_encrypted<S>(
    stream: &mut S,
    network: &Network,
    first: &[u8],
) -> Result<(Shaken, Door), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut named = None;
    let side = Receiver::new(network.transports.encryption, &mut rand::rng(), |name| {
        named = network.door_named(name);
        named.as_ref().map(|door: &Door| door.info_hash)
    });
    let mut out = Vec::new();
    let Agreed { torrent, said, mut ciphers } = exchange(stream, side, first, &mut out).await?;
    let door = named.ok_or(HandshakeError::UnknownTorrent(torrent))?;
    let mut ours = ours(&door);
    ciphers.iter_mut().for_each(|ciphers| ciphers.outward.apply(&mut ours));
    out.extend(ours);
    send(stream, &out).await?;
    let theirs = receive(stream, &said, ciphers.as_mut()).await?;
    check(&theirs, &door)?;
    Ok((Shaken { handshake: theirs, ciphers }, door))
}

/// Lets a side of the encryption's exchange speak to the other, which has said `first`. What it says last stays in
/// `out`, so that it can leave with more.
async fn exchange<S>(
    stream: &mut S,
    mut side: impl Side,
    first: &[u8],
    out: &mut Vec<u8>,
) -> Result<Agreed, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = [0; MOST_KEPT];
    let mut agreed = side.handle(first, out)?;
    loop {
        if let Some(agreed) = agreed {
            return Ok(agreed);
        }
        send(stream, out).await?;
        out.clear();
        let wanted = side.wants().min(MOST_KEPT);
        let read = stream.read(&mut buffer[..wanted]).await?;
        if read == 0 {
            return Err(HandshakeError::Closed);
        }
        agreed = side.handle(&buffer[..read], out)?;
    }
}

/// Refuses another torrent's peer, and ourselves.
fn check(theirs: &Handshake, door: &Door) -> Result<(), HandshakeError> {
    if theirs.info_hash != door.info_hash {
        return Err(HandshakeError::WrongTorrent(theirs.info_hash));
    }
    if theirs.peer_id == door.peer_id { Err(HandshakeError::Ourselves) } else { Ok(()) }
}

fn ours(door: &Door) -> [u8; HANDSHAKE_LEN] {
    let reserved = Reserved { dht: door.dht, ..RESERVED };
    Handshake { reserved, info_hash: door.info_hash, peer_id: door.peer_id }.encode()
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), HandshakeError> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

/// The peer's handshake, of which it has said the beginning already.
async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    said: &[u8],
    ciphers: Option<&mut Ciphers>,
) -> Result<Handshake, HandshakeError> {
    let mut bytes = [0; HANDSHAKE_LEN];
    let (begin, rest) = bytes.split_at_mut(said.len().min(HANDSHAKE_LEN));
    begin.copy_from_slice(&said[..begin.len()]);
    stream.read_exact(rest).await?;
    if let Some(ciphers) = ciphers {
        ciphers.inward.apply(rest);
    }
    Ok(Handshake::parse(&bytes)?)
}
