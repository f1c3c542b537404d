//! Hashes a plan's pieces on all cores.
//!
//! Invariant: each thread holds one buffer and one open file. Results go through a bounded channel; the
//! caller's thread collects them, and when it leaves early the others stop at their next piece.
//!
//! Not here: checking data against a torrent.

use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crossbeam_channel::Sender;
use sha1::{Digest, Sha1};

use super::DataError;
use crate::proto::author::Plan;
use crate::proto::units::{FileIndex, PieceIndex};

/// Bytes that a thread reads at once: long enough for the disk, short enough for the second-level cache.
const READ_LEN: usize = 128 * 1024;

/// Finished pieces that may wait for the collector. It only copies 20 bytes and counts; when its progress
/// callback is slow, the hashing threads wait.
const RESULTS: usize = 64;

/// What a thread reports: a piece and its hash, or why it stopped.
type Outcome = Result<(PieceIndex, [u8; 20]), DataError>;

/// Reads all of a plan's data below `root` and returns the pieces' SHA-1 in order. `progress` hears the bytes
/// done so far, after each piece.
///
/// # Errors
/// When a file cannot be read or is not as long as planned.
pub fn hash(root: &Path, plan: &Plan, mut progress: impl FnMut(u64)) -> Result<Vec<u8>, DataError> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let pieces = plan.geometry().piece_count();
    let next = AtomicU32::new(0);
    let (sender, results) = crossbeam_channel::bounded(RESULTS);
    let mut hashes = vec![0; pieces as usize * 20];
    let mut done = 0;
    thread::scope(|scope| {
        for _ in 0..threads {
            let worker = Worker { root, plan, open: None, buffer: vec![0; READ_LEN] };
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || worker.run(next, &sender));
        }
        drop(sender);
        // Owned by this block, so that leaving early closes the channel before the threads are joined.
        let results = results;
        for outcome in &results {
            let (piece, hash) = outcome?;
            hashes[piece.slot() * 20..][..20].copy_from_slice(&hash);
            done += u64::from(plan.geometry().piece_len(piece));
            progress(done);
        }
        Ok(hashes)
    })
}

struct Worker<'a> {
    root: &'a Path,
    plan: &'a Plan,
    /// The file that was read last.
    open: Option<(FileIndex, File)>,
    buffer: Vec<u8>,
}

impl Worker<'_> {
    /// Takes one piece after the other until there are none, one fails, or nobody listens.
    fn run(mut self, next: &AtomicU32, results: &Sender<Outcome>) {
        while let Some(piece) = self.plan.geometry().piece(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = self.piece(piece).map(|hash| (piece, hash));
            let failed = outcome.is_err();
            if results.send(outcome).is_err() || failed {
                return;
            }
        }
    }

    fn piece(&mut self, piece: PieceIndex) -> Result<[u8; 20], DataError> {
        let mut sha = Sha1::new();
        let plan = self.plan;
        for (index, range) in plan.runs(plan.geometry().piece_range(piece)) {
            let mut at = range.start;
            while at < range.end {
                let length = (range.end - at).min(READ_LEN as u64) as usize;
                self.read(index, at, length)?;
                sha.update(&self.buffer[..length]);
                at += length as u64;
            }
        }
        Ok(sha.finalize().into())
    }

    /// Fills the start of the buffer from a file.
    fn read(&mut self, index: FileIndex, at: u64, length: usize) -> Result<(), DataError> {
        let file = match self.open.take() {
            Some((open, file)) if open == index => file,
            _ => self.open(index)?,
        };
        let outcome = file.read_exact_at(&mut self.buffer[..length], at);
        self.open = Some((index, file));
        outcome.map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => DataError::Changed(self.path(index)),
            _ => DataError::io(self.path(index), e),
        })
    }

    fn open(&self, index: FileIndex) -> Result<File, DataError> {
        let path = self.path(index);
        let open = || {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(|e| DataError::io(&path, e))?;
        if length != self.plan.files()[index.slot()].length {
            return Err(DataError::Changed(path));
        }
        Ok(file)
    }

    fn path(&self, index: FileIndex) -> PathBuf {
        if self.plan.is_single_file() {
            return self.root.to_owned();
        }
        let below: PathBuf = self.plan.files()[index.slot()].path.iter().collect();
        self.root.join(below)
    }
}
