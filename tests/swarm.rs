//! One swarm, driven by hand where a whole world would hide the point.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use btfs::proto::bitfield::Bitfield;
use btfs::proto::config::Config;
use btfs::proto::geometry::Geometry;
use btfs::proto::swarm::{Setup, Swarm};
use btfs::proto::units::{InfoHash, PeerId, PeerKey, ReaderId, Ticket};
use btfs::proto::wire::message::{Handshake, Message, Request, Reserved};

const PIECE: u64 = 256 * 1024;
const PIECES: u32 = 64;
const KEY: PeerKey = PeerKey(1);

fn swarm(now: Instant) -> Swarm {
    swarm_with(Bitfield::empty(PIECES), Config::default(), now)
}

fn swarm_with(have: Bitfield, config: Config, now: Instant) -> Swarm {
    let total = u64::from(PIECES) * PIECE;
    let geometry = Geometry::new(total, PIECE as i64).expect("legal lengths");
    let peer_id = PeerId([1; 20]);
    Swarm::new(Setup { geometry, have, peer_id, listen_port: 6881, config, seed: 7 }, now)
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
