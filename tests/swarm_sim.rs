//! Whole swarms in virtual time: each test is a sentence, kept over several seeds.

mod support;

use std::time::Duration;

use btfs::proto::bitfield::Bitfield;
use btfs::proto::config::Config;
use btfs::proto::swarm::Parting;
use btfs::proto::units::ReaderId;
use support::line::Line;
use support::replay::replay;
use support::script::Manners;
use support::sim::{NodeId, World, address};

const MB: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn quiet() -> Config {
    Config { fill: false, ..Config::default() }
}

/// A leech with these rude peers, and no one else.
fn among(seed: u64, total: u64, manners: &[Manners], config: Config) -> (World, NodeId) {
    let mut world = World::new(seed, total, 64 * 1024);
    let peers: Vec<_> = manners.iter().map(|how| world.script(home(), how.clone(), true)).collect();
    let leech = world.leech(home(), config);
    world.introduce(leech, &peers);
    (world, leech)
}

/// Redundant bytes are at most one in twenty of what was needed, beside what the first waits may cost.
#[track_caller]
fn thrifty(world: &World, node: NodeId) {
    let totals = world.of(node).totals();
    let needed = totals.downloaded - totals.redundant;
    assert!(totals.redundant <= needed / 20 + 256 * 1024, "{totals:?}");
}

fn home() -> Line {
    Line::new(5 * MB / 2, seconds(0.05))
}

#[test]
fn one_leech_takes_all_that_the_seeds_line_gives() {
    replay("one_leech_takes_all", 3, |seed| {
        let mut world = World::new(seed, 8 * MIB, 256 * 1024);
        let (source, leech) = (world.seed(home()), world.leech(home(), Config::default()));
        world.introduce(leech, &[source]);
        assert!(world.run_until(seconds(60.0), |world| world.complete(leech)));
        let took = world.completed_after(leech).as_secs_f64();
        let bound = 8.0 * MIB as f64 / (2.5 * MB as f64);
        assert!(took < 1.25 * bound, "{took:.2} s where the line allows {bound:.2} s");
        assert_eq!(world.of(leech).totals().redundant, 0);
        world.trace()
    });
}

#[test]
fn eight_leeches_help_each_other() {
    replay("eight_leeches", 2, |seed| {
        let mut world = World::new(seed, 8 * MIB, 64 * 1024);
        let line = Line { up: MB, down: 10 * MB, ..home() };
        let source = world.seed(line);
        let leeches: Vec<_> = (0..8).map(|_| world.leech(line, Config::default())).collect();
        let everyone: Vec<_> = std::iter::once(source).chain(leeches.iter().copied()).collect();
        for leech in &leeches {
            world.introduce(*leech, &everyone);
        }
        let all = |world: &World| leeches.iter().all(|leech| world.complete(*leech));
        assert!(world.run_until(seconds(120.0), all));
        let took = world.age().as_secs_f64();
        let bound = 8.0 * MIB as f64 / MB as f64;
        let sent = world.node(source).up_bytes as f64 / MIB as f64 / 8.0;
        println!("eight leeches: {took:.2} s, {:.2} of the bound, seed {sent:.2}", took / bound);
        assert!(took < 1.8 * bound, "{took:.2} s; client-server takes {:.2} s", 8.0 * bound);
        world.trace()
    });
}

/// Each leech knows the seed alone; only by telling each other of peers can they share the seed's line.
#[test]
fn leeches_that_know_one_seed_find_each_other() {
    replay("leeches_that_know_one_seed", 2, |seed| {
        let mut world = World::new(seed, 8 * MIB, 64 * 1024);
        let line = Line { up: MB, down: 10 * MB, ..home() };
        let source = world.seed(line);
        let leeches: Vec<_> = (0..8).map(|_| world.leech(line, Config::default())).collect();
        for leech in &leeches {
            world.introduce(*leech, &[source]);
        }
        let all = |world: &World| leeches.iter().all(|leech| world.complete(*leech));
        assert!(world.run_until(seconds(120.0), all));
        let took = world.age().as_secs_f64();
        let bound = 8.0 * MIB as f64 / MB as f64;
        println!("leeches that find each other: {took:.2} s, {:.2} of the bound", took / bound);
        assert!(took < 2.5 * bound, "{took:.2} s; client-server takes {:.2} s", 8.0 * bound);
        world.trace()
    });
}

