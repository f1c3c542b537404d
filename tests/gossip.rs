//! Peer exchange (BEP 11): its bytes, its pace, and whom a swarm tells and believes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use btfs::proto::bitfield::Bitfield;
use btfs::proto::blocklist::Draft;
use btfs::proto::candidates::{MAX_HEARSAY, MAX_KNOWN};
use btfs::proto::config::Config;
use btfs::proto::geometry::Geometry;
use btfs::proto::gossip::{Gossip, Hearing, PACE};
use btfs::proto::origin::Origin;
use btfs::proto::swarm::{Event, Parting, Setup, Swarm};
use btfs::proto::units::{InfoHash, PeerId, PeerKey};
use btfs::proto::wire::extension::{Extension, ExtensionHandshake, ExtensionIds, HANDSHAKE_ID};
use btfs::proto::wire::message::{Handshake, Message, Reserved};
use btfs::proto::wire::pex::{Exchange, MAX_NAMED, Traits};
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Our number for ut_pex, which peers use towards us.
const PEX: u8 = 1;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A public address.
fn public(n: u32) -> SocketAddr {
    SocketAddr::from(((0x0808_0000 + n).to_be_bytes(), 6881))
}

fn exchange(added: &[(&str, u8)], dropped: &[&str]) -> Exchange {
    Exchange {
        added: added.iter().map(|(text, traits)| (addr(text), Traits(*traits))).collect(),
        dropped: dropped.iter().map(|text| addr(text)).collect(),
    }
}

#[test]
fn an_exchange_has_its_bytes_both_ways() {
    let full = exchange(&[("1.2.3.4:258", 0x12), ("[::1]:3", 1)], &["5.6.7.8:9"]);
    let bytes = b"d5:added6:\x01\x02\x03\x04\x01\x027:added.f1:\x126:added618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x03\
        8:added6.f1:\x017:dropped6:\x05\x06\x07\x08\0\x098:dropped60:e";
    assert_eq!(full.encode().escape_ascii().to_string(), bytes.escape_ascii().to_string());
    assert_eq!(Exchange::parse(bytes), Ok(full));
}

#[test]
fn what_is_odd_in_an_exchange_counts_as_not_sent() {
    for (name, input, expected) in [
        ("nothing", "de", exchange(&[], &[])),
        ("no traits", "d5:added6:abcd\0\u{1}e", exchange(&[("97.98.99.100:1", 0)], &[])),
        ("half an entry", "d5:added5:abcd\0e", exchange(&[], &[])),
        ("a number", "d5:addedi7e7:dropped6:abcd\0\u{2}e", exchange(&[], &["97.98.99.100:2"])),
        ("a list", "d5:addedl6:abcd\0\u{1}ee", exchange(&[], &[])),
    ] {
        assert_eq!(Exchange::parse(input.as_bytes()), Ok(expected), "{name}");
    }
    assert!(Exchange::parse(b"le").is_err() && Exchange::parse(b"").is_err());
}

proptest! {
    #[test]
    fn an_exchange_is_read_as_it_was_written(
        added in proptest::collection::vec((any::<SocketAddr>(), any::<u8>()), 0..80),
        dropped in proptest::collection::vec(any::<SocketAddr>(), 0..80),
    ) {
        // IPv4 comes first, and an IPv6 address has no scope on the wire.
        let plain = |addr: &SocketAddr| SocketAddr::new(addr.ip(), addr.port());
        let mut added: Vec<_> = added.iter().map(|(addr, t)| (plain(addr), Traits(*t))).collect();
        let mut dropped: Vec<_> = dropped.iter().map(plain).collect();
        added.truncate(MAX_NAMED);
        dropped.truncate(MAX_NAMED);
        let read = Exchange::parse(&Exchange { added: added.clone(), dropped: dropped.clone() }.encode());
        added.sort_by_key(|(addr, _)| addr.is_ipv6());
        dropped.sort_by_key(SocketAddr::is_ipv6);
        prop_assert_eq!(read, Ok(Exchange { added, dropped }));
    }

    #[test]
    fn no_bytes_make_an_exchange_long(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let list = |key: &str| [format!("{}:{key}{}:", key.len(), bytes.len()).as_bytes(), &bytes[..]].concat();
        let payload = [&b"d"[..], &list("added"), &list("added.f"), &list("added6"), &list("dropped"), b"e"].concat();
        let read = Exchange::parse(&payload).expect("a dictionary");
        prop_assert!(read.added.len() <= MAX_NAMED && read.dropped.len() <= MAX_NAMED);
    }
}

