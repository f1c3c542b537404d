//! Whom a torrent dials: the addresses that may be peers, and the dials under way.
//!
//! Invariant: an address is dialled once at a time, and never one of the blocklist; no more dials are under way than
//! [`Config::max_dials`].
//!
//! Not here: which address comes next, and when ([`super::candidates`]); who is connected (the caller knows).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidates::Candidates;
use super::config::Config;
use super::origin::Origin;
use super::parting::Parting;

/// Time between two cries for peers.
const ASKING: Duration = Duration::from_secs(30);

/// Peers, dialled ones counted, below which more are asked for.
const FEW: usize = 3;

/// Time in which nobody is of use before that is a knot: in a fresh swarm it happens between two pieces of the seed.
const KNOT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Dials {
    /// The addresses that are known, those included that are dialled or connected.
    pub candidates: Candidates,
    under_way: BTreeSet<SocketAddr>,
    asked_for_peers: Option<Instant>,
    /// Since when nobody who is connected is of use.
    useless_since: Option<Instant>,
}

impl Dials {
    /// Nobody is dialled yet.
    pub fn new(candidates: Candidates) -> Self {
        Self { candidates, under_way: BTreeSet::new(), asked_for_peers: None, useless_since: None }
    }

    /// Dials under way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether nobody is dialled.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether as many are connected and dialled as are sought: in a knot, all that there may be. Where a crowd lacks
    /// the same last piece, and who gets it leaves, every full set would keep the seed out.
    pub fn are_enough(&self, connected: usize, config: &Config, now: Instant) -> bool {
        let is_long = |since| now.saturating_duration_since(since) >= KNOT;
        let is_knot = self.useless_since.is_some_and(is_long);
        let sought = if is_knot { config.max_peers } else { config.target_peers };
        connected + self.len() >= sought
    }

    /// Takes in addresses, but for those that the torrent may not have from there.
    pub fn add(
        &mut self,
        addrs: impl IntoIterator<Item = SocketAddr>,
        origin: Origin,
        config: &Config,
        now: Instant,
    ) {
        for addr in addrs.into_iter().filter(|addr| !config.blocklist.contains(addr.ip())) {
            self.candidates.add(addr, origin, now);
        }
    }

    /// The next address to dial, while more peers are sought than these that are `connected`. It is under way until
    /// [`Self::arrived`], [`Self::failed`] or [`Self::forget`]. `seeding`: we have everything. `is_met`: somebody who is
    /// connected takes connections there.
    pub fn next(
        &mut self,
        connected: usize,
        config: &Config,
        seeding: bool,
        is_met: impl Fn(SocketAddr) -> bool,
        now: Instant,
    ) -> Option<SocketAddr> {
        while !self.are_enough(connected, config, now)
            && self.len() < config.max_dials
            && let Some(addr) = self.candidates.next(seeding, now)
        {
            if !is_met(addr) {
                self.under_way.insert(addr);
                return Some(addr);
            }
        }
        None
    }

    /// This address, which a stranger named, is to be dialled at once, however many peers are sought; false when it
    /// must not be.
    pub fn at_once(
        &mut self,
        addr: SocketAddr,
        connected: usize,
        config: &Config,
        now: Instant,
    ) -> bool {
        if connected + self.len() >= config.max_peers || self.len() >= config.max_dials {
            return false;
        }
        self.add([addr], Origin::Pex, config, now);
        self.candidates.take(addr, now) && self.under_way.insert(addr)
    }

    /// A connection to or from this address is up.
    pub fn arrived(&mut self, addr: SocketAddr) {
        self.under_way.remove(&addr);
    }

    /// The dial came to nothing.
    pub fn failed(&mut self, addr: SocketAddr, now: Instant) {
        self.under_way.remove(&addr);
        self.candidates.failed(addr, now);
    }

    /// The connection that came of it was closed by us, for this reason.
    pub fn refused(&mut self, addr: SocketAddr, parting: Parting, now: Instant) {
        if parting == Parting::Ourselves {
            return self.forget(addr);
        }
        self.failed(addr, now);
    }

    /// The address is our own.
    pub fn forget(&mut self, addr: SocketAddr) {
        self.under_way.remove(&addr);
        self.candidates.forget(addr);
    }

    /// Whether it is time to ask for more peers: there are few, or none `is_of_use` and nobody else is under way. If so
    /// it is taken as done, and not said again for a while.
    pub fn call(&mut self, connected: usize, is_of_use: bool, now: Instant) -> bool {
        self.useless_since = if is_of_use { None } else { self.useless_since.or(Some(now)) };
        let is_starving = connected + self.len() < FEW || self.is_empty() && !is_of_use;
        let has_called = |at| now.saturating_duration_since(at) < ASKING;
        let calls = is_starving && !self.asked_for_peers.is_some_and(has_called);
        if calls {
            self.hush(now);
        }
        calls
    }

