//! The threads that hash, write and read, off the network tasks.
//!
//! Three lanes: hashing, storing, evicting and loading go to all the threads of the pool, so that room is made
//! before it is used; waiting reads, whose bytes are here, are answered by a thread of their own and wait behind no
//! hash; saving, which may wait for the disk for seconds, goes to another and delays no reader.
//!
//! Invariant: each job sends its replies, and exactly those, also when it panics: a failure of the job,
//! never of the thread.
//! Invariant: a chunk that can be served from memory is announced as verified before it is written.
//!
//! Not here: what is done with a failure. A disk error is reported for the piece and never retried.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::mpsc;
use tracing::error;

use crate::proto::geometry::Span;
use crate::proto::units::{PeerKey, PieceIndex};

use super::content::{Content, verify};
use super::state::StateError;
use super::store::StoreError;

/// Jobs that may wait in each lane.
///
/// The disk is the slow side, or the hash. When a lane is full [`Workers::submit`] gives the job back: the
/// torrent keeps it, which fills its assembly buffer, and so asks its peers for less.
pub const LANE_CAPACITY: usize = 64;

/// Longest run of neighbouring spans that an upload reads at once.
const MAX_RUN_LEN: u64 = 1024 * 1024;

/// One job.
pub enum Work {
    /// Hash a piece that is complete; if it is right, serve it and store it.
    Verify {
        /// The torrent.
        content: Arc<Content>,
        /// The piece.
        piece: PieceIndex,
        /// All its blocks, in order.
        blocks: Vec<Bytes>,
        /// Takes [`Done::Verified`], then [`Done::Stored`] if the piece was right; before that one
        /// [`Done::Lost`] if its files had been cut.
        reply: mpsc::Sender<Done>,
    },
    /// Read what a peer asked for.
    Load {
        /// The torrent.
        content: Arc<Content>,
        /// The peer.
        key: PeerKey,
        /// What it asked for; neighbours that stand side by side are read together.
        spans: Vec<Span>,
        /// Takes [`Done::Loaded`]; before that one [`Done::Lost`] if something that should be here was not.
        reply: mpsc::Sender<Done>,
    },
    /// Hash what the store has of a piece, and vouch for it or no longer.
    Check {
        /// The torrent.
        content: Arc<Content>,
        /// The piece.
        piece: PieceIndex,
        /// Takes [`Done::Checked`].
        reply: mpsc::Sender<Done>,
    },
    /// Give a piece's room back.
    Evict {
        /// The torrent.
        content: Arc<Content>,
        /// The piece; nothing else may be under way with it until the reply.
        piece: PieceIndex,
        /// Takes [`Done::Evicted`].
        reply: mpsc::Sender<Done>,
    },
    /// Flush the files and record what is here.
    SaveState {
        /// The torrent.
        content: Arc<Content>,
        /// Takes [`Done::Saved`].
        reply: mpsc::Sender<Done>,
    },
    /// Answer a waiting read; whatever it has to say it says itself.
    Deliver(Box<dyn FnOnce() + Send>),
}

/// What became of a job.
#[derive(Debug)]
pub enum Done {
    /// A piece was hashed. If it was right it can be read from now on.
    Verified {
        /// The piece.
        piece: PieceIndex,
        /// Whether it was right.
        verdict: Verdict,
    },
    /// A right piece was written. After an error it can be read only as long as it stays in memory.
    Stored {
        /// The piece.
        piece: PieceIndex,
        /// Whether the store has it.
        result: Result<(), StoreError>,
    },
    /// Pieces turned out to be gone from the store when others were written, or they were to be uploaded: somebody
    /// else changed its files, or the disk fails.
    Lost {
        /// The pieces.
        pieces: Vec<PieceIndex>,
    },
    /// Bytes for a peer.
    Loaded {
        /// The peer.
        key: PeerKey,
        /// What is here, in the order asked for.
        spans: Vec<(Span, Bytes)>,
        /// What is not, or no longer.
        missing: Vec<Span>,
    },
    /// The store's bytes of a piece were hashed.
    Checked {
        /// The piece.
        piece: PieceIndex,
        /// Whether they are right; the have-map says the same.
        result: Result<bool, StoreError>,
    },
    /// A piece is gone from the store, and may be asked for again.
    Evicted {
        /// The piece.
        piece: PieceIndex,
        /// Whether its room was given back.
        result: Result<(), StoreError>,
    },
    /// The state file was written, or not.
    Saved {
        /// Whether it was.
        result: Result<(), StateError>,
    },
}

