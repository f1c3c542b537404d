//! A piece under way: who was asked for each of its blocks.
//!
//! A block is in one of three states, and only moves as the arrows say:
//!
//! ```text
//! Missing ──ask──▶ Requested ──receive──▶ Received
//!    ▲                │ (last asker gone)
//!    └────────────────┘
//! ```
//!
//! Invariant: `missing` and `received` count their blocks; a requested block has at least one asker.
//!
//! Not here: the bytes ([`crate::proto::assembly`]), and which piece comes first ([`crate::proto::picker`]).

use super::units::PeerKey;

/// Peers that may be asked for one block at the same time.
pub const MAX_COPIES: usize = 3;

/// The peers that were asked for one block, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Askers([Option<PeerKey>; MAX_COPIES]);

impl Askers {
    fn one(key: PeerKey) -> Self {
        let mut askers = Self::default();
        askers.0[0] = Some(key);
        askers
    }

    /// How many were asked.
    pub fn count(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Every asker.
    pub fn iter(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.0.iter().flatten().copied()
    }

    /// Whether this peer was asked.
    pub fn contains(&self, key: PeerKey) -> bool {
        self.0.contains(&Some(key))
    }

    fn add(&mut self, key: PeerKey) {
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(key);
        }
    }

    fn remove(&mut self, key: PeerKey) {
        for slot in self.0.iter_mut().filter(|slot| **slot == Some(key)) {
            *slot = None;
        }
    }
}

/// State of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Nobody is asked for it.
    Missing,
    /// Asked for.
    Requested {
        /// Of whom.
        askers: Askers,
        /// Whether it has taken so long that one more peer should be asked.
        late: bool,
    },
    /// Here, not yet verified.
    Received,
}

/// The blocks of one piece under way.
#[derive(Clone, Debug)]
pub struct Partial {
    blocks: Vec<Block>,
    missing: u32,
    received: u32,
    /// The peer that fills the piece by itself while it can; anyone may help with urgent blocks.
    pub owner: Option<PeerKey>,
    /// After a failed hash only the owner is asked, so that a second failure has one culprit.
    pub exclusive: bool,
}

impl Partial {
    /// All of `blocks` blocks missing.
    pub fn new(blocks: u32) -> Self {
        Self {
            blocks: vec![Block::Missing; blocks as usize],
            missing: blocks,
            received: 0,
            owner: None,
            exclusive: false,
        }
    }

    /// Blocks that nobody is asked for.
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Blocks that are here.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Whether every block is here.
    pub fn is_whole(&self) -> bool {
        self.received as usize == self.blocks.len()
    }

    /// Whether no block is here and none is asked for.
    pub fn is_untouched(&self) -> bool {
        self.missing as usize == self.blocks.len()
    }

    /// Whether no block is asked for.
    pub fn is_idle(&self) -> bool {
        (self.missing + self.received) as usize == self.blocks.len()
    }

    /// State of the block with this number.
    pub fn block(&self, index: u32) -> Block {
        self.blocks[index as usize]
    }

    /// The next block that nobody is asked for, now asked of `key`.
    pub fn ask_missing(&mut self, key: PeerKey) -> Option<u32> {
        if self.missing == 0 {
            return None;
        }
        let at = self.blocks.iter().position(|block| *block == Block::Missing)?;
        self.blocks[at] = Block::Requested { askers: Askers::one(key), late: false };
        self.missing -= 1;
        Some(at as u32)
    }

    /// The next late block that `key` was not asked for, now asked of it too.
    pub fn ask_late(&mut self, key: PeerKey) -> Option<u32> {
        let index = (0..self.blocks.len() as u32).find(|at| self.may_ask_again(*at, key, 0))?;
        self.ask_one_again(index, key);
        Some(index)
    }

    /// Whether `key` may be asked too for a requested block: one that is late, or has fewer than `copies` askers.
    pub fn may_ask_again(&self, index: u32, key: PeerKey, copies: usize) -> bool {
        match &self.blocks[index as usize] {
            Block::Requested { askers, late } => {
                let limit = if *late { MAX_COPIES } else { copies };
                askers.count() < limit && !askers.contains(key)
            }
            Block::Missing | Block::Received => false,
        }
    }

    /// `key` is asked for the requested block too.
    pub fn ask_one_again(&mut self, index: u32, key: PeerKey) {
        if let Block::Requested { askers, late } = &mut self.blocks[index as usize] {
            askers.add(key);
            *late = false;
        }
    }

    /// The block has come; tells who was asked for it, or `None` when it was here already.
    pub fn receive(&mut self, index: u32) -> Option<Askers> {
        let block = &mut self.blocks[index as usize];
        let askers = match *block {
            Block::Received => return None,
            Block::Missing => {
                self.missing -= 1;
                Askers::default()
            }
            Block::Requested { askers, .. } => askers,
        };
        *block = Block::Received;
        self.received += 1;
        Some(askers)
    }

    /// `key` will not bring the block; true when nobody else was asked for it.
    pub fn release(&mut self, index: u32, key: PeerKey) -> bool {
        let block = &mut self.blocks[index as usize];
        let Block::Requested { askers, .. } = block else { return false };
        if !askers.contains(key) {
            return false;
        }
        askers.remove(key);
        let free = askers.count() == 0;
        if free {
            *block = Block::Missing;
            self.missing += 1;
        }
        free
    }

    /// So many peers have had the block for too long; it is late when all of its askers have.
    pub fn mark_late(&mut self, index: u32, overdue: usize) {
        if let Block::Requested { askers, late } = &mut self.blocks[index as usize] {
            *late = overdue >= askers.count();
        }
    }

    /// Names the rule that does not hold, if any.
    pub fn invariants(&self) -> Result<(), String> {
        let count = |wanted: fn(&Block) -> bool| self.blocks.iter().filter(|b| wanted(b)).count();
        let missing = count(|block| *block == Block::Missing);
        let received = count(|block| *block == Block::Received);
        if missing != self.missing as usize || received != self.received as usize {
            return Err(format!("{missing} missing, {received} received, counted otherwise"));
        }
        let orphan =
            |block: &Block| matches!(block, Block::Requested { askers, .. } if askers.count() == 0);
        if self.blocks.iter().any(orphan) {
            return Err("a requested block has no asker".into());
        }
        Ok(())
    }
}
