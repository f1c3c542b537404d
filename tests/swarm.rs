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
const KEY: PeerKey = PeerKey(1);

fn swarm(now: Instant) -> Swarm {
    let geometry = Geometry::new(64 * PIECE, PIECE as i64).expect("legal lengths");
    let have = Bitfield::empty(geometry.piece_count());
    let peer_id = PeerId([1; 20]);
    let config = Config::default();
    Swarm::new(Setup { geometry, have, peer_id, listen_port: 6881, config, seed: 7 }, now)
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

fn cancels(swarm: &mut Swarm) -> BTreeSet<(u32, u32)> {
    std::iter::from_fn(|| swarm.poll_transmit())
        .filter_map(|(_, message)| match message {
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
    swarm.open(ReaderId(1), 0..64 * PIECE, start);
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
