//! One swarm, driven by hand where a whole world would hide the point.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use btfs::proto::awaited::{Holders, Stage, Standing};
use btfs::proto::bitfield::Bitfield;
use btfs::proto::blocklist::Draft;
use btfs::proto::candidates::Candidates;
use btfs::proto::config::Config;
use btfs::proto::dials::Dials;
use btfs::proto::geometry::Geometry;
use btfs::proto::origin::Origin;
use btfs::proto::swarm::{Event, Job, Parting, Setup, Swarm};
use btfs::proto::units::{InfoHash, PeerId, PeerKey, ReaderId, Ticket};
use btfs::proto::wire::extension::{
    Extension, ExtensionHandshake, ExtensionIds, HANDSHAKE_ID, encode_upload_only,
};
use btfs::proto::wire::message::{Handshake, Message, Request, Reserved};

const PIECE: u64 = 256 * 1024;
const PIECES: u32 = 64;
const KEY: PeerKey = PeerKey(1);

fn swarm(now: Instant) -> Swarm {
    swarm_with(Bitfield::empty(PIECES), Config::default(), now)
}

fn swarm_with(have: Bitfield, config: Config, now: Instant) -> Swarm {
    make(have, config, false, now)
}

fn make(have: Bitfield, config: Config, private: bool, now: Instant) -> Swarm {
    let total = u64::from(PIECES) * PIECE;
    let geometry = Geometry::new(total, PIECE as i64).expect("legal lengths");
    let peer_id = PeerId([1; 20]);
    Swarm::new(Setup { geometry, have, private, peer_id, listen_port: 6881, config, seed: 7 }, now)
}

/// A peer with BEP 6 and BEP 10, which says this.
fn meet(swarm: &mut Swarm, words: Vec<Message>, now: Instant) {
    let said = Handshake {
        reserved: Reserved { fast: true, extended: true, ..Reserved::default() },
        info_hash: InfoHash([0; 20]),
        peer_id: PeerId([2; 20]),
    };
    swarm.handle_connected(KEY, SocketAddr::from(([10, 0, 0, 2], 6881)), false, said, now);
    swarm.handle_messages(KEY, words, now);
}

/// A seed that serves us.
fn meet_seed(swarm: &mut Swarm, now: Instant) {
    meet(swarm, vec![Message::HaveAll, Message::Unchoke], now);
}

/// What goes out now.
fn said(swarm: &mut Swarm) -> Vec<Message> {
    std::iter::from_fn(|| swarm.poll_transmit()).map(|(_, message)| message).collect()
}

fn cancels(swarm: &mut Swarm) -> BTreeSet<(u32, u32)> {
    said(swarm)
        .into_iter()
        .filter_map(|message| match message {
            Message::Cancel(Request { piece, begin, .. }) => Some((piece, begin)),
            _ => None,
        })
        .collect()
}

fn outstanding(swarm: &Swarm) -> BTreeSet<(u32, u32)> {
    let peer = swarm.peer(KEY).expect("the seed stays");
    peer.outstanding().map(|asked| (asked.block.piece.raw(), asked.block.begin())).collect()
}

/// What a magnet link leads to is known when peers have unchoked us already, and whoever waited for that reads at once.
#[test]
fn fill_waits_for_a_reader_of_what_has_just_become_known() {
    let start = Instant::now();
    let fresh = |reads| {
        let config = Config { reads, ..Config::default() };
        let mut swarm = swarm_with(Bitfield::empty(PIECES), config, start);
        swarm.adopt(Dials::new(Candidates::new(6881, false, 1)), start);
        meet_seed(&mut swarm, start);
        swarm
    };
    let mut read = fresh(true);
    assert!(outstanding(&read).is_empty(), "a reader may come");
    let soon = start + Duration::from_millis(20);
    read.open(ReaderId(1), 0..u64::from(PIECES) * PIECE, soon);
    read.read(Ticket(1), ReaderId(1), 0..1, soon);
    let asked = outstanding(&read);
    assert!(!asked.is_empty() && asked.iter().all(|(piece, _)| *piece == 0), "{asked:?}");

    let mut unread = fresh(true);
    let mut now = start;
    while outstanding(&unread).is_empty() {
        now = unread.poll_timeout().max(now + Duration::from_millis(1));
        assert!(now <= start + Duration::from_millis(100), "nobody comes");
        unread.handle_timeout(now);
    }
    assert!(!outstanding(&fresh(false)).is_empty(), "nobody can come");
}

