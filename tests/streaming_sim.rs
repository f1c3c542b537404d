//! What a reader waits for, in virtual time: lines with delay and a slow start, peers that choke, die and reject.

mod support;

use std::time::Duration;

use btfs::proto::config::Config;
use support::line::Line;
use support::replay::replay;
use support::sim::World;

const MB: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// How long a seek waits while fill goes on, at the median.
fn seek_at(seed: u64, round_trip: f64, trace: &mut u64) -> f64 {
    let mut world = World::new(seed, 256 * MIB, 1 << 20);
    let line = Line { slow_start: true, ..Line::new(5 * MB / 2, seconds(round_trip)) };
    let seeds: Vec<_> = (0..4).map(|_| world.seed(line)).collect();
    let leech = world.leech(Line { down: 100 * MB, ..line }, Config::default());
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
    println!("seek at {round_trip}: {waits:.2?}");
    waits.sort_by(f64::total_cmp);
    *trace = trace.rotate_left(1) ^ world.trace();
    waits[waits.len() / 2]
}

#[test]
fn a_seek_waits_for_little_more_than_the_line_allows() {
    replay("a_seek_waits", 2, |seed| {
        let mut trace = 0;
        for round_trip in [0.01, 0.05, 0.2] {
            let limit = round_trip + MIB as f64 / (10.0 * MB as f64);
            let seek = seek_at(seed, round_trip, &mut trace);
            assert!(
                seek < limit + 0.07,
                "{seek:.2} s at {round_trip}, where {limit:.2} are needed"
            );
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
        world.change_line(source, Line { delay: seconds(0.2), ..line });
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