/// What is told, one exchange after another, is in the end what is there.
#[test]
fn a_peer_is_told_what_has_changed_and_not_more_often_than_once_a_minute() {
    let start = Instant::now();
    let here = |range: std::ops::Range<u32>| -> BTreeMap<_, _> {
        range.map(|n| (public(n), Traits::default())).collect()
    };
    let mut gossip = Gossip::new(start);
    assert_eq!(gossip.news(&here(0..0), start), None);
    let (mut believed, mut told_at, mut now) = (BTreeSet::new(), Vec::new(), start);
    while now < start + 10 * MINUTE {
        let all = if now < start + 5 * MINUTE { here(0..120) } else { here(60..130) };
        if gossip.is_due(now)
            && let Some(news) = gossip.news(&all, now)
        {
            assert!(news.added.len() <= MAX_NAMED && news.dropped.len() <= MAX_NAMED);
            for (addr, _) in news.added {
                assert!(believed.insert(addr), "{addr} is told twice");
            }
            for addr in news.dropped {
                assert!(believed.remove(&addr), "{addr} was never told");
            }
            told_at.push(now);
        }
        now += Duration::from_secs(1);
    }
    assert!(believed.iter().eq(here(60..130).keys()));
    assert!(told_at.windows(2).all(|pair| pair[1] - pair[0] >= PACE), "{told_at:?}");
    assert!(told_at[0] < start + Duration::from_secs(10), "the first comes soon");
}

#[test]
fn who_exchanges_too_often_is_passed_over_and_then_a_flood() {
    let start = Instant::now();
    for (name, waits, expected) in [
        ("once a minute", [60.0, 60.0, 60.0, 60.0], [Hearing::Timely; 4]),
        ("held up now and then", [57.0, 62.0, 55.0, 66.0], [Hearing::Timely; 4]),
        (
            "every second",
            [1.0; 4],
            [Hearing::TooSoon, Hearing::TooSoon, Hearing::TooSoon, Hearing::Flood],
        ),
    ] {
        let (mut gossip, mut now) = (Gossip::new(start), start);
        assert_eq!(gossip.hear(now), Hearing::Timely);
        let heard = waits.map(|wait| {
            now += Duration::from_secs_f64(wait);
            gossip.hear(now)
        });
        assert_eq!(heard, expected, "{name}");
    }
}

/// A leech with room for many, and its clock.
struct Scene {
    swarm: Swarm,
    now: Instant,
}

impl Scene {
    fn new(private: bool, config: Config) -> Self {
        let now = Instant::now();
        let setup = Setup {
            geometry: Geometry::new(1 << 24, 1 << 18).expect("legal lengths"),
            have: Bitfield::empty(64),
            private,
            peer_id: PeerId([1; 20]),
            listen_port: 6881,
            config,
            seed: 7,
        };
        Self { swarm: Swarm::new(setup, now), now }
    }

    /// A peer that speaks ut_pex as number 9 and listens at 6881 comes from there, or was dialled.
    fn meet(&mut self, key: u64, at: SocketAddr, incoming: bool) {
        let reserved = Reserved { fast: true, extended: true, dht: false };
        let said = Handshake {
            reserved,
            info_hash: InfoHash([0; 20]),
            peer_id: PeerId([key as u8 + 2; 20]),
        };
        self.swarm.handle_connected(PeerKey(key), at, incoming, said, self.now);
        let hello = b"d1:md6:ut_pexi9ee1:pi6881ee";
        self.say(key, HANDSHAKE_ID, hello);
    }

    fn say(&mut self, key: u64, id: u8, payload: &[u8]) {
        let payload = payload.to_vec().into();
        self.swarm.handle_messages(PeerKey(key), vec![Message::Extended { id, payload }], self.now);
    }

    fn name(&mut self, key: u64, addrs: impl IntoIterator<Item = SocketAddr>) {
        let added = addrs.into_iter().map(|addr| (addr, Traits::default())).collect();
        self.say(key, PEX, &Exchange { added, dropped: Vec::new() }.encode());
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.swarm.poll_timeout().max(self.now + Duration::from_millis(1)).min(end);
            self.swarm.handle_timeout(self.now);
        }
    }

    /// What this peer was told of others since the last look.
    fn told(&mut self, key: u64) -> Vec<Exchange> {
        let all: Vec<_> = std::iter::from_fn(|| self.swarm.poll_transmit()).collect();
        let news = |(to, message)| match message {
            Message::Extended { id: 9, payload } if to == PeerKey(key) => Some(payload),
            _ => None,
        };
        all.into_iter().filter_map(news).map(|p| Exchange::parse(&p).expect("our own")).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.swarm.poll_event()).collect()
    }

    fn dialled(&mut self) -> Vec<SocketAddr> {
        let dial = |event| match event {
            Event::Dial(addr) => Some(addr),
            _ => None,
        };
        self.events().into_iter().filter_map(dial).collect()
    }
}

