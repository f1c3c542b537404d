//! The task that owns one [`Swarm`]: feeds it what happened and the time, and does what it says.
//!
//! ```text
//! connections ─ FromPeer ─┐                     ┌─▶ messages to connections, dials, closes
//! readers ────── Command ─┼─▶ Swarm ─ drain() ──┼─▶ Work for the workers
//! workers ───────── Done ─┤                     └─▶ bytes for waiting reads, status
//! trackers ─ TrackerEvent ┘
//! ```
//!
//! Invariant: of one piece at most one of store, check and evict is under way with the workers.
//!
//! Not here: any decision about peers or pieces ([`crate::proto::swarm`]).

mod answer;
mod keep;
mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, trace, warn};

use answer::Waiting;
use keep::STORE_RETRY;

use super::clock::now;
use super::content::Content;
use super::dial::dial;
use super::handle::Status;
use super::message::{Command, FromPeer, ReadFailure, TO_TORRENT_CAPACITY, TrackerEvent};
use super::network::Door;
use super::resources::Resources;
use super::tracker::TrackerHandle;
use super::web_seed::{WebSeed, serve};
use super::workers::{Busy, Done, Verdict, Work};
use crate::proto::announce::Progress;
use crate::proto::rate::Rate;
use crate::proto::swarm::{Event, Job, Swarm, Totals};
use crate::proto::units::{PeerKey, PieceIndex, Ticket};
use crate::proto::web_seed;
use crate::proto::wire::message::Message;

/// Time between two reports of how it stands.
const REPORT: Duration = Duration::from_millis(500);

/// Time after which work that the workers had no room for is offered again while the torrent ends.
const RESUBMIT: Duration = Duration::from_millis(20);

/// Time over which the rates of a status are averaged.
const RATE_SPAN: Duration = Duration::from_secs(5);

/// Events of connections that are taken in before what they call for is done.
const BATCH: usize = TO_TORRENT_CAPACITY;

/// The ends of channels that a torrent's task listens at.
#[derive(Debug)]
pub struct Inboxes {
    /// From connections and dials.
    pub from_peers: mpsc::Receiver<FromPeer>,
    /// From readers and the program.
    pub commands: mpsc::Receiver<Command>,
    /// From workers.
    pub done: mpsc::Receiver<Done>,
    /// From trackers.
    pub trackers: mpsc::Receiver<TrackerEvent>,
}

/// The ends of channels that a torrent's task speaks into.
#[derive(Debug)]
pub struct Outlets {
    /// Into [`Inboxes::done`], for workers.
    pub done: mpsc::Sender<Done>,
    /// Into [`Inboxes::commands`], for reads that have to wait once more.
    pub commands: mpsc::Sender<Command>,
    /// For everyone who wants to know how it stands.
    pub status: watch::Sender<Status>,
    /// For the trackers.
    pub progress: watch::Sender<Progress>,
}

/// One torrent: see the module.
pub struct Torrent {
    swarm: Swarm,
    content: Arc<Content>,
    resources: Arc<Resources>,
    door: Door,
    tracker: Option<TrackerHandle>,
    out: Outlets,
    connections: BTreeMap<PeerKey, mpsc::Sender<Message>>,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Work that the workers had no room for.
    backlog: VecDeque<Work>,
    storing: BTreeSet<PieceIndex>,
    checking: BTreeSet<PieceIndex>,
    evicting: BTreeSet<PieceIndex>,
    /// To be evicted as soon as they are stored or checked.
    doomed: BTreeSet<PieceIndex>,
    fill: bool,
    trouble: Option<String>,
    /// Verified while the store was in trouble: in memory, if they still are.
    unstored: BTreeSet<PieceIndex>,
    retry_store: Option<Instant>,
    /// How long the next trouble of the store keeps fill from it.
    patience: Duration,
    /// Bytes of all windows while the store works.
    window: u64,
    saved: Instant,
    changed: bool,
    saving: bool,
    /// The last save failed.
    unrecorded: bool,
    reported: Instant,
    down: Rate,
    up: Rate,
    completion: Completion,
}

/// Whether the download has become complete in this run. What was complete at the start never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completion {
    Pending,
    Reached,
    Told,
}

impl std::fmt::Debug for Torrent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Torrent")
            .field("content", &self.content.metainfo.name)
            .finish_non_exhaustive()
    }
}

