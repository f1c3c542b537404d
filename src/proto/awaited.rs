//! What readers wait for, and on whom: a view of the swarm for people who ask why.
//!
//! Invariant: a view is bounded, whatever the torrent and its peers do: [`MAX_PIECES`] pieces of
//! [`MAX_HOLDERS`] holders.
//!
//! Not here: who is asked for what ([`super::picker`]), and the view's words (the command line's).

use std::net::SocketAddr;
use std::time::Instant;

use super::units::PieceIndex;

/// Pieces in a view.
pub const MAX_PIECES: usize = 32;

/// Holders that are named for one piece; the others are counted.
pub const MAX_HOLDERS: usize = 8;

/// A piece that readers want and that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The piece.
    pub piece: PieceIndex,
    /// Whether a read waits for it; else it is in a reader's window.
    pub blocked: bool,
    /// How far it is.
    pub stage: Stage,
    /// Connected peers that have it.
    pub holders: Holders,
    /// Some of them: those that were asked for it first, then those that serve us.
    pub named: Vec<Holder>,
}

/// How far a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// An earlier run left it, and it has to be hashed.
    Unproven,
    /// All of it came, and it is being hashed.
    Whole,
    /// Blocks are missing.
    Fetching {
        /// In all.
        blocks: u32,
        /// That came.
        here: u32,
        /// That somebody was asked for.
        asked: u32,
    },
}

/// Connected peers that have a piece; each is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// They would give it.
    pub serving: u32,
    /// They choke us.
    pub choking: u32,
    /// They left us waiting.
    pub snubbed: u32,
    /// They rejected it.
    pub refusing: u32,
}

impl Holders {
    /// All of them.
    pub const fn count(&self) -> u32 {
        self.serving + self.choking + self.snubbed + self.refusing
    }

    pub(super) const fn add(&mut self, standing: Standing) {
        match standing {
            Standing::Serving => self.serving += 1,
            Standing::Choking => self.choking += 1,
            Standing::Snubbed => self.snubbed += 1,
            Standing::Refusing => self.refusing += 1,
        }
    }
}

/// One connected peer that has a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The socket's far end.
    pub addr: SocketAddr,
    /// What to hope of it.
    pub standing: Standing,
    /// Blocks of the piece that it was asked for and has not brought.
    pub asked: u32,
    /// When the first of them was asked for.
    pub since: Option<Instant>,
}

/// What to hope of a peer that has a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It gives.
    Serving,
    /// It was asked and has been silent for too long.
    Snubbed,
    /// It serves others.
    Choking,
    /// It has rejected this piece.
    Refusing,
}
