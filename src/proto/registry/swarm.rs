//! The peers of one torrent, as a tracker knows them.
//!
//! Invariant: every peer stands once in `order` and once in the group that its place names.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lru::LruCache;
use rand::Rng;
use rand::seq::index;

use super::Families;
use crate::proto::announce::answer::Scraped;

/// Peers of one kind, dense, so that an index drawn at random is a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group(usize);

impl Group {
    const ALL: usize = 4;

    fn of(addr: &SocketAddr, seed: bool) -> Self {
        Self(usize::from(addr.is_ipv6()) * 2 + usize::from(seed))
    }

    const fn is_seed(self) -> bool {
        self.0 & 1 == 1
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    group: Group,
    slot: usize,
    seen: Instant,
}

/// The peers of one torrent.
#[derive(Debug)]
pub(super) struct Swarm {
    /// Least recently seen first.
    order: LruCache<SocketAddr, Place>,
    groups: [Vec<SocketAddr>; Group::ALL],
    downloads: u32,
    heard: Option<Instant>,
}

impl Default for Swarm {
    fn default() -> Self {
        Self { order: LruCache::unbounded(), groups: Default::default(), downloads: 0, heard: None }
    }
}

impl Swarm {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn numbers(&self) -> Scraped {
        let count = |seed: bool| {
            let peers: usize = (0..Group::ALL)
                .filter(|n| Group(*n).is_seed() == seed)
                .map(|n| self.groups[n].len())
                .sum();
            u32::try_from(peers).unwrap_or(u32::MAX)
        };
        Scraped { seeds: count(true), downloads: self.downloads, leechers: count(false) }
    }

    /// Whether nothing was heard of the torrent for so long.
    pub(super) fn is_stale(&self, now: Instant, life: Duration) -> bool {
        self.heard.is_none_or(|heard| now.saturating_duration_since(heard) > life)
    }

    pub(super) fn admit(&mut self, addr: SocketAddr, seed: bool, completed: bool, now: Instant) {
        self.heard = Some(now);
        let group = Group::of(&addr, seed);
        let known = self.order.get_mut(&addr).map(|place| {
            place.seen = now;
            place.group
        });
        // A peer that says it twice has still downloaded once.
        if completed && known.is_none_or(|before| !before.is_seed()) {
            self.downloads = self.downloads.saturating_add(1);
        }
        if known == Some(group) {
            return;
        }
        self.remove(addr);
        let slot = self.groups[group.0].len();
        self.groups[group.0].push(addr);
        self.order.put(addr, Place { group, slot, seen: now });
        self.check();
    }

    pub(super) fn remove(&mut self, addr: SocketAddr) {
        if let Some(place) = self.order.pop(&addr) {
            self.vacate(place);
        }
        self.check();
    }

    /// Returns whether there was one.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let oldest = self.order.pop_lru();
        if let Some((_, place)) = oldest {
            self.vacate(place);
        }
        oldest.is_some()
    }

    /// Forgets peers not seen for so long and returns how many.
    pub(super) fn forget(&mut self, now: Instant, life: Duration) -> usize {
        let before = self.len();
        while let Some((_, oldest)) = self.order.peek_lru() {
            if now.saturating_duration_since(oldest.seen) <= life {
                break;
            }
            self.drop_oldest();
        }
        before - self.len()
    }

    /// A random subset for this peer; its own family first, the other only as far as that leaves room.
    pub(super) fn draw(
        &self,
        asker: SocketAddr,
        seed: bool,
        families: Families,
        wanted: usize,
        rng: &mut impl Rng,
    ) -> Vec<SocketAddr> {
        let own = usize::from(asker.is_ipv6());
        let mut drawn = self.draw_family(own, asker, seed, wanted, rng);
        if families == Families::Both && drawn.len() < wanted {
            drawn.extend(self.draw_family(1 - own, asker, seed, wanted - drawn.len(), rng));
        }
        drawn
    }

    fn draw_family(
        &self,
        family: usize,
        asker: SocketAddr,
        seed: bool,
        wanted: usize,
        rng: &mut impl Rng,
    ) -> Vec<SocketAddr> {
        let leechers = &self.groups[family * 2];
        let seeds: &[SocketAddr] = if seed { &[] } else { &self.groups[family * 2 + 1] };
        let len = leechers.len() + seeds.len();
        // One more, since the asker himself may be drawn.
        let drawn = index::sample(rng, len, len.min(wanted.saturating_add(1)));
        drawn
            .into_iter()
            .filter_map(|at| leechers.get(at).or_else(|| seeds.get(at - leechers.len())))
            .copied()
            .filter(|addr| *addr != asker)
            .take(wanted)
            .collect()
    }

    /// Closes the gap that a peer leaves in its group.
    fn vacate(&mut self, place: Place) {
        let group = &mut self.groups[place.group.0];
        group.swap_remove(place.slot);
        if let Some(moved) = group.get(place.slot)
            && let Some(moved) = self.order.peek_mut(moved)
        {
            moved.slot = place.slot;
        }
    }

    fn check(&self) {
        debug_assert_eq!(self.order.len(), self.groups.iter().map(Vec::len).sum::<usize>());
    }
}
