//! What the rest of the program may ask of one torrent.
//!
//! Invariant: nothing here waits for the network, and bytes that are here never visit the torrent's task.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::content::Content;
use super::loan::Loan;
use super::message::{Command, Deliver, ReadFailure};
use super::resources::Resources;
use crate::proto::announce::tiers::TrackerStatus;
use crate::proto::awaited::Awaited;
use crate::proto::metainfo::Metainfo;
use crate::proto::swarm::Totals;
use crate::proto::units::{FileIndex, ReaderId, Ticket, TorrentId};

/// Bytes that a reader gets from what is here before the torrent's task is told.
const TELL_AFTER: u64 = 512 * 1024;

/// How a torrent stands; about twice a second.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Pieces verified.
    pub have: u32,
    /// Bytes verified.
    pub have_bytes: u64,
    /// Payload since the start.
    pub totals: Totals,
    /// Payload received per second, of late.
    pub down_rate: f64,
    /// Payload sent per second, of late.
    pub up_rate: f64,
    /// Every connection.
    pub peers: Vec<PeerStatus>,
    /// Dials under way.
    pub dials: usize,
    /// Addresses of peers that are known, the connected ones included.
    pub known: usize,
    /// The pieces that readers want most.
    pub awaited: Vec<Awaited>,
    /// How it stands with each tracker.
    pub trackers: Vec<TrackerStatus>,
    /// How it stands with the DHT, if the torrent is looked up there.
    pub dht: Option<DhtSearch>,
    /// Whether what nobody reads is fetched too.
    pub fill: Fill,
    /// What keeps the store from taking pieces, if anything.
    pub trouble: Option<String>,
}

/// How the DHT helps one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhtSearch {
    /// Nodes that our node knows.
    pub nodes: usize,
    /// Peers that the last lookup found; `None` before one has ended.
    pub found: Option<usize>,
}

/// Whether what nobody reads is fetched too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// It is not wanted.
    #[default]
    Off,
    /// It is, as far as peers give it.
    On,
    /// The store's budget is used up.
    NoRoom,
    /// The store takes nothing.
    Halted,
}

/// How one connection stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// The socket's far end.
    pub addr: SocketAddr,
    /// What it calls itself.
    pub client: String,
    /// Pieces that it has.
    pub pieces: u32,
    /// Whether it does not serve us.
    pub choking: bool,
    /// Whether it left us waiting.
    pub snubbed: bool,
    /// Payload that it gave.
    pub downloaded: u64,
    /// Payload that it got.
    pub uploaded: u64,
}

/// One torrent, for everyone but its task.
#[derive(Clone, Debug)]
pub struct Handle {
    content: Arc<Content>,
    resources: Arc<Resources>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    /// What each reader got and the task has not been told.
    untold: Arc<Mutex<BTreeMap<ReaderId, Range<u64>>>>,
}

impl Handle {
    pub(super) fn new(
        content: Arc<Content>,
        resources: Arc<Resources>,
        commands: mpsc::Sender<Command>,
        status: watch::Receiver<Status>,
    ) -> Self {
        Self { content, resources, commands, status, untold: Arc::default() }
    }

    /// The torrent's number in this process.
    pub fn id(&self) -> TorrentId {
        self.content.id
    }

    /// What the torrent is.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.content.metainfo
    }

    /// Its bytes, and which of them are here.
    pub fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The same, to wait for changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// A handle was opened on the file that fills this range.
    pub fn open(&self, reader: ReaderId, file: Range<u64>) {
        self.tell(Command::Open(reader, file));
    }

    /// The handle is closed.
    pub fn close(&self, reader: ReaderId) {
        self.untold.lock().remove(&reader);
        self.tell(Command::Close(reader));
    }

    /// The file on disk that holds this file's bytes and no others, if all are in it; none goes while the
    /// loan lasts.
    pub fn lend(&self, file: FileIndex) -> Option<(Arc<File>, Loan)> {
        Loan::take(&self.content, &self.resources, file)
    }

    /// Fills `buf` from the torrent's bytes at `offset` if all of them are here.
    ///
    /// # Errors
    /// When the store cannot read what it has.
    pub fn read_now(&self, reader: ReaderId, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        let here = self.content.read_resident(offset, buf)?;
        if here {
            self.note(reader, offset..offset + buf.len() as u64);
        }
        Ok(here)
    }

    /// Waits for bytes that are not here; `deliver` is called once.
    pub fn read_later(
        &self,
        reader: ReaderId,
        ticket: Ticket,
        range: Range<u64>,
        deliver: Deliver,
    ) {
        if let Some(got) = self.untold.lock().remove(&reader) {
            self.tell(Command::Advance(reader, got));
        }
        let refused = match self.commands.try_send(Command::Read { ticket, reader, range, deliver })
        {
            Ok(()) => return,
            Err(refused) => refused.into_inner(),
        };
        if let Command::Read { deliver, .. } = refused {
            deliver(Err(ReadFailure::Stopped));
        }
    }

    /// Nobody waits for the ticket any more.
    pub fn cancel(&self, ticket: Ticket) {
        self.tell(Command::Cancel(ticket));
    }

    /// Uploads no more; returns when the torrent's task has been told.
    pub async fn end_upload(&self) {
        // A closed queue: it has ended altogether.
        let _ = self.commands.send(Command::EndUpload).await;
    }

    /// Says good-bye to the swarm, saves, and returns when that is done.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::Stop { done }).await.is_ok() {
            // An error is the sign: the task has dropped its end.
            let _ = ended.await;
        }
    }

    /// Gathers what the reader got, so that the task hears of a run of reads and not of each; of a torrent
    /// that is complete it hears none.
    fn note(&self, reader: ReaderId, got: Range<u64>) {
        for piece in self.content.metainfo.geometry.pieces_in(&got) {
            self.resources.budget.touch(self.content.id, piece);
        }
        // The task hears of positions for the sake of what is missing.
        if self.content.have.is_full() {
            return;
        }
        let mut untold = self.untold.lock();
        let run = untold.entry(reader).or_insert(got.start..got.start);
        let reads_on = run.start <= got.start && got.start <= run.end;
        let before = if reads_on { None } else { Some(std::mem::replace(run, got.clone())) };
        run.end = run.end.max(got.end);
        let long = run.end - run.start >= TELL_AFTER;
        let told = if long { Some(std::mem::replace(run, got.end..got.end)) } else { None };
        drop(untold);
        for range in before.into_iter().chain(told).filter(|range| !range.is_empty()) {
            self.tell(Command::Advance(reader, range));
        }
    }

    fn tell(&self, command: Command) {
        // A full queue drops a note; a closed one has nobody who cares.
        let _ = self.commands.try_send(command);
    }
}
