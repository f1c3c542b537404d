//! What is on disk and nobody vouches for, and who is told of pieces that may go: one swarm, driven by hand.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use btfs::proto::bitfield::Bitfield;
use btfs::proto::config::Config;
use btfs::proto::geometry::Geometry;
use btfs::proto::swarm::{Event, Job, Setup, Swarm};
use btfs::proto::units::{InfoHash, PeerId, PeerKey, PieceIndex, ReaderId, Ticket};
use btfs::proto::wire::extension::{Extension, ExtensionHandshake, ExtensionIds, HANDSHAKE_ID};
use btfs::proto::wire::message::{Handshake, Message, Request, Reserved};

const PIECE: u64 = 256 * 1024;
const KEY: PeerKey = PeerKey(1);

fn swarm(now: Instant) -> Swarm {
    swarm_with(Config::default(), now)
}

fn swarm_with(config: Config, now: Instant) -> Swarm {
    let geometry = Geometry::new(64 * PIECE, PIECE as i64).expect("legal lengths");
    let have = Bitfield::empty(geometry.piece_count());
    let peer_id = PeerId([1; 20]);
    Swarm::new(
        Setup { geometry, have, private: false, peer_id, listen_port: 6881, config, seed: 7 },
        now,
    )
}

/// A seed with BEP 6 that serves us.
fn meet_seed(swarm: &mut Swarm, now: Instant) {
    let said = Handshake {
        reserved: Reserved { fast: true, ..Reserved::default() },
        info_hash: InfoHash([0; 20]),
        peer_id: PeerId([2; 20]),
    };
    swarm.handle_connected(KEY, SocketAddr::from(([10, 0, 0, 2], 6881)), false, said, now);
    swarm.handle_messages(KEY, vec![Message::HaveAll, Message::Unchoke], now);
}

fn messages(swarm: &mut Swarm) -> Vec<(u64, Message)> {
    std::iter::from_fn(|| swarm.poll_transmit()).map(|(key, message)| (key.0, message)).collect()
}

