//! Addresses that may be peers, and when each may be dialled.
//!
//! Invariant: at most [`MAX_KNOWN`] addresses, of which [`MAX_HEARSAY`] were named by strangers alone; a banned address is never handed out; an address is handed out
//! once until its dial or connection has ended.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::origin::{Origin, Weight};
use super::priority::priority;

/// Addresses that one torrent remembers.
pub const MAX_KNOWN: usize = 1000;

/// Of those, how many nobody but strangers ([`Weight::Hearsay`]) may have named: those of trackers and of the user
/// find room beside them.
pub const MAX_HEARSAY: usize = MAX_KNOWN / 2;

const FIRST_WAIT: Duration = Duration::from_secs(15);
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);
const BAN: Duration = Duration::from_secs(60 * 60);
const MAX_BANS: usize = 4096;

/// What an address is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// May be dialled from this instant on.
    Waiting(Instant),
    /// A dial is under way, or a connection is up.
    Busy,
    /// It has everything: of use only while we have not, and then at once.
    Seed,
}

#[derive(Clone, Debug)]
struct Candidate {
    standing: Standing,
    failures: u32,
    /// Of whoever named it with most weight.
    weight: Weight,
    /// Of a connection between it and us (BEP 40).
    priority: u32,
}

impl Candidate {
    /// Whether it is never given up.
    fn stays(&self) -> bool {
        self.weight >= Weight::Torrent
    }

    /// Whether it may be dialled.
    fn is_due(&self, seeding: bool, now: Instant) -> bool {
        match self.standing {
            Standing::Waiting(from) => from <= now,
            Standing::Seed => !seeding,
            Standing::Busy => false,
        }
    }
}

/// The addresses of one torrent.
#[derive(Debug)]
pub struct Candidates {
    known: BTreeMap<SocketAddr, Candidate>,
    banned: BTreeMap<SocketAddr, Instant>,
    /// Of a torrent to which BEP 27 holds.
    private: bool,
    /// Where others see us, in each family.
    ours: (SocketAddr, SocketAddr),
}

impl Candidates {
    /// No addresses. Until somebody tells where he sees us, connections are ranked as if we were at an address
    /// that `seed` draws, so that not all who do not know theirs dial the same peers.
    pub fn new(listen_port: u16, private: bool, seed: u64) -> Self {
        let v4 = Ipv4Addr::from_bits((seed >> 32) as u32);
        let v6 = Ipv6Addr::from_bits(u128::from(seed) << 64);
        Self {
            known: BTreeMap::new(),
            banned: BTreeMap::new(),
            private,
            ours: (
                SocketAddr::new(v4.into(), listen_port),
                SocketAddr::new(v6.into(), listen_port),
            ),
        }
    }

