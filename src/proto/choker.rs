//! Whom we upload to.
//!
//! Every [`ROUND`] the peers that gave most get the regular slots; as a seed, those that wait longest, each for
//! at least [`SEED_TURN`]. Every [`OPTIMISTIC_TURN`] one more is drawn at random, newcomers three times as
//! likely. Who takes and gives nothing has no chance but that one. Between rounds a free slot goes to the first
//! interested peer, so that nobody waits for a clock; while upload stays unused, there are more slots.
//!
//! Not here: the rates ([`crate::proto::peer`]); what an unchoked peer may ask ([`crate::proto::upload`]).

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

use super::units::PeerKey;

/// Time between two rounds.
pub const ROUND: Duration = Duration::from_secs(10);

/// Time before the first one: who came too late for a slot must not wait long in a fresh swarm.
pub const FIRST_ROUND: Duration = Duration::from_secs(2);

/// Time that the optimistic slot stays with one peer.
pub const OPTIMISTIC_TURN: Duration = Duration::from_secs(30);

/// Least time that a seed serves a peer, so that it gets whole pieces.
pub const SEED_TURN: Duration = Duration::from_secs(60);

/// Time that upload must stay unused before there is one slot more.
const UNUSED: Duration = Duration::from_secs(1);

/// Slots that may be added.
const MOST_ADDED: usize = 46;

/// Age below which a peer is a newcomer.
const NEWCOMER: Duration = Duration::from_secs(60);

/// One peer as the choker sees it.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its connection.
    pub key: PeerKey,
    /// Whether it wants anything from us; others never hold a slot.
    pub interested: bool,
    /// Whether it left us waiting for blocks.
    pub snubbed: bool,
    /// Whether it has taken much and given next to nothing.
    pub rides_free: bool,
    /// Worth of what it gave: bytes per second, weighted by response time and delay.
    pub score: f64,
    /// When it connected.
    pub since: Instant,
    /// Since when it is unchoked; `None` while choked.
    pub unchoked: Option<Instant>,
    /// When it was last choked, or connected.
    pub waiting: Instant,
}

/// Keeps the rounds.
#[derive(Debug)]
pub struct Choker {
    /// Regular slots when upload is used to the full.
    least: usize,
    slots: usize,
    /// Since when upload is unused, as far as seen.
    unused: Option<Instant>,
    /// Whether it was at some time since the last round.
    was_unused: bool,
    next_round: Instant,
    optimistic: Option<PeerKey>,
    next_optimistic: Instant,
    /// Whether there was somebody to draw, if only free riders.
    blank: bool,
}

impl Choker {
    /// A choker with so many regular slots, none given.
    pub fn new(slots: usize, now: Instant) -> Self {
        Self {
            least: slots,
            slots,
            unused: None,
            was_unused: false,
            next_round: now + FIRST_ROUND,
            optimistic: None,
            next_optimistic: now,
            blank: false,
        }
    }

    /// When the next round is due.
    pub fn poll_timeout(&self) -> Instant {
        self.next_round
    }

    /// Whether a slot is free for a peer that has just become interested.
    pub fn has_room(&self, unchoked: usize) -> bool {
        unchoked < self.slots + 1
    }

    /// Who has the optimistic slot, whatever it gives.
    pub fn optimistic(&self) -> Option<PeerKey> {
        self.optimistic
    }

    /// Takes in whether those who are served have to wait for our line. While they do not, slots are added; each
    /// round in which they always did takes one away again.
    pub fn observe(&mut self, busy: bool, now: Instant) {
        if busy {
            self.unused = None;
            return;
        }
        self.was_unused = true;
        if now.saturating_duration_since(*self.unused.get_or_insert(now)) >= UNUSED {
            self.unused = Some(now);
            self.slots = (self.slots + 1).min(self.least + MOST_ADDED);
        }
    }

