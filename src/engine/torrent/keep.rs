//! What a torrent keeps: pieces going into the store and out of it, a store in trouble, the record of both.
//!
//! Invariant: a piece that the store did not take counts as here only while it is in memory.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Torrent;
use crate::engine::clock::now;
use crate::engine::store::StoreError;
use crate::engine::workers::Work;
use crate::proto::units::{PieceIndex, TorrentId};

/// Time between two savings of which pieces are here: what a power cut may cost, and what is hashed after a
/// kill. Each waits for the disk.
const SAVE: Duration = Duration::from_secs(10);

/// Time after which a store is tried again that took no piece; twice as long each time.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(10);

/// The longest such time.
const STORE_RETRY_MAX: Duration = Duration::from_secs(600);

impl Torrent {
    pub(super) fn stored(&mut self, piece: PieceIndex, error: Option<String>) {
        let now = now();
        self.storing.remove(&piece);
        self.changed = true;
        let in_memory = self.content.chunks.lookup(self.content.id, piece).is_some();
        self.swarm.handle_stored(piece, error.is_none() || in_memory, now);
        match error {
            Some(error) => self.store_fails(piece, error, now),
            None => self.store_works(now),
        }
        if self.doomed.remove(&piece) {
            self.evict(piece);
        }
    }

    /// What comes now lives in memory alone: readers go on with less ahead of them, and nothing is filled.
    fn store_fails(&mut self, piece: PieceIndex, error: String, now: Instant) {
        self.resources.budget.forget(self.content.id, piece);
        self.unstored.insert(piece);
        if self.trouble.is_none() {
            warn!(error, "the store takes no more pieces; reads go on, fill waits");
            let window = self.window.min(self.content.chunks.budget() / 4);
            self.swarm.set_max_window(window, now);
        }
        self.trouble = Some(error);
        if self.retry_store.is_none() {
            self.retry_store = Some(now + self.patience);
            self.patience = (self.patience * 2).min(STORE_RETRY_MAX);
        }
        self.swarm.set_fill(false, now);
    }

    /// If it did not before, the pieces that it missed are fetched again, for good. Only a trial shows it: what it
    /// takes before one was under way when the trouble began, or fits into the last gap of a full disk.
    fn store_works(&mut self, now: Instant) {
        if self.retry_store.is_some() || self.trouble.take().is_none() {
            return;
        }
        warn!("the store takes pieces again");
        self.patience = STORE_RETRY;
        self.swarm.set_max_window(self.window, now);
        for piece in std::mem::take(&mut self.unstored) {
            if !self.content.have.has(piece) {
                self.swarm.evict(piece, now);
            }
        }
    }

    /// Before the store is tried again: pieces that memory held in its place and dropped since are missing,
    /// and if there are none, those that it holds, so that there is something to try it with.
    fn miss_unstored(&mut self, now: Instant) {
        let gone =
            |piece: &PieceIndex| self.content.chunks.lookup(self.content.id, *piece).is_none();
        let mut missing: BTreeSet<_> = self.unstored.iter().copied().filter(gone).collect();
        if missing.is_empty() {
            missing.clone_from(&self.unstored);
        }
        for piece in missing {
            self.unstored.remove(&piece);
            if !self.content.have.has(piece) {
                self.swarm.evict(piece, now);
            }
        }
    }

    /// A doubted piece turned out to be here, or not.
    pub(super) fn checked(&mut self, piece: PieceIndex, result: Result<bool, StoreError>) {
        let now = now();
        self.checking.remove(&piece);
        self.changed = true;
        let right = result.unwrap_or_else(|error| {
            warn!(?piece, %error, "cannot read what is here");
            false
        });
        if !right {
            self.resources.budget.forget(self.content.id, piece);
        }
        self.swarm.handle_checked(piece, right, now);
        self.fail_hopeless(now);
        if self.doomed.remove(&piece) {
            self.evict(piece);
        }
    }

    /// Takes pieces out to make room; our own at once, that their room is free before it is used.
    pub(super) fn make_room(&mut self, victims: Vec<(TorrentId, PieceIndex)>) {
        let (ours, others): (Vec<_>, Vec<_>) =
            victims.into_iter().partition(|(torrent, _)| *torrent == self.content.id);
        self.resources.evict(others);
        for (_, piece) in ours {
            self.evict(piece);
        }
    }

    pub(super) fn evict(&mut self, piece: PieceIndex) {
        if self.storing.contains(&piece) || self.checking.contains(&piece) {
            self.doomed.insert(piece);
            return;
        }
        self.swarm.evict(piece, now());
        // At once, so that a piece that is vouched for is none whose room is about to be given back.
        self.content.have.evict(piece);
        self.evicting.insert(piece);
        let (content, reply) = (self.content.clone(), self.out.done.clone());
        self.submit(Work::Evict { content, piece, reply });
    }

    /// The piece is no longer in the store, and is to be fetched again when somebody wants it.
    pub(super) fn lose(&mut self, piece: PieceIndex) {
        self.resources.budget.forget(self.content.id, piece);
        self.unstored.remove(&piece);
        self.changed = true;
        self.swarm.evict(piece, now());
    }

    /// Other torrents want memory for what they have under way too.
    pub(super) fn keep_memory(&mut self) {
        let held = self.swarm.open_bytes();
        self.swarm.set_open_bytes(self.resources.assembling.share(self.content.id, held));
    }

    /// Fill stops at the budget and while the store is in trouble. When it is to be tried again, fill tries it; without
    /// fill the next piece that is read does.
    pub(super) fn keep_fill(&mut self, now: Instant) {
        let trial = self.retry_store.take_if(|at| *at <= now).is_some();
        if !self.fill {
            return;
        }
        if trial {
            self.miss_unstored(now);
            self.swarm.set_fill(true, now);
        }
        let piece = u64::from(self.content.metainfo.geometry.nominal_piece_len());
        // What is being hashed has its room already, and counts as under way for a moment more.
        let pieces = self.resources.budget.room() / piece;
        self.swarm.set_fill_room(usize::try_from(pieces).unwrap_or(usize::MAX));
        let room = pieces > 0;
        if self.swarm.is_filling() != (room && self.retry_store.is_none()) {
            self.swarm.set_fill(room && self.retry_store.is_none(), now);
        }
    }

    pub(super) fn keep_state(&mut self, now: Instant) {
        if self.changed && !self.saving && now - self.saved >= SAVE {
            self.save(now);
        }
    }

    pub(super) fn save(&mut self, now: Instant) {
        self.saved = now;
        self.changed = false;
        self.saving = true;
        let (content, reply) = (self.content.clone(), self.out.done.clone());
        self.submit(Work::SaveState { content, reply });
    }
}