#[test]
fn a_blocked_read_goes_before_fill() {
    replay("a_blocked_read_goes", 3, |seed| {
        let mut world = World::new(seed, 256 * MIB, 1 << 20);
        let seeds: Vec<_> = (0..4).map(|_| world.seed(home())).collect();
        let leech = world.leech(Line { down: 100 * MB, ..home() }, Config::default());
        world.introduce(leech, &seeds);
        world.open(leech, 1);
        world.run(seconds(3.0));
        let ticket = world.read(leech, 1, 200 * MIB..200 * MIB + 4096);
        assert!(world.run_until(seconds(10.0), World::all_answered));
        let took = world.latency(ticket).expect("answered");
        println!("blocked read: {:.3} s", took.as_secs_f64());
        assert!(took < seconds(1.5), "{took:?}");
        world.trace()
    });
}

#[test]
fn a_long_round_trip_does_not_starve_the_line() {
    replay("a_long_round_trip", 2, |seed| {
        let mut trace = 0u64;
        for reading in [false, true] {
            let mut world = World::new(seed, 32 * MIB, 256 * 1024);
            let line = Line::new(5 * MB / 2, seconds(0.7));
            let (source, leech) = (world.seed(line), world.leech(line, Config::default()));
            world.introduce(leech, &[source]);
            if reading {
                world.open(leech, 1);
            }
            assert!(world.run_until(seconds(600.0), |world| world.complete(leech)));
            let took = world.completed_after(leech).as_secs_f64();
            let bound = 32.0 * MIB as f64 / (2.5 * MB as f64);
            println!("long round trip: {took:.1} s, {:.2} of the bound", took / bound);
            assert!(took < 1.9 * bound, "{took:.1} s, {bound:.1} s allowed; reading: {reading}");
            trace = trace.rotate_left(1) ^ world.trace();
        }
        trace
    });
}

#[test]
fn a_cold_read_is_spread_over_the_seeds() {
    replay("a_cold_read", 3, |seed| {
        let mut world = World::new(seed, 64 * MIB, 1 << 20);
        let seeds: Vec<_> = (0..4).map(|_| world.seed(home())).collect();
        let leech = world.leech(Line { down: 100 * MB, ..home() }, quiet());
        world.introduce(leech, &seeds);
        world.open(leech, 1);
        world.run(seconds(1.0));
        let ticket = world.read(leech, 1, 0..4096);
        assert!(world.run_until(seconds(10.0), World::all_answered));
        let took = world.latency(ticket).expect("answered").as_secs_f64();
        println!("cold read: {took:.3} s");
        assert!(took < 0.5, "{took}");
        assert!(seeds.iter().all(|seed| world.node(*seed).up_bytes > 64 * 1024), "not spread");
        world.trace()
    });
}

#[test]
fn a_seed_that_dies_or_falls_silent_ends_no_download() {
    replay("a_seed_that_dies", 2, |seed| {
        let mut world = World::new(seed, 8 * MIB, 256 * 1024);
        let seeds: Vec<_> = (0..3).map(|_| world.seed(home())).collect();
        let leech = world.leech(Line { down: 100 * MB, ..home() }, Config::default());
        world.introduce(leech, &seeds);
        world.open(leech, 1);
        world.read_all(leech, 1, (0..64).map(|at| at * 128 * 1024..(at + 1) * 128 * 1024));
        world.run(seconds(0.6));
        world.kill(seeds[0]);
        world.black_hole(seeds[1]);
        assert!(!world.complete(leech), "too late to matter");
        assert!(world.run_until(seconds(20.0), World::all_answered));
        let waits = world.reads().map(|read| read.answered.expect("all") - read.asked);
        println!("beside a black hole: longest wait {:?}", waits.max());
        assert!(world.run_until(seconds(20.0), |world| world.complete(leech)));
        thrifty(&world, leech);
        world.trace()
    });
}