    /// Others see us there.
    pub fn seen_at(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(_) => self.ours.0.set_ip(ip),
            IpAddr::V6(_) => self.ours.1.set_ip(ip),
        }
        for (addr, candidate) in &mut self.known {
            candidate.priority = rank(self.ours, *addr);
        }
    }

    /// Takes in an address, if the torrent may have it from there.
    pub fn add(&mut self, addr: SocketAddr, origin: Origin, now: Instant) {
        if !origin.may_serve(self.private) {
            return;
        }
        let weight = origin.weight();
        if let Some(known) = self.known.get_mut(&addr) {
            known.weight = known.weight.max(weight);
        } else if is_dialable(addr) && self.has_room(weight) {
            let standing = Standing::Waiting(now);
            let priority = rank(self.ours, addr);
            self.known.insert(addr, Candidate { standing, failures: 0, weight, priority });
        }
    }

    fn has_room(&self, weight: Weight) -> bool {
        let hearsay = || self.known.values().filter(|known| known.weight == Weight::Hearsay);
        match weight {
            Weight::User | Weight::Torrent => true,
            Weight::Tracker => self.known.len() < MAX_KNOWN,
            Weight::Hearsay => self.known.len() < MAX_KNOWN && hearsay().count() < MAX_HEARSAY,
        }
    }

    /// Addresses known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The next address to dial, now busy: those that the user named first, then those that failed least, then by
    /// priority.
    /// `seeding`: we have everything, so known seeds are left alone.
    pub fn next(&mut self, seeding: bool, now: Instant) -> Option<SocketAddr> {
        let banned = &self.banned;
        let ready = |(addr, candidate): &(&SocketAddr, &mut Candidate)| {
            candidate.is_due(seeding, now)
                && banned.get(&culprit(**addr)).is_none_or(|until| *until <= now)
        };
        let (addr, candidate) =
            self.known.iter_mut().filter(ready).min_by_key(|(_, candidate)| {
                let is_chosen = candidate.weight == Weight::User;
                (!is_chosen, candidate.failures, Reverse(candidate.priority))
            })?;
        candidate.standing = Standing::Busy;
        Some(*addr)
    }

    /// This address is dialled, now busy, however long it should have waited; false when it must not be.
    pub fn take(&mut self, addr: SocketAddr, now: Instant) -> bool {
        let is_banned = self.is_banned(addr, now);
        let Some(candidate) = self.known.get_mut(&addr) else { return false };
        let may = candidate.standing != Standing::Busy && !is_banned;
        if may {
            candidate.standing = Standing::Busy;
        }
        may
    }

    /// Whether somebody could be dialled now who never failed.
    pub fn has_fresh(&self, seeding: bool, now: Instant) -> bool {
        self.known.iter().any(|(addr, candidate)| {
            candidate.is_due(seeding, now) && candidate.failures == 0 && !self.is_banned(*addr, now)
        })
    }

    /// Whether the user or the torrent itself named this address.
    pub fn stays(&self, addr: SocketAddr) -> bool {
        self.known.get(&addr).is_some_and(Candidate::stays)
    }

    /// Whether the address was taken in and not forgotten.
    pub fn is_known(&self, addr: SocketAddr) -> bool {
        self.known.contains_key(&addr)
    }

    /// The dial failed, or the connection was of no use: wait longer each time.
    pub fn failed(&mut self, addr: SocketAddr, now: Instant) {
        let Some(candidate) = self.known.get_mut(&addr) else { return };
        candidate.failures += 1;
        let wait = FIRST_WAIT * 2u32.saturating_pow((candidate.failures - 1).min(10));
        let is_chosen = candidate.weight == Weight::User;
        let wait = if is_chosen { FIRST_WAIT / 3 } else { wait.min(LONGEST_WAIT) };
        candidate.standing = Standing::Waiting(now + wait);
        if candidate.failures > 6 && !candidate.stays() {
            self.known.remove(&addr);
        }
    }

    /// A connection that was of use has ended.
    pub fn ended(&mut self, addr: SocketAddr, now: Instant) {
        let Some(candidate) = self.known.get_mut(&addr) else { return };
        candidate.failures = 0;
        candidate.standing = Standing::Waiting(now + FIRST_WAIT / 3);
    }

    /// The connection has ended since both sides have everything.
    pub fn has_all(&mut self, addr: SocketAddr) {
        if let Some(candidate) = self.known.get_mut(&addr) {
            candidate.failures = 0;
            candidate.standing = Standing::Seed;
        }
    }

    /// The address is ours or another's: never dial it again.
    pub fn forget(&mut self, addr: SocketAddr) {
        self.known.remove(&addr);
    }

    /// Only those that the user or the torrent itself named may still be dialled.
    pub fn forget_all_but_those_that_stay(&mut self) {
        self.known.retain(|_, candidate| candidate.stays());
    }

    /// Nothing to do with this culprit for an hour.
    pub fn ban(&mut self, culprit: SocketAddr, now: Instant) {
        self.banned.retain(|_, until| *until > now);
        if self.banned.len() < MAX_BANS {
            self.banned.insert(culprit, now + BAN);
        }
    }

    /// Whether the address is banned.
    pub fn is_banned(&self, addr: SocketAddr, now: Instant) -> bool {
        self.banned.get(&culprit(addr)).is_some_and(|until| *until > now)
    }
}

