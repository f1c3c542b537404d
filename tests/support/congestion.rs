//! TCP's congestion window, as far as a reader feels it: small at first, twice as large after each round trip, and
//! small again after a pause. Nothing is lost here, so it never shrinks otherwise.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Ten segments (RFC 6928).
const FIRST: u64 = 10 * 1448;

/// Shortest pause after which a window is small again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Window {
    round_trip: Duration,
    size: u64,
    /// What was sent, and when that will be known to have arrived.
    flying: VecDeque<(Instant, u64)>,
    in_flight: u64,
    last: Instant,
}

impl Window {
    /// Of a fresh connection.
    pub(crate) fn new(round_trip: Duration, now: Instant) -> Self {
        Self { round_trip, size: FIRST, flying: VecDeque::new(), in_flight: 0, last: now }
    }

    /// Bytes that may be sent now.
    pub(crate) fn room(&mut self, now: Instant) -> u64 {
        while let Some(&(at, bytes)) = self.flying.front()
            && at <= now
        {
            self.flying.pop_front();
            // What is not full need not grow.
            if 2 * self.in_flight >= self.size {
                self.size += bytes;
            }
            self.in_flight -= bytes;
        }
        let pause = SHORTEST_PAUSE.max(2 * self.round_trip);
        if self.in_flight == 0 && now.saturating_duration_since(self.last) > pause {
            self.size = FIRST;
        }
        self.size.saturating_sub(self.in_flight)
    }

    /// The line will have sent these bytes then.
    pub(crate) fn sent(&mut self, at: Instant, bytes: u64) {
        self.flying.push_back((at + self.round_trip, bytes));
        self.in_flight += bytes;
        self.last = at;
    }

    /// When there will be more room.
    pub(crate) fn opens(&self) -> Option<Instant> {
        self.flying.front().map(|(at, _)| *at)
    }
}