#[test]
fn a_liar_is_banned_and_the_honest_are_not() {
    let cases: [(&str, &[Manners], &[usize]); 5] = [
        ("alone at first", &[Manners::Corrupts(5), Manners::Honest], &[0]),
        ("rarely", &[Manners::Corrupts(23), Manners::Honest, Manners::Honest], &[0]),
        ("always", &[Manners::Corrupts(1), Manners::Honest], &[0]),
        ("two", &[Manners::Corrupts(3), Manners::Honest, Manners::Corrupts(9)], &[0, 2]),
        ("unasked", &[Manners::Unasked, Manners::Honest], &[0]),
    ];
    replay("a_liar_is_banned", 2, |seed| {
        let mut trace = 0u64;
        for (name, manners, liars) in cases {
            for reading in [false, true] {
                let (mut world, leech) = among(seed, 4 * MIB, manners, Config::default());
                world.open(leech, 1);
                if reading {
                    world.read_all(leech, 1, (0..16).map(|at| at * 65_536..(at + 1) * 65_536));
                }
                let done = world.run_until(seconds(60.0), |world| world.complete(leech));
                assert!(done && world.all_answered(), "{name}, reading: {reading}");
                let banned: Vec<_> = world.node(leech).banned.iter().copied().collect();
                let expected: Vec<_> = liars.iter().map(|liar| address(*liar)).collect();
                assert!(banned.iter().all(|who| expected.contains(who)), "{name}: {banned:?}");
                assert_eq!(banned, expected, "{name}, reading: {reading}");
                trace = trace.rotate_left(1) ^ world.trace();
            }
        }
        trace
    });
}

#[test]
fn an_honest_peer_is_enough_whoever_stands_beside_it() {
    let part: Bitfield = Bitfield::from_wire(&[0xaa; 8], 64).expect("64 pieces");
    let cases = [
        ("a silent one", Manners::Silent),
        ("one that falls silent", Manners::SilentAfter(20)),
        ("one that never unchokes", Manners::Chokes),
        ("one that chokes in storms", Manners::ChokeStorm(5)),
        ("one that rejects all", Manners::RejectsAll),
        ("one that says all twice", Manners::Twice),
        ("one that names pieces that are not", Manners::Garbage),
        ("one that tells what it has bit by bit", Manners::HavesOnly),
        ("one with every second piece", Manners::Part(part)),
        ("one that is late at times", Manners::Tardy(7, seconds(2.0))),
    ];
    replay("an_honest_peer_is_enough", 2, |seed| {
        let mut trace = 0u64;
        for (name, manners) in &cases {
            for fill in [true, false] {
                let config = Config { fill, ..Config::default() };
                let all = [manners.clone(), Manners::Honest];
                let (mut world, leech) = among(seed, 4 * MIB, &all, config);
                world.open(leech, 1);
                world.read_all(leech, 1, (0..64).map(|at| at * 65_536..(at + 1) * 65_536));
                assert!(
                    world.run_until(seconds(20.0), World::all_answered),
                    "{name}, fill: {fill}"
                );
                let slowest =
                    world.reads().map(|read| read.answered.expect("all") - read.asked).max();
                println!(
                    "{name}, fill {fill}: {:.2} s, slowest read {slowest:?}, {:?}",
                    world.age().as_secs_f64(),
                    world.of(leech).totals()
                );
                assert!(world.node(leech).banned.is_empty(), "{name}");
                let rude = matches!(manners, Manners::Garbage);
                let parted = world.node(leech).partings.iter();
                let violations = parted.filter(|(_, why)| matches!(why, Parting::Violation(_)));
                assert_eq!(violations.count() > 0, rude, "{name}");
                if !matches!(manners, Manners::Twice) {
                    thrifty(&world, leech);
                }
                trace = trace.rotate_left(1) ^ world.trace();
            }
        }
        trace
    });
}

