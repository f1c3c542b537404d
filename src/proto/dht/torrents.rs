//! Torrents that want to be known and to find peers, and when each is looked up next.
//!
//! Invariant: a torrent has at most one lookup of a family under way, and after one that went well the next comes
//! [`ANNOUNCE`] later, or when peers are too few, but then not before a gap that grows from [`FIRST_GAP`] to
//! [`LONGEST_GAP`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::proto::announce::udp::Family;
use crate::proto::units::InfoHash;

/// Time after which we announce again: half of what others keep it for.
pub const ANNOUNCE: Duration = Duration::from_secs(15 * 60);

/// Shortest time between two lookups of a torrent that needs peers.
pub const FIRST_GAP: Duration = Duration::from_secs(15);

/// The same for one that has long been looked for in vain.
pub const LONGEST_GAP: Duration = Duration::from_secs(5 * 60);

/// Shortest time after which a lookup is begun again that nobody answered; it grows with the gap.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
struct Want {
    /// Where we take connections, if that is to be known.
    port: Option<u16>,
    next: Next,
    /// When the last lookup was begun that anybody answered.
    begun: Option<Instant>,
    gap: Duration,
    /// Peers have been too few since.
    hungry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    At(Instant),
    UnderWay,
}

/// How a lookup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Nodes that answered.
    pub answered: usize,
    /// Peers that were found.
    pub peers: usize,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Torrents {
    wants: BTreeMap<(InfoHash, Family), Want>,
}

impl Torrents {
    /// The torrent is to be looked up at once in these networks, and announced if there is a port.
    pub fn enlist(
        &mut self,
        info_hash: InfoHash,
        port: Option<u16>,
        families: impl IntoIterator<Item = Family>,
        now: Instant,
    ) {
        for family in families {
            let next = Next::At(now);
            // Doubled by the first search.
            let gap = FIRST_GAP / 2;
            let want = Want { port, next, begun: None, gap, hungry: false };
            self.wants.insert((info_hash, family), want);
        }
    }

    /// Nobody wants it any more.
    pub fn forget(&mut self, info_hash: InfoHash) {
        self.wants.retain(|(wanted, _), _| *wanted != info_hash);
    }

    /// The torrent has too few peers.
    pub fn need_peers(&mut self, info_hash: InfoHash, now: Instant) {
        for family in [Family::V4, Family::V6] {
            if let Some(want) = self.wants.get_mut(&(info_hash, family)) {
                want.hungry = true;
                want.hasten(now);
            }
        }
    }

    /// What waits for nodes of this family to ask has some now.
    pub fn wake(&mut self, family: Family, now: Instant) {
        for want in self.of_family(family).filter(|want| want.begun.is_none()) {
            (want.next, want.gap) = (Next::At(now), FIRST_GAP / 2);
        }
    }

    /// One that is to be looked up now, which counts as begun, and the port to announce.
    pub fn begin(&mut self, now: Instant) -> Option<(InfoHash, Family, Option<u16>)> {
        let due = |want: &Want| matches!(want.next, Next::At(at) if at <= now);
        let (&(info_hash, family), want) = self.wants.iter_mut().find(|(_, want)| due(want))?;
        want.next = Next::UnderWay;
        Some((info_hash, family, want.port))
    }

    /// The lookup that [`Self::begin`] asked for has begun; if not, nobody is there to be asked yet.
    pub fn begun(&mut self, info_hash: InfoHash, family: Family, any: bool, now: Instant) {
        let Some(want) = self.wants.get_mut(&(info_hash, family)) else { return };
        match any {
            true => (want.begun, want.hungry) = (Some(now), false),
            // Whoever comes to be known calls `wake`.
            false => want.next = Next::At(now + LONGEST_GAP),
        }
    }

    /// It has ended.
    pub fn ended(&mut self, info_hash: InfoHash, family: Family, outcome: Outcome, now: Instant) {
        let Some(want) = self.wants.get_mut(&(info_hash, family)) else { return };
        want.gap = match outcome.peers {
            0 => (want.gap * 2).min(LONGEST_GAP),
            _ => FIRST_GAP * 2,
        };
        let mut wait = ANNOUNCE;
        if outcome.answered == 0 {
            (want.begun, wait) = (None, RETRY.max(want.gap / 8));
        }
        want.next = Next::At(now + wait);
        if want.hungry {
            want.hasten(now);
        }
    }

    /// When [`Self::begin`] has something next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let at = |want: &Want| match want.next {
            Next::At(at) => Some(at),
            Next::UnderWay => None,
        };
        self.wants.values().filter_map(at).min()
    }

    fn of_family(&mut self, family: Family) -> impl Iterator<Item = &mut Want> {
        self.wants.iter_mut().filter(move |((_, of), _)| *of == family).map(|(_, want)| want)
    }
}

impl Want {
    fn hasten(&mut self, now: Instant) {
        let soonest = self.begun.map_or(now, |begun| begun + self.gap).max(now);
        if let Next::At(at) = &mut self.next {
            *at = soonest.min(*at);
        }
    }
}
