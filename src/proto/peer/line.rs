//! The line to a peer, as far as blocks and their delays tell: its round trip, its rate, and how many requests it
//! takes to keep it full.
//!
//! The round trip is best told by a message without payload, as the dial is: the first blocks of a connection pass
//! TCP's slow start, and one block alone may take two round trips. So blocks shorten it at any time, and lengthen
//! it only where few stand ahead in the middle of a busy spell.
//!
//! Not here: which blocks, and the requests themselves ([`super::Peer`]).

use std::time::{Duration, Instant};

use crate::proto::rate::Throughput;
use crate::proto::units::BLOCK_LEN;

/// Bytes of the shortest round that tells a rate.
const ROUND: u64 = 4 * BLOCK_LEN as u64;

/// Fewest requests that a line is kept busy with.
const LEAST_DEPTH: f64 = 2.0;

/// Round trip that is assumed until one is known.
const FIRST_RTT: Duration = Duration::from_millis(200);

/// Bytes per second that are assumed until some have come.
const FIRST_RATE: f64 = 128.0 * 1024.0;

/// Requests before one whose delay may still tell a longer round trip. More than none, or a round trip that has
/// grown under load would never be seen, and the queue stay too short for it; no more, or the blocks before it are
/// taken for a round trip where the line is slow.
const FEW_AHEAD: usize = 1;

/// Round trips of a busy spell that TCP may need to get up to speed.
const SLOW_START: u32 = 4;

/// Round trips below this are not told from chance.
const SHORT_RTT: Duration = Duration::from_millis(25);

/// What is remembered of a request until its answer comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    at: Instant,
    /// Requests that stood before it.
    ahead: usize,
    /// Bytes that had come before.
    delivered: u64,
    /// When the last of them had.
    since: Instant,
    /// How long before this request the one for the last of them was made.
    spread: Duration,
    /// When it should be answered, if all goes as before.
    pub(super) expected: Instant,
    /// When it is late.
    pub(super) due: Instant,
}

/// How the queue of a fresh peer grows: as TCP does, faster than what came so far would have it, until a round has
/// brought no more than the one before.
#[derive(Clone, Copy, Debug)]
struct Ramp {
    /// When the round began, and the bytes that had come then; none while nothing is under way.
    began: Option<(Instant, u64)>,
    /// Bytes per second of the best round.
    best: f64,
}

impl Ramp {
    const FIRST: Self = Self { began: None, best: 0.0 };

    /// A block came; `None` when the ramp is over.
    fn step(mut self, delivered: u64, busy: bool, rtt: Duration, now: Instant) -> Option<Self> {
        let (began, before) = *self.began.get_or_insert((now, delivered));
        let (time, bytes) = (now.saturating_duration_since(began), delivered - before);
        if time >= rtt.max(SHORT_RTT) && bytes >= ROUND {
            let rate = bytes as f64 / time.as_secs_f64();
            if rate < 1.25 * self.best {
                return None;
            }
            self = Self { began: Some((now, delivered)), best: rate };
        }
        self.began = self.began.filter(|_| busy);
        Some(self)
    }
}

/// The line to one peer.
#[derive(Debug)]
pub(super) struct Line {
    throughput: Throughput,
    ramp: Option<Ramp>,
    rtt: Option<Duration>,
    /// How much later than expected blocks come, on average.
    lateness: Duration,
    /// Since when something has always been outstanding.
    busy_since: Instant,
    /// When the last block came, or the first one of a busy spell was asked for.
    last_block: Instant,
    /// Time between that and what came before it.
    gap: Duration,
    /// When that block was asked for.
    last_asked: Instant,
}

