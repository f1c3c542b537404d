//! One torrent's trackers: the task that carries announces, and its handle.
//!
//! ```text
//! Tiers ─order─▶ run ─spawn─▶ carry ─┬─▶ over IPv4 ─┐ HTTP or UDP
//!   ▲                                └─▶ over IPv6 ─┘
//!   └────────── answer, failure ◀── report ◀─┘
//! ```
//!
//! An announce goes out in each family that the tracker's name has, since a tracker believes only the
//! address that it sees (BEP 7). The first answer counts; the other still brings its peers.
//!
//! Not here: when which tracker is asked ([`crate::proto::announce::tiers`]).

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Response;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep_until, timeout};
use url::Url;

use crate::engine::egress::Egress;
use crate::engine::message::TrackerEvent;
use crate::proto::announce::tiers::{Order, Pace, Tiers, TrackerIndex, TrackerStatus};
use crate::proto::announce::udp::Family;
use crate::proto::announce::{Announce, Answer, AnswerError, Event, Progress, Retry};
use crate::proto::units::{InfoHash, PeerId};

mod failure;
mod http;
mod udp;

use failure::Failure;
use http::{Habit, Http};
use udp::Udp;

/// Peers that we ask for: enough to choose among, and what most trackers give at most.
const WANTED: u32 = 50;

/// Announces under way in the whole process, so that many torrents do not start as a flood.
const AT_ONCE: usize = 100;

/// Announced when no port is open: many trackers refuse 0, and peers that dial this one find nobody.
const NOBODY_LISTENS: u16 = 1;

/// For one announce, names, redirects and repeats included.
const PATIENCE: Duration = Duration::from_secs(30);

/// Orders waiting for the trackers' task. It never blocks for long; a full queue loses nothing but a
/// repeated wish.
const COMMANDS: usize = 8;

/// What all torrents share to reach trackers.
pub struct Dialer {
    egress: Egress,
    http: Http,
    parts: Http,
    permits: Semaphore,
    /// Where a router lets peers in; 0 while none does.
    public_port: AtomicU16,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("free", &self.permits.available_permits())
            .finish_non_exhaustive()
    }
}

impl Dialer {
    /// One for the process; torrents share it. Announces leave by `egress` as connections do, since a tracker
    /// tells others the address that it sees.
    pub fn new(egress: impl Into<Egress>) -> Arc<Self> {
        let egress = egress.into();
        Arc::new(Self {
            http: Http::new(egress.clone(), Habit::Answers),
            parts: Http::new(egress.clone(), Habit::Parts),
            permits: Semaphore::new(AT_ONCE),
            public_port: AtomicU16::new(0),
            egress,
        })
    }

    /// The document at a URL that the user typed, of so many bytes at most.
    ///
    /// # Errors
    /// When it cannot be had, is longer, or the URL leads where none may.
    pub async fn fetch(&self, url: &Url, most: usize) -> Result<Vec<u8>, FetchError> {
        let over = |family| self.http.fetch(url.clone(), family, most);
        let fetched = timeout(PATIENCE, async {
            match over(Family::V4).await {
                Ok(body) => Ok(body),
                Err(v4) => over(Family::V6).await.map_err(|v6| Failure::more_telling(v4, v6)),
            }
        });
        fetched.await.unwrap_or(Err(Failure::TimedOut)).map_err(FetchError)
    }

    /// Begins to read these bytes of a document that a torrent names, over one family.
    ///
    /// # Errors
    /// When nobody answers, or the URL leads where none may.
    pub async fn range(
        &self,
        url: Url,
        family: Family,
        range: Range<u64>,
    ) -> Result<Response, FetchError> {
        self.parts.range(url, family, range).await.map_err(FetchError)
    }

    /// Peers reach us at this port from outside: it is announced from now on.
    pub fn reached_at(&self, port: u16) {
        self.public_port.store(port, Ordering::Relaxed);
    }

    /// What is announced when we listen at this port, or with 0 at none.
    fn port(&self, ours: u16) -> u16 {
        match self.public_port.load(Ordering::Relaxed) {
            0 => ours.max(NOBODY_LISTENS),
            public => public,
        }
    }
}

/// Why a document was not had.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FetchError(Failure);

impl FetchError {
    /// Whether the host has no address in the family that was asked for.
    pub fn is_of_family(&self) -> bool {
        matches!(self.0, Failure::NoAddress)
    }

    /// Whether the URL itself is at fault, and will be next time.
    pub fn is_final(&self) -> bool {
        match self.0 {
            Failure::Url(_)
            | Failure::Forbidden(_)
            | Failure::Redirects
            | Failure::Downgrade
            | Failure::NotCarried => true,
            Failure::NoAddress
            | Failure::Name(_)
            | Failure::TooLong(_)
            | Failure::Status(_)
            | Failure::Http(_)
            | Failure::Io(_)
            | Failure::Answer(_)
            | Failure::TimedOut => false,
        }
    }
}

