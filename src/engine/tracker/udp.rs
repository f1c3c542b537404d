//! Announces over UDP (BEP 15).
//!
//! Each announce has a socket connected to the tracker: the kernel then lets nothing through from other
//! sources, and a refused port is known at once. The socket is kept with its connection id, since some
//! trackers tie the id to the port.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use url::{Host, Url};

use super::failure::Failure;
use crate::engine::egress::Egress;
use crate::proto::announce::reach::Reach;
use crate::proto::announce::udp::{
    ConnectionId, Family, MAX_DATAGRAM, Transaction, read_announced, read_connected,
    write_announce, write_connect,
};
use crate::proto::announce::{Announce, Answer, AnswerError};

/// How long a connection id may be used (BEP 15).
const CONNECTION_AGE: Duration = Duration::from_secs(60);

/// Waits for a reply, one for each time a request is sent. BEP 15 starts at 15 s, which a reader waiting
/// for his first peer would feel; the last ones are as patient.
const WAITS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];

/// The UDP side of one torrent's trackers.
pub(super) struct Udp {
    egress: Egress,
    /// Resting connections, by tracker: as many as trackers and families.
    connections: Mutex<HashMap<SocketAddr, Connection>>,
}

struct Connection {
    socket: UdpSocket,
    id: ConnectionId,
    since: Instant,
}

impl Udp {
    /// Without connections; all of them will leave by `egress`.
    pub(super) fn new(egress: Egress) -> Self {
        Self { egress, connections: Mutex::default() }
    }

    /// Announces to this URL over this family.
    pub(super) async fn announce(
        &self,
        url: &Url,
        family: Family,
        announce: &Announce,
    ) -> Result<Answer, Failure> {
        if self.egress.is_proxied() {
            return Err(Failure::NotCarried);
        }
        let tracker = address(&self.egress, url, family).await?;
        let connection = match self.resting(tracker) {
            Some(connection) => connection,
            None => connect(&self.egress, tracker).await?,
        };
        let url_data = url_data(url);
        let answer = exchange(
            &connection.socket,
            |transaction| write_announce(connection.id, transaction, announce, &url_data),
            |packet, transaction| read_announced(packet, transaction, family),
        )
        .await?;
        self.connections.lock().insert(tracker, connection);
        Ok(answer)
    }

    fn resting(&self, tracker: SocketAddr) -> Option<Connection> {
        self.connections.lock().remove(&tracker).filter(|c| c.since.elapsed() < CONNECTION_AGE)
    }
}

async fn connect(egress: &Egress, tracker: SocketAddr) -> Result<Connection, Failure> {
    let local = egress.local.of(Family::of(&tracker));
    let socket = egress.udp(SocketAddr::new(local, 0))?;
    socket.connect(tracker).await?;
    let id = exchange(&socket, write_connect, read_connected).await?;
    Ok(Connection { socket, id, since: Instant::now() })
}

/// Sends a request, again and again, until its reply comes.
async fn exchange<T>(
    socket: &UdpSocket,
    request: impl Fn(Transaction) -> Vec<u8>,
    reply: impl Fn(&[u8], Transaction) -> Option<Result<T, AnswerError>>,
) -> Result<T, Failure> {
    let transaction = Transaction(rand::random());
    let request = request(transaction);
    let mut buffer = vec![0; MAX_DATAGRAM];
    for wait in WAITS {
        socket.send(&request).await?;
        let answered = timeout(wait, async {
            loop {
                let len = socket.recv(&mut buffer).await?;
                if let Some(outcome) = reply(&buffer[..len], transaction) {
                    return Ok::<_, std::io::Error>(outcome);
                }
            }
        });
        if let Ok(outcome) = answered.await {
            return Ok(outcome??);
        }
    }
    Err(Failure::TimedOut)
}

async fn address(egress: &Egress, url: &Url, family: Family) -> Result<SocketAddr, Failure> {
    let port = url.port().ok_or_else(|| Failure::Url("it has no port".to_owned()))?;
    let host = match url.host().ok_or_else(|| Failure::Url("it has no host".to_owned()))? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    };
    let found = lookup(egress, &host, port, family, Reach::of_udp()).await?;
    found.into_iter().next().ok_or(Failure::NoAddress)
}

/// Addresses of a name in one family; never an empty list.
pub(super) async fn lookup(
    egress: &Egress,
    host: &str,
    port: u16,
    family: Family,
    reach: Reach,
) -> Result<Vec<SocketAddr>, Failure> {
    let found = egress.lookup(host, port).await.map_err(Failure::Name)?.into_iter();
    let (allowed, other): (Vec<_>, Vec<_>) =
        found.filter(|addr| Family::of(addr) == family).partition(|addr| reach.allows(addr.ip()));
    match (allowed.is_empty(), other.first()) {
        (false, _) => Ok(allowed),
        (true, Some(addr)) => Err(Failure::Forbidden(addr.ip().to_string())),
        (true, None) => Err(Failure::NoAddress),
    }
}

/// BEP 41: path and query.
fn url_data(url: &Url) -> String {
    let path = url.path();
    url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}
