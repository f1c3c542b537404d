//! Block buffers that are used again, so that a download costs no fresh pages.
//!
//! Invariant: at most `keep` free buffers wait here; whatever else there is, messages in flight hold it.
//! Invariant: a pooled buffer is at least half filled by its data, so tiny PIECE messages pin no memory
//! that was not sent.
//!
//! Not here: how many bytes may be in flight (the torrent's memory budget).

use std::sync::Arc;

use parking_lot::Mutex;

use crate::proto::units::BLOCK_LEN;
use crate::proto::wire::decoder::{BlockBuffer, BlockBuffers};

const POOLED_LEN: usize = BLOCK_LEN as usize;

/// A stock of free buffers of one block each; clones share it.
#[derive(Clone, Debug)]
pub struct Pool {
    stock: Arc<Stock>,
}

#[derive(Debug)]
struct Stock {
    free: Mutex<Vec<Vec<u8>>>,
    keep: usize,
}

/// The data of one PIECE; its buffer goes back to the pool when the last reader drops it.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    home: Option<Arc<Stock>>,
}

impl Pool {
    /// An empty pool that keeps at most `keep` free buffers of 16 KiB.
    pub fn new(keep: usize) -> Self {
        Self { stock: Arc::new(Stock { free: Mutex::default(), keep }) }
    }

    /// Free buffers that wait for their next use.
    pub fn free(&self) -> usize {
        self.stock.free.lock().len()
    }
}

impl BlockBuffers for Pool {
    type Block = Block;

    fn take(&mut self, len: usize) -> Block {
        if !(POOLED_LEN / 2..=POOLED_LEN).contains(&len) {
            return Block { bytes: Vec::with_capacity(len), home: None };
        }
        // The last one returned comes first: it may still be in the CPU's cache.
        let free = self.stock.free.lock().pop();
        let bytes = free.unwrap_or_else(|| Vec::with_capacity(POOLED_LEN));
        Block { bytes, home: Some(Arc::clone(&self.stock)) }
    }
}

impl BlockBuffer for Block {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut free = home.free.lock();
        if free.len() < home.keep {
            free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_return_and_only_so_many_are_kept() {
        let mut pool = Pool::new(2);
        let blocks: Vec<_> = (0..3).map(|_| pool.take(POOLED_LEN)).collect();
        assert_eq!(pool.free(), 0);
        drop(blocks);
        assert_eq!(pool.free(), 2);
        let mut block = pool.take(POOLED_LEN);
        assert_eq!((pool.free(), block.as_ref().len()), (1, 0), "used again, and empty");
        block.put(&[7; POOLED_LEN]);
        assert_eq!(block.bytes.capacity(), POOLED_LEN, "one block fits without growing");
    }

    #[test]
    fn blocks_of_other_sizes_pin_what_they_hold() {
        let mut pool = Pool::new(2);
        for len in [0, 1, POOLED_LEN / 2 - 1, POOLED_LEN + 1] {
            let block = pool.take(len);
            assert_eq!((block.bytes.capacity(), block.home.is_some()), (len, false));
        }
        assert_eq!(pool.free(), 0);
    }
}
