//! What a reader waits for, in virtual time: lines with delay and a slow start, peers that choke, die and reject.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use btfs::proto::awaited::Stage;
use btfs::proto::config::Config;
use btfs::proto::swarm::Swarm;
use btfs::proto::units::BlockRef;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::line::Line;
use support::replay::replay;
use support::script::Manners;
use support::sim::{NodeId, World};

const MB: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn home() -> Line {
    Line { slow_start: true, ..Line::new(5 * MB / 2, seconds(0.05)) }
}

/// A seek while fill goes on, at the median, on seeds of these rates in Mbit/s and at this round trip.
fn seek(seed: u64, rates: &[u64], round_trip: f64, trace: &mut u64) -> f64 {
    let mut world = World::new(seed, 256 * MIB, 1 << 20);
    let line = |rate| Line { slow_start: true, ..Line::new(rate * MB / 8, seconds(round_trip)) };
    let seeds: Vec<_> = rates.iter().map(|rate| world.seed(line(*rate))).collect();
    let leech = world.leech(line(800), Config::default());
    world.introduce(leech, &seeds);
    world.open(leech, 1);
    world.run(seconds(2.0));
    let mut waits = Vec::new();
    for place in 0..9 {
        let at = (place * 97 + 61) % 256 * MIB;
        let ticket = world.read(leech, 1, at..at + 4096);
        assert!(world.run_until(seconds(10.0), World::all_answered));
        waits.push(world.latency(ticket).expect("answered").as_secs_f64());
    }
    println!("seeks on {rates:?} at {round_trip}: {waits:.2?}, {:?}", world.of(leech).totals());
    waits.sort_by(f64::total_cmp);
    *trace = trace.rotate_left(1) ^ world.trace();
    waits[waits.len() / 2]
}

#[test]
fn a_seek_waits_for_little_more_than_the_line_allows() {
    replay("a_seek_waits", 1, |seed| {
        let mut trace = 0;
        let cases: [(&[u64], f64, f64); 6] = [
            (&[20; 4], 0.01, 0.07),
            (&[20; 4], 0.05, 0.07),
            (&[20; 4], 0.2, 0.07),
            (&[40, 10, 4, 2], 0.05, 0.15),
            (&[5; 20], 0.05, 0.15),
            (&[2; 50], 0.05, 0.3),
        ];
        for (rates, round_trip, more) in cases {
            let limit = round_trip + (8 * MIB) as f64 / (rates.iter().sum::<u64>() * MB) as f64;
            let took = seek(seed, rates, round_trip, &mut trace);
            assert!(took < limit + more, "{took:.2} s on {rates:?}, where {limit:.2} are needed");
        }
        trace
    });
}

#[test]
fn a_slow_start_is_not_taken_for_a_long_round_trip() {
    replay("a_slow_start_is", 2, |seed| {
        let mut world = World::new(seed, 64 * MIB, 1 << 20);
        let line = Line { slow_start: true, ..Line::new(5 * MB / 2, seconds(0.2)) };
        let (dialled, dials) = (world.seed(line), world.seed(line));
        let leech = world.leech(line, Config::default());
        world.introduce(leech, &[dialled]);
        world.introduce(dials, &[leech]);
        world.open(leech, 1);
        world.run(seconds(1.8));
        let told: Vec<_> = world.of(leech).peers().map(|peer| peer.rtt().as_millis()).collect();
        assert!(told.len() == 2 && told.iter().all(|rtt| (190..230).contains(rtt)), "{told:?}");
        world.trace()
    });
}

/// The line grows long while somebody plays: for a while too little is asked for.
#[test]
fn a_round_trip_that_grows_is_learned() {
    replay("a_round_trip_that_grows", 2, |seed| {
        let mut world = World::new(seed, 256 * MIB, 1 << 20);
        let line = Line::new(5 * MB / 2, seconds(0.05));
        let source = world.seed(line);
        let leech = world.leech(line, Config::default());
        world.introduce(leech, &[source]);
        world.open(leech, 1);
        world.run(seconds(3.0));
        world.change_line(source, Line { delay: seconds(0.1), ..line });
        world.run(seconds(8.0));
        let before = world.of(leech).totals().downloaded;
        world.run(seconds(4.0));
        let rate = (world.of(leech).totals().downloaded - before) as f64 / 4.0;
        println!(
            "longer: {rate:.0} bytes/s, {:?}",
            world.of(leech).peers().next().expect("one").rtt()
        );
        assert!(rate > 0.7 * line.up as f64, "{rate:.0} bytes/s");
        world.trace()
    });
}

/// The first read of a fresh mount, from the dial on, on seeds of these rates in Mbit/s.
fn first_read(seed: u64, rates: &[u64], piece_len: u32, trace: &mut u64) -> f64 {
    let mut world = World::new(seed, 64 * MIB, piece_len);
    let line = |rate| Line { slow_start: true, ..Line::new(rate * MB / 8, seconds(0.05)) };
    let seeds: Vec<_> = rates.iter().map(|rate| world.seed(line(*rate))).collect();
    let leech = world.leech(line(1000), Config::default());
    world.open(leech, 1);
    let ticket = world.read(leech, 1, 0..4096);
    world.introduce(leech, &seeds);
    assert!(world.run_until(seconds(20.0), World::all_answered));
    *trace = trace.rotate_left(1) ^ world.trace();
    let totals = world.of(leech).totals();
    let took = world.latency(ticket).expect("answered").as_secs_f64();
    println!("first read on {rates:?}: {took:.3} s, {} redundant", totals.redundant);
    took
}

