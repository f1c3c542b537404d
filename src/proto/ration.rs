//! So much a minute of what somebody else decides on.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// How much is left of this minute's ration.
#[derive(Clone, Copy, Debug)]
pub struct Ration {
    most: u32,
    since: Instant,
    used: u32,
}

impl Ration {
    /// At most so many a minute; the first minute begins now.
    pub fn new(most: u32, now: Instant) -> Self {
        Self { most, since: now, used: 0 }
    }

    /// Takes one, if one is left.
    pub fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= MINUTE {
            *self = Self::new(self.most, now);
        }
        let left = self.used < self.most;
        self.used += u32::from(left);
        left
    }
}