    /// Whom to have unchoked from `now` on; everyone else is choked. Call when [`Self::poll_timeout`] has passed.
    pub fn round(
        &mut self,
        peers: &[Standing],
        seeding: bool,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Vec<PeerKey> {
        self.next_round = now + ROUND;
        if !std::mem::take(&mut self.was_unused) {
            self.slots = self.least.max(self.slots.saturating_sub(1));
        }
        let mut wanting: Vec<_> = peers.iter().filter(|peer| peer.interested).copied().collect();
        if seeding {
            wanting.sort_by_key(|peer| seed_rank(peer, now));
        } else {
            wanting.retain(|peer| !peer.snubbed && !peer.rides_free);
            wanting.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.key.cmp(&b.key)));
        }
        let mut chosen: Vec<_> = wanting.iter().take(self.slots).map(|peer| peer.key).collect();
        chosen.extend(self.draw_optimistic(peers, &chosen, seeding, now, rng));
        chosen
    }

    fn draw_optimistic(
        &mut self,
        peers: &[Standing],
        chosen: &[PeerKey],
        seeding: bool,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<PeerKey> {
        let may = |peer: &&Standing| peer.interested && !chosen.contains(&peer.key);
        let keeps =
            self.optimistic.filter(|key| peers.iter().filter(may).any(|peer| peer.key == *key));
        if now < self.next_optimistic
            && (keeps.is_some() || self.optimistic.is_none() && self.blank)
        {
            return keeps;
        }
        let tickets: Vec<_> = peers
            .iter()
            .filter(may)
            .flat_map(|peer| {
                let newcomer = now.saturating_duration_since(peer.since) < NEWCOMER;
                // Where all others are served anyway, who rides free would win each draw: two blanks for each.
                let blanks = if peer.rides_free && !seeding { 2 } else { 0 };
                let wins = if newcomer && blanks == 0 { 3 } else { 1 };
                std::iter::repeat_n(Some(peer.key), wins).chain(std::iter::repeat_n(None, blanks))
            })
            .collect();
        self.next_optimistic = now + OPTIMISTIC_TURN;
        self.blank = !tickets.is_empty();
        self.optimistic =
            (!tickets.is_empty()).then(|| tickets[rng.random_range(0..tickets.len())]).flatten();
        self.optimistic
    }
}

/// Peers in the middle of their turn first, then by longest wait.
fn seed_rank(peer: &Standing, now: Instant) -> (bool, Instant, PeerKey) {
    let in_turn =
        peer.unchoked.is_some_and(|since| now.saturating_duration_since(since) < SEED_TURN);
    let waiting = peer.unchoked.unwrap_or(peer.waiting);
    (!in_turn, if peer.unchoked.is_some() && !in_turn { now } else { waiting }, peer.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn peer(key: u64, score: f64, start: Instant) -> Standing {
        Standing {
            key: PeerKey(key),
            interested: true,
            snubbed: false,
            rides_free: false,
            score,
            since: start,
            unchoked: None,
            waiting: start,
        }
    }

    #[test]
    fn a_leech_serves_those_that_gave_most_and_one_at_random() {
        let start = Instant::now();
        let mut peers: Vec<_> = (1..=8).map(|key| peer(key, key as f64, start)).collect();
        peers[7].snubbed = true;
        peers[6].interested = false;
        peers[5].rides_free = true;
        let mut choker = Choker::new(3, start);
        let chosen = choker.round(&peers, false, start, &mut StdRng::seed_from_u64(1));
        assert_eq!(chosen[..3], [PeerKey(5), PeerKey(4), PeerKey(3)]);
        assert!(chosen.len() == 4 && chosen[3] != PeerKey(7), "{chosen:?}");
    }

    #[test]
    fn unused_upload_adds_slots_and_a_busy_round_takes_one() {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let peers: Vec<_> = (1..=9).map(|key| peer(key, 0.0, start)).collect();
        let mut choker = Choker::new(2, start);
        let seconds = Duration::from_secs;
        (0..=2).for_each(|at| choker.observe(false, start + seconds(at)));
        let mut served = |choker: &mut Choker| choker.round(&peers, false, start, &mut rng).len();
        assert_eq!(served(&mut choker), 2 + 2 + 1);
        choker.observe(true, start + seconds(3));
        choker.observe(false, start + seconds(4));
        assert_eq!(served(&mut choker), 2 + 2 + 1, "it was unused for a moment");
        choker.observe(true, start + seconds(5));
        assert_eq!(served(&mut choker), 2 + 1 + 1);
        assert_eq!(served(&mut choker), 2 + 1);
        assert_eq!(served(&mut choker), 2 + 1, "never below the least");
    }

    #[test]
    fn a_seed_serves_whole_turns_and_then_the_longest_wait() {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let later = start + SEED_TURN;
        let mut peers: Vec<_> = (1..=4).map(|key| peer(key, 0.0, start)).collect();
        peers[0].unchoked = Some(start + Duration::from_secs(30));
        peers[1].unchoked = Some(start);
        peers[3].waiting = start + Duration::from_secs(5);
        let chosen = Choker::new(3, start).round(&peers, true, later, &mut rng);
        assert_eq!(chosen[..3], [PeerKey(1), PeerKey(3), PeerKey(4)]);
    }

    #[test]
    fn the_optimistic_slot_stays_for_its_turn() {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(7);
        let peers: Vec<_> = (1..=20).map(|key| peer(key, 0.0, start)).collect();
        let mut choker = Choker::new(0, start);
        let first = choker.round(&peers, false, start, &mut rng);
        for seconds in [10, 20] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(choker.round(&peers, false, now, &mut rng), first);
        }
        let drawn: Vec<_> = (3..9)
            .map(|turn| choker.round(&peers, false, start + turn * OPTIMISTIC_TURN, &mut rng))
            .collect();
        assert!(drawn.iter().any(|chosen| *chosen != first));
    }
}
