//! A tracker's memory against the plainest model of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use btfs::proto::announce::answer::Scraped;
use btfs::proto::announce::{Answer, Event};
use btfs::proto::registry::{Config, Families, NotServed, Registry, Visit};
use btfs::proto::units::InfoHash;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn hash(n: u8) -> InfoHash {
    InfoHash([n; 20])
}

fn v4(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1000 + n))
}

fn v6(n: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 1000 + n))
}

fn visit(torrent: u8, addr: SocketAddr, left: u64) -> Visit {
    Visit {
        info_hash: hash(torrent),
        addr,
        left,
        event: Event::None,
        wanted: None,
        families: Families::Both,
    }
}

/// A registry, its clock and its dice.
struct Scene {
    registry: Registry,
    now: Instant,
    rng: StdRng,
}

impl Scene {
    fn new(config: Config) -> Self {
        Self { registry: Registry::new(config), now: Instant::now(), rng: StdRng::seed_from_u64(7) }
    }

    fn announce(&mut self, visit: &Visit) -> Answer {
        self.registry.announce(visit, self.now, &mut self.rng).expect("a registry with room")
    }

    fn scrape(&mut self, torrent: u8) -> Scraped {
        self.registry.scrape(&hash(torrent), self.now)
    }
}

#[test]
fn peers_find_each_other_but_never_themselves() {
    let mut scene = Scene::new(Config::default());
    assert_eq!(scene.announce(&visit(1, v4(1), 5)).peers, []);
    assert_eq!(scene.announce(&visit(1, v4(2), 5)).peers, [v4(1)]);
    assert_eq!(scene.announce(&visit(2, v4(3), 5)).peers, [], "another torrent");
    let again = scene.announce(&visit(1, v4(1), 5));
    assert_eq!((again.peers, again.seeds, again.leechers), (vec![v4(2)], Some(0), Some(2)));
}

#[test]
fn a_seed_is_given_leechers_only() {
    let mut scene = Scene::new(Config::default());
    for n in 0..10 {
        scene.announce(&visit(1, v4(n), 0));
    }
    scene.announce(&visit(1, v4(10), 1));
    assert_eq!(scene.announce(&visit(1, v4(0), 0)).peers, [v4(10)]);
    assert_eq!(scene.announce(&visit(1, v4(10), 1)).peers.len(), 10, "a leecher gets seeds");
}

#[test]
fn families_are_answered_as_the_asker_can_take_them() {
    let mut scene = Scene::new(Config::default());
    scene.announce(&visit(1, v4(1), 1));
    scene.announce(&visit(1, v6(1), 1));
    let own = Visit { families: Families::Own, ..visit(1, v6(2), 1) };
    assert_eq!(scene.announce(&own).peers, [v6(1)]);
    let both = Visit { families: Families::Both, ..own };
    assert_eq!(scene.announce(&both).peers, [v6(1), v4(1)]);
    let one = Visit { wanted: Some(1), ..both };
    assert_eq!(scene.announce(&one).peers, [v6(1)]);
    // A dual-stack socket shows IPv4 peers as mapped addresses.
    let mapped =
        Visit { families: Families::Own, ..visit(1, "[::ffff:10.0.0.9]:9".parse().unwrap(), 1) };
    assert_eq!(scene.announce(&mapped).peers, [v4(1)]);
}

#[test]
fn the_number_of_peers_given_is_clamped() {
    let mut scene = Scene::new(Config::default());
    for n in 0..500 {
        scene.announce(&visit(1, v4(n), 1));
    }
    for (wanted, given) in
        [(None, 50), (Some(0), 0), (Some(7), 7), (Some(200), 200), (Some(u32::MAX), 200)]
    {
        let answer = scene.announce(&Visit { wanted, ..visit(1, v4(1000), 1) });
        let distinct: BTreeSet<SocketAddr> = answer.peers.iter().copied().collect();
        assert_eq!((answer.peers.len(), distinct.len()), (given, given), "{wanted:?}");
    }
}

