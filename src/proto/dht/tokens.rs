//! Tokens: whoever announces a peer shows that it receives at the address that it sends from (BEP 5).
//!
//! Invariant: a token is good for five to ten minutes, and for the address that it was given to.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use sha1::{Digest, Sha1};

/// Time after which a secret is followed by another; the one before still counts.
pub const ROTATION: Duration = Duration::from_secs(5 * 60);

type Secret = [u8; 16];

/// Gives tokens, and knows them again.
#[derive(Clone, Debug)]
pub struct Tokens {
    current: Secret,
    before: Secret,
    rotates: Instant,
}

impl Tokens {
    /// No token is out yet.
    pub fn new(rng: &mut impl Rng, now: Instant) -> Self {
        Self { current: rng.random(), before: rng.random(), rotates: now + ROTATION }
    }

    /// When [`Self::rotate`] is due.
    pub fn poll_timeout(&self) -> Instant {
        self.rotates
    }

    /// Takes another secret, if it is time.
    pub fn rotate(&mut self, rng: &mut impl Rng, now: Instant) {
        if now < self.rotates {
            return;
        }
        // After a long pause both are too old.
        let paused = now >= self.rotates + ROTATION;
        self.before = if paused { rng.random() } else { self.current };
        self.current = rng.random();
        self.rotates = now + ROTATION;
    }

    /// For the node at this address.
    pub fn give(&self, ip: IpAddr) -> [u8; 8] {
        token(&self.current, ip)
    }

    /// Whether the node at this address was given the token.
    pub fn accepts(&self, ip: IpAddr, shown: &[u8]) -> bool {
        [&self.current, &self.before].into_iter().any(|secret| token(secret, ip) == shown)
    }
}

fn token(secret: &Secret, ip: IpAddr) -> [u8; 8] {
    let mut hash = Sha1::new_with_prefix(secret);
    match ip {
        IpAddr::V4(ip) => hash.update(ip.octets()),
        IpAddr::V6(ip) => hash.update(ip.octets()),
    }
    let digest: [u8; 20] = hash.finalize().into();
    std::array::from_fn(|n| digest[n])
}
