//! A world told twice must be the same: the digest of what was said, and the runner that compares.

use std::time::Duration;

use btfs::proto::wire::message::Message;

/// A digest of every message that arrived, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Takes in a message that reached this end of this link.
    pub(crate) fn note(&mut self, age: Duration, link: u64, end: usize, message: &Message) {
        let (kind, first, second) = gist(message);
        for word in [age.as_nanos() as u64, link, end as u64, kind, first, second] {
            self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        }
    }

    /// The digest so far.
    pub(crate) fn digest(self) -> u64 {
        self.0
    }
}

fn gist(message: &Message) -> (u64, u64, u64) {
    let of = |piece: u32, begin: u32| (u64::from(piece), u64::from(begin));
    let (kind, (first, second)) = match message {
        Message::KeepAlive => (255, (0, 0)),
        Message::Choke => (0, (0, 0)),
        Message::Unchoke => (1, (0, 0)),
        Message::Interested => (2, (0, 0)),
        Message::NotInterested => (3, (0, 0)),
        Message::Have(piece) => (4, of(*piece, 0)),
        Message::Bitfield(bytes) => (5, (bytes.len() as u64, 0)),
        Message::Request(asked) => (6, of(asked.piece, asked.begin)),
        Message::Piece { piece, begin, data } => (7, of(*piece, begin ^ u32::from(data[0]))),
        Message::Cancel(asked) => (8, of(asked.piece, asked.begin)),
        Message::Port(port) => (9, (u64::from(*port), 0)),
        Message::Suggest(piece) => (13, of(*piece, 0)),
        Message::HaveAll => (14, (0, 0)),
        Message::HaveNone => (15, (0, 0)),
        Message::Reject(asked) => (16, of(asked.piece, asked.begin)),
        Message::AllowedFast(piece) => (17, of(*piece, 0)),
        Message::Extended { id, payload } => (20, (u64::from(*id), payload.len() as u64)),
    };
    (kind, first, second)
}

/// Runs a scenario twice for each seed and compares the traces that it returns. `BTFS_SOAK=N` runs `N` seeds,
/// `BTFS_SEED=S` only that one.
pub(crate) fn replay(name: &'static str, default_seeds: u64, scenario: impl Fn(u64) -> u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("BTFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BTFS_SOAK").unwrap_or(default_seeds),
    };
    for seed in seeds {
        let told = OnFailure { name, seed };
        let (first, second) = (scenario(seed), scenario(seed));
        assert_eq!(first, second, "the same seed told two stories");
        std::mem::forget(told);
    }
}

struct OnFailure {
    name: &'static str,
    seed: u64,
}

impl Drop for OnFailure {
    fn drop(&mut self) {
        let Self { name, seed } = self;
        eprintln!("seed {seed} failed; again: BTFS_SEED={seed} cargo test {name}");
    }
}
