//! What is to happen, and the clock that jumps from one thing to the next.
//!
//! Invariant: time never runs backwards; what is due at the same time happens in the order of scheduling.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Instant;

/// Things to happen, soonest first.
pub(crate) struct Agenda<T> {
    now: Instant,
    queue: BinaryHeap<Reverse<Entry<T>>>,
    scheduled: u64,
}

struct Entry<T>(Instant, u64, T);

impl<T> Entry<T> {
    fn place(&self) -> (Instant, u64) {
        (self.0, self.1)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl<T> Agenda<T> {
    /// Nothing is to happen.
    pub(crate) fn new(now: Instant) -> Self {
        Self { now, queue: BinaryHeap::new(), scheduled: 0 }
    }

    /// The clock.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// This is to happen then.
    pub(crate) fn schedule(&mut self, at: Instant, what: T) {
        self.scheduled += 1;
        self.queue.push(Reverse(Entry(at, self.scheduled, what)));
    }

    /// The next thing up to `end`, and the clock jumps there; without one it jumps to `end`.
    pub(crate) fn next(&mut self, end: Instant) -> Option<T> {
        if self.queue.peek().is_none_or(|Reverse(entry)| entry.0 > end) {
            self.now = end;
            return None;
        }
        let Reverse(Entry(at, _, what)) = self.queue.pop()?;
        assert!(at >= self.now, "time runs backwards");
        self.now = at;
        Some(what)
    }
}