/// Transmission 3 drops what is cancelled and says nothing, though it speaks BEP 6.
#[test]
fn blocks_taken_back_from_a_peer_that_never_rejects_are_soon_free_again() {
    let start = Instant::now();
    let mut swarm = swarm(start);
    meet_seed(&mut swarm, start);
    assert!(cancels(&mut swarm).is_empty());
    swarm.open(ReaderId(1), 0..u64::from(PIECES) * PIECE, start);
    swarm.read(Ticket(1), ReaderId(1), 50 * PIECE..50 * PIECE + 1, start);
    let taken_back = cancels(&mut swarm);
    assert!(!taken_back.is_empty(), "fill stood in the way of a read");
    assert!(outstanding(&swarm).is_superset(&taken_back));
    let mut now = start;
    while now < start + Duration::from_secs(3) {
        now = swarm.poll_timeout().max(now + Duration::from_millis(1));
        swarm.handle_timeout(now);
    }
    assert!(outstanding(&swarm).is_disjoint(&taken_back));
    assert_eq!(swarm.invariants(), Ok(()));
}

/// `--ratio` is reached: what is queued is rejected, and nobody is served any more.
#[test]
fn whoever_is_served_is_choked_when_upload_ends() {
    let start = Instant::now();
    let mut swarm = swarm_with(Bitfield::full(PIECES), Config::default(), start);
    meet(&mut swarm, vec![Message::HaveNone, Message::Interested], start);
    assert!(said(&mut swarm).contains(&Message::Unchoke));
    let asked = |begin| Request { piece: 0, begin, len: 16_384 };
    let requests = (0..8).map(|nth| Message::Request(asked(nth * 16_384)));
    swarm.handle_messages(KEY, requests.collect(), start);
    assert_eq!(said(&mut swarm), []);

    swarm.end_upload(start);
    let told = said(&mut swarm);
    assert_eq!(told[0], Message::Choke);
    // Four blocks are on their way.
    let rejected: Vec<_> = (4..8).map(|nth| Message::Reject(asked(nth * 16_384))).collect();
    assert_eq!(told[1..], rejected);
    let words = vec![Message::NotInterested, Message::Interested, Message::Request(asked(0))];
    swarm.handle_messages(KEY, words, start);
    let mut now = start;
    while now < start + Duration::from_secs(120) {
        now = swarm.poll_timeout().max(now + Duration::from_millis(1));
        swarm.handle_timeout(now);
    }
    assert!(!said(&mut swarm).contains(&Message::Unchoke));
}

/// An extension handshake that says nothing but this.
fn hello(upload_only: Option<bool>, spoken: &[Extension]) -> Message {
    let ids = ExtensionIds::local(spoken);
    let hello = ExtensionHandshake { ids, upload_only, ..ExtensionHandshake::default() };
    Message::Extended { id: HANDSHAKE_ID, payload: hello.encode() }
}

/// What the peer is told of `upload_only`, by handshakes.
fn told_upload_only(said: Vec<Message>) -> Vec<Option<bool>> {
    said.into_iter()
        .filter_map(|message| match message {
            Message::Extended { id: HANDSHAKE_ID, payload } => {
                Some(ExtensionHandshake::parse(&payload).expect("our own").upload_only)
            }
            _ => None,
        })
        .collect()
}

fn requests(swarm: &mut Swarm) -> Vec<Request> {
    said(swarm)
        .into_iter()
        .filter_map(|message| match message {
            Message::Request(asked) => Some(asked),
            _ => None,
        })
        .collect()
}

fn partings(swarm: &mut Swarm) -> Vec<Parting> {
    std::iter::from_fn(|| swarm.poll_event())
        .filter_map(|event| match event {
            Event::Close(_, parting) => Some(parting),
            _ => None,
        })
        .collect()
}

fn first(pieces: u32) -> Bitfield {
    let mut some = Bitfield::empty(PIECES);
    let geometry = Geometry::new(u64::from(PIECES) * PIECE, PIECE as i64).expect("legal lengths");
    for piece in geometry.pieces().take(pieces as usize) {
        some.insert(piece);
    }
    some
}

