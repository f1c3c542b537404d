//! The tracker's window over UDP (BEP 15).
//!
//! Invariant: nothing is remembered and no peers are sent before the asker has shown, by a connection id,
//! that it receives at its address; so nobody is entered or flooded under a forged one.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::sleep;

use super::Desk;
use crate::proto::announce::Announce;
use crate::proto::announce::udp::{
    ConnectionId, MAX_DATAGRAM, Request, Transaction, read_request, write_announced,
    write_connected, write_refusal, write_scraped,
};
use crate::proto::registry::{Families, Visit};

/// A connection id is good for the epoch that it was made in and the next: one to two minutes.
const EPOCH: Duration = Duration::from_secs(60);

/// After an error of the socket itself.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(socket: UdpSocket, desk: Arc<Desk>) {
    let ids = ConnectionIds::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(datagram) => datagram,
            Err(error) => {
                tracing::debug!(%error, "cannot receive");
                sleep(PAUSE).await;
                continue;
            }
        };
        let asker = SocketAddr::new(from.ip().to_canonical(), from.port());
        if let Some(reply) = reply(&buffer[..len], asker, &ids, &desk) {
            // A full send buffer loses the reply; the peer asks again.
            let _ = socket.try_send_to(&reply, from);
        }
    }
}

fn reply(packet: &[u8], asker: SocketAddr, ids: &ConnectionIds, desk: &Desk) -> Option<Vec<u8>> {
    let (transaction, request) = read_request(packet)?;
    let now = Instant::now();
    match request {
        Request::Connect => Some(write_connected(transaction, ids.issue(asker.ip(), now))),
        Request::Announce { connection, .. } | Request::Scrape { connection, .. }
            if !ids.accepts(connection, asker.ip(), now) =>
        {
            Some(write_refusal(transaction, "the connection id is not valid or too old"))
        }
        Request::Announce { announce, .. } => Some(announced(transaction, &announce, asker, desk)),
        Request::Scrape { torrents, .. } => {
            Some(write_scraped(transaction, &desk.scrape(&torrents)))
        }
    }
}

fn announced(
    transaction: Transaction,
    announce: &Announce,
    asker: SocketAddr,
    desk: &Desk,
) -> Vec<u8> {
    let visit = Visit {
        info_hash: announce.info_hash,
        addr: SocketAddr::new(asker.ip(), announce.port),
        left: announce.progress.left,
        event: announce.event,
        wanted: announce.wanted,
        families: Families::Own,
    };
    match desk.announce(&visit) {
        Ok(answer) => write_announced(transaction, &answer, asker.ip()),
        Err(refused) => write_refusal(transaction, &refused.to_string()),
    }
}

/// Connection ids that need no memory: a keyed hash of address and epoch.
struct ConnectionIds {
    key: RandomState,
    start: Instant,
}

impl ConnectionIds {
    fn new() -> Self {
        Self { key: RandomState::new(), start: Instant::now() }
    }

    fn issue(&self, ip: IpAddr, now: Instant) -> ConnectionId {
        self.of(ip, self.epoch(now))
    }

    fn accepts(&self, id: ConnectionId, ip: IpAddr, now: Instant) -> bool {
        let epoch = self.epoch(now);
        id == self.of(ip, epoch) || epoch > 0 && id == self.of(ip, epoch - 1)
    }

    fn epoch(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / EPOCH.as_secs()
    }

    fn of(&self, ip: IpAddr, epoch: u64) -> ConnectionId {
        ConnectionId(self.key.hash_one((ip, epoch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_is_good_for_its_address_and_a_minute() {
        let ids = ConnectionIds::new();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let at = |secs| ids.start + Duration::from_secs(secs);
        let id = ids.issue(ip, at(59));
        assert!(ids.accepts(id, ip, at(59)));
        assert!(ids.accepts(id, ip, at(119)));
        assert!(!ids.accepts(id, ip, at(120)), "too old");
        assert!(!ids.accepts(id, "192.0.2.2".parse().unwrap(), at(59)), "another address");
        assert!(!ConnectionIds::new().accepts(id, ip, at(59)), "another tracker");
        assert!(!ids.accepts(ConnectionId(id.0 ^ 1), ip, at(59)), "a guess");
    }
}
