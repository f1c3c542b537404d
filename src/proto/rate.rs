//! Bytes over time, given `now`.
//!
//! Two questions, two types: [`Rate`] tells how much flows by the clock (the choker's question),
//! [`Throughput`] how much flows while something is asked for (the picker's question).

use std::time::{Duration, Instant};

/// Bytes per second by the clock, averaged with weights that fade by 1/e in each `span`.
#[derive(Clone, Debug)]
pub struct Rate {
    span: Duration,
    born: Instant,
    at: Instant,
    weight: f64,
}

impl Rate {
    /// A rate of 0, to be averaged over about `span`.
    pub fn new(span: Duration, now: Instant) -> Self {
        Self { span, born: now, at: now, weight: 0.0 }
    }

    /// Counts bytes that flowed at `now`.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.weight = self.faded(now) + bytes as f64;
        self.at = self.at.max(now);
    }

    /// Bytes per second at `now`; honest from the start, since the average is over the time that there was.
    pub fn per_second(&self, now: Instant) -> f64 {
        let span = self.span.as_secs_f64();
        let age = now.saturating_duration_since(self.born).as_secs_f64().max(0.1);
        self.faded(now) / (span * (1.0 - (-age / span).exp()))
    }

    fn faded(&self, now: Instant) -> f64 {
        let gap = now.saturating_duration_since(self.at).as_secs_f64();
        self.weight * (-gap / self.span.as_secs_f64()).exp()
    }
}

/// Bytes per second that a peer can bring, judged by what came between each request and its answer. The best of
/// the last few seconds counts, since a queue that ran dry tells nothing about the line.
#[derive(Clone, Debug, Default)]
pub struct Throughput {
    delivered: u64,
    best: f64,
    before: f64,
    since: Option<Instant>,
}

/// Shortest time that tells a rate: many lines pass a burst at once and then far less. With half of the shortest
/// queue that is kept, in time, a queue that is too short still doubles until it tells the rate.
const SHORTEST: f64 = 0.05;

/// Time after which a better rate is forgotten, at the latest at its double.
const MEMORY: Duration = Duration::from_secs(1);

impl Throughput {
    /// All bytes so far; to be noted with each request.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes came in.
    pub fn add(&mut self, bytes: u64) {
        self.delivered += bytes;
    }

    /// An answer is complete that was asked for at `asked`, when `delivered` bytes had come. `busy`: more is
    /// outstanding; otherwise the answer can only show that the peer is faster than thought.
    pub fn answered(&mut self, delivered: u64, asked: Instant, busy: bool, now: Instant) {
        let seconds = now.saturating_duration_since(asked).as_secs_f64().max(SHORTEST);
        let rate = (self.delivered - delivered) as f64 / seconds;
        if busy && now.saturating_duration_since(*self.since.get_or_insert(now)) > MEMORY {
            self.since = Some(now);
            self.before = std::mem::take(&mut self.best);
        }
        self.best = self.best.max(rate);
    }

    /// Bytes per second; `None` before the first answer.
    pub fn per_second(&self) -> Option<f64> {
        let best = self.best.max(self.before);
        (best > 0.0).then_some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_told_right_from_the_first_second_on() {
        let start = Instant::now();
        let mut rate = Rate::new(Duration::from_secs(20), start);
        for step in 1..=600u64 {
            let now = start + Duration::from_millis(step * 100);
            rate.add(10_000, now);
            if step >= 10 {
                let seen = rate.per_second(now);
                assert!((90_000.0..115_000.0).contains(&seen), "{seen} at step {step}");
            }
        }
    }

    #[test]
    fn a_burst_makes_nobody_fast() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        for block in 0..4 {
            throughput.add(16_384);
            throughput.answered(0, start, block < 3, start + Duration::from_millis(2));
        }
        let seen = throughput.per_second().expect("answers came");
        assert!(seen < 4.0 * 16_384.0 / 0.04, "{seen}");
    }

    #[test]
    fn idle_time_makes_nobody_slow() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        throughput.add(100_000);
        throughput.answered(0, start, true, start + Duration::from_secs(1));
        let later = start + Duration::from_secs(60);
        throughput.add(1_000);
        throughput.answered(100_000, later, false, later + Duration::from_secs(1));
        assert_eq!(throughput.per_second(), Some(100_000.0));
    }

    #[test]
    fn a_peer_that_grows_slow_is_found_out_within_seconds() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        throughput.add(1_000_000);
        throughput.answered(0, start, true, start + Duration::from_secs(1));
        for second in 1..5 {
            let (asked, before) = (start + Duration::from_secs(second), throughput.delivered());
            throughput.add(10_000);
            throughput.answered(before, asked, true, asked + Duration::from_millis(1100));
        }
        let seen = throughput.per_second().expect("answers came");
        assert!(seen < 10_000.0, "{seen}");
    }
}
