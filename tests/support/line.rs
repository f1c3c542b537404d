//! A node's line to the world, and its way out: a socket for each connection, and one queue that all share.
//!
//! ```text
//! what is said ─▶ waiting ─▶ taken (the socket's buffer) ─▶ device's queue ─▶ the line
//!                 by connection, in order          in turn, first in first out
//! ```
//!
//! Invariant: each connection keeps its order; connections take turns message by message.
//!
//! Not here: what happens when bytes arrive ([`super::sim`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use btfs::proto::wire::message::Message;

use super::congestion::Window;

/// Bytes of the headers of Ethernet, IP and TCP around small messages that leave together.
const HEADERS: u64 = 66;

/// A rate that is no limit.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// Bytes per second each way, delay, and what stands before the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Bytes per second out.
    pub(crate) up: u64,
    /// Bytes per second in.
    pub(crate) down: u64,
    /// Time that each message takes: this line's part of a link's one-way delay.
    pub(crate) delay: Duration,
    /// Most that chance adds to it.
    pub(crate) jitter: Duration,
    /// Payload bytes that each connection's socket takes ahead of the line; one message always.
    pub(crate) buffer: u64,
    /// What the device's queue holds, as time of the line.
    pub(crate) queue: Duration,
    /// Whether connections begin slowly, as TCP's do.
    pub(crate) slow_start: bool,
}

impl Line {
    /// The same rate both ways, and a quarter of the round trip between two such lines.
    pub(crate) fn new(rate: u64, round_trip: Duration) -> Self {
        Self {
            up: rate,
            down: rate,
            delay: round_trip / 4,
            jitter: Duration::ZERO,
            buffer: 0,
            queue: Duration::ZERO,
            slow_start: false,
        }
    }

    /// Time in which these messages come in.
    pub(crate) fn comes_in(&self, messages: &[Message]) -> Duration {
        if self.down == UNLIMITED { Duration::ZERO } else { transfer(messages, self.down) }
    }
}

/// Block data in the message.
pub(crate) fn payload(message: &Message) -> u64 {
    if let Message::Piece { data, .. } = message { data.len() as u64 } else { 0 }
}

fn transfer(messages: &[Message], rate: u64) -> Duration {
    time_of(wire_len(messages), rate)
}

fn wire_len(messages: &[Message]) -> u64 {
    let all: u64 = messages.iter().map(|message| 17 + payload(message)).sum();
    let headers = if messages.iter().all(|message| payload(message) == 0) { HEADERS } else { 0 };
    all + headers
}

fn time_of(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate)
}

/// One connection's way to the line.
#[derive(Debug, Default)]
struct Socket {
    waiting: VecDeque<Message>,
    taken: VecDeque<Message>,
    /// Payload that waits.
    queued: u64,
    /// Payload taken and not yet sent.
    held: u64,
    /// Whether it stands in line for its turn.
    in_turn: bool,
    /// Bytes of the block in front that the line has sent.
    begun: u64,
    window: Option<Window>,
}

impl Socket {
    /// Takes what there is room for; tells how much payload that is.
    fn fill(&mut self, buffer: u64) -> u64 {
        let mut bytes = 0;
        while let Some(message) = self.waiting.front() {
            let more = payload(message);
            if more > 0 && self.held > 0 && self.held + more > buffer {
                break;
            }
            self.held += more;
            self.queued -= more;
            bytes += more;
            self.taken.extend(self.waiting.pop_front());
        }
        bytes
    }

    /// What leaves next: its bytes on the line, and the messages of which nothing is left then.
    fn next(&mut self, now: Instant) -> (u64, Vec<Message>) {
        let mut messages = together(&mut self.taken);
        let left = wire_len(&messages) - self.begun;
        let is_block = messages.iter().any(|message| payload(message) > 0);
        let room = match &mut self.window {
            Some(window) if is_block => window.room(now),
            _ => left,
        };
        if room >= left {
            self.begun = 0;
            return (left, messages);
        }
        self.begun += room;
        self.taken.extend(messages.pop());
        self.taken.rotate_right(1);
        (room, Vec::new())
    }

    /// When its window lets something leave, if it waits for that.
    fn opens(&self) -> Option<Instant> {
        let waits = !self.in_turn && !self.taken.is_empty();
        self.window.as_ref().filter(|_| waits)?.opens()
    }
}

/// Messages that leave together, and when the last byte of them does.
#[derive(Debug)]
pub(crate) struct Departure {
    /// On which connection.
    pub(crate) link: u64,
    /// One block, or messages without payload.
    pub(crate) messages: Vec<Message>,
    /// When.
    pub(crate) at: Instant,
}

