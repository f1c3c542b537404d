//! Holepunching (BEP 55): its bytes, two peers whom a third brings together, and what nobody can make us do by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use btfs::proto::bitfield::Bitfield;
use btfs::proto::blocklist::Draft;
use btfs::proto::config::Config;
use btfs::proto::geometry::Geometry;
use btfs::proto::origin::Origin;
use btfs::proto::peer::MAX_PUNCHES;
use btfs::proto::swarm::{Event, Parting, Setup, Swarm};
use btfs::proto::units::{InfoHash, PeerId, PeerKey};
use btfs::proto::wire::extension::HANDSHAKE_ID;
use btfs::proto::wire::holepunch::{Refusal, Word};
use btfs::proto::wire::message::{Handshake, Message, Reserved};
use proptest::prelude::*;

/// Our number for ut_holepunch, which peers use towards us.
const PUNCH: u8 = 5;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn a_word_has_its_bytes_both_ways() {
    let [v4, v6] = ["1.2.3.4:258", "[::1]:3"].map(addr);
    for (word, bytes) in [
        (Word::Rendezvous(v4), &b"\0\0\x01\x02\x03\x04\x01\x02\0\0\0\0"[..]),
        (Word::Connect(v6), b"\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x03\0\0\0\0"),
        (Word::Refused(v4, Refusal::NoSelf), b"\x02\0\x01\x02\x03\x04\x01\x02\0\0\0\x04"),
    ] {
        assert_eq!(word.encode(), bytes, "{word:?}");
        assert_eq!(Word::parse(bytes), Some(word));
    }
    for (name, bytes, expected) in [
        ("without a code", &b"\x01\0\x01\x02\x03\x04\x01\x02"[..], Some(Word::Connect(v4))),
        ("a refusal without a code", b"\x02\0\x01\x02\x03\x04\x01\x02", None),
        ("an unknown code", b"\x02\0\x01\x02\x03\x04\x01\x02\0\0\0\x09", None),
        ("an unknown kind", b"\x03\0\x01\x02\x03\x04\x01\x02\0\0\0\0", None),
        ("an unknown family", b"\0\x02\x01\x02\x03\x04\x01\x02\0\0\0\0", None),
        ("no port", b"\0\0\x01\x02\x03\x04", None),
        ("nothing", b"", None),
    ] {
        assert_eq!(Word::parse(bytes), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Some(word) = Word::parse(&bytes) {
            prop_assert_eq!(Word::parse(&word.encode()), Some(word));
        }
    }
}

fn swarm(n: u8, config: Config, now: Instant) -> Swarm {
    let geometry = Geometry::new(1 << 24, 1 << 18).expect("legal lengths");
    let have = Bitfield::empty(64);
    let (peer_id, seed) = (PeerId([n; 20]), n.into());
    Swarm::new(
        Setup { geometry, have, private: false, peer_id, listen_port: 6881, config, seed },
        now,
    )
}

fn punching() -> Config {
    Config { punch: true, ..Config::default() }
}

fn handshake(n: u8) -> Handshake {
    let reserved = Reserved { fast: true, extended: true, dht: false };
    Handshake { reserved, info_hash: InfoHash([0; 20]), peer_id: PeerId([n; 20]) }
}

/// Where the swarm with this number listens.
fn door(n: u8) -> SocketAddr {
    SocketAddr::from(([8, 8, 0, n], 6881))
}

/// What it wants done; that it wants more peers does not matter here.
fn events(swarm: &mut Swarm) -> Vec<Event> {
    let all = std::iter::from_fn(|| swarm.poll_event());
    all.filter(|event| *event != Event::NeedPeers).collect()
}

/// Swarms that hear each other at once. Each knows the others by their numbers.
struct Room {
    swarms: Vec<Swarm>,
    now: Instant,
}

impl Room {
    fn new(size: u8) -> Self {
        let now = Instant::now();
        Self { swarms: (0..size).map(|n| swarm(n, punching(), now)).collect(), now }
    }

    fn connect(&mut self, from: u8, to: u8) {
        let [key_from, key_to] = [from, to].map(|n| PeerKey(n.into()));
        let port = SocketAddr::new(door(from).ip(), 40_000);
        let now = self.now;
        self.swarms[usize::from(from)].handle_connected(
            key_to,
            door(to),
            false,
            handshake(to),
            now,
        );
        self.swarms[usize::from(to)].handle_connected(key_from, port, true, handshake(from), now);
        self.talk();
    }

    fn talk(&mut self) {
        let mut said = true;
        while said {
            said = false;
            for n in 0..self.swarms.len() {
                while let Some((key, message)) = self.swarms[n].poll_transmit() {
                    said = true;
                    let to = &mut self.swarms[key.0 as usize];
                    to.handle_messages(PeerKey(n as u64), vec![message], self.now);
                }
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            let now = self.now;
            self.swarms.iter_mut().for_each(|swarm| swarm.handle_timeout(now));
            self.talk();
        }
    }
}

#[test]
fn two_that_cannot_dial_each_other_dial_at_once_when_a_third_tells_them() {
    let mut room = Room::new(3);
    room.connect(0, 2);
    room.connect(1, 2);
    room.pass(8);
    // The third has told each of the other, and nobody gets through.
    assert_eq!(events(&mut room.swarms[0]), [Event::Dial(door(1))]);
    assert_eq!(events(&mut room.swarms[1]), [Event::Dial(door(0))]);
    let now = room.now;
    room.swarms[1].handle_dial_failed(door(0), now);
    room.swarms[0].handle_dial_failed(door(1), now);
    room.talk();
    assert_eq!(events(&mut room.swarms[0]), [Event::Dial(door(1))], "at once, and once");
    assert_eq!(events(&mut room.swarms[1]), [Event::Dial(door(0))]);
    // That was all the help there is: they wait as for anybody.
    room.swarms[0].handle_dial_failed(door(1), now);
    room.swarms[1].handle_dial_failed(door(0), now);
    room.talk();
    room.pass(5);
    assert_eq!(events(&mut room.swarms[0]), []);
}

/// One swarm, and peers that are driven by hand: those with an even number speak ut_holepunch, as number 9.
struct Scene {
    swarm: Swarm,
    now: Instant,
}

impl Scene {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        Self { swarm: swarm(100, config, now), now }
    }

    fn meet(&mut self, n: u8, at: SocketAddr) {
        self.swarm.handle_connected(PeerKey(n.into()), at, false, handshake(n), self.now);
        let name = if n.is_multiple_of(2) { "12:ut_holepunch" } else { "8:ut_other" };
        self.say(n, HANDSHAKE_ID, format!("d1:md{name}i9eee").as_bytes());
    }

    fn say(&mut self, n: u8, id: u8, payload: &[u8]) {
        let message = Message::Extended { id, payload: payload.to_vec().into() };
        self.swarm.handle_messages(PeerKey(n.into()), vec![message], self.now);
    }

    /// Words of ut_holepunch that go out, and to whom.
    fn words(&mut self) -> Vec<(u64, Word)> {
        let all = std::iter::from_fn(|| self.swarm.poll_transmit());
        let word = |(to, message): (PeerKey, Message)| match message {
            Message::Extended { id: 9, payload } => Word::parse(&payload).map(|word| (to.0, word)),
            _ => None,
        };
        all.filter_map(word).collect()
    }
}

#[test]
fn a_helper_brings_together_whom_it_knows_and_says_why_not() {
    let mut scene = Scene::new(punching());
    let inside = addr("10.0.0.6:6881");
    for n in [2, 3, 4] {
        scene.meet(n, door(n));
    }
    scene.meet(6, inside);
    scene.words();
    let refused = |far, why| vec![(2, Word::Refused(far, why))];
    let nowhere = addr("8.8.0.9:0");
    for (name, far, expected) in [
        ("both speak it", door(4), vec![(4, Word::Connect(door(2))), (2, Word::Connect(door(4)))]),
        ("the other does not", door(3), refused(door(3), Refusal::NoSupport)),
        ("nobody there", door(9), refused(door(9), Refusal::NotConnected)),
        ("itself", door(2), refused(door(2), Refusal::NoSelf)),
        ("nowhere", nowhere, refused(nowhere, Refusal::NoSuchPeer)),
        ("one inside", inside, refused(inside, Refusal::NotConnected)),
    ] {
        scene.say(2, PUNCH, &Word::Rendezvous(far).encode());
        assert_eq!(scene.words(), expected, "{name}");
    }
}

#[test]
fn nobody_makes_us_dial_without_end_or_inside_or_whom_the_user_excludes() {
    let mut draft = Draft::default();
    draft.line(b"8.8.9.0/24");
    let blocklist = Arc::new(draft.finish());
    let config = Config { max_dials: 1000, max_peers: 1000, blocklist, ..punching() };
    let mut scene = Scene::new(config);
    scene.meet(2, door(2));
    events(&mut scene.swarm);
    scene.say(2, PUNCH, &Word::Connect(addr("192.168.0.1:6881")).encode());
    scene.say(2, PUNCH, &Word::Connect(door(2)).encode());
    scene.say(2, PUNCH, &Word::Connect(addr("8.8.9.1:6881")).encode());
    assert_eq!(events(&mut scene.swarm), [], "neither inside nor who is here or excluded");
    for n in 0..200 {
        scene.say(2, PUNCH, &Word::Connect(SocketAddr::from(([8, 9, 0, n], 6881))).encode());
    }
    let happened = events(&mut scene.swarm);
    let dials = happened.iter().filter(|event| matches!(event, Event::Dial(_))).count();
    assert_eq!(dials, MAX_PUNCHES as usize - 3);
    let parting = Parting::Violation("too many messages without sense");
    assert!(happened.contains(&Event::Close(PeerKey(2), parting)), "{happened:?}");
}

#[test]
fn who_is_being_dialled_is_not_dialled_for_a_word() {
    let mut scene = Scene::new(punching());
    scene.meet(2, door(2));
    scene.swarm.handle_candidates([door(7)], Origin::Tracker, scene.now);
    assert_eq!(events(&mut scene.swarm), [Event::Dial(door(7))]);
    scene.say(2, PUNCH, &Word::Connect(door(7)).encode());
    assert_eq!(events(&mut scene.swarm), []);
}

#[test]
fn without_utp_it_is_not_spoken() {
    for config in [Config::default(), Config { exchange: false, ..punching() }] {
        let mut scene = Scene::new(config);
        scene.meet(2, door(2));
        scene.meet(4, door(4));
        events(&mut scene.swarm);
        scene.say(2, PUNCH, &Word::Connect(door(7)).encode());
        scene.say(2, PUNCH, &Word::Rendezvous(door(4)).encode());
        assert_eq!((scene.words(), events(&mut scene.swarm)), (vec![], vec![]));
    }
}