impl Torrent {
    /// A torrent that will talk through `door`; `fill` says whether to fetch what nobody reads.
    pub fn new(
        swarm: Swarm,
        content: Arc<Content>,
        resources: Arc<Resources>,
        door: Door,
        tracker: Option<TrackerHandle>,
        out: Outlets,
        fill: bool,
    ) -> Self {
        let now = now();
        let window = swarm.max_window();
        Self {
            swarm,
            content,
            resources,
            door,
            tracker,
            out,
            connections: BTreeMap::new(),
            waiting: BTreeMap::new(),
            backlog: VecDeque::new(),
            storing: BTreeSet::new(),
            checking: BTreeSet::new(),
            evicting: BTreeSet::new(),
            doomed: BTreeSet::new(),
            fill,
            trouble: None,
            unstored: BTreeSet::new(),
            retry_store: None,
            patience: STORE_RETRY,
            window,
            saved: now,
            changed: false,
            saving: false,
            unrecorded: false,
            reported: now,
            down: Rate::new(RATE_SPAN, now),
            up: Rate::new(RATE_SPAN, now),
            completion: Completion::Pending,
        }
    }

    /// Serves until it is told to stop; `heard` is what its peers said before it was there.
    pub async fn run(mut self, mut inboxes: Inboxes, heard: Vec<FromPeer>) {
        let mut batch = Vec::with_capacity(BATCH);
        heard.into_iter().for_each(|event| self.hear(event));
        self.drain();
        self.report(now());
        loop {
            let wake = self.swarm.poll_timeout().into();
            tokio::select! {
                _ = inboxes.from_peers.recv_many(&mut batch, BATCH) => {
                    batch.drain(..).for_each(|event| self.hear(event));
                }
                Some(command) = inboxes.commands.recv() => {
                    if let Command::Stop { done } = command {
                        return self.stop(done, inboxes).await;
                    }
                    self.obey(command);
                }
                Some(done) = inboxes.done.recv() => self.finish(done),
                Some(event) = inboxes.trackers.recv() => self.meet(event),
                () = sleep_until(wake) => self.swarm.handle_timeout(now()),
            }
            self.drain();
            self.tell_completion().await;
        }
    }

    /// Tells the trackers once that the download is complete; what they are told of bytes left is 0 by then.
    async fn tell_completion(&mut self) {
        if self.completion != Completion::Reached {
            return;
        }
        self.completion = Completion::Told;
        self.report(now());
        if let Some(tracker) = &self.tracker {
            tracker.completed().await;
        }
    }

