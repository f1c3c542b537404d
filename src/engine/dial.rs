//! Outgoing connections: dial, shake hands, carry.
//!
//! Invariant: each dial tells its torrent exactly one of `Connected`, `DialFailed` and
//! `DialledOurselves`.
//!
//! Not here: whom to dial and when again (the swarm decides).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::SemaphorePermit;

use super::connection;
use super::handshake::{self, HandshakeError};
use super::message::{FromPeer, Hello};
use super::network::{Door, Network, canonical};
use crate::proto::wire::message::Handshake;

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
        Ok((_place, stream, handshake)) => {
            let hello = Hello { addr, incoming: false, handshake };
            connection::run(&network, door, hello, stream.into_split()).await;
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

async fn open<'a>(
    network: &'a Network,
    door: &Door,
    addr: SocketAddr,
) -> Result<(SemaphorePermit<'a>, TcpStream, Handshake), HandshakeError> {
    let place = network.place().ok_or(HandshakeError::Full)?;
    let local = network.local;
    let (socket, from) = match addr {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, local.v4.map(IpAddr::V4)),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, local.v6.map(IpAddr::V6)),
    };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let mut stream = socket.connect(addr).await?;
    connection::prepare(&stream)?;
    let handshake = handshake::offer(&mut stream, door).await?;
    Ok((place, stream, handshake))
}