    /// More peers were asked for just now.
    pub fn hush(&mut self, now: Instant) {
        self.asked_for_peers = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proto::blocklist::Draft;

    const WAIT: Duration = Duration::from_secs(3600);

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6881))
    }

    /// Ten addresses that may all be dialled at this instant.
    fn dials(now: Instant) -> Dials {
        let mut dials = Dials::new(Candidates::new(6881, false, 1));
        dials.add((1..=10).map(addr), Origin::Tracker, &Config::default(), now);
        dials
    }

    fn limited(target_peers: usize, max_peers: usize, max_dials: usize) -> Config {
        Config { target_peers, max_peers, max_dials, ..Config::default() }
    }

    #[test]
    fn so_many_are_dialled_as_are_sought_beside_those_who_are_here() {
        let now = Instant::now();
        for (name, connected, met, config, expected) in [
            ("all that are known", 0, 0, limited(50, 200, 30), 10),
            ("as many as are sought", 3, 0, limited(7, 200, 30), 4),
            ("enough are here", 7, 0, limited(7, 200, 30), 0),
            ("some at a time", 0, 0, limited(50, 200, 3), 3),
            ("not who is here", 4, 4, limited(50, 200, 30), 6),
        ] {
            let mut dials = dials(now);
            let is_met = |at| (1..=met).map(addr).any(|here| here == at);
            let next = || dials.next(connected, &config, false, is_met, now);
            assert_eq!(std::iter::from_fn(next).count(), expected, "{name}");
            assert_eq!(dials.len(), expected, "{name}");
        }
    }

    #[test]
    fn a_dial_is_under_way_until_something_became_of_it() {
        let now = Instant::now();
        let config = limited(50, 200, 1);
        type End = fn(&mut Dials, SocketAddr, Instant);
        for (name, end, left) in [
            ("arrived", (|dials, at, _| dials.arrived(at)) as End, 9),
            ("failed", Dials::failed, 10),
            ("ourselves", |dials, at, _| dials.forget(at), 9),
        ] {
            let mut dials = dials(now);
            let at = dials.next(0, &config, false, |_| false, now).expect("ten wait");
            assert_eq!(dials.next(0, &config, false, |_| false, now), None, "{name}");
            end(&mut dials, at, now);
            assert!(dials.is_empty(), "{name}");
            let all = limited(50, 200, 30);
            let next = || dials.next(0, &all, false, |_| false, now + WAIT);
            assert_eq!(std::iter::from_fn(next).count(), left, "{name}");
        }
    }

    #[test]
    fn more_are_sought_where_nobody_is_of_use_for_long() {
        let (start, config) = (Instant::now(), limited(3, 8, 30));
        let mut dials = dials(start);
        for (name, after, is_of_use, expected) in [
            ("at first", 0, false, 3),
            ("for a while", 4, false, 3),
            ("for long", 5, false, 8),
            ("no longer", 6, true, 3),
            ("again", 7, false, 3),
        ] {
            let now = start + Duration::from_secs(after);
            dials.call(0, is_of_use, now);
            let sought = (0..).find(|connected| dials.are_enough(*connected, &config, now));
            assert_eq!(sought, Some(expected), "{name}");
        }
    }

    #[test]
    fn a_dial_at_once_asks_for_room_but_not_how_many_are_sought() {
        let now = Instant::now();
        let mut blocked = Draft::default();
        blocked.line(b"10.0.0.99");
        let blocklist = Arc::new(blocked.finish());
        for (name, at, connected, config, expected) in [
            ("a stranger", 77, 0, limited(0, 200, 30), true),
            ("one who waits", 1, 0, limited(0, 200, 30), true),
            ("no room", 77, 200, limited(0, 200, 30), false),
            ("too many dials", 77, 0, limited(0, 200, 0), false),
            ("on the blocklist", 99, 0, Config { blocklist, ..Config::default() }, false),
        ] {
            let mut dials = dials(now);
            assert_eq!(dials.at_once(addr(at), connected, &config, now), expected, "{name}");
            assert!(!dials.at_once(addr(at), connected, &config, now), "{name}: once");
        }
    }

    #[test]
    fn more_are_asked_for_now_and_then_while_there_are_too_few() {
        let now = Instant::now();
        for (name, connected, dialled, is_of_use, expected) in [
            ("nobody", 0, 0, false, true),
            ("two", 2, 0, true, true),
            ("two and one who may come", 2, 1, false, false),
            ("three of use", 3, 0, true, false),
            ("three of no use", 3, 0, false, true),
            ("three of no use and one who may come", 3, 1, false, false),
        ] {
            let mut dials = dials(now);
            for n in 0..dialled {
                assert!(dials.at_once(addr(n + 1), 0, &Config::default(), now), "{name}");
            }
            let mut call = |at| dials.call(connected, is_of_use, at);
            assert_eq!(call(now), expected, "{name}");
            assert!(!call(now + ASKING - Duration::from_millis(1)), "{name}: not again so soon");
            assert_eq!(call(now + ASKING), expected, "{name}");
        }
    }
}