#[test]
fn a_single_peer_with_odd_habits_still_gives_all() {
    let cases = [
        ("it chokes in storms", Manners::ChokeStorm(5)),
        ("it says all twice", Manners::Twice),
        ("it tells what it has bit by bit", Manners::HavesOnly),
        ("it is late at times", Manners::Tardy(7, seconds(6.0))),
        ("it rejects at first", Manners::RejectsFirst(24)),
    ];
    replay("a_single_peer", 2, |seed| {
        let mut trace = 0u64;
        for fast in [true, false] {
            for (name, manners) in &cases {
                let mut world = World::new(seed, MIB, 64 * 1024);
                let peer = world.script(home(), manners.clone(), fast);
                let leech = world.leech(home(), Config::default());
                world.introduce(leech, &[peer]);
                world.open(leech, 1);
                world.read_all(leech, 1, [0..65_536, 3 * 65_536..MIB]);
                let done = world.run_until(seconds(300.0), |world| world.complete(leech));
                assert!(done && world.all_answered(), "{name}, fast: {fast}");
                trace = trace.rotate_left(1) ^ world.trace();
            }
        }
        trace
    });
}

#[test]
fn peers_that_come_and_go_leave_nothing_undone() {
    replay("peers_that_come_and_go", 3, |seed| {
        let mut world = World::new(seed, 8 * MIB, 128 * 1024);
        let leech = world.leech(Line { down: 100 * MB, ..home() }, Config::default());
        let mut last = None;
        for _ in 0..8 {
            let fresh = world.seed(home());
            world.introduce(leech, &[fresh]);
            world.run(seconds(0.5));
            last.replace(fresh).into_iter().for_each(|old| world.kill(old));
        }
        assert!(world.run_until(seconds(30.0), |world| world.complete(leech)));
        thrifty(&world, leech);
        world.trace()
    });
}

#[test]
fn parts_that_together_are_whole_are_enough() {
    replay("parts_that_together", 2, |seed| {
        let parts = [0x88, 0x44, 0x22, 0x11]
            .map(|bits| Manners::Part(Bitfield::from_wire(&[bits; 8], 64).expect("64 pieces")));
        let (mut world, leech) = among(seed, 4 * MIB, &parts, Config::default());
        assert!(world.run_until(seconds(30.0), |world| world.complete(leech)));
        thrifty(&world, leech);
        world.trace()
    });
}

#[test]
fn peers_of_no_use_make_room_for_one_that_waits() {
    replay("peers_of_no_use", 2, |seed| {
        let nothing = Manners::Part(Bitfield::empty(64));
        let config = Config { target_peers: 3, ..Config::default() };
        let rude = [nothing.clone(), nothing, Manners::Chokes];
        let (mut world, leech) = among(seed, 4 * MIB, &rude, config);
        world.run(seconds(10.0));
        assert_eq!(world.of(leech).peers().len(), 3);
        let source = world.seed(home());
        world.introduce(leech, &[source]);
        assert!(world.run_until(seconds(120.0), |world| world.complete(leech)), "the seed is met");
        assert!(world.completed_after(leech) >= seconds(60.0), "nobody goes before his time");
        world.trace()
    });
}

#[test]
fn a_full_set_of_peers_that_lack_the_same_keeps_no_seed_out() {
    replay("a_full_set_of_peers", 2, |seed| {
        let mut world = World::new(seed, MIB, 64 * 1024);
        let mut all_but_one = Bitfield::full(world.torrent.geometry.piece_count());
        all_but_one.remove(world.torrent.geometry.pieces().next().expect("sixteen"));
        let config = Config { target_peers: 4, ..Config::default() };
        let mut leech = || world.swarm(home(), all_but_one.clone(), config.clone());
        let knot: Vec<_> = (0..6).map(|_| leech()).collect();
        knot.iter().for_each(|leech| world.introduce(*leech, &knot));
        world.run(seconds(2.0));
        assert_eq!(world.of(knot[0]).peers().len(), 5);
        let source = world.seed(home());
        world.introduce(knot[0], &[source]);
        let all = |world: &World| knot.iter().all(|leech| world.complete(*leech));
        assert!(world.run_until(seconds(15.0), all), "the seed is not met");
        world.trace()
    });
}

