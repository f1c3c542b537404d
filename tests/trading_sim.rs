//! Swarms that trade, in virtual time: how long a torrent takes to reach all, and who gets what for what he gives.

mod support;

use std::time::Duration;

use btfs::proto::config::Config;
use support::replay::replay;
use support::sim::{Line, NodeId, World};

const MB: u64 = 1_000_000;
const MIB: u64 = 1 << 20;
const PIECE: u32 = 256 * 1024;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A line that gives 2.5 MB/s and takes four times as much, 40 ms from any other.
fn home() -> Line {
    Line { down: 10 * MB, ..Line::new(5 * MB / 2, seconds(0.04)) }
}

/// A tenth of that, so that a small torrent lasts for many rounds of the choker.
fn slow() -> Line {
    Line { up: MB / 4, down: MB, ..home() }
}

/// One seed and so many leeches, all of whom know each other.
fn swarm(world: &mut World, leeches: usize) -> (NodeId, Vec<NodeId>) {
    swarm_of(world, home(), leeches)
}

fn swarm_of(world: &mut World, line: Line, leeches: usize) -> (NodeId, Vec<NodeId>) {
    let source = world.seed(line);
    let leeches: Vec<_> = (0..leeches).map(|_| world.leech(line, Config::default())).collect();
    let everyone: Vec<_> = std::iter::once(source).chain(leeches.iter().copied()).collect();
    for leech in &leeches {
        world.introduce(*leech, &everyone);
    }
    (source, leeches)
}

fn all_complete(world: &World, nodes: &[NodeId]) -> bool {
    nodes.iter().all(|node| world.complete(*node))
}

/// Seconds in which no swarm of such lines could be faster: one copy through the seed's uplink.
fn bound(world: &World) -> f64 {
    world.torrent.geometry.total() as f64 / home().up as f64
}

/// Jain's index: 1 when all are equal, 1/n when one has everything.
fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    sum * sum / (values.len() as f64 * squares)
}

#[track_caller]
fn distributes(leeches: usize, mib: u64, within: f64) {
    replay("a_torrent_reaches", 1, |seed| {
        let mut world = World::new(seed, mib * MIB, PIECE);
        let (source, all) = swarm(&mut world, leeches);
        assert!(world.run_until(seconds(600.0), |world| all_complete(world, &all)));
        let (took, bound) = (world.age().as_secs_f64(), bound(&world));
        let copies = world.node(source).up_bytes as f64 / (mib * MIB) as f64;
        println!("{leeches} leeches: {:.3} of the bound, seed sent {copies:.2}", took / bound);
        assert!(took < within * bound, "{took:.2} s, {:.3} of the bound", took / bound);
        world.trace()
    });
}

#[test]
fn a_torrent_reaches_eight_in_little_more_than_one() {
    distributes(8, 64, 1.10);
}

#[test]
fn a_torrent_reaches_sixteen_in_little_more_than_one() {
    distributes(16, 64, 1.16);
}

#[test]
fn a_first_seed_sends_each_piece_once_before_any_twice() {
    replay("a_first_seed", 2, |seed| {
        let mut world = World::new(seed, 16 * MIB, PIECE);
        let (source, leeches) = swarm(&mut world, 6);
        let sent = |world: &World| world.node(source).up_bytes;
        let pieces: Vec<_> = world.torrent.geometry.pieces().collect();
        let out = |world: &World| {
            let somebody = |piece| leeches.iter().any(|leech| world.of(*leech).have().has(piece));
            pieces.iter().filter(|piece| somebody(**piece)).count() as u64
        };
        assert!(world.run_until(seconds(60.0), |world| sent(world) >= 12 * MIB));
        let (sent, out) = (sent(&world) / u64::from(PIECE), out(&world));
        // What is missing is on its way, or not yet whole.
        assert!(out + 8 >= sent, "{sent} pieces' worth was sent, {out} pieces are out");
        world.trace()
    });
}

#[test]
fn equal_peers_get_what_they_give() {
    replay("equal_peers", 1, |seed| {
        let mut world = World::new(seed, 32 * MIB, PIECE);
        let (_, leeches) = swarm_of(&mut world, slow(), 10);
        assert!(world.run_until(seconds(600.0), |world| all_complete(world, &leeches)));
        let share = |leech: &NodeId| {
            let node = world.node(*leech);
            node.down_bytes as f64 / node.up_bytes as f64
        };
        let fairness = jain(&leeches.iter().map(share).collect::<Vec<_>>());
        println!("equal peers: Jain index {fairness:.3}");
        assert!(fairness >= 0.9, "{fairness}");
        world.trace()
    });
}