fn bitfield(pieces: u32) -> Message {
    Message::Bitfield(first(pieces).to_wire().into())
}

#[test]
fn who_wants_nothing_more_says_so() {
    let start = Instant::now();
    let no_fill = Config { fill: false, ..Config::default() };
    let partial_seed = Config { reads: false, ..no_fill.clone() };
    let get = Config { reads: false, ..Config::default() };
    for (name, have, config, expected) in [
        ("a leech", 8, Config::default(), None),
        ("a seed", PIECES, Config::default(), Some(true)),
        ("a partial seed", 8, partial_seed, Some(true)),
        ("a mount without fill that nobody reads", 8, no_fill, None),
        ("a download that nobody reads", 8, get, None),
    ] {
        let mut swarm = swarm_with(first(have), config, start);
        meet(&mut swarm, vec![Message::HaveNone], start);
        assert_eq!(told_upload_only(said(&mut swarm)), [expected], "{name}");
    }
}

/// The last piece comes from a peer that has only that one; then a piece is thrown out.
#[test]
fn peers_are_told_when_it_changes_that_nothing_more_is_wanted() {
    let start = Instant::now();
    let message =
        |upload_only| Message::Extended { id: 4, payload: encode_upload_only(upload_only) };
    for speaks_it in [false, true] {
        let mut swarm = swarm_with(Bitfield::full(PIECES), Config::default(), start);
        let piece = swarm.geometry().pieces().next().expect("there are some");
        swarm.evict(piece, start);
        let spoken: &[_] = if speaks_it { &[Extension::UploadOnly] } else { &[] };
        meet(&mut swarm, vec![hello(None, spoken), bitfield(1), Message::Unchoke], start);
        let mut asked = requests(&mut swarm);
        while let Some(Request { piece, begin, len }) = asked.pop() {
            let data = vec![0; len as usize].into();
            swarm.handle_messages(KEY, vec![Message::Piece { piece, begin, data }], start);
            asked.extend(requests(&mut swarm));
        }
        assert!(matches!(swarm.poll_job(), Some(Job::Verify { .. })));
        swarm.handle_verified(piece, true, start);
        swarm.handle_stored(piece, true, start);
        let complete = said(&mut swarm);
        swarm.evict(piece, start);
        let evicted = said(&mut swarm);
        if speaks_it {
            assert!(complete.contains(&message(true)) && evicted.contains(&message(false)));
        } else {
            assert_eq!(told_upload_only(complete), [Some(true)]);
            assert_eq!(told_upload_only(evicted), [Some(false)]);
        }
    }
}

#[test]
fn two_that_want_nothing_of_each_other_part() {
    let start = Instant::now();
    let upload_only = || hello(Some(true), &[]);
    let partial_seed = Config { fill: false, reads: false, ..Config::default() };
    let soon = Duration::ZERO;
    let settled = Duration::from_secs(12);
    let table = [
        ("two seeds", PIECES, Config::default(), vec![Message::HaveAll], Some(soon)),
        ("a seed and a partial one", PIECES, Config::default(), vec![upload_only()], Some(soon)),
        ("two partial seeds", 8, partial_seed.clone(), vec![upload_only()], Some(soon)),
        ("a partial seed and a seed", 8, partial_seed.clone(), vec![Message::HaveAll], Some(soon)),
        (
            "a leech and one with less",
            8,
            Config::default(),
            vec![upload_only(), bitfield(4)],
            Some(settled),
        ),
        ("a leech and one with more", 8, Config::default(), vec![upload_only(), bitfield(9)], None),
        ("a leech and a leech", 8, Config::default(), vec![bitfield(4)], None),
        ("a partial seed and a leech", 8, partial_seed, vec![bitfield(9)], None),
        ("a seed and a leech", PIECES, Config::default(), vec![bitfield(9)], None),
    ];
    for (name, have, config, words, expected) in table {
        let mut swarm = swarm_with(first(have), config, start);
        meet(&mut swarm, words, start);
        let mut now = start;
        let mut parted = partings(&mut swarm);
        while parted.is_empty() && now < start + Duration::from_secs(60) {
            now = swarm.poll_timeout().max(now + Duration::from_millis(1));
            swarm.handle_timeout(now);
            parted = partings(&mut swarm);
        }
        let after = (!parted.is_empty()).then(|| now - start);
        match expected {
            None => assert_eq!(parted, [], "{name}"),
            Some(limit) => assert!(
                parted == [Parting::BothSeeds] && after <= Some(limit),
                "{name}: {parted:?} after {after:?}"
            ),
        }
    }
}