#[test]
fn a_slow_seed_does_not_hold_the_first_byte_up() {
    replay("a_slow_seed_does", 1, |seed| {
        let mut trace = 0;
        let cases: [(&[u64], f64); 4] =
            [(&[20; 4], 0.45), (&[40, 10, 4, 2], 0.75), (&[5; 20], 0.5), (&[2; 50], 0.6)];
        for (rates, most) in cases {
            let took = first_read(seed, rates, 1 << 20, &mut trace);
            assert!(took < most, "{took:.2} s on {rates:?}");
        }
        trace
    });
}

/// Five peers with manners drawn by lot, of whom one at least is honest, and readers who jump about.
fn mixed_company(seed: u64) -> (World, NodeId, Vec<NodeId>) {
    let mut lot = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed, 8 * MIB, 128 * 1024);
    let mut peers = vec![world.script(home(), Manners::Honest, true)];
    for _ in 0..4 {
        let manners = match lot.random_range(0..7) {
            0 => Manners::Chokes,
            1 => Manners::ChokeStorm(lot.random_range(2..20)),
            2 => Manners::RejectsFirst(lot.random_range(1..40)),
            3 => Manners::Tardy(lot.random_range(3..9), seconds(lot.random_range(0.5..4.0))),
            4 => Manners::SilentAfter(lot.random_range(0..30)),
            5 => Manners::HavesOnly,
            _ => Manners::Honest,
        };
        let line =
            Line { slow_start: true, ..Line::new(lot.random_range(1..20) * MB / 8, seconds(0.05)) };
        // One that chokes without BEP 6 drops what it was asked for; this one would still bring it.
        let fast = lot.random() || matches!(manners, Manners::ChokeStorm(_));
        peers.push(world.script(line, manners, fast));
    }
    let leech =
        world.leech(Line { up: MB, ..Line::new(100 * MB, seconds(0.05)) }, Config::default());
    world.introduce(leech, &peers);
    for reader in 1..=2 {
        world.open(leech, reader);
        let places: Vec<u64> = (0..12).map(|_| lot.random_range(0..8 * MIB - 70_000)).collect();
        world.read_all(leech, reader, places.into_iter().map(|at| at..at + 70_000));
    }
    (world, leech, peers)
}

/// Blocks asked of peers that still count on them, with how many those are; at most three.
fn no_block_is_asked_of_many(swarm: &Swarm) {
    let mut askers = BTreeMap::<BlockRef, usize>::new();
    for asked in swarm.peers().flat_map(|peer| peer.outstanding()) {
        if !asked.released && !asked.cancelled {
            *askers.entry(asked.block).or_default() += 1;
        }
    }
    let most = askers.iter().max_by_key(|(_, askers)| **askers);
    assert!(most.is_none_or(|(_, askers)| *askers <= 3), "{most:?}");
}

/// No peer is asked for fill at a moment at which it could be asked for what a read waits for.
fn no_read_is_behind_fill(swarm: &Swarm, now: Instant) {
    let awaited = swarm.awaited(now);
    let waits = |piece| awaited.iter().any(|one| one.blocked && one.piece == piece);
    let lacking = awaited.iter().filter(|one| one.blocked).filter(|one| match one.stage {
        Stage::Fetching { blocks, here, asked } => here + asked < blocks,
        Stage::Unproven | Stage::Whole => false,
    });
    for one in lacking {
        let able = swarm.peers().filter(|peer| {
            peer.pieces.has(one.piece)
                && !peer.peer_choking
                && !peer.snubbed
                && !peer.refused.contains(&one.piece)
        });
        for peer in able {
            // What was asked for at the same moment, before the read, is taken back.
            let fill = peer
                .outstanding()
                .find(|asked| asked.at == now && !asked.cancelled && !waits(asked.block.piece));
            assert!(fill.is_none(), "{fill:?} of {:?} while {one:?}", peer.key);
        }
    }
}

#[test]
fn whoever_stands_beside_one_honest_peer_the_rules_hold() {
    replay("whoever_stands_beside", 8, |seed| {
        let (mut world, leech, peers) = mixed_company(seed);
        let rules = |world: &World| {
            no_block_is_asked_of_many(world.of(leech));
            no_read_is_behind_fill(world.of(leech), world.now());
            world.all_answered()
        };
        if !world.run_until(seconds(1.0), rules) {
            world.kill(peers[1]);
        }
        if !world.run_until(seconds(1.0), rules) {
            world.black_hole(peers[2]);
        }
        assert!(world.run_until(seconds(60.0), rules), "a read waits though there is a source");
        assert!(world.run_until(seconds(60.0), |world| world.complete(leech)));
        let totals = world.of(leech).totals();
        let allowed = totals.downloaded / 20 + 256 * 1024;
        assert!(totals.redundant <= allowed, "{totals:?}");
        world.trace()
    });
}
