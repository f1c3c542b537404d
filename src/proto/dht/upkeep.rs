//! What is done when nobody asks for it: joining the network, and keeping the table and its surroundings fresh.

use std::time::{Duration, Instant};

use super::table::{BUCKET, Standing};
use super::{Dht, Goal, MAX_LOOKUPS};

/// Time between two rounds. In each, one node that is long silent is asked, and one bucket searched.
const ROUND: Duration = Duration::from_secs(5);

/// Time between two attempts to join, at first and at last.
const FIRST_GAP: Duration = Duration::from_secs(3);
const LONGEST_GAP: Duration = Duration::from_secs(5 * 60);

/// When a network is to be joined: by a lookup of our own id, which fills the table with those near us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    due: Instant,
    gap: Duration,
}

impl Joining {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, gap: FIRST_GAP }
    }

    /// We have another id.
    pub(super) fn again(&mut self, now: Instant) {
        *self = Self::new(now);
    }
}

impl Dht {
    /// Joins each network in which too few nodes are known.
    pub(super) fn join(&mut self, now: Instant) {
        for at in 0..self.sides.len() {
            let side = &mut self.sides[at];
            if now < side.joining.due {
                continue;
            }
            let was_tried = side.joining.gap > FIRST_GAP;
            if was_tried && side.table.count(Standing::Good, now) >= BUCKET {
                side.joining.due = now + ROUND;
                continue;
            }
            let (own, family) = (side.table.own(), side.family);
            if self.look_up(own, family, Goal::Nodes, now) {
                let joining = &mut self.sides[at].joining;
                joining.due = now + joining.gap;
                joining.gap = (joining.gap * 2).min(LONGEST_GAP);
            }
        }
    }

    /// Does what is due at its time.
    pub(super) fn keep_house(&mut self, now: Instant) {
        if now < self.next_upkeep {
            return;
        }
        self.next_upkeep = now + ROUND;
        self.tokens.rotate(&mut self.rng, now);
        self.store.expire(now);
        for at in 0..self.sides.len() {
            if let Some(stale) = self.sides[at].table.stalest(now) {
                self.check(stale.addr, now);
            }
            self.search_bucket(at, now);
        }
    }

    /// Looks for nodes in a bucket where that was not done for long.
    fn search_bucket(&mut self, at: usize, now: Instant) {
        if self.lookups.len() >= MAX_LOOKUPS / 2 {
            return;
        }
        let (family, table) = (self.sides[at].family, &mut self.sides[at].table);
        if let Some(bucket) = table.next_search(now) {
            let target = table.own().sharing(bucket, &mut self.rng);
            self.look_up(target, family, Goal::Nodes, now);
        }
    }
}
