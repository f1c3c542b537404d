//! What is to happen, and the clock that jumps from one thing to the next.
//!
//! Invariant: time never runs backwards; what is due at the same time happens in the order of scheduling.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Things to happen, soonest first.
pub(crate) struct Agenda<T> {
    start: Instant,
    now: Instant,
    /// Nanoseconds since the start, number of the scheduling, and place among the things. Small, since a heap
    /// moves what it holds.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    things: Vec<Option<T>>,
    free: Vec<usize>,
    scheduled: u64,
}

impl<T> Agenda<T> {
    /// Nothing is to happen.
    pub(crate) fn new(now: Instant) -> Self {
        let (queue, things, free) = (BinaryHeap::new(), Vec::new(), Vec::new());
        Self { start: now, now, queue, things, free, scheduled: 0 }
    }

    /// The clock.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    fn since_start(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_nanos() as u64
    }

    /// Something is to happen then.
    pub(crate) fn schedule(&mut self, at: Instant, what: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.things.push(None);
            self.things.len() - 1
        });
        self.things[place] = Some(what);
        self.scheduled += 1;
        self.queue.push(Reverse((self.since_start(at), self.scheduled, place)));
    }

    /// The next thing up to `end`; the clock then stands there; without one it jumps to `end`.
    pub(crate) fn next(&mut self, end: Instant) -> Option<T> {
        let last = self.since_start(end);
        if self.queue.peek().is_none_or(|Reverse((at, ..))| *at > last) {
            self.now = end;
            return None;
        }
        let Reverse((at, _, place)) = self.queue.pop()?;
        let at = self.start + Duration::from_nanos(at);
        assert!(at >= self.now, "time runs backwards");
        self.now = at;
        self.free.push(place);
        self.things[place].take()
    }
}