/// A cache that threw a piece out has a reader before it who waits.
#[test]
fn the_seeds_that_were_left_are_dialled_at_once_when_a_piece_is_lost() {
    let start = Instant::now();
    let mut swarm = swarm_with(Bitfield::full(PIECES), Config::default(), start);
    let dials = |swarm: &mut Swarm| {
        let all: Vec<_> = std::iter::from_fn(|| swarm.poll_event()).collect();
        all.into_iter().filter(|event| matches!(event, Event::Dial(_))).count()
    };
    swarm.handle_candidates([at(2)], Origin::Tracker, start);
    assert_eq!(dials(&mut swarm), 1);
    meet(&mut swarm, vec![Message::HaveAll], start);
    assert_eq!(partings(&mut swarm), [Parting::BothSeeds]);
    let later = start + Duration::from_secs(60);
    swarm.handle_timeout(later);
    assert_eq!(dials(&mut swarm), 0, "neither wants anything");
    let piece = swarm.geometry().pieces().next().expect("there are some");
    swarm.evict(piece, later);
    assert_eq!(dials(&mut swarm), 1);
}

/// A finished libtorrent may want more when its user chooses another file.
#[test]
fn who_is_upload_only_has_no_slot_until_it_is_interested_again() {
    let start = Instant::now();
    let mut swarm = swarm_with(first(8), Config::default(), start);
    meet(&mut swarm, vec![bitfield(PIECES - 1), Message::Interested], start);
    assert!(said(&mut swarm).contains(&Message::Unchoke));
    swarm.handle_messages(KEY, vec![hello(Some(true), &[])], start);
    let mut now = start;
    while now < start + Duration::from_secs(15) {
        now = swarm.poll_timeout().max(now + Duration::from_millis(1));
        swarm.handle_timeout(now);
    }
    assert!(said(&mut swarm).contains(&Message::Choke));
    swarm.handle_messages(KEY, vec![Message::Interested], now);
    assert!(said(&mut swarm).contains(&Message::Unchoke));
}

/// A peer from this address of the net, dialled by us or not.
fn arrive(swarm: &mut Swarm, last: u8, incoming: bool, now: Instant) {
    let (reserved, info_hash) = (Reserved::default(), InfoHash([0; 20]));
    let said = Handshake { reserved, info_hash, peer_id: PeerId([last; 20]) };
    swarm.handle_connected(PeerKey(last.into()), at(last), incoming, said, now);
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 6881))
}

/// BEP 27: whoever came by one tracker goes when another is used.
#[test]
fn a_private_torrent_has_the_peers_of_one_tracker() {
    let start = Instant::now();
    for (private, parted) in [(true, vec![3, 4]), (false, vec![])] {
        let mut swarm = make(Bitfield::empty(PIECES), Config::default(), private, start);
        swarm.handle_candidates([at(2)], Origin::User, start);
        swarm.handle_tracked("http://a/announce", [at(3), at(5)], start);
        for (last, incoming) in [(2, false), (3, false), (4, true)] {
            arrive(&mut swarm, last, incoming, start);
        }
        swarm.handle_tracked("http://a/announce", [at(3)], start);
        assert_eq!(swarm.peers().len(), 3, "it is still the same tracker");
        while swarm.poll_event().is_some() {}

        swarm.handle_tracked("http://b/announce", [at(6)], start);
        // This dial began while the first tracker was used.
        arrive(&mut swarm, 5, false, start);
        arrive(&mut swarm, 6, false, start);
        let closed: Vec<_> = std::iter::from_fn(|| swarm.poll_event())
            .filter_map(|event| match event {
                Event::Close(key, Parting::OtherTracker) => Some(key.0),
                _ => None,
            })
            .collect();
        let late = if private { vec![5] } else { vec![] };
        assert_eq!(closed, [parted, late].concat(), "private: {private}");
    }
}