#[test]
fn every_peer_is_given_about_as_often() {
    let mut scene = Scene::new(Config::default());
    for n in 0..200 {
        scene.announce(&visit(1, v4(n), u64::from(n % 2)));
    }
    let mut times: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for _ in 0..2000 {
        let answer = scene.announce(&visit(1, v4(0), 1));
        answer.peers.into_iter().for_each(|addr| *times.entry(addr).or_default() += 1);
    }
    // 2000 draws of 50 out of 199: 502 each, with a spread (σ) of 19.
    assert_eq!(times.len(), 199);
    for (addr, times) in times {
        assert!((390..=615).contains(&times), "{addr} was given {times} times");
    }
}

#[test]
fn downloads_are_counted_once() {
    let mut scene = Scene::new(Config::default());
    scene.announce(&visit(1, v4(1), 5));
    for _ in 0..3 {
        scene.announce(&Visit { event: Event::Completed, ..visit(1, v4(1), 0) });
    }
    scene.announce(&visit(1, v4(2), 0));
    assert_eq!(scene.scrape(1), Scraped { seeds: 2, downloads: 1, leechers: 0 });
    assert_eq!(scene.scrape(9), Scraped::default());
}

#[test]
fn the_silent_are_forgotten() {
    let mut scene = Scene::new(Config::default());
    scene.announce(&visit(1, v4(1), 1));
    scene.announce(&visit(2, v4(1), 1));
    scene.now += Duration::from_secs(1000);
    scene.announce(&visit(1, v4(2), 1));
    scene.now += Duration::from_secs(801);
    assert_eq!(scene.scrape(1).leechers, 1);
    assert_eq!(scene.announce(&visit(1, v4(3), 1)).peers, [v4(2)]);
    assert_eq!(
        (scene.registry.torrents(), scene.registry.peers()),
        (1, 2),
        "torrent 2 is forgotten"
    );
}

#[test]
fn bounds_hold_and_the_oldest_goes_first() {
    let bounds = Config { max_torrents: 3, max_swarm: 5, max_peers: 12, ..Config::default() };
    let mut scene = Scene::new(bounds);
    for n in 0..8 {
        scene.announce(&visit(1, v4(n), 1));
    }
    assert_eq!(scene.scrape(1).leechers, 5);
    let mut kept = scene.announce(&visit(1, v4(7), 1)).peers;
    kept.sort();
    assert_eq!(kept, [v4(3), v4(4), v4(5), v4(6)]);
    for torrent in 2..5 {
        scene.announce(&visit(torrent, v4(0), 1));
    }
    assert_eq!((scene.scrape(1).leechers, scene.registry.torrents()), (0, 3));
    for n in 0..15 {
        scene.announce(&visit(3 + (n % 2) as u8, v4(n), 1));
        assert!(scene.registry.peers() <= 12);
    }
    let mut alone = Scene::new(Config { max_swarm: 100, max_peers: 12, ..Config::default() });
    for n in 0..50 {
        alone.announce(&visit(1, v4(n), 1));
    }
    assert_eq!((alone.registry.torrents(), alone.registry.peers()), (1, 12));
}

#[test]
fn only_named_torrents_are_served() {
    let only = Some(BTreeSet::from([hash(1)]));
    let mut scene = Scene::new(Config { only, ..Config::default() });
    scene.announce(&visit(1, v4(1), 1));
    let refused = scene.registry.announce(&visit(2, v4(1), 1), scene.now, &mut scene.rng);
    assert_eq!(refused, Err(NotServed));
}

#[test]
fn who_cannot_be_dialled_is_not_named() {
    let mut scene = Scene::new(Config::default());
    scene.announce(&visit(1, v4(1), 1));
    let hidden = SocketAddr::new(v4(2).ip(), 0);
    assert_eq!(scene.announce(&visit(1, hidden, 1)).peers, [v4(1)]);
    assert_eq!(scene.announce(&visit(1, v4(1), 1)).peers, []);
}

