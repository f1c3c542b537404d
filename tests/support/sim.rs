//! A world in one thread: swarms and rude peers, lines with a rate and a delay, and one clock that jumps.
//!
//! Invariant: everything that happens follows from the seed; ties in time are broken by the order of
//! scheduling; no hash map is walked. Each line is served connection by connection, message by message, in
//! turn; each connection keeps its order.
//!
//! Not here: rude peers ([`super::script`]), the comparison of runs ([`super::replay`]), scenarios (`tests/swarm_sim.rs`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use btfs::proto::bitfield::Bitfield;
use btfs::proto::config::Config;
use btfs::proto::geometry::{Geometry, Span};
use btfs::proto::swarm::{Event, Job, Parting, Setup, Swarm};
use btfs::proto::units::{InfoHash, PeerId, PeerKey, PieceIndex, ReaderId, Ticket};
use btfs::proto::wire::message::{Handshake, Message, Reserved};

use super::replay::Trace;
use super::script::{Manners, Script};

/// Length after which the content repeats; prime to every block and piece length.
const PERIOD: usize = (1 << 20) + 7;

/// Events after which a world is taken to go in circles.
const MAX_EVENTS: u64 = 5_000_000;

/// The content, a pure function of seed and offset, and its layout.
#[derive(Debug)]
pub(crate) struct Torrent {
    /// The layout.
    pub(crate) geometry: Geometry,
    pattern: Bytes,
}

impl Torrent {
    fn new(seed: u64, total: u64, piece_len: u32) -> Self {
        let mut pattern = vec![0; PERIOD];
        StdRng::seed_from_u64(seed).fill(&mut pattern[..]);
        pattern.extend_from_within(..256 * 1024);
        let geometry = Geometry::new(total, i64::from(piece_len)).expect("a legal torrent");
        Self { geometry, pattern: pattern.into() }
    }

    /// Up to 256 KiB from this offset on.
    pub(crate) fn bytes(&self, offset: u64, len: u32) -> Bytes {
        let at = (offset % PERIOD as u64) as usize;
        self.pattern.slice(at..at + len as usize)
    }
}

/// A node's line to the world: bytes per second each way, and its part of each link's one-way delay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Bytes per second out.
    pub(crate) up: u64,
    /// Bytes per second in.
    pub(crate) down: u64,
    /// Time that each message takes.
    pub(crate) delay: Duration,
    /// Most that chance adds to it.
    pub(crate) jitter: Duration,
}

impl Line {
    /// The same rate both ways, and a quarter of the round trip between two such lines.
    pub(crate) fn new(rate: u64, round_trip: Duration) -> Self {
        Self { up: rate, down: rate, delay: round_trip / 4, jitter: Duration::ZERO }
    }
}

/// Number of a node.
pub(crate) type NodeId = usize;

#[derive(Debug)]
enum Brain {
    Swarm(Box<Swarm>),
    Script(Manners, bool, BTreeMap<u64, Script>),
}

/// One peer and its line.
#[derive(Debug)]
pub(crate) struct Node {
    brain: Brain,
    line: Line,
    alive: bool,
    wake: Option<Instant>,
    out: BTreeMap<u64, VecDeque<Message>>,
    last_served: u64,
    sending: bool,
    down_free: Instant,
    store: BTreeMap<PieceIndex, Vec<Bytes>>,
    /// Payload sent.
    pub(crate) up_bytes: u64,
    /// Payload received.
    pub(crate) down_bytes: u64,
    /// Culprits that it banned.
    pub(crate) banned: BTreeSet<SocketAddr>,
    /// Why it closed connections.
    pub(crate) partings: Vec<(u64, Parting)>,
    /// Longest uplink queue that it had, in payload bytes.
    pub(crate) longest_queue: u64,
    /// When it completed.
    pub(crate) completed: Option<Instant>,
}

/// One read of a reader.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    /// Whose.
    pub(crate) node: NodeId,
    /// The range of the torrent.
    pub(crate) range: Range<u64>,
    /// When it was asked.
    pub(crate) asked: Instant,
    /// When it was answered, with right bytes.
    pub(crate) answered: Option<Instant>,
    next: VecDeque<Range<u64>>,
    reader: ReaderId,
}