#[test]
fn a_read_waits_for_a_source_and_is_answered_when_one_comes() {
    replay("a_read_waits", 2, |seed| {
        let mut world = World::new(seed, MIB, 64 * 1024);
        let leech = world.leech(home(), quiet());
        world.open(leech, 1);
        let ticket = world.read(leech, 1, 0..100_000);
        assert!(!world.run_until(seconds(120.0), World::all_answered));
        let source = world.seed(home());
        world.introduce(leech, &[source]);
        assert!(world.run_until(seconds(2.0), World::all_answered));
        assert!(world.latency(ticket).is_some());
        world.trace()
    });
}

#[test]
fn a_cancelled_read_is_forgotten() {
    replay("a_cancelled_read", 2, |seed| {
        let mut world = World::new(seed, 16 * MIB, 1 << 20);
        let (source, leech) = (world.seed(home()), world.leech(home(), quiet()));
        world.introduce(leech, &[source]);
        world.open(leech, 1);
        world.run(seconds(1.0));
        let ticket = world.read(leech, 1, 5 * MIB..5 * MIB + 4096);
        world.run(seconds(0.1));
        world.command(leech, |swarm, now| swarm.cancel(ticket, now));
        world.run(seconds(30.0));
        assert_eq!(world.latency(ticket), None, "answered after its cancel");
        assert_eq!(world.of(leech).waiting_reads(), 0);
        let moved = world.of(leech).totals().downloaded;
        assert!(moved < MIB, "{moved} bytes for nobody");
        world.trace()
    });
}

#[test]
fn what_cancelled_reads_leave_behind_is_bounded() {
    replay("what_cancelled_reads_leave", 2, |seed| {
        let mut world = World::new(seed, 64 * MIB, 1 << 20);
        let config = Config { open_bytes: 2 * MIB, ..quiet() };
        let (source, leech) = (world.seed(home()), world.leech(home(), config));
        world.introduce(leech, &[source]);
        world.open(leech, 1);
        world.run(seconds(1.0));
        for place in 0..32 {
            let at = place * 2 * MIB;
            let ticket = world.read(leech, 1, at..at + 4096);
            world.run(seconds(0.25));
            world.command(leech, |swarm, now| swarm.cancel(ticket, now));
            let under_way = world.of(leech).assembling_bytes();
            assert!(under_way <= 5 * MIB / 2, "{under_way} bytes after {place} reads");
        }
        assert!(world.of(leech).totals().downloaded > 5 * MIB, "there was something to bound");
        let ticket = world.read(leech, 1, 0..2 * MIB);
        let answered = |world: &World| world.latency(ticket).is_some();
        assert!(world.run_until(seconds(10.0), answered), "what was dropped comes again");
        world.trace()
    });
}

#[test]
fn an_evicted_piece_comes_again_also_under_a_waiting_read() {
    replay("an_evicted_piece", 2, |seed| {
        let mut world = World::new(seed, 4 * MIB, 256 * 1024);
        let (source, leech) = (world.seed(home()), world.leech(home(), quiet()));
        world.introduce(leech, &[source]);
        world.open(leech, 1);
        world.run(seconds(1.0));
        let first = world.torrent.geometry.pieces().next().expect("sixteen");
        world.read(leech, 1, 0..1000);
        assert!(world.run_until(seconds(5.0), World::all_answered));
        world.evict(leech, first);
        world.read(leech, 1, 0..1000);
        assert!(world.run_until(seconds(5.0), World::all_answered));
        world.evict(leech, first);
        world.read(leech, 1, 0..8 * 256 * 1024);
        let here = |world: &World| world.of(leech).have().has(first);
        assert!(world.run_until(seconds(5.0), here));
        world.evict(leech, first);
        assert!(world.run_until(seconds(10.0), World::all_answered));
        world.trace()
    });
}

