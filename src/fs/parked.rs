//! Reads that wait for bytes, and what ends their wait: bytes, a signal, time, or the end of the mount.
//!
//! Invariant: a read in the table is answered once, by whoever takes it out.
//! Invariant: no answer, source or `/proc` is touched under the table's lock.
//!
//! FUSE tells of interrupted reads, but the FUSE library answers that it does not want to know. So one
//! thread looks at the callers of reads that wait for longer than [`PATIENCE`]: is the task gone, or has
//! it a signal to attend to? Without this a direct read could not even be killed.
//!
//! Not here: what is fetched for whom (the source decides).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use parking_lot::{Condvar, Mutex};

use super::source::{FileSpan, ReadError, ReadReply, Source};
use crate::proto::tree::FileRef;
use crate::proto::units::{ReaderId, Ticket};

/// How long a read waits before its caller's signals are looked at, and how often they are.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// How long a reader whose time was up is refused the same bytes at once.
///
/// The kernel asks for a page alone when a read-ahead failed; without this, a read would wait twice.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Where an administrator may have limited how long a FUSE request takes, in seconds; 0 is no limit. A
/// request that takes longer costs the whole connection.
const KERNEL_LIMITS: [&str; 2] =
    ["/proc/sys/fs/fuse/default_request_timeout", "/proc/sys/fs/fuse/max_request_timeout"];

/// Signals that only tell of something, and leave a read alone even when they are caught.
const PASSING: [i32; 9] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGIO,
    libc::SIGPROF,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGURG,
    libc::SIGVTALRM,
    libc::SIGWINCH,
];

/// Every read that waits.
pub struct Parked {
    source: Arc<dyn Source>,
    timeout: Option<Duration>,
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    closed: bool,
    last_ticket: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    aftermath: Vec<Refused>,
}

struct Waiting {
    request: Request,
    since: Instant,
    reply: ReadReply,
}

/// Bytes that did not come in time, and until when they are refused at once.
struct Refused {
    reader: ReaderId,
    range: Range<u64>,
    until: Instant,
}

/// A read that must wait.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The handle.
    pub reader: ReaderId,
    /// The file.
    pub at: FileRef,
    /// The bytes.
    pub span: FileSpan,
    /// The task that reads; 0 when it is in a foreign pid namespace, and then its signals are unknown.
    pub tid: u32,
}

impl Request {
    fn range(&self) -> Range<u64> {
        self.span.offset..self.span.offset + u64::from(self.span.len)
    }
}

impl Parked {
    /// A table whose reads wait for `timeout` at most, and the thread that looks after them until
    /// [`Self::close`].
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(source: Arc<dyn Source>, timeout: Option<Duration>) -> io::Result<Arc<Self>> {
        let timeout = timeout.into_iter().chain(kernel_limit()).min();
        let parked =
            Arc::new(Self { source, timeout, table: Mutex::default(), changed: Condvar::new() });
        let patrol = Arc::clone(&parked);
        thread::Builder::new().name("btfs-parked".to_owned()).spawn(move || patrol.patrol())?;
        Ok(parked)
    }

    /// Lets a read wait. It may be answered before this returns.
    pub fn park(self: &Arc<Self>, request: Request, reply: ReadReply) {
        let now = Instant::now();
        let mut table = self.table.lock();
        if let Some(error) = table.refusal(&request, now) {
            drop(table);
            reply.answer(Err(error));
            return;
        }
        let sleeps = table.waiting.is_empty();
        let ticket = table.insert(Waiting { request, since: now, reply });
        drop(table);
        if sleeps {
            self.changed.notify_one();
        }
        let table = Arc::downgrade(self);
        let answer = ReadReply::new(move |result| Self::arrived(&table, ticket, result));
        self.source.read_later(request.reader, request.at, request.span, ticket, answer);
    }

    /// Reads that wait.
    pub fn len(&self) -> usize {
        self.table.lock().waiting.len()
    }