    fn hear(&mut self, event: FromPeer) {
        let now = now();
        match event {
            FromPeer::Connected { key, hello, sender } => {
                self.connections.insert(key, sender);
                self.swarm.handle_connected(key, hello.addr, hello.incoming, hello.handshake, now);
                self.swarm.handle_traits(key, hello.traits);
                if let Some(round_trip) = hello.round_trip {
                    self.swarm.handle_round_trip(key, round_trip);
                }
            }
            FromPeer::Messages { key, batch } => self.swarm.handle_messages(key, batch, now),
            FromPeer::Sent { key, payload } => {
                self.up.add(payload, now);
                self.swarm.handle_sent(key, payload, now);
            }
            FromPeer::Closed { key, reason } => {
                debug!(?key, reason, "connection closed");
                self.connections.remove(&key);
                self.swarm.handle_disconnected(key, now);
            }
            FromPeer::DialFailed { addr, reason } => {
                debug!(%addr, reason, "dial failed");
                self.swarm.handle_dial_failed(addr, now);
            }
            FromPeer::DialledOurselves { addr } => {
                debug!(%addr, "that is ourselves");
                self.swarm.handle_dialled_ourselves(addr, now);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        trace!(?command);
        let now = now();
        let moves_readers = command.moves_readers();
        match command {
            Command::Open(reader, file) => self.swarm.open(reader, file, now),
            Command::Close(reader) => self.swarm.close(reader, now),
            Command::Advance(reader, range) => self.swarm.advance(reader, range, now),
            Command::Read { ticket, reader, range, deliver } => {
                self.waiting.insert(ticket, Waiting { range: range.clone(), reader, deliver });
                self.swarm.read(ticket, reader, range, now);
                self.fail_hopeless(now);
            }
            Command::Cancel(ticket) => {
                self.waiting.remove(&ticket);
                self.swarm.cancel(ticket, now);
            }
            Command::Evict(piece) => self.evict(piece),
            Command::Lost(pieces) => pieces.into_iter().for_each(|piece| self.lose(piece)),
            Command::Meet { addrs, origin } => {
                debug!(?origin, count = addrs.len(), "peers are named");
                self.swarm.handle_candidates(addrs, origin, now);
            }
            Command::ReachedAt(addr) => self.swarm.handle_reached_at(addr),
            Command::EndUpload => self.swarm.end_upload(now),
            // Taken out by `run`.
            Command::Stop { .. } => {}
        }
        if moves_readers {
            self.resources.budget.spare(self.content.id, self.swarm.spared(now));
        }
    }

    fn meet(&mut self, event: TrackerEvent) {
        match event {
            TrackerEvent::Peers { url, addrs } => {
                debug!(url, count = addrs.len(), "peers from a tracker");
                self.swarm.handle_tracked(&url, addrs, now());
            }
            TrackerEvent::ExternalIp(ip) => {
                debug!(%ip, "a tracker sees us there");
                self.swarm.handle_seen_at(ip);
            }
        }
    }

    fn finish(&mut self, done: Done) {
        let now = now();
        match done {
            Done::Verified { piece, verdict } => {
                match verdict {
                    Verdict::Failed => self.swarm.handle_unverified(piece, now),
                    Verdict::Good | Verdict::Bad => {
                        self.swarm.handle_verified(piece, verdict == Verdict::Good, now);
                    }
                }
                if verdict != Verdict::Good {
                    warn!(?piece, "a piece could not be verified");
                    self.storing.remove(&piece);
                    self.resources.budget.forget(self.content.id, piece);
                }
            }
            Done::Stored { piece, result } => {
                self.stored(piece, result.err().map(|e| e.to_string()))
            }
            Done::Lost { pieces } => {
                warn!(count = pieces.len(), "the store has lost pieces that it had");
                pieces.into_iter().for_each(|piece| self.lose(piece));
            }
            Done::Loaded { key, spans, missing } => {
                // Of an evicted piece the swarm knows; of one that fell out of memory it hears here.
                for piece in missing.iter().map(|span| span.piece) {
                    if self.unstored.contains(&piece) {
                        self.lose(piece);
                    }
                }
                let here = spans.into_iter().map(|(span, data)| (span, Some(data)));
                let gone = missing.into_iter().map(|span| (span, None));
                self.swarm.handle_loaded(key, here.chain(gone).collect(), now);
            }
            Done::Checked { piece, result } => self.checked(piece, result),
            Done::Evicted { piece, result } => {
                self.evicting.remove(&piece);
                if let Err(error) = result {
                    warn!(?piece, %error, "could not give a piece's room back");
                }
            }
            Done::Saved { result } => {
                self.saving = false;
                match result {
                    Ok(()) => self.unrecorded = false,
                    // Said once: it is tried again every few seconds.
                    Err(error) if !std::mem::replace(&mut self.unrecorded, true) => {
                        warn!(%error, "could not record which pieces are here");
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// Does all that the swarm wants done now.
    fn drain(&mut self) {
        let now = now();
        self.resubmit();
        while self.drain_once(now) {}
        self.keep_memory();
        self.keep_fill(now);
        self.keep_state(now);
        if now - self.reported >= REPORT {
            self.report(now);
        }
    }

    fn drain_once(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((key, message)) = self.swarm.poll_transmit() {
            any = true;
            self.transmit(key, message, now);
        }
        while let Some(event) = self.swarm.poll_event() {
            any = true;
            self.act(event);
        }
        while let Some(job) = self.swarm.poll_job() {
            any = true;
            self.work(job, now);
        }
        any
    }

    fn transmit(&mut self, key: PeerKey, message: Message, now: Instant) {
        let Some(sender) = self.connections.get(&key) else { return };
        if sender.try_send(message).is_err() {
            debug!(?key, "the peer reads nothing, or is gone");
            self.connections.remove(&key);
            self.swarm.handle_disconnected(key, now);
        }
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Ready(ticket) => self.deliver(ticket),
            Event::Dial(addr) => self.dial(addr),
            Event::Close(key, parting) => {
                debug!(?key, %parting, "parting from a peer");
                self.connections.remove(&key);
            }
            Event::Have(piece) => debug!(?piece, "verified"),
            Event::Complete => {
                info!(name = self.content.metainfo.name, "complete");
                // Pieces may be evicted and come again, or only had to be checked; the trackers count a
                // download once.
                let downloaded = self.swarm.totals().downloaded > 0;
                if self.completion == Completion::Pending && downloaded {
                    self.completion = Completion::Reached;
                }
            }
            Event::Banned(culprit) => warn!(%culprit, "banned for false data"),
            Event::NeedPeers => self.need_peers(),
            Event::DhtNode(addr) => self.resources.dht.iter().for_each(|dht| dht.add_node(addr)),
        }
    }

    fn dial(&self, addr: SocketAddr) {
        let (network, door) = (self.resources.network.clone(), self.door.clone());
        match web_seed::index(addr) {
            Some(index) => {
                let seed = WebSeed { index, metainfo: self.content.metainfo.clone() };
                tokio::spawn(serve(network, self.resources.trackers.clone(), door, seed));
            }
            None => {
                tokio::spawn(dial(network, door, addr));
            }
        }
    }

    /// Asks all who may know of peers.
    fn need_peers(&self) {
        self.tracker.iter().for_each(TrackerHandle::need_peers);
        self.resources.seek(self.door.info_hash);
    }

    fn work(&mut self, job: Job, now: Instant) {
        let (content, reply) = (self.content.clone(), self.out.done.clone());
        match job {
            Job::Verify { piece, blocks } => {
                let bytes = u64::from(content.metainfo.geometry.piece_len(piece));
                self.down.add(bytes, now);
                // A refusal means that everything stored is in use: better too much than a read that never ends.
                if let Ok(victims) = self.resources.budget.admit(content.id, piece, bytes) {
                    self.make_room(victims);
                }
                self.storing.insert(piece);
                self.submit(Work::Verify { content, piece, blocks, reply });
            }
            Job::Check { piece } => {
                self.checking.insert(piece);
                self.submit(Work::Check { content, piece, reply });
            }
            Job::Load { key, spans } => self.submit(Work::Load { content, key, spans, reply }),
        }
    }

    /// Hands work to the workers, in order; what they have no room for waits, and so does what came after it.
    fn submit(&mut self, work: Work) {
        self.backlog.push_back(work);
        self.resubmit();
    }

    fn resubmit(&mut self) {
        while let Some(work) = self.backlog.pop_front() {
            let held = matches!(&work, Work::Verify { piece, .. } if self.evicting.contains(piece));
            let refused = if held {
                Err(work)
            } else {
                self.resources.workers.submit(work).map_err(|Busy(work)| *work)
            };
            if let Err(work) = refused {
                self.backlog.push_front(work);
                return;
            }
        }
    }

    /// Lets readers and peers go, stores what is in hand, records it, and says good-bye to the trackers.
    async fn stop(mut self, done: oneshot::Sender<()>, mut inboxes: Inboxes) {
        self.resources.withdraw(self.door.info_hash);
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            (waiting.deliver)(Err(ReadFailure::Stopped));
        }
        self.connections.clear();
        let Totals { downloaded, redundant, corrupt, uploaded } = self.swarm.totals();
        info!(downloaded, redundant, corrupt, uploaded, "bytes in all");
        let farewell = self.tracker.take().map(|tracker| tokio::spawn(tracker.stop()));
        while !self.storing.is_empty() || !self.backlog.is_empty() {
            // The workers may be busy for other torrents, and then no reply of ours tells when to try again.
            match timeout(RESUBMIT, inboxes.done.recv()).await {
                Ok(Some(finished)) => self.finish(finished),
                Ok(None) => break,
                Err(_) => {}
            }
            self.resubmit();
        }
        self.save(now());
        while self.saving {
            match timeout(RESUBMIT, inboxes.done.recv()).await {
                Ok(Some(finished)) => self.finish(finished),
                Ok(None) => break,
                Err(_) => {}
            }
            self.resubmit();
        }
        if let Some(farewell) = farewell {
            // A panic there is told already, and ends nothing here.
            let _ = farewell.await;
        }
        self.resources.dismiss(self.content.id);
        drop(done);
    }
}
