//! When which tracker is asked: the tiers of BEP 12, all at work at once.
//!
//! ```text
//! tier:   Resting{until} ──until──▶ Asking{next, patience} ──an answer──▶ Resting{interval}
//!                                     │ a failure, or patience over: the next tracker of the tier too
//!                                     └ all have failed ──▶ Resting{back-off}
//! ```
//!
//! BEP 12 asks one tracker after the other. Here every tier's first is asked at once, and a tracker that
//! does not answer soon is joined by the next of its tier, so one that hangs costs nothing. Who answers
//! goes to the front of its tier.
//!
//! Invariant: a tracker has at most one announce under way, except that a last `stopped` may overtake.
//! Invariant: between two announces to a tracker that answered lies its min interval, unless the later
//! one brings an event.
//!
//! Not here: carrying an announce (the engine), its bytes ([`super::query`], [`super::udp`]).

mod pace;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::{Answer, Event, Retry};

pub use pace::Pace;

/// Trackers of one torrent; those beyond are left out.
pub const MAX_TRACKERS: usize = 64;

/// Bytes of a tracker's URL.
const MAX_URL: usize = 2048;

/// Number of a tracker in its torrent. Made by [`Tiers`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackerIndex(usize);

/// An announce to be carried; answered by [`Tiers::handle_answer`] or [`Tiers::handle_failure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who is to be asked.
    pub tracker: TrackerIndex,
    /// Where it is.
    pub url: String,
    /// What brings us.
    pub event: Event,
    /// What it wants to hear again.
    pub tracker_id: Option<Vec<u8>>,
}

/// How it stands with one tracker, for `btfs why` and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerStatus {
    /// Where it is.
    pub url: String,
    /// From 0; all of a tier stand for each other.
    pub tier: usize,
    /// What came of the last announce.
    pub last: Outcome,
    /// When the tracker's tier is asked next; `None` while it is being asked, and for one never asked again.
    pub next: Option<Instant>,
    /// Peers that have all, by the last answer.
    pub seeds: Option<u32>,
    /// Peers that do not, by the last answer.
    pub leechers: Option<u32>,
}

/// What came of an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// None has ended yet.
    Unknown,
    /// The tracker answered.
    Answered {
        /// When.
        at: Instant,
        /// Addresses in the answer.
        peers: usize,
        /// The tracker's words to the user.
        warning: Option<String>,
    },
    /// It did not.
    Failed {
        /// When.
        at: Instant,
        /// Why, in words.
        reason: String,
    },
}

/// All trackers of one torrent.
#[derive(Debug)]
pub struct Tiers {
    pace: Pace,
    rng: StdRng,
    trackers: Vec<Tracker>,
    tiers: Vec<Tier>,
    phase: Phase,
    orders: VecDeque<Order>,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// Until then the last words may take.
    Stopping(Instant),
    Stopped,
}

#[derive(Debug)]
struct Tier {
    /// Whom to ask first; never empty.
    order: Vec<TrackerIndex>,
    turn: Turn,
    /// Times in a row that all of the tier failed.
    failures: u32,
}