#[test]
fn a_peer_hears_of_the_others_soon_and_of_those_that_go() {
    let mut scene = Scene::new(false, Config::default());
    scene.meet(1, public(1), true);
    scene.meet(2, addr("8.8.0.2:40000"), true);
    scene.meet(3, public(3), false);
    scene.pass(Duration::from_secs(6));
    let traits = Traits::REACHABLE.0;
    let expected = exchange(&[("8.8.0.2:6881", 0), ("8.8.0.3:6881", traits)], &[]);
    assert_eq!(scene.told(1), [expected], "where they listen, and itself left out");
    scene.swarm.handle_disconnected(PeerKey(3), scene.now);
    scene.pass(Duration::from_secs(50));
    assert_eq!(scene.told(1), []);
    scene.pass(Duration::from_secs(30));
    assert_eq!(scene.told(1), [exchange(&[], &["8.8.0.3:6881"])]);
}

#[test]
fn what_is_known_of_a_peer_is_told_of_it() {
    let none = Traits::default();
    let both = Traits::ENCRYPTS.with(Traits::UTP, true);
    for (name, incoming, shown, hello, expected) in [
        ("nothing is known", true, none, "de", none),
        ("we dialled it", false, none, "de", Traits::REACHABLE),
        ("over uTP, encrypted", true, both, "de", both),
        ("speaks BEP 55", true, none, "d1:md12:ut_holepunchi4eee", Traits::HOLEPUNCH),
        ("BEP 55, switched off", true, none, "d1:md12:ut_holepunchi0eee", none),
        ("wants nothing", true, none, "d11:upload_onlyi1ee", Traits::UPLOAD_ONLY),
    ] {
        let mut scene = Scene::new(false, Config::default());
        scene.meet(1, public(1), true);
        scene.meet(2, public(2), incoming);
        scene.swarm.handle_traits(PeerKey(2), shown);
        scene.say(2, HANDSHAKE_ID, hello.as_bytes());
        scene.pass(Duration::from_secs(6));
        let added = vec![(public(2), expected)];
        assert_eq!(scene.told(1), [Exchange { added, dropped: Vec::new() }], "{name}");
    }
}

#[test]
fn what_is_learnt_of_a_peer_later_is_told_later() {
    let mut scene = Scene::new(false, Config::default());
    scene.meet(1, public(1), true);
    scene.meet(2, public(2), true);
    scene.pass(Duration::from_secs(6));
    assert_eq!(scene.told(1), [exchange(&[("8.8.0.2:6881", 0)], &[])]);
    scene.say(2, HANDSHAKE_ID, b"d1:md12:ut_holepunchi4eee");
    scene.pass(PACE);
    assert_eq!(scene.told(1), [exchange(&[("8.8.0.2:6881", Traits::HOLEPUNCH.0)], &[])]);
}

#[test]
fn who_comes_alone_is_told_at_once_and_those_who_come_together_of_all() {
    let mut scene = Scene::new(false, Config::default());
    let others: Vec<_> = (1..=3).map(public).collect();
    for (key, at) in (1..).zip(&others) {
        scene.meet(key, *at, false);
    }
    assert_eq!([1, 2, 3].map(|key| scene.told(key).len()), [0; 3], "more may come");
    scene.pass(Duration::from_secs(2));
    scene.told(0);
    scene.meet(4, public(4), true);
    let told = scene.told(4);
    let named = |exchange: &Exchange| exchange.added.iter().map(|(addr, _)| *addr).collect();
    assert_eq!(told.iter().map(named).collect::<Vec<Vec<_>>>(), [others]);
    scene.say(4, HANDSHAKE_ID, b"d1:md6:ut_pexi9ee1:pi6881ee");
    assert_eq!(scene.told(4), [], "once");
}

#[test]
fn who_was_there_first_hears_of_the_next_within_a_second() {
    let mut scene = Scene::new(false, Config::default());
    scene.meet(1, public(1), true);
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.told(1), []);
    scene.meet(2, public(2), true);
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.told(1), [exchange(&[("8.8.0.2:6881", 0)], &[])]);
}

