//! Questions that wait for their answers.
//!
//! Invariant: an answer counts only if it has the number of a question that is open, from the very address that
//! was asked.
//! Invariant: each question ends once: answered, or lost. On the way it may be told to be late, once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

/// Questions that may be open.
pub const MAX_OPEN: usize = 512;

/// Bounds of the time after which an answer is late, and that time while nothing is known.
const LATE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
const LATE_AT_FIRST: Duration = Duration::from_millis(500);

/// Bounds of the time after which it is lost.
const LOST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// Pairs an answer with its question; drawn at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueryId(u32);

impl QueryId {
    /// As it stands in a datagram.
    pub fn bytes(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}

/// A question under way, for `T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<T> {
    /// Who was asked.
    pub addr: SocketAddr,
    /// What for.
    pub purpose: T,
    /// Whether it has not been told to be late.
    pub in_time: bool,
    sent: Instant,
    late: Instant,
    lost: Instant,
}

/// What became of a question by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue<T> {
    /// It is late, and may still be answered.
    Late(Open<T>),
    /// It is given up.
    Lost(Open<T>),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Queries<T> {
    open: BTreeMap<QueryId, Open<T>>,
    round_trip: RoundTrip,
}

impl<T> Default for Queries<T> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), round_trip: RoundTrip::default() }
    }
}

impl<T: Copy> Queries<T> {
    /// Questions that are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether there is room for another.
    pub fn has_room(&self) -> bool {
        self.open.len() < MAX_OPEN
    }

    /// Notes a question that is sent now.
    pub fn open(
        &mut self,
        addr: SocketAddr,
        purpose: T,
        rng: &mut impl Rng,
        now: Instant,
    ) -> QueryId {
        let id = loop {
            let id = QueryId(rng.random());
            if !self.open.contains_key(&id) {
                break id;
            }
        };
        let late = now + self.round_trip.late_after();
        let lost = now + self.round_trip.lost_after();
        self.open.insert(id, Open { addr, purpose, in_time: true, sent: now, late, lost });
        id
    }

    /// Takes the question that this answers, if it is one.
    pub fn answered(
        &mut self,
        transaction: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Option<Open<T>> {
        let id = QueryId(u32::from_be_bytes(transaction.try_into().ok()?));
        self.open.get(&id).filter(|open| open.addr == from)?;
        let open = self.open.remove(&id)?;
        self.round_trip.measured(now.saturating_duration_since(open.sent));
        Some(open)
    }

    /// Those that have become late or lost.
    pub fn overdue(&mut self, now: Instant) -> Vec<Overdue<T>> {
        let mut overdue = Vec::new();
        self.open.retain(|_, open| {
            if open.in_time && now >= open.late {
                open.in_time = false;
                overdue.push(Overdue::Late(*open));
            }
            if now >= open.lost {
                overdue.push(Overdue::Lost(*open));
            }
            now < open.lost
        });
        overdue
    }

    /// When [`Self::overdue`] has something next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = |open: &Open<T>| if open.in_time { open.late } else { open.lost };
        self.open.values().map(next).min()
    }
}

/// How long answers take, over all nodes: mean and spread as TCP keeps them (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
struct RoundTrip {
    known: Option<(Duration, Duration)>,
}

impl RoundTrip {
    fn measured(&mut self, time: Duration) {
        self.known = Some(match self.known {
            None => (time, time / 2),
            Some((mean, spread)) => ((mean * 7 + time) / 8, (spread * 3 + mean.abs_diff(time)) / 4),
        });
    }

    fn late_after(self) -> Duration {
        let usual = self.known.map_or(LATE_AT_FIRST, |(mean, spread)| mean + spread * 4);
        usual.clamp(LATE.0, LATE.1)
    }

    fn lost_after(self) -> Duration {
        let patient = self.known.map_or(LOST.1, |_| self.late_after() * 3);
        patient.clamp(LOST.0, LOST.1)
    }
}