/// Which torrent is announced, to whom, and as whom.
#[derive(Clone, Debug)]
pub struct Job {
    /// Tiers of URLs (BEP 12).
    pub tiers: Vec<Vec<String>>,
    /// The torrent.
    pub info_hash: InfoHash,
    /// Whether one tracker at a time is used (BEP 27).
    pub private: bool,
    /// Our name.
    pub peer_id: PeerId,
    /// TCP port on which we listen; 0 for none.
    pub port: u16,
    /// Numbers of the schedule.
    pub pace: Pace,
    /// For the order in a tier, the spread of back-offs and our key; must differ between runs.
    pub seed: u64,
}

/// Starts announcing; must be called inside a tokio runtime.
///
/// `progress` is read for each announce, and `out` gets the peers.
pub fn spawn(
    job: Job,
    dialer: Arc<Dialer>,
    progress: watch::Receiver<Progress>,
    out: mpsc::Sender<TrackerEvent>,
) -> TrackerHandle {
    let make = if job.private { Tiers::private } else { Tiers::new };
    let tiers = make(&job.tiers, job.pace, job.seed, now());
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let (status_writer, status) = watch::channel(tiers.status().collect());
    let (reporter, reports) = mpsc::channel(AT_ONCE);
    let task = Task {
        carrier: Arc::new(Carrier {
            udp: Udp::new(dialer.egress.clone()),
            dialer,
            known: Mutex::default(),
        }),
        job,
        tiers,
        progress,
        out,
        status: status_writer,
        reporter,
        under_way: JoinSet::new(),
    };
    TrackerHandle { commands, status, task: tokio::spawn(task.run(inbox, reports)) }
}

/// The trackers of one torrent. Dropping it ends them with a good-bye that nobody waits for.
#[derive(Debug)]
pub struct TrackerHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Vec<TrackerStatus>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Command {
    Completed,
    NeedPeers,
    Stop,
}

impl TrackerHandle {
    /// The download is complete: trackers are told at once. Call it once, and not for one that was complete
    /// when it started.
    pub async fn completed(&self) {
        // A closed channel: the trackers are gone already.
        let _ = self.commands.send(Command::Completed).await;
    }

    /// Peers are too few; may be said as often as it is true.
    pub fn need_peers(&self) {
        // A full queue holds this very wish already.
        let _ = self.commands.try_send(Command::NeedPeers);
    }

    /// How it stands with each tracker.
    pub fn status(&self) -> Vec<TrackerStatus> {
        self.status.borrow().clone()
    }

    /// The same, to wait for changes.
    pub fn watch_status(&self) -> watch::Receiver<Vec<TrackerStatus>> {
        self.status.clone()
    }

