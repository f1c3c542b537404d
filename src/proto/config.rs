//! Plain knobs of the pure heart, each with its unit, default and consequence. Data only: builds nothing.

use std::sync::Arc;
use std::time::Duration;

use super::blocklist::Blocklist;

/// How a swarm behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether pieces that nobody reads are downloaded too. Default: yes. Off, an unread mount moves no payload.
    pub fill: bool,
    /// Whether somebody may read. Default: yes. Without readers and fill we are a partial seed, and tell peers so.
    pub reads: bool,
    /// Whether peers are served. Default: yes. Off, nobody is unchoked, and few will trade with us.
    pub upload: bool,
    /// Whether peers are told of each other and believed about others (BEP 11). Default: yes. A private torrent never
    /// does.
    pub exchange: bool,
    /// Whether this process is a node of the DHT, so that peers are told and asked of it (BEP 5). Default: no. Peers of
    /// a private torrent never are.
    pub dht: bool,
    /// Whether peers behind routers are met with the help of others (BEP 55), and others helped. Default: no. It takes
    /// a driver that dials over uTP too, and `exchange`.
    pub punch: bool,
    /// Whether the driver holds blocks back for a rate limit. Default no. If so, fewer are handed to it ahead of time.
    pub upload_limited: bool,
    /// Connections that a torrent seeks by dialling. Default 50: more find rare pieces sooner, and cost memory. Where none
    /// of them has anything that we lack, it seeks `max_peers`.
    pub target_peers: usize,
    /// Connections that a torrent holds, incoming ones counted. Default 200, all that a process has: memory is
    /// bounded for so many.
    pub max_peers: usize,
    /// Dials of one torrent under way at once. Default 30, so that a fresh mount meets its swarm in one round trip.
    pub max_dials: usize,
    /// Bytes of pieces that are begun but not yet stored. Default 32 MiB; two pieces are always allowed.
    /// Smaller, peers share pieces; larger, each peer has a piece of its own.
    pub open_bytes: u64,
    /// Requests that one peer may have outstanding with us. Default 500 (8 MiB), what libtorrent also asks at most.
    pub max_outstanding: usize,
    /// Requests that a peer may queue with us; told to it as `reqq`. Default 500, the excess is rejected.
    pub max_incoming_requests: usize,
    /// Regular upload slots. Default 4, beside one optimistic.
    pub upload_slots: usize,
    /// Bytes of one peer's outstanding requests while somebody reads, as time. Default 100 ms: what a seek
    /// must wait behind.
    pub reading_depth: Duration,
    /// The same while nobody reads, never below the round trip and a half. Default 500 ms: enough that no peer
    /// runs dry. Longer, more pieces are under way that somebody else asks the same seed for.
    pub filling_depth: Duration,
    /// Largest window of a reader, in bytes. Default 64 MiB.
    pub max_window: u64,
    /// Whether pieces may be thrown out again. Default: no. If so, peers that cannot be told of it (BEP 54) do not
    /// hear what is here, and fewer will trade with us.
    pub evicts: bool,
    /// Several connections from one public IP address. Default no; loopback and private addresses always may.
    pub many_per_ip: bool,
    /// Addresses that are not dialled, whoever names them. Default: none.
    pub blocklist: Arc<Blocklist>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fill: true,
            reads: true,
            upload: true,
            exchange: true,
            dht: false,
            punch: false,
            upload_limited: false,
            target_peers: 50,
            max_peers: 200,
            max_dials: 30,
            open_bytes: 32 << 20,
            max_outstanding: 500,
            max_incoming_requests: 500,
            upload_slots: 4,
            reading_depth: Duration::from_millis(100),
            filling_depth: Duration::from_millis(500),
            max_window: 64 << 20,
            evicts: false,
            many_per_ip: false,
            blocklist: Arc::default(),
        }
    }
}