    /// Whether no read waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fails every waiting read, and every one to come. The thread ends.
    pub fn close(&self) {
        let waiting: Vec<Ticket> = {
            let mut table = self.table.lock();
            table.closed = true;
            table.waiting.keys().copied().collect()
        };
        self.changed.notify_all();
        self.fail(waiting.into_iter().map(|ticket| (ticket, ReadError::ShuttingDown)));
    }

    fn arrived(table: &Weak<Self>, ticket: Ticket, result: Result<&[u8], ReadError>) {
        let Some(parked) = table.upgrade() else { return };
        let Some(waiting) = parked.table.lock().waiting.remove(&ticket) else { return };
        let short = result.is_ok_and(|bytes| bytes.len() != waiting.request.span.len as usize);
        // A short answer would cut the file off in the kernel's eyes.
        waiting.reply.answer(if short { Err(ReadError::Storage) } else { result });
    }

    /// Ends the waits of these tickets, as far as they still wait.
    fn fail(&self, tickets: impl IntoIterator<Item = (Ticket, ReadError)>) {
        for (ticket, error) in tickets {
            let waiting = self.table.lock().waiting.remove(&ticket);
            if let Some(waiting) = waiting {
                // In this order: once answered, the reader may close its file.
                self.source.cancel(ticket);
                waiting.reply.answer(Err(error));
            }
        }
    }

    /// The thread: sleeps while nobody waits, else looks every [`PATIENCE`].
    fn patrol(&self) {
        loop {
            {
                let mut table = self.table.lock();
                while table.waiting.is_empty() && !table.closed {
                    self.changed.wait(&mut table);
                }
                if table.closed {
                    return;
                }
            }
            self.nap();
            let now = Instant::now();
            let overdue = self.table.lock().overdue(now, self.timeout);
            self.fail(overdue);
            let callers = self.table.lock().callers(now);
            let leaving: BTreeSet<u32> = callers.into_iter().filter(|&tid| leaves(tid)).collect();
            let interrupted = self.table.lock().called_by(&leaving);
            self.fail(interrupted);
        }
    }

    /// Sleeps until the next look, or until the table closes.
    fn nap(&self) {
        let until = Instant::now() + PATIENCE.min(self.timeout.unwrap_or(PATIENCE));
        let mut table = self.table.lock();
        while !table.closed && !self.changed.wait_until(&mut table, until).timed_out() {}
    }
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("waiting", &self.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// Why the read may not even wait.
    fn refusal(&mut self, request: &Request, now: Instant) -> Option<ReadError> {
        if self.closed {
            return Some(ReadError::ShuttingDown);
        }
        self.aftermath.retain(|refused| refused.until > now);
        let range = request.range();
        let timed_out = self.aftermath.iter().any(|refused| {
            refused.reader == request.reader
                && refused.range.start <= range.start
                && range.end <= refused.range.end
        });
        timed_out.then_some(ReadError::TimedOut)
    }

    fn insert(&mut self, waiting: Waiting) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.waiting.insert(ticket, waiting);
        ticket
    }

    /// The reads whose time is up; their bytes are refused for a while.
    fn overdue(&mut self, now: Instant, timeout: Option<Duration>) -> Vec<(Ticket, ReadError)> {
        let Some(timeout) = timeout else { return Vec::new() };
        let overdue = self.waiting.iter().filter(|(_, waiting)| now - waiting.since >= timeout);
        let mut tickets = Vec::new();
        for (&ticket, Waiting { request, .. }) in overdue {
            let until = now + AFTERMATH;
            let (reader, range) = (request.reader, request.range());
            self.aftermath.push(Refused { reader, range, until });
            tickets.push((ticket, ReadError::TimedOut));
        }
        tickets
    }

