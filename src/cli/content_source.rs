//! The engine's torrents as the filesystem's source: the one place where the two wings meet.
//!
//! Invariant: nothing here waits; file offsets become offsets in the torrent, and nothing else changes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::handle::Handle;
use crate::engine::message::ReadFailure;
use crate::fs::source::{Backing, FileSpan, Pieces, ReadError, ReadReply, Source, Totals};
use crate::proto::tree::FileRef;
use crate::proto::units::{ReaderId, Ticket, TorrentId};

/// Every torrent of a mount.
#[derive(Debug)]
pub struct Torrents {
    handles: BTreeMap<TorrentId, Handle>,
    offline: bool,
    /// Which torrent each open handle reads from.
    readers: Mutex<BTreeMap<ReaderId, TorrentId>>,
    /// Which torrent each waiting read waits for.
    waiting: Arc<Mutex<BTreeMap<Ticket, TorrentId>>>,
}

impl Torrents {
    /// These torrents; `offline` means that what is not here never comes.
    pub fn new(handles: &[Handle], offline: bool) -> Self {
        let handles = handles.iter().map(|handle| (handle.id(), handle.clone())).collect();
        Self { handles, offline, readers: Mutex::default(), waiting: Arc::default() }
    }

    /// The torrent, and where the file lies in it.
    fn find(&self, at: FileRef) -> Option<(&Handle, Range<u64>)> {
        let handle = self.handles.get(&at.torrent)?;
        let file = handle.metainfo().file(at.file)?;
        Some((handle, file.offset..file.offset + file.length))
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
        let waiting = self.waiting.clone();
        waiting.lock().insert(ticket, at.torrent);
        let deliver = move |result: Result<&[u8], ReadFailure>| {
            waiting.lock().remove(&ticket);
            reply.answer(result.map_err(|failure| match failure {
                ReadFailure::Storage => ReadError::Storage,
                ReadFailure::Offline => ReadError::Offline,
                ReadFailure::Stopped => ReadError::ShuttingDown,
            }));
        };
        handle.read_later(reader, ticket, start..start + u64::from(span.len), Box::new(deliver));
    }

    fn cancel(&self, ticket: Ticket) {
        let torrent = self.waiting.lock().remove(&ticket);
        if let Some(handle) = torrent.and_then(|torrent| self.handles.get(&torrent)) {
            handle.cancel(ticket);
        }
    }

    fn opened(&self, reader: ReaderId, at: FileRef) {
        if let Some((handle, file)) = self.find(at) {
            self.readers.lock().insert(reader, at.torrent);
            handle.open(reader, file);
        }
    }

    fn closed(&self, reader: ReaderId) {
        let torrent = self.readers.lock().remove(&reader);
        if let Some(handle) = torrent.and_then(|torrent| self.handles.get(&torrent)) {
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

    fn why(&self, at: FileRef) -> String {
        let Some((handle, file)) = self.find(at) else { return "not in the mount".to_owned() };
        let here = handle.content().have.resident_bytes(&file);
        let bytes = file.end - file.start;
        if here == bytes {
            return "all of it is here".to_owned();
        }
        let status = handle.status();
        let serving = status.peers.iter().filter(|peer| !peer.choking && !peer.snubbed).count();
        let trouble = status.trouble.map_or_else(String::new, |trouble| format!("; {trouble}"));
        format!(
            "{here} of {bytes} bytes are here; {} reads wait; {} peers, {serving} of them serve us{trouble}",
            status.waiting,
            status.peers.len(),
        )
    }

    fn totals(&self, torrent: TorrentId) -> Totals {
        self.handles.get(&torrent).map_or_else(Totals::default, totals)
    }

    fn grand_totals(&self) -> Totals {
        self.handles.values().map(totals).fold(Totals::default(), |all, one| Totals {
            bytes: all.bytes + one.bytes,
            here: all.here + one.here,
        })
    }
}

fn totals(handle: &Handle) -> Totals {
    let bytes = handle.metainfo().geometry.total();
    Totals { bytes, here: handle.content().have.resident_bytes(&(0..bytes)) }
}