#[test]
fn without_fill_only_what_is_read_moves() {
    replay("without_fill", 2, |seed| {
        let mut world = World::new(seed, 16 * MIB, 256 * 1024);
        let seeds = [world.seed(home()), world.seed(home())];
        let leech = world.leech(home(), quiet());
        world.introduce(leech, &seeds);
        world.run(seconds(20.0));
        assert_eq!(world.of(leech).totals().downloaded, 0);
        world.open(leech, 1);
        world.run(seconds(5.0));
        assert_eq!(world.of(leech).totals().downloaded, 0);
        world.read(leech, 1, 4 * MIB..4 * MIB + 10);
        assert!(world.run_until(seconds(5.0), World::all_answered));
        world.run(seconds(20.0));
        let moved = world.of(leech).totals().downloaded;
        assert!(moved <= 256 * 1024 * 21 / 20, "{moved}");
        world.trace()
    });
}

#[test]
fn end_game_and_jitter_waste_little() {
    replay("end_game_and_jitter", 2, |seed| {
        let mut trace = 0u64;
        for reading in [false, true] {
            let mut world = World::new(seed, 8 * MIB, 256 * 1024);
            let rates = [MB / 10, MB / 2, MB, 2 * MB];
            let jittery = |rate| Line { jitter: seconds(0.1), ..Line::new(rate, seconds(0.1)) };
            let seeds = rates.map(|rate| world.seed(jittery(rate)));
            let leech = world.leech(jittery(100 * MB), Config::default());
            world.introduce(leech, &seeds);
            world.open(leech, 1);
            if reading {
                world.read_all(leech, 1, (0..64).map(|at| at * 131_072..(at + 1) * 131_072));
            }
            assert!(world.run_until(seconds(60.0), |world| world.complete(leech)));
            let took = world.completed_after(leech).as_secs_f64();
            trace = trace.rotate_left(1) ^ world.trace();
            println!("jitter: {took:.2} s, {:?}", world.of(leech).totals());
            assert!(took < 6.0, "{took}");
            thrifty(&world, leech);
        }
        trace
    });
}

#[test]
fn a_peer_that_reads_slowly_holds_little() {
    replay("a_peer_that_reads_slowly", 2, |seed| {
        let mut world = World::new(seed, 2 * MIB, 256 * 1024);
        let source = world.seed(Line { up: 50_000, ..home() });
        let leech = world.leech(home(), Config::default());
        world.introduce(leech, &[source]);
        world.run(seconds(20.0));
        let held = world.node(source).longest_queue();
        assert!(0 < held && held <= 128 * 1024, "{held}");
        world.trace()
    });
}

#[test]
fn readers_forwards_backwards_and_at_random_get_right_bytes() {
    replay("readers_forwards", 3, |seed| {
        let mut world = World::new(seed, 4 * MIB - 12_345, 128 * 1024);
        let total = world.torrent.geometry.total();
        let seeds = [world.seed(home()), world.seed(home()), world.seed(home())];
        let leech = world.leech(Line { down: 100 * MB, ..home() }, quiet());
        world.introduce(leech, &seeds);
        let spots: Vec<u64> = (0..total / 50_000).map(|at| at * 50_000).collect();
        let span = |at: &u64| *at..(at + 50_000).min(total);
        (1..=4).for_each(|reader| world.open(leech, reader));
        world.read_all(leech, 1, spots.iter().map(span));
        world.read_all(leech, 2, spots.iter().rev().map(span));
        let mixed = (0..spots.len()).map(|nth| &spots[(nth * 37 + seed as usize) % spots.len()]);
        world.read_all(leech, 3, mixed.map(span));
        let reads = 3 * spots.len() + 1;
        world.read(leech, 4, total - 1..total);
        assert!(world.run_until(seconds(30.0), World::all_answered));
        assert_eq!(world.reads().count(), reads);
        thrifty(&world, leech);
        world.trace()
    });
}

