//! How much one host may ask, and how much we answer in all.
//!
//! Invariant: in a second at most [`REPLY_BYTES`] go out as replies, so nobody makes a weapon of us.
//! Invariant: of one host at most [`BURST`] queries count in [`SPAN`]; who sends more is not heard for [`PENALTY`].
//! At most [`MAX_HOSTS`] hosts are remembered.

use std::time::{Duration, Instant};

use lru::LruCache;

use super::contact::Host;

/// Time over which queries are counted.
pub const SPAN: Duration = Duration::from_secs(10);

/// Queries in that time: five a second.
pub const BURST: u32 = 50;

/// How long a host that sends more is not heard.
pub const PENALTY: Duration = Duration::from_secs(5 * 60);

/// Hosts whose queries are counted; the one heard of the longest ago is forgotten first.
pub const MAX_HOSTS: usize = 4096;

/// Bytes of replies in one second: some thirty times what a node in a network of millions is asked for. As many may
/// go at once, since small networks ask in bursts.
pub const REPLY_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
enum Conduct {
    Counted { since: Instant, queries: u32 },
    Unheard { until: Instant },
}

/// See the module.
#[derive(Debug)]
pub struct Flood {
    hosts: LruCache<Host, Conduct>,
    /// Since when replies are counted, and their bytes.
    replies: (Instant, usize),
}

impl Flood {
    /// Nobody has said anything.
    pub fn new(now: Instant) -> Self {
        Self { hosts: LruCache::unbounded(), replies: (now, 0) }
    }

    /// Hosts that are remembered.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Whether something that the host sends unasked is to be heard.
    pub fn hears(&mut self, host: Host, now: Instant) -> bool {
        let fresh = Conduct::Counted { since: now, queries: 1 };
        let before = self.hosts.get(&host).copied();
        let conduct = match before {
            Some(Conduct::Unheard { until }) if now < until => return false,
            Some(Conduct::Counted { since, queries })
                if now.saturating_duration_since(since) < SPAN =>
            {
                match queries < BURST {
                    true => Conduct::Counted { since, queries: queries + 1 },
                    false => Conduct::Unheard { until: now + PENALTY },
                }
            }
            _ => fresh,
        };
        self.hosts.put(host, conduct);
        if self.hosts.len() > MAX_HOSTS {
            self.hosts.pop_lru();
        }
        matches!(conduct, Conduct::Counted { .. })
    }

    /// The host has sent what is of no use: it costs it a part of its right to ask.
    pub fn counts(&mut self, host: Host, now: Instant) {
        self.hears(host, now);
    }

    /// Whether a reply of so many bytes may leave; it counts then.
    pub fn answers(&mut self, bytes: usize, now: Instant) -> bool {
        let (since, sent) = &mut self.replies;
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *sent) = (now, 0);
        }
        let fits = *sent + bytes <= REPLY_BYTES;
        *sent += if fits { bytes } else { 0 };
        fits
    }
}
