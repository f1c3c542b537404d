//! Names of hosts that have nodes become addresses.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::engine::egress::Egress;
use crate::engine::network::canonical;
use crate::proto::announce::reach::Reach;

/// Time for one attempt.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two attempts, at first and at last: we may be started before the network is up.
const FIRST_GAP: Duration = Duration::from_secs(5);
const LONGEST_GAP: Duration = Duration::from_secs(30 * 60);

/// Tries until there are addresses that `take` takes.
pub(super) async fn resolve(
    egress: Egress,
    (host, port): (String, u16),
    take: impl Fn(Vec<SocketAddr>) -> bool + Send,
) {
    let mut gap = FIRST_GAP;
    loop {
        match timeout(PATIENCE, egress.lookup(&host, port)).await {
            Ok(Ok(found)) => {
                let allowed = |addr: &SocketAddr| Reach::of_udp().allows(addr.ip());
                let addrs: Vec<_> = found.into_iter().map(canonical).filter(allowed).collect();
                if take(addrs) {
                    return;
                }
            }
            Ok(Err(error)) => debug!(host, %error, "cannot resolve a node of the DHT"),
            Err(_) => debug!(host, "no answer for the name of a node of the DHT"),
        }
        sleep(gap).await;
        gap = (gap * 2).min(LONGEST_GAP);
    }
}
