//! Pieces in memory, for `--store memory`.
//!
//! Invariant: a piece is held whole or not at all.
//!
//! Not here: a limit; the cache budget evicts here as it does on disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::proto::geometry::Geometry;
use crate::proto::units::PieceIndex;

use super::StoreError;

/// One torrent's pieces in memory.
#[derive(Debug)]
pub struct Memory {
    geometry: Geometry,
    pieces: RwLock<BTreeMap<PieceIndex, Vec<Bytes>>>,
}

impl Memory {
    /// An empty store.
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry, pieces: RwLock::default() }
    }

    pub(super) fn write(&self, piece: PieceIndex, blocks: &[Bytes]) {
        debug_assert_eq!(
            blocks.iter().map(Bytes::len).sum::<usize>(),
            self.geometry.piece_len(piece) as usize,
            "whole pieces only"
        );
        let old = self.pieces.write().insert(piece, blocks.to_vec());
        drop(old);
    }

    pub(super) fn read(&self, offset: u64, mut buf: &mut [u8]) -> Result<(), StoreError> {
        let mut at = offset;
        let held = self.pieces.read();
        for piece in self.geometry.pieces_in(&(offset..offset + buf.len() as u64)) {
            let blocks = held.get(&piece).ok_or_else(missing)?;
            let mut skip = (at - self.geometry.piece_start(piece)) as usize;
            for block in blocks {
                let rest = block.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(block.len());
                let taken = rest.len().min(buf.len());
                let (now, later) = std::mem::take(&mut buf).split_at_mut(taken);
                now.copy_from_slice(&rest[..taken]);
                buf = later;
                at += taken as u64;
            }
        }
        if buf.is_empty() { Ok(()) } else { Err(missing()) }
    }

    pub(super) fn punch(&self, piece: PieceIndex) {
        let old = self.pieces.write().remove(&piece);
        drop(old);
    }

    pub(super) fn holds(&self, piece: PieceIndex) -> bool {
        self.pieces.read().contains_key(&piece)
    }
}

fn missing() -> StoreError {
    StoreError::Missing { path: PathBuf::from("memory") }
}