/// How long one handle takes to read 128 KiB at each of these places, one after the other.
fn playing(seed: u64, places: impl Iterator<Item = u64>) -> (f64, u64) {
    const READ: u64 = 128 * 1024;
    let mut world = World::new(seed, 64 * MIB, 256 * 1024);
    let seeds: Vec<_> = (0..4).map(|_| world.seed(home())).collect();
    let leech = world.leech(Line { down: 100 * MB, ..home() }, quiet());
    world.introduce(leech, &seeds);
    world.open(leech, 1);
    world.run(seconds(1.0));
    world.read_all(leech, 1, places.map(|at| at..at + READ));
    let begun = world.age();
    assert!(world.run_until(seconds(60.0), World::all_answered));
    ((world.age() - begun).as_secs_f64(), world.trace())
}

#[test]
fn sound_far_from_its_picture_is_read_ahead_too() {
    replay("sound_far_from_its_picture", 3, |seed| {
        let step = |nth: u64| nth * 128 * 1024;
        let (one, trace) = playing(seed, (0..96).map(step));
        let (two, other) = playing(seed, (0..48).flat_map(|nth| [step(nth), 32 * MIB + step(nth)]));
        println!("one place: {one:.2} s, two places by turns: {two:.2} s");
        assert!(two < 1.5 * one + 0.3, "{two:.2} s by turns, {one:.2} s in one go");
        trace.rotate_left(1) ^ other
    });
}

#[test]
fn an_idle_connection_is_kept_alive() {
    replay("an_idle_connection", 1, |seed| {
        let mut world = World::new(seed, MIB, 64 * 1024);
        let (one, other) = (world.leech(home(), quiet()), world.leech(home(), quiet()));
        world.introduce(one, &[other]);
        world.run(seconds(1000.0));
        assert_eq!(world.of(one).peers().len(), 1);
        assert!(world.node(one).partings.is_empty() && world.node(other).partings.is_empty());
        world.black_hole(other);
        world.run(seconds(300.0));
        assert_eq!(world.of(one).peers().len(), 0);
        world.trace()
    });
}

#[test]
fn seeds_do_not_dial_seeds_for_ever() {
    replay("seeds_do_not_dial", 1, |seed| {
        let mut world = World::new(seed, MIB, 64 * 1024);
        let source = world.seed(home());
        let leech = world.leech(home(), Config::default());
        world.introduce(leech, &[source]);
        assert!(world.run_until(seconds(10.0), |world| world.complete(leech)));
        world.run(seconds(600.0));
        let partings = world.node(leech).partings.len() + world.node(source).partings.len();
        assert!(partings < 5, "{partings}");
        let first = world.torrent.geometry.pieces().next().expect("sixteen");
        world.evict(leech, first);
        assert!(world.run_until(seconds(10.0), |world| world.of(leech).have().is_full()));
        world.trace()
    });
}

#[test]
fn a_closed_reader_wants_no_more() {
    replay("a_closed_reader", 1, |seed| {
        let mut world = World::new(seed, 64 * MIB, 256 * 1024);
        let (source, leech) = (world.seed(home()), world.leech(home(), quiet()));
        world.introduce(leech, &[source]);
        world.open(leech, 1);
        world.read_all(leech, 1, (0..32).map(|at| at * 131_072..(at + 1) * 131_072));
        assert!(world.run_until(seconds(20.0), World::all_answered));
        world.command(leech, |swarm, now| swarm.close(ReaderId(1), now));
        let before = world.of(leech).totals().downloaded;
        world.run(seconds(20.0));
        let after = world.of(leech).totals().downloaded - before;
        assert!(after <= 2 * MIB, "{after}");
        world.trace()
    });
}

#[test]
fn who_meets_only_such_as_lack_the_same_asks_the_tracker_again() {
    replay("who_meets_only_such", 1, |seed| {
        let mut world = World::new(seed, MIB, 64 * 1024);
        let leeches: Vec<_> = (0..6).map(|_| world.leech(home(), Config::default())).collect();
        leeches.iter().for_each(|leech| world.announce(*leech));
        world.run(seconds(60.0));
        let source = world.seed(home());
        world.list(source);
        let all = |world: &World| leeches.iter().all(|leech| world.complete(*leech));
        assert!(world.run_until(seconds(60.0), all), "nobody hears of the seed");
        world.trace()
    });
}
