//! Our info dictionary for those who ask (BEP 9).
//!
//! Invariant: each block's message is made once and shared, so however many peers ask and do not listen, the
//! answers take no more room than the dictionary.
//! Invariant: no peer gets more than [`BURST`] blocks at once; what is beyond is rejected.
//!
//! Not here: whether a torrent's dictionary is given at all: not that of a private one ([`crate::proto::swarm`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Word, block_count, block_len};
use crate::proto::units::BLOCK_LEN;

/// Blocks that a peer gets at once: 1 MiB, more than most dictionaries have.
pub const BURST: u32 = 64;

/// Time in which it may have one more: 1 MiB/s.
const REFILL: Duration = Duration::from_micros(15_625);

/// A torrent's info dictionary, ready to be given.
#[derive(Debug)]
pub struct Description {
    info: Bytes,
    /// Messages with blocks that somebody asked for.
    made: BTreeMap<u32, Bytes>,
}

impl Description {
    /// This dictionary, as it was hashed.
    pub const fn new(info: Bytes) -> Self {
        Self { info, made: BTreeMap::new() }
    }

    /// Bytes of it, as peers are told.
    pub fn total(&self) -> u32 {
        u32::try_from(self.info.len()).unwrap_or(0)
    }

    /// The message that answers a request for this block.
    pub fn answer(&mut self, block: u32, allowance: &mut Allowance, now: Instant) -> Bytes {
        let total = self.total();
        if block >= block_count(total) || !allowance.take(now) {
            return Word::Reject(block).encode();
        }
        let info = &self.info;
        let made = self.made.entry(block).or_insert_with(|| {
            let start = (block * BLOCK_LEN) as usize;
            let data = info.slice(start..start + block_len(total, block) as usize);
            Word::Data { block, total, data }.encode()
        });
        made.clone()
    }
}

/// How much a peer may still ask for.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    blocks: u32,
    since: Instant,
}

impl Allowance {
    /// All of it.
    pub const fn full(now: Instant) -> Self {
        Self { blocks: BURST, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.since);
        let fresh = u32::try_from(waited.as_micros() / REFILL.as_micros()).unwrap_or(u32::MAX);
        self.since = if fresh >= BURST { now } else { self.since + REFILL * fresh };
        self.blocks = self.blocks.saturating_add(fresh).min(BURST);
        let some = self.blocks > 0;
        self.blocks = self.blocks.saturating_sub(1);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_too_much_is_refused_until_time_has_passed() {
        let mut description = Description::new(Bytes::from_static(b"d4:name1:xe"));
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        let mut given = |now| {
            let asked = (0..2 * BURST).map(|_| description.answer(0, &mut allowance, now));
            asked.filter(|said| matches!(Word::parse(said), Some(Word::Data { .. }))).count()
        };
        assert_eq!(given(start), BURST as usize);
        assert_eq!(given(start), 0);
        assert_eq!(given(start + REFILL * 5), 5);
        assert_eq!(given(start + Duration::from_secs(3600)), BURST as usize);
    }
}