#[test]
fn who_gives_nothing_gets_markedly_less() {
    replay("who_gives_nothing", 2, |seed| {
        let mut world = World::new(seed, 32 * MIB, PIECE);
        let source = world.seed(slow());
        let traders: Vec<_> = (0..7).map(|_| world.leech(slow(), Config::default())).collect();
        let miser = Config { upload: false, ..Config::default() };
        let rider = world.leech(slow(), miser);
        for trader in &traders {
            world.introduce(*trader, &[&traders[..], &[source]].concat());
        }
        // Seeds serve all alike: what traders give for nothing shows where there is no seed to be had.
        world.introduce(rider, &traders);
        assert!(world.run_until(seconds(600.0), |world| all_complete(world, &traders)));
        let had = world.of(rider).have().count();
        println!("free rider: {had} of 128 pieces when the traders had all");
        assert!(had <= 96, "{had} of 128 pieces: more than three quarters");
        assert!(world.run_until(seconds(600.0), |world| world.complete(rider)), "it never ends");
        world.trace()
    });
}

#[test]
fn a_newcomer_soon_has_something_to_trade() {
    replay("a_newcomer", 2, |seed| {
        let mut world = World::new(seed, 256 * MIB, PIECE);
        let (_, leeches) = swarm(&mut world, 12);
        world.run(seconds(25.0));
        let newcomer = world.leech(home(), Config::default());
        world.introduce(newcomer, &leeches);
        let first = |world: &World| world.of(newcomer).have().count() > 0;
        let begun = world.age();
        assert!(world.run_until(seconds(60.0), first), "nothing within two optimistic rounds");
        println!("newcomer: first piece after {:?}", world.age() - begun);
        assert!(!all_complete(&world, &leeches), "too late to matter");
        world.trace()
    });
}

#[test]
fn half_the_peers_leave_and_the_others_finish() {
    replay("half_the_peers_leave", 2, |seed| {
        let mut world = World::new(seed, 16 * MIB, PIECE);
        let (_, leeches) = swarm(&mut world, 8);
        world.run(seconds(0.5 * bound(&world)));
        let (gone, staying) = leeches.split_at(4);
        gone.iter().for_each(|node| world.kill(*node));
        assert!(!staying.iter().any(|node| world.complete(*node)), "too late to matter");
        let limit = seconds(3.0 * bound(&world));
        assert!(world.run_until(limit, |world| all_complete(world, staying)));
        world.trace()
    });
}

#[test]
fn the_seed_may_leave_when_one_copy_is_out() {
    replay("the_seed_may_leave", 2, |seed| {
        let mut world = World::new(seed, 16 * MIB, PIECE);
        let (source, leeches) = swarm(&mut world, 8);
        let pieces: Vec<_> = world.torrent.geometry.pieces().collect();
        let out = |world: &World| {
            let somebody = |piece| leeches.iter().any(|leech| world.of(*leech).have().has(piece));
            pieces.iter().all(|piece| somebody(*piece))
        };
        assert!(world.run_until(seconds(60.0), out));
        world.kill(source);
        let sent = world.node(source).up_bytes as f64 / (16 * MIB) as f64;
        println!("one copy is out after {sent:.2} sent");
        assert!(sent < 1.35, "{sent}");
        assert!(world.run_until(seconds(30.0), |world| all_complete(world, &leeches)));
        world.trace()
    });
}

#[test]
fn a_flash_crowd_is_served_by_itself() {
    let crowd = if std::env::var_os("BTFS_SOAK").is_some() { 1000 } else { 60 };
    replay("a_flash_crowd", 1, |seed| {
        let mut world = World::new(seed, 4 * MIB, 64 * 1024);
        let source = world.seed(home());
        let leeches: Vec<_> = (0..crowd).map(|_| world.leech(home(), Config::default())).collect();
        for (nth, leech) in leeches.iter().enumerate() {
            // A tracker names a few of those who came before.
            let before = (0..nth.min(30)).map(|step| leeches[(nth * 7 + step * 13) % nth.max(1)]);
            let known: Vec<_> = std::iter::once(source).chain(before).collect();
            world.introduce(*leech, &known);
        }
        let alone = crowd as f64 * bound(&world);
        assert!(world.run_until(seconds(0.25 * alone), |world| all_complete(world, &leeches)));
        println!("crowd of {crowd}: {:.1} s, alone {alone:.1} s", world.age().as_secs_f64());
        world.trace()
    });
}