#[derive(Debug)]
struct Link {
    ends: [NodeId; 2],
    up: [bool; 2],
    last: [Instant; 2],
}

#[derive(Debug)]
enum Happening {
    Wake(NodeId),
    Connect { link: u64, end: usize },
    DialFailed(NodeId, SocketAddr),
    Close { link: u64, end: usize },
    Sent(NodeId, u64, u64),
    Say(NodeId, u64, Message),
    Arrive { link: u64, end: usize, message: Message },
    Deliver { link: u64, end: usize, message: Message },
    Verified(NodeId, PieceIndex, Vec<Bytes>),
    Stored(NodeId, PieceIndex),
    Loaded(NodeId, PeerKey, Vec<Span>),
}

struct Entry(Instant, u64, Happening);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Everything.
pub(crate) struct World {
    /// The clock.
    pub(crate) now: Instant,
    start: Instant,
    seed: u64,
    /// The content.
    pub(crate) torrent: Torrent,
    queue: BinaryHeap<Reverse<Entry>>,
    scheduled: u64,
    nodes: Vec<Node>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    reads: BTreeMap<Ticket, Read>,
    rng: StdRng,
    trace: Trace,
    events: u64,
}

impl World {
    /// An empty world with one torrent.
    pub(crate) fn new(seed: u64, total: u64, piece_len: u32) -> Self {
        let start = Instant::now();
        Self {
            now: start,
            start,
            seed,
            torrent: Torrent::new(seed, total, piece_len),
            queue: BinaryHeap::new(),
            scheduled: 0,
            nodes: Vec::new(),
            links: BTreeMap::new(),
            next_link: 1,
            reads: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
            trace: Trace::default(),
            events: 0,
        }
    }

    /// A swarm that has everything.
    pub(crate) fn seed(&mut self, line: Line) -> NodeId {
        let have = Bitfield::full(self.torrent.geometry.piece_count());
        self.swarm(line, have, Config::default())
    }

    /// A swarm that has nothing.
    pub(crate) fn leech(&mut self, line: Line, config: Config) -> NodeId {
        let have = Bitfield::empty(self.torrent.geometry.piece_count());
        self.swarm(line, have, config)
    }

    /// A swarm.
    pub(crate) fn swarm(&mut self, line: Line, have: Bitfield, config: Config) -> NodeId {
        let node = self.nodes.len();
        let setup = Setup {
            geometry: self.torrent.geometry.clone(),
            have,
            peer_id: peer_id(node),
            listen_port: 6881,
            config,
            seed: self.seed.wrapping_mul(1_000_003).wrapping_add(node as u64),
        };
        let swarm = Swarm::new(setup, self.now);
        self.add(Brain::Swarm(Box::new(swarm)), line)
    }

    /// A rude peer.
    pub(crate) fn script(&mut self, line: Line, manners: Manners, fast: bool) -> NodeId {
        self.add(Brain::Script(manners, fast, BTreeMap::new()), line)
    }

    fn add(&mut self, brain: Brain, line: Line) -> NodeId {
        self.nodes.push(Node {
            brain,
            line,
            alive: true,
            wake: None,
            out: BTreeMap::new(),
            last_served: 0,
            sending: false,
            down_free: self.now,
            store: BTreeMap::new(),
            up_bytes: 0,
            down_bytes: 0,
            banned: BTreeSet::new(),
            partings: Vec::new(),
            longest_queue: 0,
            completed: None,
        });
        self.drain(self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// The node.
    pub(crate) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node]
    }

    /// The node's swarm.
    pub(crate) fn of(&self, node: NodeId) -> &Swarm {
        match &self.nodes[node].brain {
            Brain::Swarm(swarm) => swarm,
            Brain::Script(..) => panic!("node {node} is a script"),
        }
    }

