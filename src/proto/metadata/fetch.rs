//! The info dictionary of a torrent that we know by its hash alone, from several peers side by side (BEP 9).
//!
//! Peers tell how long it is, and may lie about that as about its bytes. So each length has a *draft* of its own,
//! and all drafts go on beside each other. A draft is shared by all who tell its length; when a shared one turns out
//! to be false nobody knows who lied, and from then on each peer of that length has a draft alone: what is false
//! then is its own lie.
//!
//! ```text
//! length told ─▶ shared draft ─ whole ─▶ right hash: done
//!                     │            └──▶ wrong: drafts alone ─ whole ─▶ right: done
//!                     │                                        └──▶ wrong: Liar
//!                     └ silent, rejects: the peer rests for 20 to 70 s, others are asked
//! ```
//!
//! Invariant: memory is what was received, at most [`MAX_HELD`] bytes; a length alone costs nothing.
//! Invariant: of one peer at most [`IN_FLIGHT`] blocks are awaited; a block is awaited from at most [`COPIES`].
//!
//! Not here: connections ([`crate::proto::introduction`]), the messages ([`super::Word`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha1::{Digest, Sha1};

use super::{block_count, block_len};
use crate::proto::units::{InfoHash, PeerKey};

/// Blocks awaited from one peer.
pub const IN_FLIGHT: usize = 2;

/// Peers of which one block is awaited at once, when they have nothing better to do.
pub const COPIES: usize = 2;

/// Bytes of blocks that are kept, over all drafts: the longest dictionary and half as much of what is false.
pub const MAX_HELD: u64 = 24 << 20;

/// Time after which a block is asked of another peer.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Requests in a row that a peer may let pass before it rests.
const STRIKES: u32 = 2;

/// How long a peer rests that rejected, said nothing or was wrong, at least and at most.
const REST: (u64, u64) = (20_000, 70_000);

/// Drafts alone at once, for one length.
const ALONE: usize = 4;

/// How long a draft alone may take: long enough for 16 MiB, too short for one who only holds the place.
const ALONE_LIMIT: Duration = Duration::from_secs(40);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The info dictionary, of the right hash.
    Done(Bytes),
    /// All that this peer gave is proven false.
    Liar(PeerKey),
}

/// How far it is, for whoever asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Bytes of the dictionary, as most peers tell; none while nobody does.
    pub total: Option<u32>,
    /// Its blocks.
    pub blocks: u32,
    /// Those of them that are here.
    pub here: u32,
    /// Peers that say they have it.
    pub tellers: usize,
    /// Drafts that turned out to be false.
    pub false_drafts: u32,
}

/// A length, and the peer that has the draft alone, if one has.
type DraftKey = (u32, Option<PeerKey>);

#[derive(Debug)]
struct Draft {
    since: Instant,
    blocks: BTreeMap<u32, (PeerKey, Bytes)>,
}

/// A block that a peer was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    block: u32,
    at: Instant,
    /// Others are asked by now; it is still welcome.
    late: bool,
}

#[derive(Debug)]
struct Teller {
    total: u32,
    asked: Vec<Asked>,
    /// Times in a row that it was late.
    strikes: u32,
    rests_until: Option<Instant>,
}

impl Teller {
    /// Blocks that are on their way, as far as can be hoped.
    fn awaited(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(|asked| !asked.late)
    }

