//! A source without a swarm: content by formula, and places that are missing until the test says so.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use btfs::fs::source::{
    Backing, FileSpan, Form, Metadata, Part, Pieces, ReadError, ReadReply, Source, Totals,
};
use btfs::proto::metainfo::Metainfo;
use btfs::proto::tree::FileRef;
use btfs::proto::units::{FileIndex, ReaderId, Ticket, TorrentId};
use parking_lot::{Condvar, Mutex};

use super::content;

/// Longest that a test waits for something that must happen.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The source.
#[derive(Default)]
pub struct Fake {
    lengths: BTreeMap<FileRef, u64>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    missing: BTreeMap<FileRef, Range<u64>>,
    fails: Option<ReadError>,
    backings: BTreeMap<FileRef, Arc<File>>,
    holds: BTreeMap<FileRef, Arc<()>>,
    pending: BTreeMap<Ticket, Pending>,
    seen: Seen,
}

/// What was asked of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub opened: u64,
    pub closed: u64,
    pub now: u64,
    pub later: u64,
    pub cancelled: u64,
    pub lent: u64,
}

struct Pending {
    at: FileRef,
    span: FileSpan,
    reply: ReadReply,
}

/// The file with this index in torrent 0.
pub fn at(file: u32) -> FileRef {
    FileRef { torrent: TorrentId(0), file: FileIndex(file) }
}

/// The seed of a file's content.
pub fn seed(at: FileRef) -> u64 {
    u64::from(at.torrent.0) << 32 | u64::from(at.file.0)
}

impl Fake {
    /// A source of these torrents, numbered from 0, with everything here.
    pub fn of(torrents: &[Metainfo]) -> Arc<Self> {
        let mut lengths = BTreeMap::new();
        for (torrent, meta) in (0..).map(TorrentId).zip(torrents) {
            for (file, entry) in (0..).map(FileIndex).zip(&meta.files) {
                lengths.insert(FileRef { torrent, file }, entry.length);
            }
        }
        Arc::new(Self { lengths, ..Self::default() })
    }

    /// Takes a range of a file away.
    pub fn lose(&self, at: FileRef, range: Range<u64>) {
        self.state.lock().missing.insert(at, range);
    }

    /// Gives a file to be read in the place of one of ours, from the next time that it is opened.
    pub fn back(&self, at: FileRef, file: File) {
        self.state.lock().backings.insert(at, Arc::new(file));
    }

    /// How many hold what was lent of a file.
    pub fn holds(&self, at: FileRef) -> usize {
        self.state.lock().holds.get(&at).map_or(0, |hold| Arc::strong_count(hold) - 1)
    }

    /// Has every later request fail.
    pub fn fail(&self, error: ReadError) {
        self.state.lock().fails = Some(error);
    }

    /// Everything of a file arrives, and those who wait for it are answered.
    pub fn arrive(&self, at: FileRef) {
        let waiting: Vec<Pending> = {
            let mut state = self.state.lock();
            state.missing.remove(&at);
            let tickets: Vec<Ticket> =
                state.pending.iter().filter(|(_, p)| p.at == at).map(|(t, _)| *t).collect();
            tickets.iter().filter_map(|ticket| state.pending.remove(ticket)).collect()
        };
        for Pending { at, span, reply } in waiting {
            let bytes = content::bytes(seed(at), span.offset, span.len as usize);
            reply.answer(Ok(&bytes));
        }
    }

    /// What was asked so far.
    pub fn seen(&self) -> Seen {
        self.state.lock().seen.clone()
    }

    /// Waits until what was asked satisfies `enough`.
    #[track_caller]
    pub fn until(&self, what: &str, enough: impl Fn(&Seen) -> bool) -> Seen {
        let limit = Instant::now() + LIMIT;
        let mut state = self.state.lock();
        while !enough(&state.seen) {
            let late = self.changed.wait_until(&mut state, limit).timed_out();
            assert!(!late, "waited in vain: {what}; seen {:?}", state.seen);
        }
        state.seen.clone()
    }

    fn note(&self, note: impl FnOnce(&mut State)) {
        note(&mut self.state.lock());
        self.changed.notify_all();
    }
}

impl Source for Fake {
    fn read_now(
        &self,
        _: ReaderId,
        at: FileRef,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<bool, ReadError> {
        let end = offset + buf.len() as u64;
        assert!(!buf.is_empty() && end <= self.lengths[&at], "{at:?} {offset} {}", buf.len());
        let mut gone = false;
        self.note(|state| {
            state.seen.now += 1;
            gone = state.missing.get(&at).is_some_and(|m| m.start < end && offset < m.end);
        });
        if !gone {
            content::fill(seed(at), offset, buf);
        }
        Ok(!gone)
    }

    fn read_later(
        &self,
        _: ReaderId,
        at: FileRef,
        span: FileSpan,
        ticket: Ticket,
        reply: ReadReply,
    ) {
        let mut reply = Some(reply);
        self.note(|state| {
            state.seen.later += 1;
            if state.fails.is_none() {
                let reply = reply.take().expect("not taken yet");
                state.pending.insert(ticket, Pending { at, span, reply });
            }
        });
        let error = self.state.lock().fails;
        if let (Some(reply), Some(error)) = (reply, error) {
            reply.answer(Err(error));
        }
    }

    fn cancel(&self, ticket: Ticket) {
        let mut dropped = None;
        self.note(|state| {
            dropped = state.pending.remove(&ticket);
            state.seen.cancelled += 1;
        });
        drop(dropped);
    }

    fn opened(&self, _: ReaderId, _: FileRef) {
        self.note(|state| state.seen.opened += 1);
    }

    fn closed(&self, _: ReaderId) {
        self.note(|state| state.seen.closed += 1);
    }

    fn resident(&self, at: FileRef) -> u64 {
        let missing = self.state.lock().missing.get(&at).map_or(0, |m| m.end - m.start);
        self.lengths[&at].saturating_sub(missing)
    }

    fn pieces(&self, at: FileRef) -> Pieces {
        let missing = self.state.lock().missing.contains_key(&at);
        Pieces {
            all: 3..11,
            here: if missing { vec![3..5, 10..11] } else { std::iter::once(3..11).collect() },
        }
    }

    fn backing(&self, at: FileRef) -> Option<Backing> {
        let mut state = self.state.lock();
        let file = state.backings.get(&at).cloned()?;
        state.seen.lent += 1;
        let hold = state.holds.entry(at).or_default().clone();
        Some(Backing { file, hold: Box::new(hold) })
    }

    fn why(&self, part: Part, form: Form) -> String {
        match part {
            Part::File(at) => format!("why File {} {form:?}", at.file.0),
            Part::All | Part::Torrent(_) => format!("why {part:?} {form:?}"),
        }
    }

    fn metadata(&self, _: TorrentId) -> Metadata {
        Metadata::Here
    }

    fn totals(&self, torrent: TorrentId) -> Totals {
        let files: Vec<FileRef> =
            self.lengths.keys().copied().filter(|at| at.torrent == torrent).collect();
        let bytes = files.iter().map(|at| self.lengths[at]).sum();
        let here = files.iter().map(|&at| self.resident(at)).sum();
        Totals { bytes, here, more: false }
    }

    fn grand_totals(&self) -> Totals {
        let here = self.lengths.keys().map(|&at| self.resident(at)).sum();
        Totals { bytes: self.lengths.values().sum(), here, more: false }
    }
}
