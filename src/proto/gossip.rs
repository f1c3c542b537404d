//! What one peer and we have told each other of other peers (BEP 11).
//!
//! Invariant: the peer is told at most once in [`PACE`], and only what has changed since.
//!
//! Not here: whom to tell of and what becomes of what is heard ([`crate::proto::swarm`]), the bytes
//! ([`super::wire::pex`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::wire::pex::{Exchange, MAX_NAMED, Traits};

/// Time between two exchanges to a peer. BEP 11 allows one a minute; a little more, so that none seems to come too
/// soon when the one before it was held up on its way.
pub const PACE: Duration = Duration::from_secs(65);

/// Time after which it is looked again whether anything has changed for a peer that was told of others.
const LOOK: Duration = Duration::from_secs(5);

/// Time between two exchanges of a peer that are both heard: a minute, less what may have held up the first.
const HEARD_PACE: Duration = Duration::from_secs(50);

/// Exchanges before their time that a peer may send before it is a flood.
const MAX_HASTY: u32 = 3;

/// What becomes of an exchange that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// It is heard.
    Timely,
    /// It came too soon after the one before, and is passed over.
    TooSoon,
    /// The peer sends too many of them.
    Flood,
}

/// See the module.
#[derive(Debug)]
pub struct Gossip {
    /// Whom the peer believes us connected to, and what of them.
    told: BTreeMap<SocketAddr, Traits>,
    look_at: Instant,
    heard: Option<Instant>,
    hasty: u32,
}

impl Gossip {
    /// Nothing was said yet.
    pub fn new(now: Instant) -> Self {
        Self { told: BTreeMap::new(), look_at: now, heard: None, hasty: 0 }
    }

    /// Whether the peer may be told something now.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.look_at
    }

    /// What to tell the peer while these are connected; what does not fit is told next time.
    pub fn news(&mut self, here: &BTreeMap<SocketAddr, Traits>, now: Instant) -> Option<Exchange> {
        let fresh = here.iter().filter(|(addr, traits)| self.told.get(addr) != Some(traits));
        let gone = self.told.keys().filter(|addr| !here.contains_key(addr));
        let news = Exchange {
            added: fresh.map(|(addr, traits)| (*addr, *traits)).take(MAX_NAMED).collect(),
            dropped: gone.copied().take(MAX_NAMED).collect(),
        };
        self.told.extend(news.added.iter().copied());
        self.told.retain(|addr, _| !news.dropped.contains(addr));
        self.look_at = match (news.is_empty(), self.told.is_empty()) {
            (true, true) => now,
            (true, false) => now + LOOK,
            (false, _) => now + PACE,
        };
        (!news.is_empty()).then_some(news)
    }

    /// An exchange has come.
    pub fn hear(&mut self, now: Instant) -> Hearing {
        let waited = self.heard.is_none_or(|at| now.saturating_duration_since(at) >= HEARD_PACE);
        if waited {
            self.heard = Some(now);
            return Hearing::Timely;
        }
        self.hasty += 1;
        if self.hasty > MAX_HASTY { Hearing::Flood } else { Hearing::TooSoon }
    }
}