/// What the hash says of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The bytes are the torrent's.
    Good,
    /// They are not.
    Bad,
    /// The worker failed. The bytes are lost, and nobody is to blame for them.
    Failed,
}

/// The pool. Dropped, it does what was submitted and ends; [`Workers::finish`] waits for that.
#[derive(Debug)]
pub struct Workers {
    prompt: Sender<Work>,
    fast: Sender<Work>,
    slow: Sender<Work>,
    pool: usize,
    threads: Vec<JoinHandle<()>>,
}

/// The lane is full: the job comes back, for a later try.
#[derive(Debug, thiserror::Error)]
#[error("the workers have all that they can take")]
pub struct Busy(pub Box<Work>);

impl Workers {
    /// Starts `threads` that hash, store and load, at least one, and one for each other lane.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (prompt, answering) = bounded(LANE_CAPACITY);
        let (fast, quick) = bounded(LANE_CAPACITY);
        let (slow, patient) = bounded(LANE_CAPACITY);
        let pool = threads.max(1);
        let mut lanes = vec![quick; pool];
        lanes.extend([answering, patient]);
        let threads = lanes.into_iter().map(|lane: Receiver<Work>| {
            thread::Builder::new()
                .name("btfs-worker".to_owned())
                .spawn(move || lane.iter().for_each(Work::run))
        });
        Ok(Self { prompt, fast, slow, pool, threads: threads.collect::<io::Result<_>>()? })
    }

    /// Hands a job over without waiting, so a network task may call it.
    ///
    /// # Errors
    /// [`Busy`] with the job when its lane is full; a reply will come from one that is under way.
    pub fn submit(&self, work: Work) -> Result<(), Busy> {
        self.lane(&work).try_send(work).map_err(|refused| match refused {
            TrySendError::Full(work) | TrySendError::Disconnected(work) => Busy(Box::new(work)),
        })
    }

    /// Hands a job over and waits while its lane is full; not for network tasks.
    pub fn submit_blocking(&self, work: Work) {
        let lane = self.lane(&work);
        lane.send(work).expect("the threads end only after the pool has dropped its senders");
    }

    /// Threads that hash, store and load.
    pub fn threads(&self) -> usize {
        self.pool
    }

    /// Waits until everything submitted is done; not for network tasks.
    pub fn finish(self) {
        drop((self.prompt, self.fast, self.slow));
        for thread in self.threads {
            // A thread cannot panic: its jobs are contained.
            let _ = thread.join();
        }
    }

    fn lane(&self, work: &Work) -> &Sender<Work> {
        match work {
            Work::Deliver(_) => &self.prompt,
            Work::Verify { .. } | Work::Load { .. } | Work::Check { .. } | Work::Evict { .. } => {
                &self.fast
            }
            Work::SaveState { .. } => &self.slow,
        }
    }
}

impl Work {
    fn run(self) {
        match self {
            Self::Verify { content, piece, blocks, reply } => {
                verify_and_store(&content, piece, &blocks, &reply);
            }
            Self::Load { content, key, spans, reply } => {
                let asked = spans.clone();
                let (spans, missing, pieces) = contained(|| load(&content, &spans))
                    .unwrap_or_else(|Panicked| (Vec::new(), asked, Vec::new()));
                if !pieces.is_empty() {
                    tell(&reply, Done::Lost { pieces });
                }
                tell(&reply, Done::Loaded { key, spans, missing });
            }
            Self::Check { content, piece, reply } => {
                let result = settled(contained(|| content.check(piece)));
                tell(&reply, Done::Checked { piece, result });
            }
            Self::Evict { content, piece, reply } => {
                let result = settled(contained(|| content.evict(piece)));
                tell(&reply, Done::Evicted { piece, result });
            }
            Self::SaveState { content, reply } => {
                let result = contained(|| content.save())
                    .unwrap_or(Err(StateError::Flush(StoreError::Panicked)));
                tell(&reply, Done::Saved { result });
            }
            Self::Deliver(answer) => {
                let _ = contained(answer);
            }
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Verify { piece, .. } => write!(f, "Verify({piece:?})"),
            Self::Load { key, spans, .. } => write!(f, "Load({key:?}, {} spans)", spans.len()),
            Self::Check { piece, .. } => write!(f, "Check({piece:?})"),
            Self::Evict { piece, .. } => write!(f, "Evict({piece:?})"),
            Self::SaveState { .. } => f.write_str("SaveState"),
            Self::Deliver(_) => f.write_str("Deliver"),
        }
    }
}

