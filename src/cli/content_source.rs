//! The engine's torrents as the filesystem's source: the one place where the two wings meet.
//!
//! Invariant: nothing here waits; file offsets become offsets in the torrent, and nothing else changes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::diagnosis::{self, Diagnosis, Question, WaitingRead};
use crate::engine::handle::Handle;
use crate::engine::introduction::{self, Seeking};
use crate::engine::message::ReadFailure;
use crate::fs::source::{
    Backing, FileSpan, Form, Metadata, Part, Pieces, ReadError, ReadReply, Source, Totals,
};
use crate::proto::magnet::Magnet;
use crate::proto::tree::FileRef;
use crate::proto::units::{ReaderId, Ticket, TorrentId};

/// A torrent of a mount.
#[derive(Debug)]
enum Member {
    Known(Arc<Handle>),
    Sought(Sought),
}

/// A torrent of which only a link is known.
#[derive(Clone, Debug)]
struct Sought {
    magnet: Arc<Magnet>,
    status: watch::Receiver<introduction::Status>,
    /// Why it cannot be shown although it has become known.
    trouble: Option<String>,
}

/// Every torrent of a mount.
#[derive(Debug)]
pub struct Torrents {
    members: RwLock<BTreeMap<TorrentId, Member>>,
    offline: bool,
    /// Which file each open handle reads.
    readers: Mutex<BTreeMap<ReaderId, FileRef>>,
    /// What each waiting read waits for.
    waiting: Arc<Mutex<BTreeMap<Ticket, (FileRef, WaitingRead)>>>,
}

impl Torrents {
    /// No torrents yet; `offline` means that what is not here never comes.
    pub fn new(offline: bool) -> Self {
        let members = RwLock::default();
        Self { members, offline, readers: Mutex::default(), waiting: Arc::default() }
    }

    /// This torrent too, perhaps in the place of what was known of it before.
    pub fn add(&self, handle: &Handle) {
        self.members.write().insert(handle.id(), Member::Known(Arc::new(handle.clone())));
    }

    /// A torrent that may become known.
    pub fn expect(&self, seeking: &Seeking) {
        let (magnet, status) = (seeking.magnet.clone(), seeking.watch());
        let sought = Sought { magnet, status, trouble: None };
        self.members.write().insert(seeking.id, Member::Sought(sought));
    }

    /// Nothing will become of an expected torrent.
    pub fn give_up(&self, torrent: TorrentId, why: String) {
        if let Some(Member::Sought(sought)) = self.members.write().get_mut(&torrent) {
            sought.trouble = Some(why);
        }
    }

    fn handle(&self, torrent: TorrentId) -> Option<Arc<Handle>> {
        match self.members.read().get(&torrent)? {
            Member::Known(handle) => Some(handle.clone()),
            Member::Sought(_) => None,
        }
    }

    fn sought(&self, torrent: TorrentId) -> Option<Sought> {
        match self.members.read().get(&torrent)? {
            Member::Known(_) => None,
            Member::Sought(sought) => Some(sought.clone()),
        }
    }

    /// The torrent, and where the file lies in it.
    fn find(&self, at: FileRef) -> Option<(Arc<Handle>, Range<u64>)> {
        let handle = self.handle(at.torrent)?;
        let file = handle.metainfo().file(at.file)?;
        let range = file.offset..file.offset + file.length;
        Some((handle, range))
    }

    fn diagnose(&self, torrent: TorrentId, part: Part) -> Option<Diagnosis> {
        let now = Instant::now();
        if let Some(Sought { magnet, status, trouble }) = self.sought(torrent) {
            let status = status.borrow();
            return Some(Diagnosis::sought(&magnet, &status, trouble.as_deref(), now));
        }
        let handle = self.handle(torrent)?;
        let range = match part {
            Part::File(at) => self.find(at)?.1,
            Part::All | Part::Torrent(_) => 0..handle.metainfo().geometry.total(),
        };
        let is_asked = |at: &FileRef| match part {
            Part::File(file) => *at == file,
            Part::All | Part::Torrent(_) => at.torrent == torrent,
        };
        let readers = self.readers.lock().values().filter(|at| is_asked(at)).count();
        let waiting = self.waiting.lock();
        let reads = waiting.values().filter(|(at, _)| is_asked(at));
        let reads = reads.map(|(_, read)| read.clone()).collect();
        drop(waiting);
        let offline = self.offline;
        Some(Diagnosis::new(&handle, &Question { range, readers, reads, offline, now }))
    }
}

