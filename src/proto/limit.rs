//! A token bucket that may go into debt: exact for rates of a few bytes a second and of gigabytes.
//!
//! A message cannot leave in parts without holding up those behind it. So whoever finds the bucket out of
//! debt may take a whole message, and the next one waits until that is paid.
//!
//! Invariant: over any time t, what is taken and not refunded is at most rate·t + [`Bucket::burst`] + the
//! largest single taking (+ what [`Bucket::spend`] took, which does not wait; it is paid back all the same).
//! Invariant: nothing is rounded: credit is counted in billionths of a byte.
//!
//! Not here: who waits, and in which order ([`crate::engine::throttle`]).

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Credit for one byte.
const BYTE: i128 = 1_000_000_000;

/// Time for which unused credit is kept: a timer that is late by less costs nothing of the rate.
const KEPT: Duration = Duration::from_millis(100);

/// Longest wait that is told at once; whoever asks again then is told the rest.
const LONGEST_WAIT_NANOS: i128 = 3_600 * BYTE;

/// Credit that grows with time.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Bytes a second.
    rate: NonZeroU64,
    /// In billionths of a byte; below zero it is debt.
    credit: i128,
    most: i128,
    at: Instant,
}

impl Bucket {
    /// A bucket without credit and without debt, for `rate` bytes a second.
    pub fn new(rate: NonZeroU64, now: Instant) -> Self {
        let most = i128::from(rate.get()) * KEPT.as_nanos() as i128;
        Self { rate, credit: 0, most, at: now }
    }

    /// Bytes a second.
    pub fn rate(&self) -> u64 {
        self.rate.get()
    }

    /// Bytes that may be saved up.
    pub fn burst(&self) -> u64 {
        (self.most / BYTE) as u64
    }

    /// Takes so many bytes, into debt if need be.
    ///
    /// # Errors
    /// There is debt already; it is paid at the instant returned, if nobody takes more until then.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Instant> {
        self.earn(now);
        if self.credit < 0 {
            return Err(self.at + self.wait());
        }
        self.credit -= i128::from(bytes) * BYTE;
        Ok(())
    }

    /// Takes for what does not wait, in debt or not.
    pub fn spend(&mut self, bytes: u64, now: Instant) {
        self.earn(now);
        self.credit -= i128::from(bytes) * BYTE;
    }

    /// Gives back what was taken and not used.
    pub fn refund(&mut self, bytes: u64) {
        self.credit = (self.credit + i128::from(bytes) * BYTE).min(self.most);
    }

    fn earn(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.at).as_nanos() as i128;
        self.at = self.at.max(now);
        self.credit = (self.credit + nanos * i128::from(self.rate.get())).min(self.most);
    }

    fn wait(&self) -> Duration {
        let rate = i128::from(self.rate.get());
        let nanos = ((-self.credit + rate - 1) / rate).clamp(1, LONGEST_WAIT_NANOS);
        Duration::from_nanos(nanos as u64)
    }
}