fn verify_and_store(
    content: &Content,
    piece: PieceIndex,
    blocks: &[Bytes],
    reply: &mpsc::Sender<Done>,
) {
    let chunk = match contained(|| verify(&content.metainfo, piece, blocks)) {
        Ok(Some(chunk)) => chunk,
        Ok(None) => return tell(reply, Done::Verified { piece, verdict: Verdict::Bad }),
        Err(Panicked) => return tell(reply, Done::Verified { piece, verdict: Verdict::Failed }),
    };
    let good = || Done::Verified { piece, verdict: Verdict::Good };
    // Without room in memory the store is the only place to read it from, and so comes first.
    let in_memory = content.chunks.insert_unstored(content.id, piece, chunk);
    if in_memory {
        tell(reply, good());
    }
    let pieces = contained(|| content.make_place(piece)).unwrap_or_default();
    if !pieces.is_empty() {
        tell(reply, Done::Lost { pieces });
    }
    let result = settled(contained(|| content.store_chunk(piece, blocks)));
    if in_memory {
        content.chunks.release(content.id, piece);
    } else {
        tell(reply, good());
    }
    tell(reply, Done::Stored { piece, result });
}

/// What is here of the spans, what is not, and the pieces that the store turned out to have lost.
fn load(content: &Content, spans: &[Span]) -> (Vec<(Span, Bytes)>, Vec<Span>, Vec<PieceIndex>) {
    let (mut found, mut missing) = (Vec::with_capacity(spans.len()), Vec::new());
    let mut lost = Vec::new();
    let follows = |a: &Span, b: &Span| a.piece == b.piece && a.begin + a.len == b.begin;
    for run in spans.chunk_by(follows) {
        match content.chunks.lookup(content.id, run[0].piece) {
            Some(chunk) => {
                for &span in run {
                    match chunk.slice(span.begin, span.len) {
                        Some(bytes) => found.push((span, bytes)),
                        None => missing.push(span),
                    }
                }
            }
            None => {
                if load_stored(content, run, &mut found, &mut missing).is_err() {
                    lost.extend(
                        content.doubt(&content.metainfo.geometry.piece_range(run[0].piece)),
                    );
                }
            }
        }
    }
    (found, missing, lost)
}

/// Reads neighbouring spans of one piece, as peers ask for them, with few system calls.
///
/// # Errors
/// The store failed to read what it should have.
fn load_stored(
    content: &Content,
    run: &[Span],
    found: &mut Vec<(Span, Bytes)>,
    missing: &mut Vec<Span>,
) -> io::Result<()> {
    let mut rest = run;
    let mut outcome = Ok(());
    while let Some(first) = rest.first() {
        let end = |span: &Span| u64::from(span.begin) + u64::from(span.len);
        let fits = |span: &Span| end(span) - u64::from(first.begin) <= MAX_RUN_LEN;
        let (now, later) = rest.split_at(rest.partition_point(fits).max(1));
        rest = later;
        let len = now.iter().map(|span| span.len as usize).sum();
        let mut bytes = vec![0; len];
        let start = content.metainfo.geometry.piece_start(first.piece) + u64::from(first.begin);
        match content.read_resident(start, &mut bytes) {
            Ok(true) => {
                let mut bytes = Bytes::from(bytes);
                found.extend(now.iter().map(|&span| (span, bytes.split_to(span.len as usize))));
            }
            here => {
                missing.extend(now);
                outcome = outcome.and(here.map(drop));
            }
        }
    }
    outcome
}

/// Sends a reply; a torrent that is gone hears nothing.
fn tell(reply: &mpsc::Sender<Done>, done: Done) {
    let _ = reply.blocking_send(done);
}

struct Panicked;

fn contained<T>(job: impl FnOnce() -> T) -> Result<T, Panicked> {
    // What a job shares is behind locks that do not poison, atomics and files.
    catch_unwind(AssertUnwindSafe(job)).map_err(|panic: Box<dyn Any + Send>| {
        let words = panic.downcast_ref::<&str>().copied();
        let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        error!("a worker's job panicked: {}", words.unwrap_or("without words"));
        Panicked
    })
}

fn settled<T>(outcome: Result<Result<T, StoreError>, Panicked>) -> Result<T, StoreError> {
    outcome.unwrap_or(Err(StoreError::Panicked))
}