impl Line {
    /// Nothing is known.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            throughput: Throughput::default(),
            ramp: Some(Ramp::FIRST),
            rtt: None,
            lateness: Duration::ZERO,
            busy_since: now,
            last_block: now,
            gap: Duration::ZERO,
            last_asked: now,
        }
    }

    /// The round trip is known from elsewhere.
    pub(super) fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = Some(rtt);
    }

    /// The round trip of an empty line, and a guess before it is known.
    pub(super) fn rtt(&self) -> Duration {
        self.rtt.unwrap_or(FIRST_RTT)
    }

    /// When the last block came, or the first one of a busy spell was asked for.
    pub(super) fn last_block(&self) -> Instant {
        self.last_block
    }

    /// Time that so many blocks take, one after the other.
    pub(super) fn time_of_blocks(&self, blocks: f64) -> Duration {
        let rate = self.throughput.per_second().unwrap_or(FIRST_RATE).max(1024.0);
        Duration::from_secs_f64(blocks * f64::from(BLOCK_LEN) / rate)
    }

    /// Requests that keep the line full for this long, and for a round trip and a half at least; `first` while
    /// nothing has come.
    pub(super) fn queue(&self, depth: Duration, first: usize) -> usize {
        let Some(rate) = self.throughput.per_second() else { return first };
        let blocks = |time: Duration| rate * time.as_secs_f64() / f64::from(BLOCK_LEN);
        let steady = blocks(depth.max(self.rtt().mul_f64(1.5)));
        let steady = steady.max(LEAST_DEPTH);
        let ramp = |ramp: Ramp| {
            let next = 3.0 * ramp.best * self.rtt().as_secs_f64() / f64::from(BLOCK_LEN);
            steady.max(next).max(first as f64)
        };
        self.ramp.map_or(steady, ramp) as usize
    }

    /// A request is made, behind so many others.
    pub(super) fn ask(&mut self, ahead: usize, idle: bool, now: Instant) -> Mark {
        if idle {
            self.busy_since = now;
            self.last_block = now;
            self.last_asked = now;
        }
        let expected = now + self.rtt() + self.time_of_blocks(ahead as f64 + 1.0);
        Mark {
            at: now,
            ahead,
            delivered: self.throughput.delivered(),
            since: self.last_block,
            spread: now.saturating_duration_since(self.last_asked),
            expected,
            due: expected + self.rtt().max(SHORT_RTT).max(4 * self.lateness),
        }
    }

    /// Bytes came, asked for or not.
    pub(super) fn came(&mut self, bytes: u64, now: Instant) {
        self.throughput.add(bytes);
        self.gap = now.saturating_duration_since(self.last_block);
        self.last_block = now;
    }

    /// Whether anything has come, so that the rate is known.
    pub(super) fn is_proven(&self) -> bool {
        self.throughput.per_second().is_some()
    }

    /// They answer the request of this mark; so many others are outstanding.
    pub(super) fn answered(&mut self, mark: &Mark, outstanding: usize, now: Instant) {
        // What a lost packet held up comes at once: then it is the requests that tell over how long a time.
        let spread = now.checked_sub(mark.spread).unwrap_or(mark.since);
        self.throughput.answered(mark.delivered, mark.since.min(spread), outstanding > 0, now);
        self.last_asked = mark.at;
        let delivered = self.throughput.delivered();
        self.ramp =
            self.ramp.and_then(|ramp| ramp.step(delivered, outstanding > 0, self.rtt(), now));
        let late = now.saturating_duration_since(mark.expected);
        self.lateness = self.lateness.mul_f64(0.875) + late.mul_f64(0.125);
        self.measure(mark, now.saturating_duration_since(mark.at));
    }

    fn measure(&mut self, mark: &Mark, seen: Duration) {
        let Some(rtt) = self.rtt else {
            self.rtt = Some(seen);
            return;
        };
        let busy = mark.at.saturating_duration_since(self.busy_since) > SLOW_START * rtt;
        if seen < rtt {
            self.rtt = Some((3 * rtt + seen) / 4);
        } else if busy && mark.ahead <= FEW_AHEAD && self.gap < seen / 4 {
            // It came at the heels of another: not the line is slow, but the way long.
            self.rtt = Some((rtt + seen) / 2);
            if seen > 2 * rtt {
                self.restart();
            }
        }
    }

    /// The peer has fallen silent: what is known of its rate counts for little.
    pub(super) fn restart(&mut self) {
        self.ramp = Some(Ramp::FIRST);
    }
}