impl Tier {
    const fn new(order: Vec<TrackerIndex>, now: Instant) -> Self {
        Self { order, turn: Turn::Resting { until: now }, failures: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Resting {
        until: Instant,
    },
    /// The first `asked` of the order have been asked in this turn; one more is at `patience`.
    Asking {
        asked: usize,
        patience: Instant,
    },
}

#[derive(Debug)]
struct Tracker {
    url: String,
    tier: usize,
    /// Announced under way.
    asking: Option<Event>,
    /// It has answered us since we started.
    knows_us: bool,
    /// It is yet to hear that our download is complete.
    owed_completion: bool,
    /// It wants to be left alone until then.
    not_before: Option<Instant>,
    /// Before it no announce without an event.
    early: Option<Instant>,
    /// It wants to be left alone for good.
    dismissed: bool,
    tracker_id: Option<Vec<u8>>,
    last: Outcome,
    seeds: Option<u32>,
    leechers: Option<u32>,
}

impl Tracker {
    fn new(url: String, tier: usize) -> Self {
        Self {
            url,
            tier,
            asking: None,
            knows_us: false,
            owed_completion: false,
            not_before: None,
            early: None,
            dismissed: false,
            tracker_id: None,
            last: Outcome::Unknown,
            seeds: None,
            leechers: None,
        }
    }

    fn may_be_asked(&self, now: Instant) -> bool {
        self.asking.is_none() && !self.dismissed && self.not_before.is_none_or(|until| until <= now)
    }

    /// Whether it may be asked as the next of its tier.
    fn has_turn(&self, now: Instant) -> bool {
        let rested = self.early.is_none_or(|early| early <= now);
        self.may_be_asked(now) && (rested || self.due_event() != Event::None)
    }

    const fn due_event(&self) -> Event {
        match (self.knows_us, self.owed_completion) {
            (false, _) => Event::Started,
            (true, true) => Event::Completed,
            (true, false) => Event::None,
        }
    }
}

impl Tiers {
    /// The torrent's tiers, each shuffled once (BEP 12), due at once.
    ///
    /// URLs that are no http, https or udp, that stand twice, or beyond [`MAX_TRACKERS`], are left out.
    pub fn new(urls: &[Vec<String>], pace: Pace, seed: u64, now: Instant) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut trackers: Vec<Tracker> = Vec::new();
        let mut tiers = Vec::new();
        for tier in urls {
            let mut order = Vec::new();
            for url in tier.iter().map(|url| url.trim()) {
                let known = trackers.iter().any(|tracker| tracker.url == url);
                if known || trackers.len() == MAX_TRACKERS || !is_tracker(url) {
                    continue;
                }
                order.push(TrackerIndex(trackers.len()));
                trackers.push(Tracker::new(url.to_owned(), tiers.len()));
            }
            if order.is_empty() {
                continue;
            }
            order.shuffle(&mut rng);
            tiers.push(Tier::new(order, now));
        }
        Self { pace, rng, trackers, tiers, phase: Phase::Running, orders: VecDeque::new() }
    }

    /// The same for a private torrent (BEP 27): all trackers are one tier in the order of theirs, of which the next
    /// is asked only when those before it have failed.
    pub fn private(urls: &[Vec<String>], pace: Pace, seed: u64, now: Instant) -> Self {
        // Far longer than any announce is under way.
        let pace = Pace { patience: pace.longest, ..pace };
        let mut all = Self::new(urls, pace, seed, now);
        let order: Vec<_> = all.tiers.drain(..).flat_map(|tier| tier.order).collect();
        all.trackers.iter_mut().for_each(|tracker| tracker.tier = 0);
        all.tiers.extend((!order.is_empty()).then(|| Tier::new(order, now)));
        all
    }

    /// How it stands with each tracker, in the torrent's order.
    pub fn status(&self) -> impl Iterator<Item = TrackerStatus> + '_ {
        self.trackers.iter().map(|tracker| TrackerStatus {
            url: tracker.url.clone(),
            tier: tracker.tier,
            last: tracker.last.clone(),
            next: self.next_announce(tracker),
            seeds: tracker.seeds,
            leechers: tracker.leechers,
        })
    }

