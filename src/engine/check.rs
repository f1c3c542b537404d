//! Hashing all of a torrent's data that lies in a store, on all worker threads.
//!
//! Not here: single pieces that are checked when they are first read ([`super::workers::Work::Check`]).

use std::sync::Arc;

use tokio::sync::mpsc;

use super::content::Content;
use super::store::StoreError;
use super::workers::{Done, Work, Workers};
use crate::proto::units::PieceIndex;

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
    progress: impl FnMut(&Checked),
) -> Checked {
    check_some(content, content.metainfo.geometry.pieces(), workers, progress)
}

/// The same for these pieces alone.
pub fn check_some(
    content: &Arc<Content>,
    mut pieces: impl Iterator<Item = PieceIndex>,
    workers: &Workers,
    mut progress: impl FnMut(&Checked),
) -> Checked {
    let ahead = workers.threads() * 2;
    let (reply, mut replies) = mpsc::channel(ahead);
    let mut under_way = 0;
    let submit = |piece| {
        let (content, reply) = (content.clone(), reply.clone());
        workers.submit_blocking(Work::Check { content, piece, reply });
    };
    let mut checked = Checked::default();
    loop {
        while under_way < ahead
            && let Some(piece) = pieces.next()
        {
            submit(piece);
            under_way += 1;
        }
        if under_way == 0 {
            break;
        }
        let Some(Done::Checked { result, .. }) = replies.blocking_recv() else { break };
        under_way -= 1;
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
