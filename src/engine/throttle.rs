//! Rate limits that all connections of the process share, each way: whose turn it is, and waiting for it.
//!
//! Invariant: those who wait are served in the order in which they came, one message or one read each, so a
//! rate is shared evenly among connections that always have something to move.
//! Invariant: without a limit nothing here waits, locks or allocates.
//!
//! Not here: the arithmetic ([`crate::proto::limit`]).

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep_until;

use super::clock;
use crate::proto::limit::Bucket;

/// A read under a limit takes at most this much of the rate at once, so that many connections get their turn
/// soon.
const READ_TIME: Duration = Duration::from_millis(20);

/// Bytes of the smallest read under a limit.
const LEAST_READ: u64 = 1024;

/// Most bytes a second, over all connections; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// That leave.
    pub up: Option<NonZeroU64>,
    /// That arrive.
    pub down: Option<NonZeroU64>,
}

/// One direction's limit; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Throttle(Option<Arc<Limited>>);

#[derive(Debug)]
struct Limited {
    bucket: Mutex<Bucket>,
    /// Held by whoever is next; its queue is first come, first served.
    turn: tokio::sync::Mutex<()>,
}

impl Throttle {
    /// A throttle to so many bytes a second; call it inside the runtime.
    pub fn new(rate: Option<NonZeroU64>) -> Self {
        Self(rate.map(|rate| {
            let bucket = Mutex::new(Bucket::new(rate, clock::now()));
            Arc::new(Limited { bucket, turn: tokio::sync::Mutex::default() })
        }))
    }

    /// A connection's place at it.
    pub fn tap(&self) -> Tap {
        Tap { throttle: self.clone(), turn: None }
    }
}

impl Limited {
    async fn grant(self: Arc<Self>, bytes: u64) {
        let _turn = self.turn.lock().await;
        loop {
            let outcome = self.bucket.lock().take(bytes, clock::now());
            match outcome {
                Ok(()) => return,
                Err(paid) => sleep_until(paid.into()).await,
            }
        }
    }
}

/// One connection at one throttle. Its place in the queue outlives the future that waits for it, so whoever
/// stops polling must [`Tap::give_up`].
pub struct Tap {
    throttle: Throttle,
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("waiting", &self.is_waiting()).finish_non_exhaustive()
    }
}

impl Tap {
    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.throttle.0.is_some()
    }

    /// Whether a turn is waited for.
    pub fn is_waiting(&self) -> bool {
        self.turn.is_some()
    }

    /// Bytes that one read should take at most.
    pub fn read_len(&self, most: usize) -> usize {
        let Some(limited) = &self.throttle.0 else { return most };
        let share = u128::from(limited.bucket.lock().rate()) * READ_TIME.as_millis() / 1000;
        most.min(share.max(u128::from(LEAST_READ)) as usize)
    }

    /// Waits for this connection's turn and takes the bytes; the same number until it is ready.
    pub fn poll_take(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limited) = &self.throttle.0 else { return Poll::Ready(()) };
        let turn =
            self.turn.get_or_insert_with(|| Box::pin(Arc::clone(limited).grant(bytes as u64)));
        ready!(turn.as_mut().poll(cx));
        self.turn = None;
        Poll::Ready(())
    }

    /// Leaves the queue; whoever is next goes on.
    pub fn give_up(&mut self) {
        self.turn = None;
    }

    /// Gives back what was taken and not used.
    pub fn refund(&self, bytes: usize) {
        if let Some(limited) = &self.throttle.0 {
            limited.bucket.lock().refund(bytes as u64);
        }
    }

    /// Takes without waiting; others wait for it.
    pub fn spend(&self, bytes: usize) {
        if let Some(limited) = &self.throttle.0 {
            limited.bucket.lock().spend(bytes as u64, clock::now());
        }
    }
}
