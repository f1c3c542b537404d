//! Incoming connections: accept, hear which torrent is meant, answer, carry.
//!
//! Invariant: a stranger is heard for [`handshake::LIMIT`] at most, and [`SHAKING`] of them at once.
//!
//! [`SHAKING`]: super::network::SHAKING

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::Type;
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::connection;
use super::egress::Egress;
use super::handshake::{self, HandshakeError, Shaken};
use super::message::Hello;
use super::network::{Network, canonical};
use super::stream::Stream;

const BACKLOG: i32 = 128;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Opens a listening socket for the address's family alone; port 0 takes a free one (see `local_addr`).
pub fn bind(egress: &Egress, addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = egress.socket(addr, Type::STREAM)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts peers for every open door, for ever. To be spawned, and ended by abort.
pub async fn serve(network: Arc<Network>, listener: TcpListener) {
    loop {
        let turn = Arc::clone(&network.shaking).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((_, addr)) if network.blocklist.contains(addr.ip()) => {
                debug!(%addr, "turned a peer of the blocklist away");
            }
            Ok((stream, addr)) => {
                let (network, addr) = (Arc::clone(&network), canonical(addr));
                match connection::prepare(&stream) {
                    Ok(()) => drop(tokio::spawn(welcome(network, turn, Stream::Tcp(stream), addr))),
                    Err(error) => debug!(%addr, %error, "a peer left after it was accepted"),
                }
            }
            Err(error) if is_of_one_peer(&error) => {
                debug!(%error, "a peer left before it was accepted")
            }
            Err(error) => {
                warn!(%error, "cannot accept peers");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The same over uTP, while there is any.
pub async fn serve_utp(network: Arc<Network>) {
    let Some(utp) = &network.utp else { return };
    loop {
        let turn = Arc::clone(&network.shaking_utp).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        match utp.accept().await {
            Ok((_, addr)) if network.blocklist.contains(addr.ip()) => {
                debug!(%addr, "turned a peer of the blocklist away");
            }
            Ok((stream, addr)) => {
                tokio::spawn(welcome(Arc::clone(&network), turn, Stream::Utp(stream), addr));
            }
            Err(error) => return warn!(%error, "cannot accept peers over uTP"),
        }
    }
}

/// Shakes hands, gives its turn to the next, and carries the connection.
async fn welcome(
    network: Arc<Network>,
    turn: OwnedSemaphorePermit,
    mut stream: Stream,
    addr: SocketAddr,
) {
    let answered = handshake::within_limit(async {
        let place = network.place().ok_or(HandshakeError::Full)?;
        let (shaken, door) = handshake::answer(&mut stream, &network).await?;
        Ok((place, shaken, door))
    })
    .await;
    drop(turn);
    match answered {
        Ok((_place, Shaken { handshake, ciphers }, door)) => {
            let traits = stream.traits(ciphers.as_ref());
            let hello = Hello { addr, incoming: true, handshake, round_trip: None, traits };
            stream.carry(&network, door, hello, ciphers).await;
        }
        Err(error) => debug!(%addr, %error, "turned a peer away"),
    }
}

/// Whether an accept failed for its peer's sake only, so that the next may go well at once.
fn is_of_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