    /// The node tells its swarm of the others, as a tracker would.
    pub(crate) fn introduce(&mut self, node: NodeId, others: &[NodeId]) {
        let addrs: Vec<_> = others.iter().map(|other| address(*other)).collect();
        self.command(node, |swarm, now| swarm.handle_candidates(addrs, false, now));
    }

    /// Does something with a node's swarm, then what it wants done.
    pub(crate) fn command<T>(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut Swarm, Instant) -> T,
    ) -> T {
        let now = self.now;
        let Brain::Swarm(swarm) = &mut self.nodes[node].brain else {
            panic!("node {node} is a script")
        };
        let result = act(swarm, now);
        self.drain(node);
        result
    }

    /// Throws a piece out of a node's store.
    pub(crate) fn evict(&mut self, node: NodeId, piece: PieceIndex) {
        self.nodes[node].store.remove(&piece);
        self.command(node, |swarm, now| swarm.evict(piece, now));
    }

    /// The node is gone, and its peers hear of it.
    pub(crate) fn kill(&mut self, node: NodeId) {
        self.nodes[node].alive = false;
        let links: Vec<_> =
            self.links.iter().filter(|(_, link)| link.ends.contains(&node)).collect();
        let ends: Vec<_> =
            links.iter().map(|(id, link)| (**id, usize::from(link.ends[0] == node))).collect();
        for (link, end) in ends {
            let at = self.now + self.delay(link);
            self.schedule(at, Happening::Close { link, end });
        }
    }

    /// The node's line goes dead without a word.
    pub(crate) fn black_hole(&mut self, node: NodeId) {
        self.nodes[node].alive = false;
    }

    /// Opens a handle on the whole torrent.
    pub(crate) fn open(&mut self, node: NodeId, reader: u64) {
        let all = 0..self.torrent.geometry.total();
        self.command(node, |swarm, now| swarm.open(ReaderId(reader), all, now));
    }

    /// One read.
    pub(crate) fn read(&mut self, node: NodeId, reader: u64, range: Range<u64>) -> Ticket {
        self.read_all(node, reader, [range])
    }

    /// Reads one after the other, each asked when the one before is answered; returns the first one's ticket.
    pub(crate) fn read_all(
        &mut self,
        node: NodeId,
        reader: u64,
        ranges: impl IntoIterator<Item = Range<u64>>,
    ) -> Ticket {
        let mut next: VecDeque<_> = ranges.into_iter().collect();
        let range = next.pop_front().expect("at least one read");
        let ticket = Ticket(self.reads.len() as u64 + 1);
        let (reader, asked) = (ReaderId(reader), self.now);
        let read = Read { node, range: range.clone(), asked, answered: None, next, reader };
        self.reads.insert(ticket, read);
        self.command(node, |swarm, now| swarm.read(ticket, reader, range, now));
        ticket
    }

    /// How long the read took; `None` while it waits.
    pub(crate) fn latency(&self, ticket: Ticket) -> Option<Duration> {
        let read = &self.reads[&ticket];
        Some(read.answered? - read.asked)
    }

    /// Every read so far.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Read> {
        self.reads.values()
    }

    /// Whether no read waits.
    pub(crate) fn all_answered(&self) -> bool {
        self.reads.values().all(|read| read.answered.is_some())
    }

    /// Whether the node has everything.
    pub(crate) fn complete(&self, node: NodeId) -> bool {
        self.nodes[node].completed.is_some()
    }

    /// Time since the world began.
    pub(crate) fn age(&self) -> Duration {
        self.now - self.start
    }

    /// When the node completed.
    pub(crate) fn completed_after(&self, node: NodeId) -> Duration {
        self.nodes[node].completed.expect("complete") - self.start
    }

    /// A digest of everything that was said, and when.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.digest()
    }

    /// Lets this much time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until `done`, at most `limit`; tells whether it is done.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if self.queue.peek().is_none_or(|Reverse(entry)| entry.0 > end) {
                self.now = end;
                return done(self);
            }
            let Some(Reverse(Entry(at, _, what))) = self.queue.pop() else { return false };
            assert!(at >= self.now, "time runs backwards");
            self.now = at;
            self.events += 1;
            assert!(self.events < MAX_EVENTS, "the world goes in circles");
            self.happen(what);
        }
        true
    }

    fn schedule(&mut self, at: Instant, what: Happening) {
        self.scheduled += 1;
        self.queue.push(Reverse(Entry(at, self.scheduled, what)));
    }

    fn delay(&mut self, link: u64) -> Duration {
        let ends = self.links[&link].ends;
        ends.map(|end| self.nodes[end].line)
            .map(|line| line.delay + line.jitter.mul_f64(self.rng.random::<f64>()))
            .iter()
            .sum()
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake(node) => {
                if self.nodes[node].wake != Some(self.now) || !self.nodes[node].alive {
                    return;
                }
                self.nodes[node].wake = None;
                self.command(node, |swarm, now| swarm.handle_timeout(now));
            }
            Happening::Connect { link, end } => self.connect(link, end),
            Happening::DialFailed(node, addr) => {
                self.command(node, |swarm, now| swarm.handle_dial_failed(addr, now));
            }
            Happening::Close { link, end } => self.close(link, end),
            Happening::Sent(node, link, payload) => {
                self.nodes[node].sending = false;
                if payload > 0 && self.is_up(link, node) {
                    self.tell(node, |swarm, now| swarm.handle_sent(PeerKey(link), payload, now));
                }
                self.serve(node);
            }
            Happening::Say(node, link, message) => self.say(node, link, message),
            Happening::Arrive { link, end, message } => {
                let to = self.links[&link].ends[end];
                let node = &mut self.nodes[to];
                let at = node.down_free.max(self.now) + transfer(&message, node.line.down);
                node.down_free = at;
                self.schedule(at, Happening::Deliver { link, end, message });
            }
            Happening::Deliver { link, end, message } => self.deliver(link, end, message),
            Happening::Verified(node, piece, blocks) => self.verified(node, piece, blocks),
            Happening::Stored(node, piece) => {
                self.tell(node, |swarm, now| swarm.handle_stored(piece, true, now));
            }
            Happening::Loaded(node, key, spans) => {
                let geometry = self.torrent.geometry.clone();
                let load = |span: Span| {
                    let start = geometry.piece_start(span.piece) + u64::from(span.begin);
                    (span, Some(self.torrent.bytes(start, span.len)))
                };
                let loaded = spans.into_iter().map(load).collect();
                self.tell(node, |swarm, now| swarm.handle_loaded(key, loaded, now));
            }
        }
    }

    fn tell(&mut self, node: NodeId, act: impl FnOnce(&mut Swarm, Instant)) {
        if self.nodes[node].alive && matches!(self.nodes[node].brain, Brain::Swarm(_)) {
            self.command(node, act);
        }
    }

    fn is_up(&self, link: u64, node: NodeId) -> bool {
        let link = &self.links[&link];
        link.up[usize::from(link.ends[1] == node)]
    }

    fn connect(&mut self, link: u64, end: usize) {
        let ends = self.links[&link].ends;
        let (node, other) = (ends[end], ends[1 - end]);
        if !self.nodes[node].alive {
            return;
        }
        self.links.get_mut(&link).expect("known").up[end] = true;
        let fast = !matches!(self.nodes[other].brain, Brain::Script(_, false, _));
        let incoming = end == 1;
        let mut addr = address(other);
        if incoming {
            addr.set_port(50_000 + link as u16);
        }
        let reserved = Reserved { extended: true, fast, dht: false };
        let said = Handshake { reserved, info_hash: InfoHash([1; 20]), peer_id: peer_id(other) };
        let torrent = &self.torrent;
        if let Brain::Script(manners, fast, talks) = &mut self.nodes[node].brain {
            let script = Script::new(manners.clone(), *fast);
            let words = script.greet(torrent);
            talks.insert(link, script);
            return self.speak(node, link, words);
        }
        self.command(node, |swarm, now| {
            swarm.handle_connected(PeerKey(link), addr, incoming, said, now);
        });
    }

    fn close(&mut self, link: u64, end: usize) {
        let node = self.links[&link].ends[end];
        if !std::mem::replace(&mut self.links.get_mut(&link).expect("known").up[end], false) {
            return;
        }
        self.nodes[node].out.remove(&link);
        self.tell(node, |swarm, now| swarm.handle_disconnected(PeerKey(link), now));
    }

    fn deliver(&mut self, link: u64, end: usize, message: Message) {
        let to = self.links[&link].ends[end];
        if !self.nodes[to].alive || !self.links[&link].up[end] {
            return;
        }
        let age = self.now - self.start;
        self.trace.note(age, link, end, &message);
        if let Message::Piece { data, .. } = &message {
            self.nodes[to].down_bytes += data.len() as u64;
        }
        let torrent = &self.torrent;
        if let Brain::Script(_, _, talks) = &mut self.nodes[to].brain {
            let words = talks.get_mut(&link).map(|script| script.hear(&message, torrent));
            return self.speak(to, link, words.unwrap_or_default());
        }
        self.command(to, |swarm, now| {
            swarm.handle_messages(PeerKey(link), vec![message], now);
        });
    }

    fn speak(&mut self, node: NodeId, link: u64, words: Vec<(Duration, Message)>) {
        for (after, message) in words {
            if after.is_zero() {
                self.say(node, link, message);
            } else {
                self.schedule(self.now + after, Happening::Say(node, link, message));
            }
        }
    }

    fn say(&mut self, node: NodeId, link: u64, message: Message) {
        if self.nodes[node].alive && self.is_up(link, node) {
            self.nodes[node].out.entry(link).or_default().push_back(message);
            let queued = self.nodes[node].out[&link].iter().map(payload).sum();
            let node = &mut self.nodes[node];
            node.longest_queue = node.longest_queue.max(queued);
        }
        self.serve(node);
    }

    /// Sends the next message of the next connection in turn.
    fn serve(&mut self, node: NodeId) {
        let this = &mut self.nodes[node];
        if this.sending || !this.alive {
            return;
        }
        let after = this.out.range(this.last_served + 1..).next().map(|(link, _)| *link);
        let Some(link) = after.or_else(|| this.out.keys().next().copied()) else { return };
        let queue = this.out.get_mut(&link).expect("just found");
        let Some(message) = queue.pop_front() else { return };
        if queue.is_empty() {
            this.out.remove(&link);
        }
        this.last_served = link;
        this.sending = true;
        this.up_bytes += payload(&message);
        let at = self.now + transfer(&message, this.line.up);
        self.schedule(at, Happening::Sent(node, link, payload(&message)));
        let delay = self.delay(link);
        let of = self.links.get_mut(&link).expect("known");
        let end = usize::from(of.ends[0] == node);
        let arrives = (at + delay).max(of.last[end]);
        of.last[end] = arrives;
        self.schedule(arrives, Happening::Arrive { link, end, message });
    }

    fn verified(&mut self, node: NodeId, piece: PieceIndex, blocks: Vec<Bytes>) {
        let mut at = self.torrent.geometry.piece_start(piece);
        let whole = blocks.iter().map(|block| block.len() as u64).sum::<u64>()
            == u64::from(self.torrent.geometry.piece_len(piece));
        let right = whole
            && blocks.iter().all(|block| {
                let same = self.torrent.bytes(at, block.len() as u32) == *block;
                at += block.len() as u64;
                same
            });
        if right {
            self.nodes[node].store.insert(piece, blocks);
            self.schedule(self.now + Duration::from_millis(5), Happening::Stored(node, piece));
        }
        self.tell(node, |swarm, now| swarm.handle_verified(piece, right, now));
    }

    /// The driver's ritual.
    fn drain(&mut self, node: NodeId) {
        loop {
            let Brain::Swarm(swarm) = &mut self.nodes[node].brain else { return };
            if let Some((key, message)) = swarm.poll_transmit() {
                self.say(node, key.0, message);
            } else if let Some(event) = swarm.poll_event() {
                self.obey(node, event);
            } else if let Some(job) = swarm.poll_job() {
                self.work(node, job);
            } else {
                break;
            }
        }
        let Brain::Swarm(swarm) = &self.nodes[node].brain else { return };
        let at = swarm.poll_timeout().max(self.now);
        if self.nodes[node].wake.is_none_or(|wake| wake > at) {
            self.nodes[node].wake = Some(at);
            self.schedule(at, Happening::Wake(node));
        }
    }

    fn obey(&mut self, node: NodeId, event: Event) {
        match event {
            Event::Ready(ticket) => self.answer(ticket),
            Event::Dial(addr) => self.dial(node, addr),
            Event::Close(key, parting) => {
                self.nodes[node].partings.push((key.0, parting));
                let link = self.links.get_mut(&key.0).expect("known");
                let mine = usize::from(link.ends[1] == node);
                link.up[mine] = false;
                self.nodes[node].out.remove(&key.0);
                let at = self.now + self.delay(key.0);
                self.schedule(at, Happening::Close { link: key.0, end: 1 - mine });
            }
            Event::Complete => self.nodes[node].completed = Some(self.now),
            Event::Banned(culprit) => {
                self.nodes[node].banned.insert(culprit);
            }
            Event::Have(_) | Event::NeedPeers => {}
        }
    }

    fn work(&mut self, node: NodeId, job: Job) {
        match job {
            Job::Verify { piece, blocks } => {
                let len = u64::from(self.torrent.geometry.piece_len(piece));
                let at = self.now + Duration::from_micros(100 + len / 1000);
                self.schedule(at, Happening::Verified(node, piece, blocks));
            }
            Job::Load { key, spans } => {
                let at = self.now + Duration::from_micros(300);
                self.schedule(at, Happening::Loaded(node, key, spans));
            }
        }
    }

    fn dial(&mut self, node: NodeId, addr: SocketAddr) {
        let other = (0..self.nodes.len()).find(|other| address(*other) == addr);
        let Some(other) = other.filter(|other| self.nodes[*other].alive) else {
            let at = self.now + Duration::from_millis(100);
            return self.schedule(at, Happening::DialFailed(node, addr));
        };
        let link = self.next_link;
        self.next_link += 1;
        let ends = [node, other];
        self.links.insert(link, Link { ends, up: [false; 2], last: [self.now; 2] });
        let way = self.nodes[node].line.delay + self.nodes[other].line.delay;
        self.schedule(self.now + 3 * way, Happening::Connect { link, end: 1 });
        self.schedule(self.now + 4 * way, Happening::Connect { link, end: 0 });
    }

    /// A read is answered: its bytes must be here and right.
    fn answer(&mut self, ticket: Ticket) {
        let read = self.reads.get_mut(&ticket).expect("a ticket that was given");
        assert!(read.answered.is_none(), "{ticket:?} is answered twice");
        read.answered = Some(self.now);
        let read = read.clone();
        for piece in self.torrent.geometry.pieces_in(&read.range) {
            let Some(blocks) = self.nodes[read.node].store.get(&piece) else {
                let had = self.of(read.node).have().has(piece);
                panic!("{ticket:?} is answered, but {piece:?} is not stored (have: {had})");
            };
            let mut at = self.torrent.geometry.piece_start(piece);
            for block in blocks {
                assert_eq!(
                    *block,
                    self.torrent.bytes(at, block.len() as u32),
                    "{ticket:?} {piece:?}"
                );
                at += block.len() as u64;
            }
        }
        if !read.next.is_empty() {
            self.read_all(read.node, read.reader.0, read.next);
        }
    }
}

/// Where the node takes connections.
pub(crate) fn address(node: NodeId) -> SocketAddr {
    SocketAddr::from(([10, 0, (node >> 8) as u8, node as u8], 6881))
}

fn peer_id(node: NodeId) -> PeerId {
    let mut id = *b"-SIM000-000000000000";
    id[12..].copy_from_slice(&(node as u64).to_be_bytes());
    PeerId(id)
}

fn payload(message: &Message) -> u64 {
    if let Message::Piece { data, .. } = message { data.len() as u64 } else { 0 }
}

fn transfer(message: &Message, rate: u64) -> Duration {
    let bytes = 17 + payload(message);
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate)
}
