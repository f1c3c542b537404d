//! Hashing all of a torrent's data that lies in a store, on all worker threads.
//!
//! Not here: single pieces that are checked when they are first read ([`super::workers::Work::Check`]).

use std::sync::Arc;

use tokio::sync::mpsc;

use super::content::Content;
use super::store::StoreError;
use super::workers::{Done, Work, Workers};

/// How far a check is, and how it ended.
#[derive(Debug, Default)]
pub struct Checked {
    /// Pieces looked at.
    pub pieces: u32,
    /// Pieces whose bytes are right; the have-map knows which.
    pub right: u32,
    /// The first error, if any; pieces that cannot be read count as not there.
    pub error: Option<StoreError>,
}

/// Hashes every piece, vouches for the right ones, and tells `progress` after each. Holes cost no reading.
///
/// It blocks for as long as it takes, so it is not for network tasks.
pub fn check_all(
    content: &Arc<Content>,
    workers: &Workers,
    mut progress: impl FnMut(&Checked),
) -> Checked {
    let ahead = workers.threads() * 2;
    let (reply, mut replies) = mpsc::channel(ahead);
    let mut pieces = content.metainfo.geometry.pieces();
    let submit = |piece| {
        let (content, reply) = (content.clone(), reply.clone());
        workers.submit_blocking(Work::Check { content, piece, reply });
    };
    pieces.by_ref().take(ahead).for_each(submit);
    let mut checked = Checked::default();
    while checked.pieces < content.metainfo.geometry.piece_count() {
        let Some(Done::Checked { result, .. }) = replies.blocking_recv() else { break };
        pieces.next().into_iter().for_each(submit);
        checked.pieces += 1;
        match result {
            Ok(right) => checked.right += u32::from(right),
            Err(error) => {
                checked.error.get_or_insert(error);
            }
        }
        progress(&checked);
    }
    checked
}
