//! Random doings of readers, peers and the mount itself, against the simplest model: the bytes never change.
//!
//! Invariant: what is done follows from the seed; `BTFS_SEED=N` repeats it, and a failure names it.
//! Not here: the same with faults of the disk (`tests/crash`), and without a kernel (`tests/swarm_sim`).

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::program::{Program, until};
use super::stage::{Mounted, Stage, nowhere};

/// After so long nothing more is begun.
const PLAY: Duration = Duration::from_secs(15);

/// Of the data, so that pieces come, go and come again; as `--cache-size` takes it.
const CACHE: (u64, &str) = (6 << 20, "6MiB");

/// Files and their lengths: pieces are shared, and one holds several.
const FILES: [(&str, u64); 4] =
    [("a.bin", 5_000_003), ("b.bin", 7_000_001), ("empty", 0), ("small", 777)];

/// What can be done, each as often as its number says.
#[derive(Clone, Copy, Debug)]
enum Op {
    Open,
    Read,
    ReadOn,
    Close,
    StartReader,
    KillReader,
    LosePeer,
    GainPeer,
    Remount,
    KillDaemon,
}

const OPS: [(Op, u32); 10] = [
    (Op::Open, 12),
    (Op::Read, 40),
    (Op::ReadOn, 60),
    (Op::Close, 8),
    (Op::StartReader, 5),
    (Op::KillReader, 4),
    (Op::LosePeer, 4),
    (Op::GainPeer, 5),
    (Op::Remount, 2),
    (Op::KillDaemon, 2),
];

/// An open file of the mount.
struct Open {
    which: usize,
    file: File,
    position: u64,
}