/// A node's way out.
#[derive(Debug)]
pub(crate) struct Uplink {
    sockets: BTreeMap<u64, Socket>,
    /// Connections whose sockets hold something for the line, in turn.
    ready: VecDeque<u64>,
    /// When the line has sent all that is in the device's queue.
    free: Instant,
    /// Blocks in the device's queue, and when they will have left.
    leaving: VecDeque<(Instant, u64, u64)>,
    /// Payload that sockets took, and whose senders were not told.
    untold: Vec<(u64, u64)>,
    /// When somebody will look again.
    look: Option<Instant>,
    /// Longest that it was for one connection, in payload bytes.
    pub(crate) longest: u64,
}

impl Uplink {
    /// Nothing to send.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            sockets: BTreeMap::new(),
            ready: VecDeque::new(),
            free: now,
            leaving: VecDeque::new(),
            untold: Vec::new(),
            look: None,
            longest: 0,
        }
    }

    /// Takes in what is said on a connection.
    pub(crate) fn push(&mut self, link: u64, message: Message, line: &Line) {
        let socket = self.sockets.entry(link).or_default();
        socket.queued += payload(&message);
        socket.waiting.push_back(message);
        self.longest = self.longest.max(socket.held + socket.queued);
        self.fill(link, line);
    }

    /// The connection begins.
    pub(crate) fn meet(&mut self, link: u64, round_trip: Duration, now: Instant, line: &Line) {
        let window = line.slow_start.then(|| Window::new(round_trip, now));
        self.sockets.entry(link).or_default().window = window;
    }

    /// The connection is gone, and what it had to send.
    pub(crate) fn forget(&mut self, link: u64) {
        self.sockets.remove(&link);
    }

    fn fill(&mut self, link: u64, line: &Line) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        let taken = socket.fill(line.buffer);
        if !socket.taken.is_empty() && !std::mem::replace(&mut socket.in_turn, true) {
            self.ready.push_back(link);
        }
        if taken > 0 {
            self.untold.push((link, taken));
        }
    }

    /// Time has passed: tells what payload of which connection sockets have taken since.
    pub(crate) fn pass(&mut self, now: Instant, line: &Line) -> Vec<(u64, u64)> {
        if self.look == Some(now) {
            self.look = None;
        }
        while let Some(&(at, link, bytes)) = self.leaving.front()
            && at <= now
        {
            self.leaving.pop_front();
            if let Some(socket) = self.sockets.get_mut(&link) {
                socket.held = socket.held.saturating_sub(bytes);
            }
            self.fill(link, line);
        }
        if line.slow_start {
            for (link, socket) in &mut self.sockets {
                if socket.opens().is_some_and(|at| at <= now) {
                    socket.in_turn = true;
                    self.ready.push_back(*link);
                }
            }
        }
        std::mem::take(&mut self.untold)
    }

    /// What leaves next, as long as the device's queue has room.
    pub(crate) fn depart(&mut self, now: Instant, line: &Line) -> Option<Departure> {
        let (link, messages) = loop {
            if self.free.saturating_duration_since(now) > line.queue {
                return None;
            }
            let link = self.ready.pop_front()?;
            let Some(socket) = self.sockets.get_mut(&link) else { continue };
            let (bytes, messages) = socket.next(now);
            self.free = self.free.max(now) + time_of(bytes, line.up);
            if let Some(window) = &mut socket.window {
                window.sent(self.free, bytes);
            }
            socket.in_turn = !messages.is_empty() && !socket.taken.is_empty();
            if socket.in_turn {
                self.ready.push_back(link);
            }
            if !messages.is_empty() {
                break (link, messages);
            }
        };
        let bytes = messages.iter().map(payload).sum();
        if bytes > 0 {
            self.leaving.push_back((self.free, link, bytes));
        }
        Some(Departure { link, messages, at: self.free })
    }

    /// When to look again, unless that is known already.
    pub(crate) fn next_look(&mut self, now: Instant, line: &Line) -> Option<Instant> {
        let left = self.leaving.front().map(|(at, ..)| *at);
        let room = self.free.checked_sub(line.queue).unwrap_or(now).max(now);
        let room = (!self.ready.is_empty()).then_some(room);
        let told = (!self.untold.is_empty()).then_some(now);
        let opens = line.slow_start.then(|| self.sockets.values().filter_map(Socket::opens).min());
        let at = [left, room, told, opens.flatten()].into_iter().flatten().min()?;
        if self.look.is_some_and(|look| look <= at) {
            return None;
        }
        self.look = Some(at);
        Some(at)
    }
}

/// The block in front, or all messages before the next one.
fn together(taken: &mut VecDeque<Message>) -> Vec<Message> {
    let small = taken.iter().take_while(|message| payload(message) == 0).count();
    taken.drain(..small.max(1)).collect()
}
