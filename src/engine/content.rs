//! The verified bytes of one torrent, as FUSE threads and workers share them.
//!
//! Invariant: what [`Content::read_resident`] gives out was verified, whatever is evicted or written
//! meanwhile.
//! Invariant: for each piece at most one of store, check and evict is under way; the torrent's task sees
//! to that. Only these make a piece one that is vouched for.
//!
//! Not here: threads ([`super::workers`]), and who waits for bytes that are not here yet.

use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sha1::{Digest, Sha1};
use tracing::warn;

use crate::proto::metainfo::Metainfo;
use crate::proto::units::{PieceIndex, TorrentId};

use super::chunks::{Chunk, Chunks};
use super::have_map::HaveMap;
use super::state::{StateError, StateFile};
use super::store::{Store, StoreError};

/// Evictions that may pass under one read before it is left to the engine.
const LOOKS: usize = 4;

/// Bytes that a check reads at once.
const CHECK_LEN: usize = 256 * 1024;

/// What is here of one torrent.
#[derive(Debug)]
pub struct Content {
    /// The torrent's number in this process.
    pub id: TorrentId,
    /// What the torrent is.
    pub metainfo: Arc<Metainfo>,
    /// Which pieces the store holds.
    pub have: HaveMap,
    /// Where they live.
    pub store: Store,
    /// Verified pieces in memory, of this torrent and all others.
    pub chunks: Arc<Chunks>,
    state: Option<StateFile>,
    hole: OnceLock<[u8; 20]>,
}

impl Content {
    /// A torrent of which nothing is vouched for yet; `state` is where that is kept between runs.
    pub fn new(
        id: TorrentId,
        metainfo: Arc<Metainfo>,
        store: Store,
        chunks: Arc<Chunks>,
        state: Option<StateFile>,
    ) -> Self {
        let have = HaveMap::new(metainfo.geometry.clone());
        Self { id, metainfo, have, store, chunks, state, hole: OnceLock::new() }
    }

    /// Fills `buf` from the torrent's bytes at `offset` if all of them are here; false, with `buf`
    /// scribbled over, when some are not.
    ///
    /// # Errors
    /// When the store fails to read what it holds. The caller tells the torrent's task, which checks the
    /// pieces again.
    pub fn read_resident(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        let range = offset..offset + buf.len() as u64;
        if range.end > self.metainfo.geometry.total() {
            return Ok(false);
        }
        // One system call for many small pieces; the kernel most likely has them in its own cache.
        if self.have.has_range(&range) && self.read_stored(&range, buf)? {
            return Ok(true);
        }
        let mut rest = buf;
        let mut at = range.start;
        for piece in self.metainfo.geometry.pieces_in(&range) {
            let end = self.metainfo.geometry.piece_range(piece).end.min(range.end);
            let (part, later) = rest.split_at_mut((end - at) as usize);
            if !self.read_piece(piece, at, part)? {
                return Ok(false);
            }
            (rest, at) = (later, end);
        }
        Ok(true)
    }

    /// Makes the place for a piece in the store. Pieces that turn out to be gone, since somebody else cut
    /// or removed their file, are vouched for no more, and returned.
    pub(super) fn make_place(&self, piece: PieceIndex) -> Vec<PieceIndex> {
        let mut lost = Vec::new();
        let made = self.store.lengthen(piece, |file| {
            let Some(file) = self.metainfo.file(file) else { return };
            let range = file.offset..file.offset + file.length;
            let gone = self.metainfo.geometry.pieces_in(&range).filter(|&p| self.have.has(p));
            lost.extend(gone.inspect(|&p| {
                // Should the claim stay, so does the file's length, which belies it.
                let _ = self.give_up(p);
            }));
        });
        // The write that follows fails alike, and says so.
        drop(made);
        lost
    }

    /// The pieces of the torrent's range that are neither in memory nor in the store.
    pub(super) fn missing(&self, range: &Range<u64>) -> Vec<PieceIndex> {
        let here = |piece| self.have.has(piece) || self.chunks.lookup(self.id, piece).is_some();
        self.metainfo.geometry.pieces_in(range).filter(|&piece| !here(piece)).collect()
    }

    /// Writes a verified chunk to the store and vouches for it.
    ///
    /// # Errors
    /// When the store did not take it; what it took in part takes no room.
    pub fn store_chunk(&self, piece: PieceIndex, blocks: &[Bytes]) -> Result<(), StoreError> {
        let written = self.store.write(piece, blocks);
        match &written {
            Ok(()) => {
                self.pulse();
                self.have.insert(piece);
            }
            // On a full disk, half a piece is in the way of those that still fit. The first error counts.
            Err(_) => drop(self.evict(piece)),
        }
        written
    }

    /// Takes a piece out of the store, in the order that lets no reader see it go.
    ///
    /// # Errors
    /// When its room could not be given back; it is no longer vouched for all the same.
    pub fn evict(&self, piece: PieceIndex) -> Result<(), StoreError> {
        self.give_up(piece)?;
        let punched = self.store.punch(piece);
        self.pulse();
        punched
    }