    /// Says good-bye to the trackers that know us and returns when that is done, after some 3 s at most.
    pub async fn stop(self) {
        let _ = self.commands.send(Command::Stop).await;
        let _ = self.task.await;
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How an announce ended.
struct Report {
    order: Order,
    outcome: Result<Answer, Failure>,
    /// Whether the tracker has answered over the other family already.
    again: bool,
}

struct Task {
    carrier: Arc<Carrier>,
    job: Job,
    tiers: Tiers,
    progress: watch::Receiver<Progress>,
    out: mpsc::Sender<TrackerEvent>,
    status: watch::Sender<Vec<TrackerStatus>>,
    reporter: mpsc::Sender<Report>,
    under_way: JoinSet<()>,
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut reports: mpsc::Receiver<Report>,
    ) {
        self.tiers.handle_timeout(now());
        loop {
            self.dispatch();
            self.status.send_replace(self.tiers.status().collect());
            if self.tiers.is_stopped() {
                return;
            }
            let wake = self.tiers.poll_timeout();
            tokio::select! {
                command = inbox.recv(), if self.tiers.is_running() => {
                    self.obey(command.unwrap_or(Command::Stop));
                }
                Some(report) = reports.recv() => self.take(report),
                Some(_) = self.under_way.join_next() => {}
                () = sleep_until(wake.unwrap_or_else(now).into()), if wake.is_some() => {
                    self.tiers.handle_timeout(now());
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Completed => self.tiers.complete(now()),
            Command::NeedPeers => self.tiers.need_peers(),
            Command::Stop => self.tiers.stop(now()),
        }
    }

    fn dispatch(&mut self) {
        while let Some(order) = self.tiers.poll_announce() {
            let announce = self.announce(order.event);
            let carrier = Arc::clone(&self.carrier);
            self.under_way.spawn(carrier.carry(order, announce, self.reporter.clone()));
        }
    }

    fn announce(&self, event: Event) -> Announce {
        Announce {
            info_hash: self.job.info_hash,
            peer_id: self.job.peer_id,
            port: self.carrier.dialer.port(self.job.port),
            progress: *self.progress.borrow(),
            event,
            wanted: Some(if event == Event::Stopped { 0 } else { WANTED }),
            key: (self.job.seed ^ (self.job.seed >> 32)) as u32,
            ipv6: None,
        }
    }

    fn take(&mut self, report: Report) {
        let Report { order, outcome, again } = report;
        // What was under way when we stopped must not be taken for an answer to the good-bye.
        if !again && !self.tiers.is_open(&order) {
            return;
        }
        match outcome {
            Ok(answer) => {
                if !again {
                    self.tiers.handle_answer(order.tracker, &answer, now());
                }
                tracing::debug!(url = order.url, peers = answer.peers.len(), "tracker answered");
                self.pass_on(order, answer);
            }
            Err(failure) => self.fail(order.tracker, &order.url, &failure),
        }
    }

    fn pass_on(&self, order: Order, answer: Answer) {
        if order.event == Event::Stopped {
            return;
        }
        if let Some(ip) = answer.external_ip {
            let _ = self.out.try_send(TrackerEvent::ExternalIp(ip));
        }
        if !answer.peers.is_empty() {
            let _ = self.out.try_send(TrackerEvent::Peers { url: order.url, addrs: answer.peers });
        }
    }

    fn fail(&mut self, tracker: TrackerIndex, url: &str, failure: &Failure) {
        tracing::debug!(url, %failure, "tracker failed");
        self.tiers.handle_failure(tracker, failure.to_string(), failure.retry(), now());
    }
}

/// What carries one torrent's announces.
struct Carrier {
    dialer: Arc<Dialer>,
    udp: Udp,
    /// Who has answered us over which family, and so is to hear our good-bye there.
    known: Mutex<HashSet<(TrackerIndex, Family)>>,
}

impl Carrier {
    async fn carry(
        self: Arc<Self>,
        order: Order,
        announce: Announce,
        reporter: mpsc::Sender<Report>,
    ) {
        if order.event == Event::Stopped {
            return self.part(order, announce, reporter).await;
        }
        let _permit = self.dialer.permits.acquire().await;
        self.meet(order, announce, reporter).await;
    }

    /// Announces in each family that the tracker has, and reports each answer, or one failure for all.
    async fn meet(&self, order: Order, announce: Announce, reporter: mpsc::Sender<Report>) {
        let answered = AtomicBool::new(false);
        let over = async |family| {
            let answer = self.ask(&order, &announce, family).await?;
            self.known.lock().insert((order.tracker, family));
            let again = answered.swap(true, Ordering::Relaxed);
            let _ =
                reporter.send(Report { order: order.clone(), outcome: Ok(answer), again }).await;
            Ok::<(), Failure>(())
        };
        let (v4, v6) = tokio::join!(over(Family::V4), over(Family::V6));
        let Some(failure) = Failure::of_both(v4, v6) else { return };
        let _ = reporter.send(Report { order, outcome: Err(failure), again: false }).await;
    }

    /// Says good-bye in each family in which the tracker knows us, and reports when all is said.
    async fn part(&self, order: Order, announce: Announce, reporter: mpsc::Sender<Report>) {
        let over = async |family| {
            if self.known.lock().contains(&(order.tracker, family)) {
                // Whatever comes of it, it is our last word.
                let _ = self.ask(&order, &announce, family).await;
            }
        };
        tokio::join!(over(Family::V4), over(Family::V6));
        let _ = reporter.send(Report { order, outcome: Ok(Answer::default()), again: false }).await;
    }

    async fn ask(
        &self,
        order: &Order,
        announce: &Announce,
        family: Family,
    ) -> Result<Answer, Failure> {
        timeout(PATIENCE, self.ask_patiently(order, announce, family))
            .await
            .unwrap_or(Err(Failure::TimedOut))
    }

    async fn ask_patiently(
        &self,
        order: &Order,
        announce: &Announce,
        family: Family,
    ) -> Result<Answer, Failure> {
        let url = Url::parse(&order.url).map_err(|e| Failure::Url(e.to_string()))?;
        match url.scheme() {
            "udp" => self.udp.announce(&url, family, announce).await,
            _ => {
                self.dialer.http.announce(url, family, announce, order.tracker_id.as_deref()).await
            }
        }
    }
}

impl Failure {
    fn retry(&self) -> Option<Retry> {
        match self {
            Self::Answer(AnswerError::Refused { retry, .. }) => *retry,
            Self::NotCarried => Some(Retry::Never),
            _ => None,
        }
    }
}
