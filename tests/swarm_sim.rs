//! Whole swarms in virtual time: each test is a sentence, kept over several seeds.

mod support;

use std::time::Duration;

use btfs::proto::config::Config;
use support::sim::{Line, World, replay};

const MB: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
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
        world
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
        println!("eight leeches: {took:.2} s, {:.2} of the bound", took / bound);
        assert!(took < 2.5 * bound, "{took:.2} s; client-server takes {:.2} s", 8.0 * bound);
        world
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
        world
    });
}