/// The priority of a connection to this address.
fn rank((v4, v6): (SocketAddr, SocketAddr), addr: SocketAddr) -> u32 {
    priority(v4, addr).or_else(|| priority(v6, addr)).unwrap_or(0)
}

/// Whether packets to the address could reach a peer at all.
pub fn is_dialable(addr: SocketAddr) -> bool {
    let odd = match addr.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
    };
    addr.port() != 0 && !odd
}

/// Who is to blame for what came from this address: the whole IP address, since a port is quickly changed; but
/// one port of a loopback or private address, behind which many peers may stand.
pub fn culprit(addr: SocketAddr) -> SocketAddr {
    if is_local(addr.ip()) { addr } else { SocketAddr::new(addr.ip(), 0) }
}

/// Whether several connections from this address are no sign of one peer taking several places.
pub fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6881))
    }

    #[test]
    fn an_address_is_dialled_once_and_then_waits_longer_each_time() {
        let start = Instant::now();
        let mut candidates = Candidates::new(6881, false, 1);
        candidates.add(addr(1), Origin::Tracker, start);
        assert_eq!(candidates.next(false, start), Some(addr(1)));
        assert_eq!(candidates.next(false, start), None);
        candidates.failed(addr(1), start);
        assert_eq!(candidates.next(false, start + FIRST_WAIT - Duration::from_millis(1)), None);
        assert_eq!(candidates.next(false, start + FIRST_WAIT), Some(addr(1)));
        candidates.failed(addr(1), start);
        assert_eq!(candidates.next(false, start + FIRST_WAIT), None);
        assert_eq!(candidates.next(false, start + 2 * FIRST_WAIT), Some(addr(1)));
    }

    #[test]
    fn the_users_choice_comes_first_and_a_banned_address_never() {
        let start = Instant::now();
        let mut candidates = Candidates::new(6881, false, 1);
        candidates.add(addr(1), Origin::Tracker, start);
        candidates.add(addr(2), Origin::User, start);
        candidates.add(addr(3), Origin::Tracker, start);
        candidates.ban(culprit(addr(1)), start);
        candidates.ban(culprit("8.8.8.8:1".parse().expect("an address")), start);
        assert!(candidates.is_banned("8.8.8.8:2".parse().expect("an address"), start));
        assert!(!candidates.is_banned("10.0.0.1:2".parse().expect("an address"), start));
        assert_eq!(candidates.next(false, start), Some(addr(2)));
        assert_eq!(candidates.next(false, start), Some(addr(3)));
        assert_eq!(candidates.next(false, start), None);
        assert_eq!(candidates.next(false, start + BAN), Some(addr(1)));
    }

    #[test]
    fn who_fails_less_comes_first_and_then_whom_the_pair_ranks_higher() {
        let start = Instant::now();
        let mut candidates = Candidates::new(6881, false, 1);
        let ours = "123.213.32.10".parse().expect("an address");
        let [low, high, failed] = ["123.213.32.234:1", "98.76.54.32:1", "98.76.54.33:1"]
            .map(|text| text.parse().expect("an address"));
        assert!(
            priority(SocketAddr::new(ours, 6881), high)
                > priority(SocketAddr::new(ours, 6881), low)
        );
        for addr in [failed, low, high] {
            candidates.add(addr, Origin::Tracker, start);
        }
        candidates.failed(failed, start);
        candidates.seen_at(ours);
        let later = start + FIRST_WAIT;
        let order = [(); 3].map(|()| candidates.next(false, later));
        assert_eq!(order, [Some(high), Some(low), Some(failed)]);
    }

    #[test]
    fn addresses_that_lead_nowhere_are_not_taken_in() {
        let mut candidates = Candidates::new(6881, false, 1);
        for odd in ["0.0.0.0:1", "10.0.0.1:0", "224.0.0.1:1", "[ff02::1]:1", "255.255.255.255:1"] {
            candidates.add(odd.parse().expect("an address"), Origin::Tracker, Instant::now());
        }
        assert!(candidates.is_empty());
    }
}