    /// The tasks that have waited long enough to be looked at.
    fn callers(&self, now: Instant) -> BTreeSet<u32> {
        let patient = self.waiting.values().filter(|waiting| now - waiting.since >= PATIENCE);
        patient.map(|waiting| waiting.request.tid).filter(|&tid| tid != 0).collect()
    }

    fn called_by(&self, tids: &BTreeSet<u32>) -> Vec<(Ticket, ReadError)> {
        let theirs = self.waiting.iter().filter(|(_, w)| tids.contains(&w.request.tid));
        theirs.map(|(&ticket, _)| (ticket, ReadError::Interrupted)).collect()
    }
}

/// Whether the task is gone or has a signal to attend to.
fn leaves(tid: u32) -> bool {
    let pid = Pid::from_raw(tid.cast_signed());
    if kill(pid, None) == Err(Errno::ESRCH) {
        return true;
    }
    // Unreadable says nothing: the task may belong to somebody else.
    fs::read_to_string(format!("/proc/{tid}/status")).is_ok_and(|status| is_called_away(&status))
}

/// Whether a `/proc/TID/status` tells of a task that has ended, or must end or handle a signal first.
fn is_called_away(status: &str) -> bool {
    let field = |name: &str| {
        status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    };
    let mask = |name: &str| {
        field(name).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
    };
    let ended = field("State").is_some_and(|state| state.starts_with(['Z', 'X']));
    let passing = PASSING.iter().fold(0, |mask, signal| mask | 1_u64 << (signal - 1));
    let pending = mask("SigPnd") | mask("ShdPnd");
    ended || pending & !mask("SigBlk") & !mask("SigIgn") & !passing != 0
}

/// The longest wait that the kernel's own limit leaves, with a quarter to spare.
fn kernel_limit() -> Option<Duration> {
    wait_within(KERNEL_LIMITS.iter().filter_map(|path| fs::read_to_string(path).ok()))
}

fn wait_within(limits: impl Iterator<Item = String>) -> Option<Duration> {
    let seconds = limits.filter_map(|text| text.trim().parse::<u64>().ok()).filter(|&s| s > 0);
    seconds.min().map(|seconds| Duration::from_secs(seconds) * 3 / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_called_away_by_signals_that_it_must_attend_to() {
        let status = |state: char, own: u64, shared: u64, blocked: u64, ignored: u64| {
            format!(
                "Name:\tcat\nState:\t{state} (x)\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n\
                 SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t0000000000000000\n"
            )
        };
        let (int, killed, window) = (1 << 1, 1 << 8, 1 << 27);
        for (name, text, expected) in [
            ("nothing", status('D', 0, 0, 0, 0), false),
            ("killed", status('D', killed, 0, 0, 0), true),
            ("interrupted", status('S', 0, int, 0, 0), true),
            ("blocked", status('S', 0, int, int, 0), false),
            ("ignored", status('S', 0, int, 0, int), false),
            ("window resized", status('S', 0, window, 0, 0), false),
            ("both", status('S', 0, window | int, 0, 0), true),
            ("zombie", status('Z', 0, 0, 0, 0), true),
            ("garbled", "SigPnd: x".to_owned(), false),
        ] {
            assert_eq!(is_called_away(&text), expected, "{name}");
        }
    }

    #[test]
    fn a_wait_ends_before_the_shorter_of_the_kernels_limits() {
        for (name, limits, expected) in [
            ("an old kernel", &[] as &[&str], None),
            ("none", &["0\n", "0\n"], None),
            ("one", &["0\n", "60\n"], Some(45_000)),
            ("both", &["20\n", "60\n"], Some(15_000)),
            ("short", &["1\n", "0\n"], Some(750)),
            ("garbled", &["x", "4\n"], Some(3000)),
        ] {
            let limits = limits.iter().map(|&text| text.to_owned());
            assert_eq!(wait_within(limits), expected.map(Duration::from_millis), "{name}");
        }
    }

    #[test]
    fn the_process_that_runs_is_not_called_away() {
        assert!(!leaves(std::process::id()));
    }
}
