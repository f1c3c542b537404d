//! Verified pieces in memory, over all torrents of the process, under one budget (`--memory`).
//!
//! Invariant: a chunk's blocks are verified, whole and in order; all but the last are of [`BLOCK_LEN`].
//! Invariant: a chunk that the store has not yet taken is pinned, or not here at all.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::proto::cache::Cache;
use crate::proto::geometry::Geometry;
use crate::proto::units::{BLOCK_LEN, PieceIndex, TorrentId};

/// A verified piece; cheap to clone.
#[derive(Clone, Debug)]
pub struct Chunk {
    blocks: Arc<[Bytes]>,
    len: u32,
}

impl Chunk {
    /// The piece from its blocks; `None` unless they are exactly the piece's, by their lengths.
    pub fn new(geometry: &Geometry, piece: PieceIndex, blocks: &[Bytes]) -> Option<Self> {
        let lengths = geometry.blocks(piece).map(|block| geometry.block_len(block) as usize);
        let whole = lengths.eq(blocks.iter().map(Bytes::len));
        whole.then(|| Self { blocks: blocks.into(), len: geometry.piece_len(piece) })
    }

    /// Bytes in the piece.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Never: no piece is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The piece's blocks, in order.
    pub fn blocks(&self) -> &[Bytes] {
        &self.blocks
    }

    /// Fills `buf` with the bytes from `begin`; false, with `buf` untouched, when the piece ends before.
    pub fn copy_range(&self, begin: u32, buf: &mut [u8]) -> bool {
        if u64::from(begin) + buf.len() as u64 > u64::from(self.len) {
            return false;
        }
        let mut rest = buf;
        for part in self.parts(begin, rest.len()) {
            let (now, later) = rest.split_at_mut(part.len());
            now.copy_from_slice(part);
            rest = later;
        }
        true
    }

    /// The bytes from `begin`, without a copy when they lie in one block.
    pub fn slice(&self, begin: u32, len: u32) -> Option<Bytes> {
        let end = begin.checked_add(len).filter(|&end| end <= self.len)?;
        let block = self.blocks.get((begin / BLOCK_LEN) as usize)?;
        let from = (begin % BLOCK_LEN) as usize;
        if end.div_ceil(BLOCK_LEN) == begin / BLOCK_LEN + 1 {
            return Some(block.slice(from..from + len as usize));
        }
        let mut bytes = BytesMut::with_capacity(len as usize);
        self.parts(begin, len as usize).for_each(|part| bytes.extend_from_slice(part));
        Some(bytes.freeze())
    }

    fn parts(&self, begin: u32, len: usize) -> impl Iterator<Item = &[u8]> {
        let mut from = (begin % BLOCK_LEN) as usize;
        let mut left = len;
        self.blocks.iter().skip((begin / BLOCK_LEN) as usize).map_while(move |block| {
            let to = block.len().min(from.saturating_add(left));
            let part = block.get(from..to).filter(|part| !part.is_empty())?;
            (from, left) = (0, left - part.len());
            Some(part)
        })
    }
}

/// All chunks of the process.
#[derive(Debug)]
pub struct Chunks {
    cache: Mutex<Cache<(TorrentId, PieceIndex), Chunk>>,
}

impl Chunks {
    /// No chunks yet, and at most `budget` bytes of them.
    pub fn new(budget: u64) -> Self {
        Self { cache: Mutex::new(Cache::new(budget)) }
    }

    /// Most bytes held.
    pub fn budget(&self) -> u64 {
        self.cache.lock().budget()
    }

    /// Bytes held.
    pub fn used(&self) -> u64 {
        self.cache.lock().used()
    }

    /// Bytes held that wait for the store.
    pub fn unstored(&self) -> u64 {
        self.cache.lock().pinned()
    }

    /// The chunk, which counts as a use.
    pub fn lookup(&self, torrent: TorrentId, piece: PieceIndex) -> Option<Chunk> {
        self.cache.lock().lookup(&(torrent, piece)).cloned()
    }

    /// Takes a chunk that the store has not yet taken; false when beside others like it there is no room.
    pub(super) fn insert_unstored(
        &self,
        torrent: TorrentId,
        piece: PieceIndex,
        chunk: Chunk,
    ) -> bool {
        let bytes = u64::from(chunk.len());
        let mut cache = self.cache.lock();
        let evicted = cache.insert((torrent, piece), chunk, bytes, |_| false);
        let taken = evicted.is_ok() && cache.pin(&(torrent, piece));
        drop(cache);
        // Freed after the lock is released.
        drop(evicted);
        taken
    }

    /// The store has the chunk, or will never have it.
    pub(super) fn release(&self, torrent: TorrentId, piece: PieceIndex) {
        self.cache.lock().unpin(&(torrent, piece));
    }

    /// Drops all chunks of a torrent.
    pub(super) fn forget(&self, torrent: TorrentId) {
        self.cache.lock().retain(|(id, _)| *id != torrent);
    }
}