    /// Whether the store has the piece's right bytes, which is then vouched for, and else no longer.
    ///
    /// # Errors
    /// When the bytes are there and cannot be read.
    pub fn check(&self, piece: PieceIndex) -> Result<bool, StoreError> {
        let right = self.hash_stored(piece);
        if matches!(right, Ok(true)) {
            self.store.adopt(piece);
            self.have.insert(piece);
        } else {
            self.reject(piece);
        }
        right
    }

    /// What is stored of the piece is wrong.
    fn reject(&self, piece: PieceIndex) {
        if let Err(error) = self.give_up(piece).and_then(|()| self.store.discard(piece)) {
            warn!(?piece, %error, "could not give a wrong piece's room back");
        }
        self.pulse();
    }

    /// The piece is vouched for no longer, here and by the state file.
    fn give_up(&self, piece: PieceIndex) -> Result<(), StoreError> {
        self.have.evict(piece);
        self.state.as_ref().map_or(Ok(()), |state| state.withdraw(piece))
    }

    fn pulse(&self) {
        if let Some(state) = &self.state {
            state.pulse();
        }
    }

    /// Hashes every stored piece of the torrent's range after a read of it failed; those that are no
    /// longer right are vouched for no more, and returned. A right one may be on its way out, and is left alone.
    pub(super) fn doubt(&self, range: &Range<u64>) -> Vec<PieceIndex> {
        let stored = self.metainfo.geometry.pieces_in(range).filter(|&piece| self.have.has(piece));
        let wrong = stored.filter(|&piece| !matches!(self.hash_stored(piece), Ok(true)));
        wrong.inspect(|&piece| self.reject(piece)).collect()
    }

    /// Flushes the files and records what is vouched for, for the next run. It may take seconds.
    ///
    /// # Errors
    /// When a file could not be flushed or the state not be written; then it vouches for less.
    pub fn save(&self) -> Result<(), StateError> {
        match (&self.store, &self.state) {
            (Store::Disk(disk), Some(state)) => state.save(disk, &self.have),
            (Store::Disk(disk), None) => disk.flush().1.map_err(StateError::Flush),
            (Store::Memory(_), _) => Ok(()),
        }
    }

    fn read_piece(&self, piece: PieceIndex, at: u64, buf: &mut [u8]) -> io::Result<bool> {
        let begin = (at - self.metainfo.geometry.piece_start(piece)) as u32;
        match self.chunks.lookup(self.id, piece) {
            Some(chunk) => Ok(chunk.copy_range(begin, buf)),
            None => self.read_stored(&(at..at + buf.len() as u64), buf),
        }
    }

    fn read_stored(&self, range: &Range<u64>, buf: &mut [u8]) -> io::Result<bool> {
        for _ in 0..LOOKS {
            let epoch = self.have.epoch();
            if !self.have.has_range(range) {
                return Ok(false);
            }
            let outcome = self.store.read(range.start, buf);
            if self.have.epoch() != epoch || !self.have.has_range(range) {
                continue;
            }
            return outcome.map(|()| true).map_err(io::Error::from);
        }
        Ok(false)
    }

    fn hash_stored(&self, piece: PieceIndex) -> Result<bool, StoreError> {
        let expected = self.metainfo.piece_hash(piece);
        if self.store.is_hole(piece) && self.hole_hash(piece) != expected {
            return Ok(false);
        }
        let range = self.metainfo.geometry.piece_range(piece);
        let mut buf = vec![0; CHECK_LEN.min((range.end - range.start) as usize)];
        let mut sha = Sha1::new();
        let mut at = range.start;
        while at < range.end {
            let len = buf.len().min((range.end - at) as usize);
            match self.store.read(at, &mut buf[..len]) {
                Err(StoreError::Missing { .. }) => return Ok(false),
                outcome => outcome?,
            }
            sha.update(&buf[..len]);
            at += len as u64;
        }
        Ok(<[u8; 20]>::from(sha.finalize()) == expected)
    }

    /// The hash that the piece has where nothing was ever written.
    fn hole_hash(&self, piece: PieceIndex) -> [u8; 20] {
        let len = self.metainfo.geometry.piece_len(piece);
        if len == self.metainfo.geometry.nominal_piece_len() {
            return *self.hole.get_or_init(|| hash_zeros(len));
        }
        hash_zeros(len)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.chunks.forget(self.id);
    }
}

/// The chunk if the blocks are the piece's, by length and by hash.
pub(super) fn verify(metainfo: &Metainfo, piece: PieceIndex, blocks: &[Bytes]) -> Option<Chunk> {
    let chunk = Chunk::new(&metainfo.geometry, piece, blocks)?;
    let mut sha = Sha1::new();
    blocks.iter().for_each(|block| sha.update(block));
    (<[u8; 20]>::from(sha.finalize()) == metainfo.piece_hash(piece)).then_some(chunk)
}

fn hash_zeros(len: u32) -> [u8; 20] {
    let zeros = [0; 4096];
    let mut sha = Sha1::new();
    let mut left = len as usize;
    while left > 0 {
        let now = left.min(zeros.len());
        sha.update(&zeros[..now]);
        left -= now;
    }
    sha.finalize().into()
}