#[test]
fn a_private_torrent_dials_whom_its_trackers_and_its_user_name() {
    let start = Instant::now();
    for (origin, private, dialled) in [
        (Origin::User, true, true),
        (Origin::Tracker, true, true),
        (Origin::ForeignTracker, true, false),
        (Origin::Dht, true, false),
        (Origin::Pex, true, false),
        (Origin::Lsd, true, false),
        (Origin::Pex, false, true),
    ] {
        let mut swarm = make(Bitfield::empty(PIECES), Config::default(), private, start);
        swarm.handle_candidates([at(2)], origin, start);
        let dials = std::iter::from_fn(|| swarm.poll_event()).any(|e| e == Event::Dial(at(2)));
        assert_eq!(dials, dialled, "{origin:?}, private: {private}");
    }
}

#[test]
fn a_lonely_leech_asks_for_peers_now_and_then_and_a_seed_never() {
    let start = Instant::now();
    let partial_seed = Config { fill: false, reads: false, ..Config::default() };
    for (name, have, config, expected) in [
        ("a leech", 0, Config::default(), 4),
        ("a seed", PIECES, Config::default(), 0),
        ("a partial seed", 8, partial_seed, 0),
    ] {
        let mut swarm = swarm_with(first(have), config, start);
        let (mut now, mut asked) = (start, 0);
        while now < start + Duration::from_secs(119) {
            swarm.handle_timeout(now);
            let needs = |event: &Event| *event == Event::NeedPeers;
            asked += std::iter::from_fn(|| swarm.poll_event()).filter(needs).count();
            now = swarm.poll_timeout().max(now + Duration::from_millis(1));
        }
        assert_eq!(asked, expected, "{name}: every 30 s");
    }
}

/// Each has a piece that nobody else has, and never brings its last block.
#[test]
fn peers_that_finish_nothing_hold_no_more_than_memory() {
    const PEERS: u64 = 60;
    let start = Instant::now();
    let config = Config { open_bytes: 4 * PIECE, ..Config::default() };
    let mut swarm = swarm_with(Bitfield::empty(PIECES), config, start);
    let pieces = swarm.geometry().piece_count();
    for key in 0..PEERS {
        let said = Handshake {
            reserved: Reserved { fast: true, ..Reserved::default() },
            info_hash: InfoHash([0; 20]),
            peer_id: PeerId([key as u8 + 2; 20]),
        };
        let addr = SocketAddr::from(([10, 0, 1, key as u8], 6881));
        swarm.handle_connected(PeerKey(key), addr, true, said, start);
        let mut has = Bitfield::empty(pieces);
        has.insert(swarm.geometry().piece(key as u32).expect("64 pieces"));
        let bits = Message::Bitfield(has.to_wire().into());
        swarm.handle_messages(PeerKey(key), vec![bits, Message::Unchoke], start);
    }
    let (mut most, mut begun) = (0, BTreeSet::new());
    let mut now = start;
    while now < start + Duration::from_secs(90) {
        while let Some((key, message)) = swarm.poll_transmit() {
            let Message::Request(Request { piece, begin, len }) = message else { continue };
            begun.insert(piece);
            if u64::from(begin + len) < PIECE {
                let data = vec![0; len as usize].into();
                swarm.handle_messages(key, vec![Message::Piece { piece, begin, data }], now);
            }
        }
        most = most.max(swarm.assembling_bytes());
        now = swarm.poll_timeout().max(now + Duration::from_millis(1));
        swarm.handle_timeout(now);
    }
    assert!((4 * PIECE..=8 * PIECE).contains(&most), "{most} bytes");
    assert!(begun.len() > 8, "what nobody finishes stops the others: {begun:?}");
}

