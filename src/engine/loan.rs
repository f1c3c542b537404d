//! A complete file lent to the kernel, which reads it by itself and asks nobody.
//!
//! Invariant: while the loan lasts none of the file's pieces leaves the store: they are pinned in the budget, and
//! one whose eviction was decided on before is in the budget or in the have-map no more.
//!
//! Not here: who may borrow, and for how long (the filesystem).

use std::fs::File;
use std::sync::Arc;

use super::content::Content;
use super::resources::Resources;
use crate::proto::units::{FileIndex, PieceIndex};

/// Pieces that are pinned one by one while an open waits: some tens of milliseconds.
const MOST_PIECES: usize = 65_536;

/// Keeps a file's pieces in the store until it is dropped, which counts as a use of them.
#[derive(Debug)]
pub struct Loan {
    content: Arc<Content>,
    resources: Arc<Resources>,
    pinned: Vec<PieceIndex>,
}

impl Loan {
    /// The open file that holds this file's bytes and no others, if all of them are in it and may stay.
    pub(super) fn take(
        content: &Arc<Content>,
        resources: &Arc<Resources>,
        index: FileIndex,
    ) -> Option<(Arc<File>, Self)> {
        let file = content.metainfo.file(index)?;
        let range = file.offset..file.offset + file.length;
        let pieces = content.metainfo.geometry.pieces_in(&range);
        let fits = pieces.len() <= MOST_PIECES && resources.budget.may_hold(file.length);
        if !fits || !content.have.has_range(&range) {
            return None;
        }
        let backing = content.store.backing(index)?;
        let (content, resources) = (content.clone(), resources.clone());
        // What is pinned when one cannot be is let go by dropping it.
        let mut loan = Self { content, resources, pinned: Vec::new() };
        for piece in pieces {
            if !loan.resources.budget.pin(loan.content.id, piece) {
                return None;
            }
            loan.pinned.push(piece);
        }
        loan.content.have.has_range(&range).then_some((backing, loan))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        for &piece in &self.pinned {
            self.resources.budget.unpin(self.content.id, piece);
        }
    }
}