/// The world and its model.
struct Model {
    rng: StdRng,
    stage: Stage,
    torrent: PathBuf,
    /// What the files hold, for ever.
    bytes: Vec<Vec<u8>>,
    /// One that stays, and two that come and go at their addresses.
    peers: Vec<(SocketAddr, Option<Program>)>,
    mounted: Option<Mounted>,
    open: Vec<Open>,
    readers: Vec<Program>,
    compared: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let stage = Stage::new();
        let data = stage.dir("data");
        for (name, length) in FILES {
            stage.file(data.join(name), length);
        }
        let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
        let bytes = FILES.iter().map(|(name, _)| fs::read(data.join(name)).unwrap()).collect();
        let peers = (0..3).map(|_| (nowhere(), None)).collect();
        let mut model = Self {
            rng: StdRng::seed_from_u64(seed),
            stage,
            torrent,
            bytes,
            peers,
            mounted: None,
            open: Vec::new(),
            readers: Vec::new(),
            compared: 0,
        };
        (0..3).for_each(|peer| model.gain(peer));
        model.mount();
        model
    }

    fn mount(&mut self) {
        let peers: Vec<_> = self.peers.iter().map(|(addr, _)| *addr).collect();
        // A read that never ends would say nothing: it fails instead.
        let args = ["--cache-size", CACHE.1, "--memory", "8MiB", "--read-timeout", "40s"];
        self.mounted = Some(self.stage.mount(&self.torrent, &peers, &args));
    }

    fn path(&self, which: usize) -> PathBuf {
        let mounted = self.mounted.as_ref().expect("it is mounted between two doings");
        mounted.path("data").join(FILES[which].0)
    }

    fn pick(&mut self) -> Op {
        let all = OPS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.random_range(0..all);
        for (op, weight) in OPS {
            if at < weight {
                return op;
            }
            at -= weight;
        }
        Op::Read
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Open => self.open(),
            Op::Read => self.read(true),
            Op::ReadOn => self.read(false),
            Op::Close => drop(self.one_open().map(|at| self.open.swap_remove(at))),
            Op::StartReader => self.start_reader(),
            Op::KillReader => self.kill_reader(),
            Op::LosePeer => {
                let peer = self.rng.random_range(1..3);
                self.peers[peer].1 = None;
            }
            Op::GainPeer => {
                let peer = self.rng.random_range(1..3);
                self.gain(peer);
            }
            Op::Remount => self.remount(),
            Op::KillDaemon => self.kill_daemon(),
        }
    }

    fn one_open(&mut self) -> Option<usize> {
        (!self.open.is_empty()).then(|| self.rng.random_range(0..self.open.len()))
    }

    fn open(&mut self) {
        let which = self.rng.random_range(0..FILES.len());
        let file = File::open(self.path(which)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), FILES[which].1);
        self.open.push(Open { which, file, position: 0 });
        if self.open.len() > 8 {
            self.open.remove(0);
        }
    }

    /// Reads from where the handle is, or from anywhere, and compares.
    fn read(&mut self, seek: bool) {
        let Some(at) = self.one_open() else { return self.open() };
        let Open { which, position, .. } = self.open[at];
        let length = FILES[which].1;
        let from = if seek { self.rng.random_range(0..=length + 10) } else { position };
        let count = self.rng.random_range(1..400_000);
        let mut read = vec![0; count];
        let found = self.open[at].file.read_at(&mut read, from).unwrap();
        let expected = &self.bytes[which][from.min(length) as usize..];
        let expected = &expected[..count.min(expected.len())];
        assert_eq!(found, expected.len(), "{} from {from}", FILES[which].0);
        assert!(read[..found] == *expected, "wrong bytes: {} from {from}", FILES[which].0);
        self.compared += found as u64;
        let open = &mut self.open[at];
        open.position = if found == 0 { 0 } else { from + found as u64 };
    }

    /// A program that reads a whole file and compares it.
    fn start_reader(&mut self) {
        if self.readers.len() < 3 {
            let which = self.rng.random_range(0..2);
            let source = self.stage.path("data").join(FILES[which].0);
            let mut command = Command::new("cmp");
            self.readers.push(Program::start(command.arg(self.path(which)).arg(source)));
        }
    }

    fn kill_reader(&mut self) {
        if !self.readers.is_empty() {
            let at = self.rng.random_range(0..self.readers.len());
            let mut reader = self.readers.swap_remove(at);
            if reader.is_running() {
                reader.signal(Signal::SIGKILL);
            }
            let status = reader.ended();
            assert!(status.code().is_none_or(|code| code == 0), "{status}: {}", reader.said());
        }
    }

    fn gain(&mut self, peer: usize) {
        let addr = self.peers[peer].0;
        if self.peers[peer].1.is_none() {
            let mut command = Program::btfs();
            command.arg("seed").arg(&self.torrent).arg(self.stage.path("data"));
            let program = Program::start(command.arg("--listen").arg(addr.to_string()));
            program.await_line("on port");
            self.peers[peer].1 = Some(program);
        }
    }

    /// Everyone lets go, and the mount ends in order.
    fn remount(&mut self) {
        self.open.clear();
        while !self.readers.is_empty() {
            self.kill_reader();
        }
        let mounted = self.mounted.take().unwrap();
        within_budget(&mounted);
        mounted.unmount();
        self.mount();
    }

    /// Everyone holds on, and the process dies: reads fail and give no byte that is wrong.
    fn kill_daemon(&mut self) {
        let mut mounted = self.mounted.take().unwrap();
        mounted.program.signal(Signal::SIGKILL);
        mounted.program.ended();
        for Open { which, file, position } in self.open.drain(..) {
            let mut read = [0; 4096];
            let rest = &self.bytes[which][position.min(FILES[which].1) as usize..];
            // What the kernel has it may still give.
            if let Ok(found) = file.read_at(&mut read, position) {
                assert!(rest.starts_with(&read[..found]), "wrong bytes of a dead mount");
            }
        }
        for mut reader in self.readers.drain(..) {
            let said = (reader.ended(), reader.said());
            assert!(said.0.success() || !said.1.contains("differ"), "{said:?}");
        }
        Program::done(Program::btfs().arg("unmount").arg(&mounted.point));
        drop(mounted);
        self.mount();
    }
}

#[track_caller]
fn within_budget(mounted: &Mounted) {
    until("what is over the budget is gone", || mounted.here() <= CACHE.0);
}

/// Tells the seed and what was done when a test ends in a panic.
struct Tale(u64, Vec<Op>);

impl Drop for Tale {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("BTFS_SEED={} did {:?}", self.0, self.1);
        }
    }
}

#[test]
fn whatever_happens_every_byte_is_right() {
    let seed = std::env::var("BTFS_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut tale = Tale(seed, Vec::new());
    let mut model = Model::new(seed);
    let end = Instant::now() + PLAY;
    while Instant::now() < end {
        let op = model.pick();
        tale.1.push(op);
        model.act(op);
    }
    model.remount();
    // Nobody reads, and nothing is under way: all of it comes once more, whole.
    for (which, (name, _)) in FILES.iter().enumerate() {
        assert!(fs::read(model.path(which)).unwrap() == model.bytes[which], "{name}");
    }
    assert!(model.compared > 0 && !tale.1.is_empty());
    within_budget(model.mounted.as_ref().unwrap());
    eprintln!("{} doings, {} bytes compared", tale.1.len(), model.compared);
    model.mounted.take().unwrap().unmount();
}
