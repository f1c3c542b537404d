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

/// Bytes per second while requests are outstanding: a peer that is asked for nothing is not slow.
#[derive(Clone, Debug, Default)]
pub struct Throughput {
    bytes: f64,
    seconds: f64,
    busy_since: Option<Instant>,
}

/// Busy seconds that the average of [`Throughput`] looks back on.
const THROUGHPUT_SPAN_SECONDS: f64 = 2.0;

impl Throughput {
    /// The first request goes out: time counts from here.
    pub fn begin(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
    }

    /// Bytes came in.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.count_time(now);
        self.bytes += bytes as f64;
    }

    /// Nothing is outstanding: time stops.
    pub fn end(&mut self, now: Instant) {
        self.count_time(now);
        self.busy_since = None;
    }

    /// Bytes per busy second; `None` until a tenth of a second has been seen.
    pub fn per_second(&self) -> Option<f64> {
        (self.seconds >= 0.1).then(|| self.bytes / self.seconds)
    }

    fn count_time(&mut self, now: Instant) {
        let Some(since) = self.busy_since.replace(now) else {
            self.busy_since = None;
            return;
        };
        self.seconds += now.saturating_duration_since(since).as_secs_f64();
        if self.seconds > THROUGHPUT_SPAN_SECONDS {
            self.bytes *= THROUGHPUT_SPAN_SECONDS / self.seconds;
            self.seconds = THROUGHPUT_SPAN_SECONDS;
        }
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
    fn idle_time_makes_nobody_slow() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        throughput.begin(start);
        throughput.add(100_000, start + Duration::from_secs(1));
        throughput.end(start + Duration::from_secs(1));
        throughput.begin(start + Duration::from_secs(60));
        throughput.add(100_000, start + Duration::from_secs(61));
        assert_eq!(throughput.per_second(), Some(100_000.0));
    }
}