impl Source for Torrents {
    fn read_now(
        &self,
        reader: ReaderId,
        at: FileRef,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<bool, ReadError> {
        let (handle, file) = self.find(at).ok_or(ReadError::Removed)?;
        match handle.read_now(reader, file.start + offset, buf) {
            Ok(here) => Ok(here),
            Err(error) if self.offline => {
                tracing::warn!(%error, "cannot read what is here");
                Err(ReadError::Storage)
            }
            // The torrent's task has it checked, and fetched again if it is gone.
            Err(_) => Ok(false),
        }
    }

    fn read_later(
        &self,
        reader: ReaderId,
        at: FileRef,
        span: FileSpan,
        ticket: Ticket,
        reply: ReadReply,
    ) {
        let Some((handle, file)) = self.find(at) else {
            reply.answer(Err(ReadError::Removed));
            return;
        };
        let start = file.start + span.offset;
        let range = start..start + u64::from(span.len);
        let waiting = self.waiting.clone();
        let read = WaitingRead { range: range.clone(), since: Instant::now() };
        waiting.lock().insert(ticket, (at, read));
        let deliver = move |result: Result<&[u8], ReadFailure>| {
            waiting.lock().remove(&ticket);
            reply.answer(result.map_err(|failure| match failure {
                ReadFailure::Storage => ReadError::Storage,
                ReadFailure::Offline => ReadError::Offline,
                ReadFailure::Stopped => ReadError::ShuttingDown,
            }));
        };
        handle.read_later(reader, ticket, range, Box::new(deliver));
    }

    fn cancel(&self, ticket: Ticket) {
        let read = self.waiting.lock().remove(&ticket);
        if let Some(handle) = read.and_then(|(at, _)| self.handle(at.torrent)) {
            handle.cancel(ticket);
        }
    }

    fn opened(&self, reader: ReaderId, at: FileRef) {
        if let Some((handle, file)) = self.find(at) {
            self.readers.lock().insert(reader, at);
            handle.open(reader, file);
        }
    }

    fn closed(&self, reader: ReaderId) {
        let at = self.readers.lock().remove(&reader);
        if let Some(handle) = at.and_then(|at| self.handle(at.torrent)) {
            handle.close(reader);
        }
    }

    fn resident(&self, at: FileRef) -> u64 {
        self.find(at).map_or(0, |(handle, file)| handle.content().have.resident_bytes(&file))
    }

    fn pieces(&self, at: FileRef) -> Pieces {
        let Some((handle, file)) = self.find(at) else { return Pieces::default() };
        let mut numbers = handle.metainfo().geometry.pieces_in(&file);
        let Some(first) = numbers.next() else { return Pieces::default() };
        let last = numbers.next_back().unwrap_or(first);
        let mut here: Vec<Range<u32>> = Vec::new();
        for piece in handle.metainfo().geometry.pieces_in(&file) {
            if !handle.content().have.has(piece) {
                continue;
            }
            match here.last_mut().filter(|run| run.end == piece.raw()) {
                Some(run) => run.end += 1,
                None => here.push(piece.raw()..piece.raw() + 1),
            }
        }
        Pieces { all: first.raw()..last.raw() + 1, here }
    }

    fn backing(&self, at: FileRef) -> Option<Backing> {
        let (handle, _) = self.find(at)?;
        let (file, loan) = handle.lend(at.file)?;
        Some(Backing { file, hold: Box::new(loan) })
    }

    fn why(&self, part: Part, form: Form) -> String {
        let asked: Vec<TorrentId> = match part {
            Part::All => self.members.read().keys().copied().collect(),
            Part::Torrent(torrent) => vec![torrent],
            Part::File(at) => vec![at.torrent],
        };
        let all = asked.into_iter().filter_map(|torrent| self.diagnose(torrent, part)).collect();
        match form {
            Form::Text => diagnosis::text(all),
            Form::Json => diagnosis::json(all),
        }
    }

    fn metadata(&self, torrent: TorrentId) -> Metadata {
        let Some(sought) = self.sought(torrent) else { return Metadata::Here };
        let standing = sought.status.borrow().standing;
        let blocks = standing.total.map(|_| standing.blocks);
        Metadata::Awaited { blocks, here: standing.here }
    }

    fn totals(&self, torrent: TorrentId) -> Totals {
        self.members.read().get(&torrent).map_or_else(Totals::default, totals)
    }

    fn grand_totals(&self) -> Totals {
        self.members.read().values().map(totals).fold(Totals::default(), |all, one| Totals {
            bytes: all.bytes + one.bytes,
            here: all.here + one.here,
            more: all.more || one.more,
        })
    }
}

fn totals(member: &Member) -> Totals {
    let Member::Known(handle) = member else { return Totals { more: true, ..Totals::default() } };
    let bytes = handle.metainfo().geometry.total();
    Totals { bytes, here: handle.content().have.resident_bytes(&(0..bytes)), more: false }
}