#[test]
fn nobody_outside_is_told_or_believed_about_the_inside() {
    let all = [
        "8.8.9.9:1",
        "10.0.9.9:1",
        "127.0.0.9:1",
        "169.254.1.1:1",
        "[fc00::9]:1",
        "[2001:db8::9]:1",
    ];
    for (sender, believed) in [
        ("8.8.0.1:6881", vec!["8.8.9.9:1", "[2001:db8::9]:1"]),
        ("10.0.0.1:6881", vec!["8.8.9.9:1", "10.0.9.9:1", "[fc00::9]:1", "[2001:db8::9]:1"]),
        (
            "127.0.0.1:6881",
            vec!["8.8.9.9:1", "10.0.9.9:1", "127.0.0.9:1", "[fc00::9]:1", "[2001:db8::9]:1"],
        ),
    ] {
        let mut scene = Scene::new(false, Config::default());
        scene.meet(1, addr(sender), true);
        scene.events();
        scene.name(1, all.map(addr));
        let dialled: BTreeSet<_> = scene.dialled().into_iter().collect();
        assert_eq!(dialled, believed.into_iter().map(addr).collect(), "{sender}");
    }
    let mut scene = Scene::new(false, Config::default());
    for (key, at) in (1..).zip(["8.8.0.1:6881", "10.0.0.2:6881", "127.0.0.3:6881"]) {
        scene.meet(key, addr(at), false);
    }
    scene.pass(Duration::from_secs(6));
    assert_eq!(scene.told(1), [], "those inside are not told of outside");
}

#[test]
fn nobody_on_the_blocklist_is_believed_about() {
    let mut draft = Draft::default();
    draft.line(b"8.8.9.0/24");
    let blocklist = Arc::new(draft.finish());
    let mut scene = Scene::new(false, Config { blocklist, ..Config::default() });
    scene.meet(1, public(1), true);
    scene.events();
    scene.name(1, [addr("8.8.9.9:1"), addr("8.8.10.9:1")]);
    assert_eq!(scene.dialled(), [addr("8.8.10.9:1")]);
}

#[test]
fn a_private_torrent_and_who_does_not_want_it_keep_out_of_it() {
    let silent = Config { exchange: false, ..Config::default() };
    for (name, private, config, speaks) in [
        ("public", false, Config::default(), true),
        ("private", true, Config::default(), false),
        ("--no-pex", false, silent, false),
    ] {
        let mut scene = Scene::new(private, config);
        scene.meet(1, public(1), true);
        let hello = std::iter::from_fn(|| scene.swarm.poll_transmit()).find_map(|(_, m)| match m {
            Message::Extended { id: HANDSHAKE_ID, payload } => Some(payload),
            _ => None,
        });
        let hello = ExtensionHandshake::parse(&hello.expect("it greets")).expect("our own");
        let ids = ExtensionIds::local(&[Extension::Pex]);
        assert_eq!(
            hello.ids.of(Extension::Pex),
            ids.of(Extension::Pex).filter(|_| speaks),
            "{name}"
        );
        scene.meet(2, public(2), true);
        scene.pass(Duration::from_secs(6));
        assert_eq!(!scene.told(1).is_empty(), speaks, "{name}");
        scene.events();
        scene.name(1, [public(9)]);
        assert_eq!(scene.dialled(), Vec::from_iter(speaks.then(|| public(9))), "{name}");
    }
}

#[test]
fn a_flood_of_names_ends_the_connection_and_leaves_room_for_others() {
    let mut scene = Scene::new(false, Config { max_dials: 0, ..Config::default() });
    scene.meet(1, public(1), true);
    for round in 0..5 {
        scene.name(1, (0..200).map(|n| public(1000 * (round + 1) + n)));
    }
    assert_eq!(scene.swarm.known_addresses(), MAX_NAMED, "only the first was heard");
    let flood = Parting::Violation("peers exchanged more often than once a minute");
    assert!(scene.events().contains(&Event::Close(PeerKey(1), flood)));

    for key in 2..60 {
        scene.meet(key, public(key as u32), true);
        scene.name(key, (0..50).map(|n| public(10_000 * key as u32 + n)));
    }
    assert_eq!(scene.swarm.known_addresses(), MAX_HEARSAY);
    scene.swarm.handle_candidates(
        (0..2000).map(|n| public(5_000_000 + n)),
        Origin::Tracker,
        scene.now,
    );
    assert_eq!(scene.swarm.known_addresses(), MAX_KNOWN);
}