fn checks(swarm: &mut Swarm) -> Vec<u32> {
    std::iter::from_fn(|| swarm.poll_job())
        .map(|job| match job {
            Job::Check { piece } => piece.raw(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn piece(swarm: &Swarm, raw: u32) -> PieceIndex {
    swarm.geometry().piece(raw).expect("in the torrent")
}

fn pieces(swarm: &Swarm, raw: impl IntoIterator<Item = u32>) -> Bitfield {
    let mut field = Bitfield::empty(swarm.geometry().piece_count());
    for raw in raw {
        field.insert(piece(swarm, raw));
    }
    field
}

/// Pieces that were asked for.
fn asked(swarm: &mut Swarm) -> BTreeSet<u32> {
    let requests = messages(swarm).into_iter().filter_map(|(_, message)| match message {
        Message::Request(request) => Some(request.piece),
        _ => None,
    });
    requests.collect()
}

#[test]
fn doubted_pieces_are_checked_before_they_are_asked_for_told_of_or_given() {
    let now = Instant::now();
    let mut swarm = swarm(now);
    let doubted = pieces(&swarm, 0..64);
    swarm.doubt(&doubted, now);
    assert_eq!(checks(&mut swarm), [0, 1], "in the background, a few at a time");
    meet_seed(&mut swarm, now);
    assert!(asked(&mut swarm).is_empty());
    // Somebody reads: what he waits for comes first, and nothing is asked of the network.
    swarm.open(ReaderId(1), 0..64 * PIECE, now);
    swarm.read(Ticket(1), ReaderId(1), 50 * PIECE - 1..50 * PIECE + 1, now);
    assert_eq!(checks(&mut swarm), [49, 50]);
    assert!(asked(&mut swarm).is_empty());
    // It is not given to others before.
    let wanted = Request { piece: 49, begin: 0, len: 16_384 };
    swarm.handle_messages(KEY, vec![Message::Interested, Message::Request(wanted)], now);
    assert!(messages(&mut swarm).contains(&(1, Message::Reject(wanted))));
    // One is right: told, and the read waits for the other, which is wrong, and now asked for.
    let right = piece(&swarm, 49);
    swarm.handle_checked(right, true, now);
    assert!(swarm.have().has(right));
    assert!(messages(&mut swarm).contains(&(1, Message::Have(49))));
    assert_eq!(std::iter::from_fn(|| swarm.poll_event()).last(), Some(Event::Have(right)));
    let wrong = piece(&swarm, 50);
    swarm.handle_checked(wrong, false, now);
    assert!(!swarm.may_have(&(50 * PIECE..50 * PIECE + 1)) && swarm.may_have(&(0..PIECE)));
    assert!(asked(&mut swarm).contains(&50));
    assert_eq!(swarm.invariants(), Ok(()));
}

#[test]
fn a_read_of_doubted_pieces_that_are_right_is_ready_without_any_peer() {
    let now = Instant::now();
    let mut swarm = swarm(now);
    let doubted = pieces(&swarm, 0..64);
    swarm.doubt(&doubted, now);
    swarm.open(ReaderId(1), 0..64 * PIECE, now);
    swarm.read(Ticket(1), ReaderId(1), 7 * PIECE..7 * PIECE + 1, now);
    let seven = piece(&swarm, 7);
    swarm.handle_checked(seven, true, now);
    let ready = std::iter::from_fn(|| swarm.poll_event()).filter(|e| *e == Event::Ready(Ticket(1)));
    assert_eq!(ready.count(), 1);
    // What is thrown out before it was checked is simply missing.
    let nine = piece(&swarm, 9);
    swarm.evict(nine, now);
    assert!(!swarm.may_have(&(9 * PIECE..9 * PIECE + 1)));
    assert_eq!(swarm.invariants(), Ok(()));
}

#[test]
fn without_fill_only_what_is_read_is_checked() {
    let now = Instant::now();
    let config = Config { fill: false, ..Config::default() };
    let mut swarm = swarm_with(config, now);
    let doubted = pieces(&swarm, 0..64);
    swarm.doubt(&doubted, now);
    assert_eq!(checks(&mut swarm), [] as [u32; 0]);
    swarm.open(ReaderId(1), 0..64 * PIECE, now);
    swarm.read(Ticket(1), ReaderId(1), 7 * PIECE..7 * PIECE + 1, now);
    assert_eq!(checks(&mut swarm), [7]);
    let seven = piece(&swarm, 7);
    swarm.handle_checked(seven, true, now);
    assert_eq!(checks(&mut swarm), [] as [u32; 0]);
}

/// Four peers: with and without BEP 6, with and without BEP 54. What each is told of pieces as it comes, when
/// it has told what it speaks, when a piece comes and when one goes.
#[test]
fn only_those_who_can_hear_that_a_piece_is_gone_hear_that_it_is_here_unless_it_stays() {
    let now = Instant::now();
    // (evicts, fast, speaks BEP 54, said at first, said then, said of a new piece, said of one that goes)
    let bits = || Message::Bitfield(vec![0xc0, 0, 0, 0, 0, 0, 0, 0].into());
    let table = [
        (false, true, true, vec![bits()], vec![], true, true),
        (false, true, false, vec![bits()], vec![], true, false),
        (false, false, true, vec![bits()], vec![], true, true),
        (false, false, false, vec![bits()], vec![], true, false),
        (true, true, true, vec![Message::HaveNone], vec![bits()], true, true),
        (true, true, false, vec![Message::HaveNone], vec![], false, false),
        (true, false, true, vec![], vec![bits()], true, true),
        (true, false, false, vec![], vec![], false, false),
    ];
    for (evicts, fast, speaks, first, then, new, gone) in table {
        let name = format!("evicts {evicts}, fast {fast}, BEP 54 {speaks}");
        let mut swarm = swarm_with(Config { evicts, ..Config::default() }, now);
        let doubted = pieces(&swarm, 0..3);
        swarm.doubt(&doubted, now);
        for raw in [0, 1] {
            let piece = piece(&swarm, raw);
            swarm.handle_checked(piece, true, now);
        }
        let said = Handshake {
            reserved: Reserved { fast, extended: true, ..Reserved::default() },
            info_hash: InfoHash([0; 20]),
            peer_id: PeerId([2; 20]),
        };
        swarm.handle_connected(KEY, SocketAddr::from(([10, 0, 0, 2], 6881)), false, said, now);
        let told = |swarm: &mut Swarm| -> Vec<Message> {
            let is_interest = |m: &Message| matches!(m, Message::Interested);
            messages(swarm).into_iter().map(|(_, m)| m).filter(|m| !is_interest(m)).collect()
        };
        assert_eq!(told(&mut swarm)[1..], first, "{name}");
        let names: &[_] = if speaks { &[Extension::DontHave] } else { &[] };
        let hello =
            ExtensionHandshake { ids: ExtensionIds::local(names), ..ExtensionHandshake::default() };
        let hello = || Message::Extended { id: HANDSHAKE_ID, payload: hello.encode() };
        swarm.handle_messages(KEY, vec![hello()], now);
        assert_eq!(told(&mut swarm), then, "{name}");
        swarm.handle_messages(KEY, vec![hello()], now);
        assert_eq!(told(&mut swarm), [], "{name}: said once");
        let two = piece(&swarm, 2);
        swarm.handle_checked(two, true, now);
        assert_eq!(told(&mut swarm).contains(&Message::Have(2)), new, "{name}");
        swarm.evict(two, now);
        let taken_back = |m: &Message| matches!(m, Message::Extended { payload, .. } if payload[..] == [0, 0, 0, 2]);
        assert_eq!(told(&mut swarm).iter().any(taken_back), gone, "{name}");
    }
}
