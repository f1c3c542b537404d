//! How long a torrent takes to reach everyone: one seed and N leeches on equal lines, as `scripts/distribution` has
//! them, in virtual time.
//!
//! Not here: what is measured with real processes, and how it is drawn (`scripts/distribution`).

use std::time::Duration;

use btfs::proto::bitfield::Bitfield;
use btfs::proto::config::Config;

use super::line::{Line, UNLIMITED};
use super::sim::{NodeId, World};

const MIB: u64 = 1 << 20;

/// Of a line's bytes, those that are left for payload after the headers of Ethernet, IP and TCP.
const GOODPUT: f64 = 1448.0 / 1514.0;

/// Time between the starts of two leeches.
const STAGGER: Duration = Duration::from_millis(10);

/// Time in which all leeches have started.
const LAST_START: Duration = Duration::from_millis(500);

/// Payload that a connection's socket takes ahead of the line: what Linux begins with, less its overhead.
const SOCKET: u64 = 64 * 1024;

/// Bytes in the queue before the line, as the script's `tc` has it.
const QUEUE: u64 = 128 * 1024;

/// Who uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The seed alone.
    ClientServer,
    /// Everyone, until he has everything.
    PeerToPeer,
}

/// A swarm to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distribution {
    /// Leeches.
    pub(crate) leeches: usize,
    /// Who uploads.
    pub(crate) mode: Mode,
    /// Payload of the torrent.
    pub(crate) total: u64,
    /// Bytes of a piece.
    pub(crate) piece_len: u32,
    /// Everyone's line.
    pub(crate) line: Line,
    /// Whether who has everything goes, as a client does that was told to get it; else it serves on.
    pub(crate) leave: bool,
    /// Source of all chance.
    pub(crate) seed: u64,
}

/// A line whose uplink is limited to so many bits a second, with a socket's and a device's queue before it.
pub(crate) fn line(up_bits: f64, round_trip: Duration) -> Line {
    let up = (up_bits / 8.0 * GOODPUT) as u64;
    let queue = Duration::from_secs_f64(QUEUE as f64 / up as f64);
    Line { up, down: UNLIMITED, buffer: SOCKET, queue, ..Line::new(up, round_trip) }
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Seconds until all had everything.
    pub(crate) seconds: f64,
    /// Copies of the torrent that the seed sent.
    pub(crate) copies: f64,
    /// A digest of all that was said.
    pub(crate) trace: u64,
}

impl Distribution {
    /// 64 MiB in pieces of 256 KiB over uplinks of 20 Mbit/s, everyone next to everyone.
    pub(crate) fn of(leeches: usize, mode: Mode, seed: u64) -> Self {
        let line = line(20e6, Duration::ZERO);
        Self { leeches, mode, total: 64 * MIB, piece_len: 256 * 1024, line, leave: true, seed }
    }

    /// Seconds below which nobody can be: one copy through the seed's uplink, and all copies through all uplinks.
    pub(crate) fn bound(&self) -> f64 {
        let (one, leeches) = (self.total as f64 / self.line.up as f64, self.leeches as f64);
        match self.mode {
            Mode::ClientServer => leeches * one,
            Mode::PeerToPeer => one.max(leeches * one / (leeches + 1.0)),
        }
    }

    /// Lets it happen; `None` when it takes ten times as long as it could.
    pub(crate) fn run(&self) -> Option<Outcome> {
        let mut world = World::new(self.seed, self.total, self.piece_len);
        let source = self.source(&mut world);
        world.announce(source);
        let stagger = STAGGER.min(LAST_START / self.leeches as u32);
        for _ in 0..self.leeches {
            self.join(&mut world, source);
            world.run(stagger);
        }
        let limit = Duration::from_secs_f64(60.0 + 10.0 * self.bound());
        for done in 0..self.leeches {
            let left = limit.checked_sub(world.age())?;
            if !world.run_until(left, |world| world.completed().len() > done) {
                return None;
            }
            if self.leave {
                world.kill(world.completed()[done]);
            }
        }
        Some(Outcome {
            seconds: world.age().as_secs_f64(),
            copies: world.node(source).up_bytes as f64 / self.total as f64,
            trace: world.trace(),
        })
    }

    /// The seed. A server has room for every client; a peer need not.
    fn source(&self, world: &mut World) -> NodeId {
        let have = Bitfield::full(world.torrent.geometry.piece_count());
        let room = Config::default().max_peers;
        let max_peers = if self.mode == Mode::ClientServer { room.max(self.leeches) } else { room };
        world.swarm(self.line, have, Config { max_peers, ..Config::default() })
    }

    fn join(&self, world: &mut World, source: NodeId) {
        let upload = self.mode == Mode::PeerToPeer;
        let leech = world.leech(self.line, Config { upload, ..Config::default() });
        if upload {
            world.announce(leech);
        } else {
            world.introduce(leech, &[source]);
        }
    }
}