#[derive(Clone, Debug)]
enum Op {
    Announce {
        torrent: u8,
        peer: u16,
        ipv6: bool,
        seed: bool,
        completed: bool,
        wanted: Option<u32>,
    },
    Stop {
        torrent: u8,
        peer: u16,
        ipv6: bool,
    },
    Wait {
        secs: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4u8, 0..12u16, any::<bool>(), any::<bool>(), any::<bool>(), proptest::option::of(0..20u32))
            .prop_map(|(torrent, peer, ipv6, seed, completed, wanted)| {
                Op::Announce { torrent, peer, ipv6, seed, completed, wanted }
            }),
        2 => (0..4u8, 0..12u16, any::<bool>())
            .prop_map(|(torrent, peer, ipv6)| Op::Stop { torrent, peer, ipv6 }),
        1 => (0..1500u64).prop_map(|secs| Op::Wait { secs }),
    ]
}

/// Every peer with the time of its last announce and whether it is a seed.
#[derive(Default)]
struct Model {
    peers: BTreeMap<(u8, SocketAddr), (Instant, bool)>,
}

impl Model {
    fn forget(&mut self, now: Instant) {
        self.peers.retain(|_, (seen, _)| now - *seen <= Duration::from_secs(1800));
    }

    fn of(&self, torrent: u8) -> impl Iterator<Item = (SocketAddr, bool)> + '_ {
        self.peers
            .iter()
            .filter(move |((t, _), _)| *t == torrent)
            .map(|((_, addr), (_, seed))| (*addr, *seed))
    }

    fn check(&self, scene: &mut Scene) {
        for torrent in 0..4 {
            let numbers = scene.scrape(torrent);
            let (seeds, leechers): (Vec<_>, Vec<_>) = self.of(torrent).partition(|(_, seed)| *seed);
            assert_eq!(
                (numbers.seeds as usize, numbers.leechers as usize),
                (seeds.len(), leechers.len())
            );
        }
        assert_eq!(scene.registry.peers(), self.peers.len());
    }

    /// The answer holds as many as it can of those that it may.
    fn check_answer(&self, visit: &Visit, torrent: u8, answer: &Answer) {
        let wanted = visit.wanted.unwrap_or(50) as usize;
        let may =
            |(addr, seed): &(SocketAddr, bool)| *addr != visit.addr && !(*seed && visit.left == 0);
        let allowed: BTreeSet<SocketAddr> =
            self.of(torrent).filter(may).map(|(addr, _)| addr).collect();
        let given: BTreeSet<SocketAddr> = answer.peers.iter().copied().collect();
        assert_eq!(given.len(), answer.peers.len(), "nobody twice");
        assert!(given.is_subset(&allowed), "{given:?} of {allowed:?}");
        let own = |addrs: &BTreeSet<SocketAddr>| {
            addrs.iter().filter(|a| a.is_ipv4() == visit.addr.is_ipv4()).count()
        };
        assert_eq!(own(&given), wanted.min(own(&allowed)));
        assert_eq!(given.len(), wanted.min(allowed.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_registry_is_the_model(ops in proptest::collection::vec(op(), 0..80)) {
        let mut scene = Scene::new(Config::default());
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Wait { secs } => scene.now += Duration::from_secs(secs),
                Op::Stop { torrent, peer, ipv6 } => {
                    let addr = if ipv6 { v6(peer) } else { v4(peer) };
                    scene.announce(&Visit { event: Event::Stopped, ..visit(torrent, addr, 1) });
                    model.peers.remove(&(torrent, addr));
                }
                Op::Announce { torrent, peer, ipv6, seed, completed, wanted } => {
                    let addr = if ipv6 { v6(peer) } else { v4(peer) };
                    let event = if completed && seed { Event::Completed } else { Event::None };
                    let visit = Visit { event, wanted, ..visit(torrent, addr, u64::from(!seed)) };
                    let answer = scene.announce(&visit);
                    model.forget(scene.now);
                    model.peers.insert((torrent, addr), (scene.now, seed));
                    model.check_answer(&visit, torrent, &answer);
                }
            }
            model.forget(scene.now);
            model.check(&mut scene);
        }
    }
}