    /// Whether the peer was asked for the block; from now on it is not.
    fn take(&mut self, block: u32) -> bool {
        let at = self.asked.iter().position(|asked| asked.block == block);
        at.map(|at| self.asked.swap_remove(at)).is_some()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Fetch {
    hash: InfoHash,
    tellers: BTreeMap<PeerKey, Teller>,
    drafts: BTreeMap<DraftKey, Draft>,
    /// Lengths of which a shared draft was false.
    distrusted: BTreeSet<u32>,
    held: u64,
    false_drafts: u32,
    requests: VecDeque<(PeerKey, u32)>,
    outcomes: VecDeque<Outcome>,
    rng: StdRng,
}

impl Fetch {
    /// Nobody is known who has it.
    pub fn new(hash: InfoHash, seed: u64) -> Self {
        Self {
            hash,
            tellers: BTreeMap::new(),
            drafts: BTreeMap::new(),
            distrusted: BTreeSet::new(),
            held: 0,
            false_drafts: 0,
            requests: VecDeque::new(),
            outcomes: VecDeque::new(),
            rng: StdRng::seed_from_u64(seed ^ 0x6d65_7461_6461),
        }
    }

    /// The peer says that it has the dictionary, and how long it is; or that it has none.
    pub fn handle_told(&mut self, key: PeerKey, total: Option<u32>, now: Instant) {
        match (total, self.tellers.get(&key)) {
            (Some(total), Some(teller)) if teller.total == total => return,
            (None, None) => return,
            _ => self.handle_gone(key, now),
        }
        if let Some(total) = total.filter(|&total| total > 0) {
            let teller = Teller { total, asked: Vec::new(), strikes: 0, rests_until: None };
            self.tellers.insert(key, teller);
        }
        self.plan(now);
    }

    /// A block came. Whether it was one that the peer was asked for.
    pub fn handle_data(
        &mut self,
        key: PeerKey,
        block: u32,
        total: u32,
        data: &Bytes,
        now: Instant,
    ) -> bool {
        let Some(teller) = self.tellers.get_mut(&key) else { return false };
        if !teller.take(block) {
            return false;
        }
        if total != teller.total || data.len() != block_len(total, block) as usize {
            self.rest(key, now);
            self.plan(now);
            return false;
        }
        teller.strikes = 0;
        let draft_key = self.draft_of(key);
        self.keep(draft_key, block, key, data, now);
        self.judge(draft_key, now);
        self.plan(now);
        true
    }

    /// The peer does not give this block.
    pub fn handle_reject(&mut self, key: PeerKey, block: u32, now: Instant) {
        let Some(teller) = self.tellers.get_mut(&key) else { return };
        if teller.take(block) {
            self.rest(key, now);
            self.plan(now);
        }
    }

    /// The peer is gone.
    pub fn handle_gone(&mut self, key: PeerKey, now: Instant) {
        if let Some(teller) = self.tellers.remove(&key) {
            self.requests.retain(|(to, _)| *to != key);
            self.drop_draft((teller.total, Some(key)));
            self.drop_orphans();
            self.plan(now);
        }
    }

    /// Time has passed: [`Self::poll_timeout`] was reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut tired = Vec::new();
        for (&key, teller) in &mut self.tellers {
            if teller.rests_until.is_some_and(|until| until <= now) {
                teller.rests_until = None;
            }
            let due = teller.asked.iter_mut().filter(|asked| !asked.late);
            let due: Vec<_> = due.filter(|asked| now >= asked.at + PATIENCE).collect();
            let is_late = !due.is_empty();
            due.into_iter().for_each(|asked| asked.late = true);
            if is_late {
                teller.strikes += 1;
                if teller.strikes >= STRIKES {
                    tired.push(key);
                }
            }
        }
        let slow =
            |(key, draft): (&DraftKey, &Draft)| key.1.filter(|_| now >= draft.since + ALONE_LIMIT);
        tired.extend(self.drafts.iter().filter_map(slow));
        for key in tired {
            self.rest(key, now);
        }
        self.plan(now);
    }

    /// The next block to ask somebody for.
    pub fn poll_request(&mut self) -> Option<(PeerKey, u32)> {
        self.requests.pop_front()
    }

    /// The next thing that is certain.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.tellers.values().flat_map(|teller| {
            let asked = teller.awaited().map(|asked| asked.at + PATIENCE);
            asked.chain(teller.rests_until)
        });
        let alone = self.drafts.iter().filter(|(key, _)| key.1.is_some());
        waits.chain(alone.map(|(_, draft)| draft.since + ALONE_LIMIT)).min()
    }

    /// How far it is.
    pub fn standing(&self) -> Standing {
        let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
        for teller in self.tellers.values() {
            *votes.entry(teller.total).or_default() += 1;
        }
        let total = votes.iter().max_by_key(|(_, votes)| **votes).map(|(total, _)| *total);
        let of_it = self.drafts.iter().filter(|((length, _), _)| Some(*length) == total);
        Standing {
            total,
            blocks: total.map_or(0, block_count),
            here: of_it.map(|(_, draft)| draft.blocks.len() as u32).max().unwrap_or(0),
            tellers: self.tellers.len(),
            false_drafts: self.false_drafts,
        }
    }

    /// Bytes of blocks that are kept.
    pub fn held(&self) -> u64 {
        self.held
    }

    fn draft_of(&self, key: PeerKey) -> DraftKey {
        let total = self.tellers.get(&key).map_or(0, |teller| teller.total);
        (total, self.distrusted.contains(&total).then_some(key))
    }

    fn keep(&mut self, draft: DraftKey, block: u32, from: PeerKey, data: &Bytes, now: Instant) {
        let kept = self.drafts.entry(draft).or_insert_with(|| Draft::new(now));
        if kept.blocks.contains_key(&block) {
            return;
        }
        // A copy: the message that it came in may be larger.
        kept.blocks.insert(block, (from, Bytes::copy_from_slice(data)));
        self.held += data.len() as u64;
        while self.held > MAX_HELD {
            let largest = self.drafts.iter().max_by_key(|(_, draft)| draft.blocks.len());
            let Some((&largest, _)) = largest else { return };
            let theirs: Vec<_> =
                self.tellers.keys().copied().filter(|&key| self.draft_of(key) == largest).collect();
            self.drop_draft(largest);
            theirs.into_iter().for_each(|key| self.rest(key, now));
        }
    }

    /// Hashes a draft that is whole.
    fn judge(&mut self, key: DraftKey, now: Instant) {
        let Some(draft) = self.drafts.get(&key) else { return };
        if draft.blocks.len() < block_count(key.0) as usize {
            return;
        }
        let mut hash = Sha1::new();
        draft.blocks.values().for_each(|(_, data)| hash.update(data));
        if <[u8; 20]>::from(hash.finalize()) == self.hash.0 {
            let whole: Vec<u8> =
                draft.blocks.values().flat_map(|(_, data)| data.iter().copied()).collect();
            self.outcomes.push_back(Outcome::Done(whole.into()));
            return;
        }
        self.false_drafts += 1;
        let givers: BTreeSet<PeerKey> = draft.blocks.values().map(|(from, _)| *from).collect();
        self.drop_draft(key);
        match givers.first().filter(|_| givers.len() == 1) {
            Some(&liar) => {
                self.outcomes.push_back(Outcome::Liar(liar));
                self.rest(liar, now);
            }
            None => {
                self.distrusted.insert(key.0);
                // What is on its way may be given by a liar for the honest: all is asked anew.
                let theirs = self.tellers.values_mut().filter(|teller| teller.total == key.0);
                theirs.for_each(|teller| teller.asked.clear());
            }
        }
    }

    /// The peer is left alone for a while.
    fn rest(&mut self, key: PeerKey, now: Instant) {
        let pause = Duration::from_millis(self.rng.random_range(REST.0..REST.1));
        let Some(teller) = self.tellers.get_mut(&key) else { return };
        teller.rests_until = Some(now + pause);
        teller.asked.iter_mut().for_each(|asked| asked.late = true);
        teller.strikes = 0;
        let alone = (teller.total, Some(key));
        self.requests.retain(|(to, _)| *to != key);
        self.drop_draft(alone);
    }

    fn drop_draft(&mut self, key: DraftKey) {
        if let Some(draft) = self.drafts.remove(&key) {
            self.held -= draft.blocks.values().map(|(_, data)| data.len() as u64).sum::<u64>();
        }
    }

    /// Shared drafts of lengths that nobody tells any more.
    fn drop_orphans(&mut self) {
        let told: BTreeSet<u32> = self.tellers.values().map(|teller| teller.total).collect();
        let orphans: Vec<_> =
            self.drafts.keys().copied().filter(|(total, _)| !told.contains(total)).collect();
        orphans.into_iter().for_each(|key| self.drop_draft(key));
        self.distrusted.retain(|total| told.contains(total));
    }

    /// Asks whoever has room, one block each in turn, those that answered before first.
    fn plan(&mut self, now: Instant) {
        let mut order: Vec<_> = self.tellers.iter().map(|(key, t)| (t.strikes, *key)).collect();
        order.sort_unstable();
        for _ in 0..IN_FLIGHT {
            for &(_, key) in &order {
                if let Some(block) = self.choose(key, now) {
                    if let Some(teller) = self.tellers.get_mut(&key) {
                        teller.take(block);
                        teller.asked.push(Asked { block, at: now, late: false });
                    }
                    self.requests.push_back((key, block));
                }
            }
        }
    }

    /// What to ask the peer for next: what nobody else was asked for, or else what one other was.
    fn choose(&mut self, key: PeerKey, now: Instant) -> Option<u32> {
        let teller = self.tellers.get(&key)?;
        if teller.rests_until.is_some() || teller.awaited().count() >= IN_FLIGHT {
            return None;
        }
        let draft_key = self.draft_of(key);
        if draft_key.1.is_some() && !self.drafts.contains_key(&draft_key) {
            let alone =
                self.drafts.keys().filter(|(total, peer)| *total == draft_key.0 && peer.is_some());
            if alone.count() >= ALONE {
                return None;
            }
            self.drafts.insert(draft_key, Draft::new(now));
        }
        let here = self.drafts.get(&draft_key).map(|draft| &draft.blocks);
        let awaited = self.awaited(draft_key);
        let mine = self.tellers.get(&key)?;
        let missing = (0..block_count(draft_key.0)).filter(|block| {
            here.is_none_or(|here| !here.contains_key(block))
                && !mine.awaited().any(|asked| asked.block == *block)
        });
        let copies = |block: &u32| awaited.get(block).copied().unwrap_or(0);
        let mut second = None;
        for block in missing {
            match copies(&block) {
                0 => return Some(block),
                n if n < COPIES => second = second.or(Some(block)),
                _ => {}
            }
        }
        second
    }

    /// How many peers each block of the draft is awaited from.
    fn awaited(&self, draft: DraftKey) -> BTreeMap<u32, usize> {
        let mut awaited = BTreeMap::new();
        for (key, teller) in &self.tellers {
            if self.draft_of(*key) == draft {
                for asked in teller.awaited() {
                    *awaited.entry(asked.block).or_default() += 1;
                }
            }
        }
        awaited
    }
}

impl Draft {
    const fn new(since: Instant) -> Self {
        Self { since, blocks: BTreeMap::new() }
    }
}
