//! Outgoing connections: dial, shake hands, carry.
//!
//! Invariant: each dial tells its torrent exactly one of `Connected`, `DialFailed` and
//! `DialledOurselves`.
//! Invariant: a peer that answers over TCP in time hears nothing over UDP, and no TCP waits for uTP.
//! Invariant: a peer that takes connections in the clear never waits for encryption; one that closes them is
//! dialled once more, encrypted, unless that is off.
//!
//! Not here: whom to dial and when again (the swarm decides).

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout};

use super::connection;
use super::handshake::{self, HandshakeError, Shaken};
use super::message::{FromPeer, Hello};
use super::network::{Door, Network, canonical};
use super::stream::Stream;
use super::utp::Utp;
use crate::proto::mse::Encryption;

/// Time in which TCP may answer before uTP is tried too. Most peers that can, do: they are spared a second stream,
/// which they would keep for a while. Longer, a peer behind a router that passes only UDP waits longer.
const HEAD_START: Duration = Duration::from_millis(100);

/// Least time that uTP gets after TCP was refused; three times as long as that took, if that is more. Nothing says
/// that nobody is there, and a turn to dial is kept meanwhile.
const UTP_PATIENCE: Duration = Duration::from_millis(500);

/// Dials the peer, and carries the connection until it ends. To be spawned.
pub async fn dial(network: Arc<Network>, door: Door, addr: SocketAddr) {
    let addr = canonical(addr);
    let turn = network.half_open.acquire().await.expect("the semaphore is never closed");
    if door.to_torrent.is_closed() {
        return;
    }
    let opened = handshake::within_limit(open(&network, &door, addr)).await;
    drop(turn);
    match opened {
        Ok((_place, stream, Shaken { handshake, ciphers }, round_trip)) => {
            let traits = stream.traits(ciphers.as_ref());
            let hello = Hello { addr, incoming: false, handshake, round_trip, traits };
            stream.carry(&network, door, hello, ciphers).await;
        }
        Err(error) => {
            let failed = match error {
                HandshakeError::Ourselves => FromPeer::DialledOurselves { addr },
                other => FromPeer::DialFailed { addr, reason: other.to_string() },
            };
            // An error means that the torrent is gone, and with it everyone who would care.
            let _ = door.to_torrent.send(failed).await;
        }
    }
}

/// A connection that has shaken hands, and its place.
/// With the round trip, where the dial tells it.
type Opened<'a> = (SemaphorePermit<'a>, Stream, Shaken, Option<Duration>);

/// One way after the other, as long as the peer does nothing but close.
async fn open<'a>(
    network: &'a Network,
    door: &Door,
    addr: SocketAddr,
) -> Result<Opened<'a>, HandshakeError> {
    let place = network.place().ok_or(HandshakeError::Full)?;
    let (utp, encryption) = (network.utp.as_ref(), network.transports.encryption);
    let mut over_tcp = false;
    for veiled in [false, true] {
        let suits = if veiled { Encryption::Off } else { Encryption::Require } != encryption;
        if !suits {
            continue;
        }
        let (mut stream, round_trip) = connect(network, addr).await?;
        match shake(network, door, &mut stream, veiled).await {
            Err(HandshakeError::Closed) => over_tcp = matches!(stream, Stream::Tcp(_)),
            shaken => return Ok((place, stream, shaken?, round_trip)),
        }
    }
    // Some accept over TCP, and then want none of it.
    let utp = utp.filter(|_| over_tcp).ok_or(HandshakeError::Closed)?;
    let answered = timeout(UTP_PATIENCE, utp.connect(addr)).await;
    let stream = answered.map_err(|_| HandshakeError::Closed)?;
    let mut stream = Stream::Utp(stream.map_err(HandshakeError::Io)?);
    let shaken = shake(network, door, &mut stream, encryption == Encryption::Require).await?;
    Ok((place, stream, shaken, None))
}

async fn shake(
    network: &Network,
    door: &Door,
    stream: &mut Stream,
    veiled: bool,
) -> Result<Shaken, HandshakeError> {
    match veiled {
        false => handshake::offer(stream, door).await,
        true => handshake::offer_encrypted(stream, door, network.transports.encryption).await,
    }
}

/// A stream to the peer, by a way that is open to us, and its round trip.
async fn connect(
    network: &Network,
    addr: SocketAddr,
) -> Result<(Stream, Option<Duration>), HandshakeError> {
    let asked = Instant::now();
    let stream = match (&network.utp, network.transports.tcp) {
        (None, true) => connect_tcp(network, addr).await.map(Stream::Tcp),
        (None, false) => Err(io::Error::other("no UDP port is ours to dial from")),
        (Some(utp), false) => utp.connect(addr).await.map(Stream::Utp),
        (Some(utp), true) => connect_either(network, utp, addr).await,
    };
    let stream = stream.map_err(HandshakeError::Io)?;
    // Over uTP the head start of TCP is in it.
    let round_trip = matches!(stream, Stream::Tcp(_)).then(|| asked.elapsed());
    Ok((stream, round_trip))
}

/// Over TCP if that answers, else over uTP; an error is TCP's.
async fn connect_either(network: &Network, utp: &Utp, addr: SocketAddr) -> io::Result<Stream> {
    let begun = Instant::now();
    let mut tcp = pin!(connect_tcp(network, addr));
    let mut other = pin!(async {
        match utp.connect(addr).await {
            Ok(stream) => stream,
            Err(_) => pending().await,
        }
    });
    let answered = match timeout(HEAD_START, &mut tcp).await {
        Ok(answered) => answered,
        Err(_) => tokio::select! {
            biased;
            answered = &mut tcp => answered,
            stream = &mut other => return Ok(Stream::Utp(stream)),
        },
    };
    let refused = match answered {
        Ok(stream) => return Ok(Stream::Tcp(stream)),
        Err(error) => error,
    };
    let patience = UTP_PATIENCE.max(3 * begun.elapsed());
    timeout(patience, other).await.map(Stream::Utp).map_err(|_| refused)
}

async fn connect_tcp(network: &Network, addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = network.egress.connect(addr).await?;
    connection::prepare(&stream)?;
    Ok(stream)
}
