//! Hashing all of a torrent's data that lies in a store, on all worker threads.
//!
//! Not here: single pieces that are checked before they are used ([`super::workers::Work::Check`]), and
//! what the pieces say of the files ([`crate::proto::inspect`]).

use std::fs;
use std::path::{Component, Path};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::chunks::Chunks;
use super::content::Content;
use super::store::disk::{Access, Disk, Place};
use super::store::open_files::OpenFiles;
use super::store::{Store, StoreError};
use super::workers::{Done, Work, Workers};
use crate::proto::bitfield::Bitfield;
use crate::proto::inspect::{FileState, inspect};
use crate::proto::metainfo::{FileKind, Metainfo};
use crate::proto::units::{FileIndex, TorrentId};

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
    let mut pieces = content.metainfo.geometry.pieces();
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

/// What lies at a place, against a torrent.
#[derive(Debug)]
pub struct Inspection {
    /// The pieces that are right.
    pub right: Bitfield,
    /// How each file stands, in the torrent's order.
    pub files: Vec<FileState>,
    /// The first error, if any; what cannot be read counts as not there.
    pub error: Option<StoreError>,
}

/// Hashes what lies at `place`, the torrent's own file or directory, and changes nothing there.
///
/// # Errors
/// When the place cannot be opened.
pub fn inspect_place(
    metainfo: &Arc<Metainfo>,
    place: &Path,
    workers: &Workers,
    progress: impl FnMut(&Checked),
) -> Result<Inspection, StoreError> {
    let open = Arc::new(OpenFiles::for_this_process());
    let exact = Place::Exact(place.to_path_buf());
    let id = TorrentId(0);
    let disk = Disk::open(&exact, Access::ReadOnly, id, metainfo.clone(), open)?;
    let found = lengths(metainfo, place, &disk);
    let chunks = Arc::new(Chunks::new(0));
    let content = Arc::new(Content::new(id, metainfo.clone(), Store::Disk(disk), chunks, None));
    let checked = check_all(&content, workers, progress);
    let right = content.have.snapshot();
    let files = inspect(metainfo, &right, &found);
    Ok(Inspection { right, files, error: checked.error })
}

/// The length of each file; of a link, 0 if it points where the torrent says.
fn lengths(metainfo: &Metainfo, place: &Path, disk: &Disk) -> Vec<Option<u64>> {
    let all = (0..).take(metainfo.files.len()).map(FileIndex);
    let stamps = disk.stamps(all).into_iter().map(|stamp| Some(stamp?.len));
    let links = metainfo.files.iter().map(|file| match &file.kind {
        FileKind::Symlink { target } => Some((&file.path, target)),
        FileKind::Regular { .. } | FileKind::Padding => None,
    });
    let length = |(len, link): (_, Option<(&Vec<String>, &Vec<String>)>)| match link {
        Some((path, target)) => points_at(place, path, target).then_some(0),
        None => len,
    };
    stamps.zip(links).map(length).collect()
}

/// Whether the link at `path` below `place` points at `target` below it.
fn points_at(place: &Path, path: &[String], target: &[String]) -> bool {
    let at: Vec<&str> = path.iter().map(String::as_str).collect();
    let Ok(link) = fs::read_link(place.join(at.join("/"))) else { return false };
    let mut reached = at[..at.len().saturating_sub(1)].to_vec();
    for component in link.components() {
        match component {
            Component::Normal(name) => reached.extend(name.to_str()),
            Component::ParentDir if reached.pop().is_some() => {}
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    reached == target
}
