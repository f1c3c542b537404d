//! Outgoing connections: dial, shake hands, carry.
//!
//! Invariant: each dial tells its torrent exactly one of `Connected`, `DialFailed` and
//! `DialledOurselves`.
//! Invariant: a peer that takes connections in the clear never waits for encryption; one that closes them is
//! dialled once more, encrypted, unless that is off.
//!
//! Not here: whom to dial and when again (the swarm decides).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::SemaphorePermit;

use super::connection;
use super::handshake::{self, HandshakeError, Shaken};
use super::message::{FromPeer, Hello};
use super::network::{Door, Network, canonical};
use crate::proto::mse::Encryption;

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
            let round_trip = Some(round_trip);
            let hello = Hello { addr, incoming: false, handshake, round_trip };
            connection::carry(&network, door, hello, stream.into_split(), ciphers).await;
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
type Opened<'a> = (SemaphorePermit<'a>, TcpStream, Shaken, Duration);

async fn open<'a>(
    network: &'a Network,
    door: &Door,
    addr: SocketAddr,
) -> Result<Opened<'a>, HandshakeError> {
    let place = network.place().ok_or(HandshakeError::Full)?;
    let (mut stream, round_trip) = connect(network, addr).await?;
    let encryption = network.transports.encryption;
    if encryption == Encryption::Require {
        let shaken = handshake::offer_encrypted(&mut stream, door, encryption).await?;
        return Ok((place, stream, shaken, round_trip));
    }
    match handshake::offer(&mut stream, door).await {
        Err(HandshakeError::Closed) if encryption == Encryption::Prefer => {
            let (mut stream, round_trip) = connect(network, addr).await?;
            let shaken = handshake::offer_encrypted(&mut stream, door, encryption).await?;
            Ok((place, stream, shaken, round_trip))
        }
        shaken => Ok((place, stream, shaken?, round_trip)),
    }
}

/// With the time that it took.
async fn connect(
    network: &Network,
    addr: SocketAddr,
) -> Result<(TcpStream, Duration), HandshakeError> {
    let asked = Instant::now();
    let stream = network.egress.connect(addr).await.map_err(HandshakeError::Io)?;
    let round_trip = asked.elapsed();
    connection::prepare(&stream)?;
    Ok((stream, round_trip))
}
