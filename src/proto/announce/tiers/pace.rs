//! How often trackers are asked, and what is taken from their own numbers.

use std::time::Duration;

use crate::proto::announce::Answer;

/// Numbers of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Shortest interval that is taken from a tracker. Default 30 s: shorter ones would be a flood.
    pub shortest: Duration,
    /// Longest interval that is taken from a tracker. Default 2 h: a longer one would leave us alone.
    pub longest: Duration,
    /// When a tracker names none. Default 30 min.
    pub interval: Duration,
    /// Before an early announce, when a tracker names no min interval. Default 2 min.
    pub min_interval: Duration,
    /// Until the next tracker of a tier joins a silent one. Default 3 s.
    pub patience: Duration,
    /// Back-off after a whole tier has failed once, doubled each time after. Default 10 s.
    pub back_off: Duration,
    /// Longest back-off. Default 30 min.
    pub longest_back_off: Duration,
    /// For the `stopped` announces, all together. Default 3 s: a user waits for us.
    pub farewell: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            shortest: Duration::from_secs(30),
            longest: Duration::from_secs(2 * 3600),
            interval: Duration::from_secs(30 * 60),
            min_interval: Duration::from_secs(120),
            patience: Duration::from_secs(3),
            back_off: Duration::from_secs(10),
            longest_back_off: Duration::from_secs(30 * 60),
            farewell: Duration::from_secs(3),
        }
    }
}

impl Pace {
    /// The interval and the min interval that an answer names, made sane.
    pub(super) fn intervals(&self, answer: &Answer) -> (Duration, Duration) {
        let sane = |named: Option<Duration>, default| {
            named.unwrap_or(default).clamp(self.shortest, self.longest)
        };
        let interval = sane(answer.interval, self.interval);
        (interval, sane(answer.min_interval, self.min_interval).min(interval))
    }
}