#[test]
fn what_is_awaited_is_told_with_who_has_it_and_what_was_asked() {
    let start = Instant::now();
    let mut swarm =
        swarm_with(Bitfield::empty(PIECES), Config { fill: false, ..Config::default() }, start);
    let first = |swarm: &Swarm| swarm.awaited(start).into_iter().next().expect("a read waits");
    swarm.open(ReaderId(1), 0..u64::from(PIECES) * PIECE, start);
    assert_eq!(swarm.awaited(start), []);
    swarm.read(Ticket(1), ReaderId(1), 50 * PIECE..50 * PIECE + 1, start);
    let told = first(&swarm);
    assert_eq!((told.piece.raw(), told.blocked, told.holders), (50, true, Holders::default()));
    assert_eq!(told.stage, Stage::Fetching { blocks: 16, here: 0, asked: 0 });
    meet(&mut swarm, vec![Message::HaveAll], start);
    let told = first(&swarm);
    assert_eq!(told.holders, Holders { choking: 1, ..Holders::default() });
    assert_eq!((told.named[0].standing, told.named[0].asked), (Standing::Choking, 0));
    let later = start + Duration::from_secs(1);
    swarm.handle_messages(KEY, vec![Message::Unchoke], later);
    let told = first(&swarm);
    let asked = told.named[0].asked;
    assert!(asked > 0);
    assert_eq!(told.stage, Stage::Fetching { blocks: 16, here: 0, asked });
    assert_eq!((told.named[0].standing, told.named[0].since), (Standing::Serving, Some(later)));
    let mut now = later;
    while now < later + Duration::from_secs(10) {
        now = swarm.poll_timeout().max(now + Duration::from_millis(1));
        swarm.handle_timeout(now);
    }
    let told = first(&swarm);
    assert_eq!(told.holders, Holders { snubbed: 1, ..Holders::default() });
    swarm.cancel(Ticket(1), now);
    assert_eq!(swarm.awaited(start), []);
}

#[test]
fn peers_on_the_blocklist_are_not_dialled_whoever_names_them() {
    let now = Instant::now();
    let mut draft = Draft::default();
    draft.line(b"198.51.100.0/24");
    let blocklist = Arc::new(draft.finish());
    let config = Config { blocklist, ..Config::default() };
    let mut swarm = swarm_with(Bitfield::empty(PIECES), config, now);
    let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let named = [addr("198.51.100.7:1"), addr("[::ffff:198.51.100.8]:1"), addr("198.51.101.7:1")];
    for origin in [Origin::Tracker, Origin::Pex, Origin::Dht, Origin::Lsd] {
        swarm.handle_candidates(named, origin, now);
    }
    let dials: Vec<_> = std::iter::from_fn(|| swarm.poll_event())
        .filter_map(|event| match event {
            Event::Dial(addr) => Some(addr),
            _ => None,
        })
        .collect();
    assert_eq!(dials, [addr("198.51.101.7:1")]);
}

/// BEP 5: who has a node is told of ours and names his own, once.
#[test]
fn dht_nodes_are_named_by_those_that_have_one_to_those_that_do() {
    let start = Instant::now();
    let node = SocketAddr::from(([10, 0, 0, 2], 7001));
    for (name, ours, private, incoming, told, asks) in [
        ("both have one", true, false, false, true, true),
        ("the peer dialled and asks first", true, false, true, true, false),
        ("we have none", false, false, false, false, false),
        ("the torrent is private", true, true, false, false, false),
    ] {
        let config = Config { dht: ours, ..Config::default() };
        let mut swarm = make(Bitfield::empty(PIECES), config, private, start);
        let reserved = Reserved { dht: true, ..Reserved::default() };
        let hand = Handshake { reserved, info_hash: InfoHash([0; 20]), peer_id: PeerId([2; 20]) };
        swarm.handle_connected(KEY, at(2), incoming, hand, start);
        assert_eq!(said(&mut swarm).contains(&Message::Port(6881)), told, "{name}");
        swarm.handle_messages(
            KEY,
            vec![Message::Port(0), Message::Port(7001), Message::Port(22)],
            start,
        );
        let named: Vec<_> = std::iter::from_fn(|| swarm.poll_event())
            .filter_map(|event| match event {
                Event::DhtNode(addr) => Some(addr),
                _ => None,
            })
            .collect();
        assert_eq!(named, Vec::from_iter(asks.then_some(node)), "{name}");
    }
    let mut swarm =
        swarm_with(Bitfield::empty(PIECES), Config { dht: true, ..Config::default() }, start);
    meet(&mut swarm, vec![], start);
    assert!(!said(&mut swarm).contains(&Message::Port(6881)), "a peer without a node is not told");
}
