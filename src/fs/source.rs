//! The port through which the filesystem asks for content; the engine stands behind it.
//!
//! Invariant: no method waits, neither for the network nor for another read.
//! Invariant: each [`ReadReply`] is answered exactly once; one that is dropped answers by itself.
//!
//! Not here: names, sizes and times, which the tree knows ([`crate::proto::tree`]).

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use crate::proto::tree::FileRef;
use crate::proto::units::{ReaderId, Ticket, TorrentId};

/// Longest answer to why; the kernel takes no value of an attribute beyond 64 KiB.
pub const MAX_WHY_LEN: usize = 60 * 1024;

/// Where bytes come from.
pub trait Source: Send + Sync + 'static {
    /// Fills all of `buf` with the file's bytes from `offset` on; `Ok(false)` when some are not here.
    /// The range lies inside the file.
    ///
    /// # Errors
    /// When the bytes can be neither read here nor fetched.
    fn read_now(
        &self,
        reader: ReaderId,
        at: FileRef,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<bool, ReadError>;

    /// Asks for bytes that were not here. `reply` is answered from any thread, perhaps before this
    /// returns, with exactly `span.len` bytes or an error.
    fn read_later(
        &self,
        reader: ReaderId,
        at: FileRef,
        span: FileSpan,
        ticket: Ticket,
        reply: ReadReply,
    );

    /// Nobody waits for this ticket: it was interrupted, or its time is up. Its reply may still be
    /// answered or dropped, to no effect. May name a ticket that is answered already.
    fn cancel(&self, ticket: Ticket);

    /// A handle was opened; its reads follow.
    fn opened(&self, reader: ReaderId, at: FileRef);

    /// The handle is gone, and no read of it waits.
    fn closed(&self, reader: ReaderId);

    /// Bytes of the file that are here. Asked for each file of a listing: must be cheap.
    fn resident(&self, at: FileRef) -> u64;

    /// The pieces that hold the file, and which of them are here.
    fn pieces(&self, at: FileRef) -> Pieces;

    /// The file on disk that holds these bytes and nothing else, when all of them are here, and if there is
    /// one. Must be cheap.
    fn backing(&self, at: FileRef) -> Option<Backing>;

    /// What this part of the mount waits for, at most [`MAX_WHY_LEN`] bytes.
    fn why(&self, part: Part, form: Form) -> String;

    /// Whether it is known what the torrent is.
    fn metadata(&self, torrent: TorrentId) -> Metadata;

    /// Bytes of the torrent in all, and here.
    fn totals(&self, torrent: TorrentId) -> Totals;

    /// Bytes of all torrents in all, and here.
    fn grand_totals(&self) -> Totals;
}

/// A part of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// One torrent.
    Torrent(TorrentId),
    /// One file.
    File(FileRef),
}

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// A run of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileSpan {
    /// Where it begins in the file.
    pub offset: u64,
    /// Bytes in it; not zero, and never past the file's end.
    pub len: u32,
}

/// A file on disk that may be read in the place of one in the mount.
#[derive(Debug)]
pub struct Backing {
    /// The file, of the same length.
    pub file: Arc<File>,
    /// As long as this is kept, none of its bytes go.
    pub hold: Hold,
}

/// Whatever holds bytes in their place until it is dropped.
pub type Hold = Box<dyn fmt::Debug + Send + Sync>;

/// Bytes in all and bytes here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes in all, padding counted or not, as long as `here` counts alike.
    pub bytes: u64,
    /// Bytes verified and here.
    pub here: u64,
    /// Whether there are more, and nobody knows yet how many.
    pub more: bool,
}

/// What is known of a torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metadata {
    /// All.
    #[default]
    Here,
    /// Its info-hash.
    Awaited {
        /// Blocks of its description, once somebody has told how long it is.
        blocks: Option<u32>,
        /// Those of them that are here.
        here: u32,
    },
}

/// The pieces of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// The torrent's pieces that hold a byte of the file.
    pub all: Range<u32>,
    /// Those that are here, as ascending runs that do not touch.
    pub here: Vec<Range<u32>>,
}

/// Why a read has no bytes to give. [`super::errno`] says how the reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not here, and nothing is fetched (`--offline`).
    #[error("not here, and the mount is offline")]
    Offline,
    /// The swarm did not deliver them within the read timeout.
    #[error("the swarm did not deliver in time")]
    TimedOut,
    /// The reader has a signal to attend to, or is gone.
    #[error("the reader was interrupted")]
    Interrupted,
    /// The mount ends.
    #[error("the mount ends")]
    ShuttingDown,
    /// The torrent was taken out of the mount.
    #[error("the torrent is no part of the mount")]
    Removed,
    /// The store failed.
    #[error("the store failed")]
    Storage,
    /// Whoever was to answer is gone.
    #[error("nobody is left to answer")]
    Abandoned,
}

/// What takes a read's bytes or its error.
type Answer = Box<dyn for<'a> FnOnce(Result<&'a [u8], ReadError>) + Send>;

/// The other end of a waiting read.
pub struct ReadReply(Option<Answer>);

impl ReadReply {
    /// A reply that hands its answer to `answer`.
    pub fn new(answer: impl for<'a> FnOnce(Result<&'a [u8], ReadError>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Ends the wait.
    pub fn answer(mut self, result: Result<&[u8], ReadError>) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl Drop for ReadReply {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(ReadError::Abandoned));
        }
    }
}

impl fmt::Debug for ReadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadReply")
    }
}