    /// Whether trackers are still asked: before [`Self::stop`].
    pub const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// Whether all is said, after [`Self::stop`].
    pub const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// The next announce to carry.
    pub fn poll_announce(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => self.tiers.iter().filter_map(|tier| self.wakes(tier)).min(),
            Phase::Stopping(until) => Some(until),
            Phase::Stopped => None,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Running => {}
            Phase::Stopping(until) if until <= now => return self.finish(),
            Phase::Stopping(_) | Phase::Stopped => return,
        }
        for tier in 0..self.tiers.len() {
            let due = self.wakes(&self.tiers[tier]).is_some_and(|at| at <= now);
            if due {
                self.ask_next(tier, now);
            }
        }
        self.check();
    }

    /// A tracker has answered.
    pub fn handle_answer(&mut self, index: TrackerIndex, answer: &Answer, now: Instant) {
        let (interval, min_interval) = self.pace.intervals(answer);
        let tracker = &mut self.trackers[index.0];
        let Some(event) = tracker.asking.take() else { return };
        tracker.early = Some(now + min_interval);
        match event {
            Event::Started => tracker.knows_us = true,
            Event::Completed => tracker.owed_completion = false,
            Event::Stopped => tracker.knows_us = false,
            Event::None => {}
        }
        tracker.not_before = None;
        tracker.seeds = answer.seeds.or(tracker.seeds);
        tracker.leechers = answer.leechers.or(tracker.leechers);
        tracker.tracker_id = answer.tracker_id.clone().or(tracker.tracker_id.take());
        let peers = answer.peers.len();
        tracker.last = Outcome::Answered { at: now, peers, warning: answer.warning.clone() };
        let tier = tracker.tier;
        match self.phase {
            Phase::Running if matches!(self.tiers[tier].turn, Turn::Asking { .. }) => {
                self.rest(tier, index, interval, now);
            }
            // Another of the tier was quicker.
            Phase::Running => {}
            Phase::Stopping(_) | Phase::Stopped => self.say_last(index, event),
        }
        self.check();
    }

    /// An announce has come to nothing.
    pub fn handle_failure(
        &mut self,
        index: TrackerIndex,
        reason: String,
        retry: Option<Retry>,
        now: Instant,
    ) {
        let tracker = &mut self.trackers[index.0];
        let Some(event) = tracker.asking.take() else { return };
        tracker.last = Outcome::Failed { at: now, reason };
        match retry {
            Some(Retry::Never) => tracker.dismissed = true,
            Some(Retry::After(wait)) => {
                tracker.not_before = Some(now + wait.min(self.pace.longest))
            }
            None => {}
        }
        let tier = tracker.tier;
        match self.phase {
            Phase::Running if matches!(self.tiers[tier].turn, Turn::Asking { .. }) => {
                self.ask_next(tier, now)
            }
            Phase::Running => {}
            Phase::Stopping(_) | Phase::Stopped => self.say_last(index, event),
        }
        self.check();
    }

    /// Whether this order is yet to be answered: a `stopped` may have overtaken it.
    pub fn is_open(&self, order: &Order) -> bool {
        self.trackers[order.tracker.0].asking == Some(order.event)
    }

    /// The last missing byte has come: all who know us are told at once.
    pub fn complete(&mut self, now: Instant) {
        for tracker in &mut self.trackers {
            tracker.owed_completion |= tracker.knows_us || tracker.asking == Some(Event::Started);
        }
        self.tell_completion(now);
        self.check();
    }

    /// Peers are too few: every tier is asked again as soon as it allows.
    pub fn need_peers(&mut self) {
        for tier in &mut self.tiers {
            // A tier that failed waits for its back-off; asking sooner would not help.
            if let (Turn::Resting { until }, 0) = (&mut tier.turn, tier.failures)
                && let Some(early) =
                    tier.order.first().and_then(|first| self.trackers[first.0].early)
            {
                *until = (*until).min(early);
            }
        }
    }

    /// Says good-bye to all who know us; those that are being told of the end of the download hear that first, for
    /// they count it.
    pub fn stop(&mut self, now: Instant) {
        if !self.is_running() {
            return;
        }
        self.phase = Phase::Stopping(now + self.pace.farewell);
        self.orders.retain(|order| order.event == Event::Completed);
        for index in 0..self.trackers.len() {
            let tracker = &mut self.trackers[index];
            if tracker.asking == Some(Event::Completed) {
                continue;
            }
            tracker.asking = None;
            if tracker.knows_us {
                self.order(TrackerIndex(index), Event::Stopped);
            }
        }
        self.finish_if_quiet();
        self.check();
    }

    fn wakes(&self, tier: &Tier) -> Option<Instant> {
        match tier.turn {
            Turn::Resting { until } => Some(until),
            Turn::Asking { asked, patience } => (asked < tier.order.len()).then_some(patience),
        }
    }

    fn next_announce(&self, tracker: &Tracker) -> Option<Instant> {
        match (&self.phase, self.tiers[tracker.tier].turn) {
            (Phase::Running, Turn::Resting { until }) if !tracker.dismissed => {
                Some(tracker.not_before.map_or(until, |not_before| not_before.max(until)))
            }
            _ => None,
        }
    }

    /// Asks the tier's next tracker, or ends its turn when none is left and none is under way.
    fn ask_next(&mut self, tier: usize, now: Instant) {
        let asked = match self.tiers[tier].turn {
            Turn::Resting { .. } => 0,
            Turn::Asking { asked, .. } => asked,
        };
        let order = &self.tiers[tier].order;
        let askable = |index: &TrackerIndex| self.trackers[index.0].has_turn(now);
        let Some(skipped) = order[asked..].iter().position(askable) else {
            return self.exhausted(tier, now);
        };
        let at = asked + skipped;
        let index = order[at];
        let patience = now + self.pace.patience;
        self.tiers[tier].turn = Turn::Asking { asked: at + 1, patience };
        let event = self.trackers[index.0].due_event();
        self.order(index, event);
    }

    /// No tracker of the tier is left to ask in this turn.
    fn exhausted(&mut self, tier: usize, now: Instant) {
        let waiting =
            self.tiers[tier].order.iter().any(|index| self.trackers[index.0].asking.is_some());
        if waiting {
            let asked = self.tiers[tier].order.len();
            self.tiers[tier].turn = Turn::Asking { asked, patience: now };
            return;
        }
        let doubled = 2u32.saturating_pow(self.tiers[tier].failures);
        let wait = self.pace.back_off.saturating_mul(doubled).min(self.pace.longest_back_off);
        // Peers that failed together shall not come back together.
        let until = now + wait.mul_f64(self.rng.random_range(0.75..1.25));
        let allowed = |index: &TrackerIndex| self.trackers[index.0].not_before.unwrap_or(now);
        let allowed = self.tiers[tier].order.iter().map(allowed).min();
        let until = allowed.map_or(until, |allowed| until.max(allowed));
        let tier = &mut self.tiers[tier];
        tier.failures = tier.failures.saturating_add(1);
        tier.turn = Turn::Resting { until };
    }

    /// The tier has its answer.
    fn rest(&mut self, tier: usize, index: TrackerIndex, interval: Duration, now: Instant) {
        let state = &mut self.tiers[tier];
        state.failures = 0;
        state.turn = Turn::Resting { until: now + interval };
        // BEP 12: who answers is asked first next time.
        if let Some(at) = state.order.iter().position(|other| *other == index) {
            state.order[..=at].rotate_right(1);
        }
        self.tell_completion(now);
    }

    fn tell_completion(&mut self, now: Instant) {
        for index in 0..self.trackers.len() {
            let tracker = &self.trackers[index];
            if tracker.may_be_asked(now) && tracker.due_event() == Event::Completed {
                let tier = tracker.tier;
                let asked = self.tiers[tier].order.len();
                self.tiers[tier].turn = Turn::Asking { asked, patience: now };
                self.order(TrackerIndex(index), Event::Completed);
            }
        }
    }

    fn order(&mut self, index: TrackerIndex, event: Event) {
        let tracker = &mut self.trackers[index.0];
        tracker.asking = Some(event);
        let (url, tracker_id) = (tracker.url.clone(), tracker.tracker_id.clone());
        self.orders.push_back(Order { tracker: index, url, event, tracker_id });
    }

    /// An announce has ended that was under way when we stopped.
    fn say_last(&mut self, index: TrackerIndex, event: Event) {
        if matches!(self.phase, Phase::Stopping(_)) && event == Event::Completed {
            self.order(index, Event::Stopped);
        }
        self.finish_if_quiet();
    }

    fn finish_if_quiet(&mut self) {
        if self.trackers.iter().all(|tracker| tracker.asking.is_none()) {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.phase = Phase::Stopped;
        self.orders.clear();
        self.trackers.iter_mut().for_each(|tracker| tracker.asking = None);
    }

    fn check(&self) {
        debug_assert!(
            !self.is_running()
                || self.tiers.iter().all(|tier| {
                    matches!(tier.turn, Turn::Resting { .. })
                        || tier.order.iter().any(|index| self.trackers[index.0].asking.is_some())
                }),
            "a tier in its turn has asked someone"
        );
    }
}

/// By scheme and length alone; whoever dials looks closer.
fn is_tracker(url: &str) -> bool {
    const SCHEMES: [&str; 3] = ["http://", "https://", "udp://"];
    let begins_with =
        |scheme: &&str| url.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    url.len() <= MAX_URL && SCHEMES.iter().any(begins_with)
}
