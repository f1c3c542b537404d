//! A world in one thread: swarms and rude peers on their lines, a tracker, and one clock that jumps.
//!
//! Invariant: everything that happens follows from the seed; no hash map is walked.
//!
//! Not here: the clock ([`super::agenda`]), lines ([`super::line`]), rude peers ([`super::script`]), the comparison
//! of runs ([`super::replay`]), scenarios (`tests/swarm_sim.rs`, `tests/trading_sim.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use btfs::proto::bitfield::Bitfield;
use btfs::proto::config::Config;
use btfs::proto::geometry::{Geometry, Span};
use btfs::proto::origin::Origin;
use btfs::proto::swarm::{Event, Job, Parting, Setup, Swarm};
use btfs::proto::units::{InfoHash, PeerId, PeerKey, PieceIndex, ReaderId, Ticket};
use btfs::proto::wire::message::{Handshake, Message, Reserved};

use super::agenda::Agenda;
use super::line::{Departure, Line, Uplink, payload};
use super::replay::Trace;
use super::script::{Manners, Script};

/// Length after which the content repeats; prime to every block and piece length.
const PERIOD: usize = (1 << 20) + 7;

/// Events for each node after which a world is taken to go in circles.
const MAX_EVENTS: u64 = 1_000_000;

/// Peers that the tracker names at most.
const NUM_WANT: usize = 50;

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
    uplink: Uplink,
    links: BTreeSet<u64>,
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
    /// When it completed.
    pub(crate) completed: Option<Instant>,
}

impl Node {
    /// Most that it had to send on one connection, in payload bytes.
    pub(crate) fn longest_queue(&self) -> u64 {
        self.uplink.longest
    }
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
    Connect {
        link: u64,
        end: usize,
    },
    DialFailed(NodeId, SocketAddr),
    Close {
        link: u64,
        end: usize,
    },
    /// Something has left the line, or has room on it.
    Line(NodeId),
    Say(NodeId, u64, Message),
    Arrive {
        link: u64,
        end: usize,
        messages: Vec<Message>,
    },
    Deliver {
        link: u64,
        end: usize,
        messages: Vec<Message>,
    },
    Verified(NodeId, PieceIndex, Vec<Bytes>),
    Stored(NodeId, PieceIndex),
    Loaded(NodeId, PeerKey, Vec<Span>),
    Announce(NodeId),
}

/// Everything.
pub(crate) struct World {
    agenda: Agenda<Happening>,
    start: Instant,
    seed: u64,
    /// The content.
    pub(crate) torrent: Torrent,
    nodes: Vec<Node>,
    /// By number, from 1 on.
    links: Vec<Link>,
    /// Nodes that the tracker knows.
    announced: Vec<NodeId>,
    /// Nodes that have become complete, in order.
    completed: Vec<NodeId>,
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
            agenda: Agenda::new(start),
            start,
            seed,
            torrent: Torrent::new(seed, total, piece_len),
            nodes: Vec::new(),
            links: Vec::new(),
            announced: Vec::new(),
            completed: Vec::new(),
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
            private: false,
            peer_id: peer_id(node),
            listen_port: 6881,
            config,
            // All bits of it count: some draw an address from the upper half.
            seed: StdRng::seed_from_u64(
                self.seed.wrapping_mul(1_000_003).wrapping_add(node as u64),
            )
            .random(),
        };
        let swarm = Swarm::new(setup, self.now());
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
            uplink: Uplink::new(self.now()),
            links: BTreeSet::new(),
            down_free: self.now(),
            store: BTreeMap::new(),
            up_bytes: 0,
            down_bytes: 0,
            banned: BTreeSet::new(),
            partings: Vec::new(),
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
        self.command(node, |swarm, now| swarm.handle_candidates(addrs, Origin::Tracker, now));
    }

    /// The node tells the tracker that it is there, and hears of some of the others; again when it needs more.
    pub(crate) fn announce(&mut self, node: NodeId) {
        if !self.nodes[node].alive {
            return;
        }
        let mut others = self.announced.clone();
        others.retain(|other| *other != node);
        for nth in 0..others.len().min(NUM_WANT) {
            let other = self.rng.random_range(nth..others.len());
            others.swap(nth, other);
        }
        others.truncate(NUM_WANT);
        self.list(node);
        self.introduce(node, &others);
    }

    /// The tracker names the node to others from now on.
    pub(crate) fn list(&mut self, node: NodeId) {
        if !self.announced.contains(&node) {
            self.announced.push(node);
        }
    }

    /// Does something with a node's swarm, then what it wants done.
    pub(crate) fn command<T>(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut Swarm, Instant) -> T,
    ) -> T {
        let now = self.now();
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
        self.announced.retain(|known| *known != node);
        for link in self.nodes[node].links.clone() {
            let end = usize::from(self.link(link).ends[0] == node);
            let at = self.now() + self.delay(link);
            self.schedule(at, Happening::Close { link, end });
        }
    }

    /// The node's line goes dead without a word.
    pub(crate) fn black_hole(&mut self, node: NodeId) {
        self.nodes[node].alive = false;
    }

    /// The node's line changes; what is on it arrives as it would have.
    pub(crate) fn change_line(&mut self, node: NodeId, line: Line) {
        self.nodes[node].line = line;
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
        let (reader, asked) = (ReaderId(reader), self.now());
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

    /// Every node that has become complete, in this order.
    pub(crate) fn completed(&self) -> &[NodeId] {
        &self.completed
    }

    /// Time since the world began.
    pub(crate) fn age(&self) -> Duration {
        self.now() - self.start
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
        let end = self.now() + limit;
        while !done(self) {
            let Some(what) = self.agenda.next(end) else { return done(self) };
            self.events += 1;
            let most = MAX_EVENTS * self.nodes.len() as u64;
            assert!(self.events < most, "the world goes in circles");
            self.happen(what);
        }
        true
    }

    /// The clock.
    pub(crate) fn now(&self) -> Instant {
        self.agenda.now()
    }

    fn schedule(&mut self, at: Instant, what: Happening) {
        self.agenda.schedule(at, what);
    }

    fn link(&self, link: u64) -> &Link {
        &self.links[link as usize - 1]
    }

    fn link_mut(&mut self, link: u64) -> &mut Link {
        &mut self.links[link as usize - 1]
    }

    fn delay(&mut self, link: u64) -> Duration {
        let lines = self.link(link).ends.map(|end| self.nodes[end].line);
        let mut chance = |line: Line| match line.jitter {
            Duration::ZERO => Duration::ZERO,
            jitter => jitter.mul_f64(self.rng.random::<f64>()),
        };
        lines.map(|line| line.delay + chance(line)).iter().sum()
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake(node) => {
                if self.nodes[node].wake != Some(self.now()) || !self.nodes[node].alive {
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
            Happening::Line(node) => self.pass(node),
            Happening::Say(node, link, message) => self.say(node, link, message),
            Happening::Arrive { link, end, messages } => self.arrive(link, end, messages),
            Happening::Deliver { link, end, messages } => self.deliver(link, end, messages),
            Happening::Announce(node) => self.announce(node),
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
        let link = self.link(link);
        link.up[usize::from(link.ends[1] == node)]
    }

    fn connect(&mut self, link: u64, end: usize) {
        let ends = self.link(link).ends;
        let (node, other) = (ends[end], ends[1 - end]);
        if !self.nodes[node].alive {
            return;
        }
        self.link_mut(link).up[end] = true;
        let (now, round_trip) = (self.now(), self.delay(link) + self.delay(link));
        let Node { uplink, line, .. } = &mut self.nodes[node];
        uplink.meet(link, round_trip, now, line);
        let fast = !matches!(self.nodes[other].brain, Brain::Script(_, false, _));
        let incoming = end == 1;
        let mut addr = address(other);
        if incoming {
            addr.set_port(50_000 + (link % 10_000) as u16);
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
            if !incoming {
                swarm.handle_round_trip(PeerKey(link), round_trip);
            }
        });
    }

    fn close(&mut self, link: u64, end: usize) {
        let node = self.link(link).ends[end];
        if !std::mem::replace(&mut self.link_mut(link).up[end], false) {
            return;
        }
        self.nodes[node].uplink.forget(link);
        self.tell(node, |swarm, now| swarm.handle_disconnected(PeerKey(link), now));
    }

    fn arrive(&mut self, link: u64, end: usize, messages: Vec<Message>) {
        let (now, to) = (self.now(), self.link(link).ends[end]);
        let node = &mut self.nodes[to];
        let at = node.down_free.max(now) + node.line.comes_in(&messages);
        node.down_free = at;
        if at > now {
            return self.schedule(at, Happening::Deliver { link, end, messages });
        }
        self.deliver(link, end, messages);
    }

    fn deliver(&mut self, link: u64, end: usize, messages: Vec<Message>) {
        let of = self.link(link);
        let (to, up) = (of.ends[end], of.up[end]);
        if !self.nodes[to].alive || !up {
            return;
        }
        let age = self.age();
        for message in &messages {
            self.trace.note(age, link, end, message);
            self.nodes[to].down_bytes += payload(message);
        }
        let torrent = &self.torrent;
        if let Brain::Script(_, _, talks) = &mut self.nodes[to].brain {
            let Some(script) = talks.get_mut(&link) else { return };
            let words: Vec<_> =
                messages.iter().flat_map(|message| script.hear(message, torrent)).collect();
            return self.speak(to, link, words);
        }
        self.command(to, |swarm, now| swarm.handle_messages(PeerKey(link), messages, now));
    }

    fn speak(&mut self, node: NodeId, link: u64, words: Vec<(Duration, Message)>) {
        for (after, message) in words {
            if after.is_zero() {
                self.say(node, link, message);
            } else {
                self.schedule(self.now() + after, Happening::Say(node, link, message));
            }
        }
    }

    fn say(&mut self, node: NodeId, link: u64, message: Message) {
        if self.nodes[node].alive && self.is_up(link, node) {
            let Node { uplink, line, .. } = &mut self.nodes[node];
            uplink.push(link, message, line);
        }
        self.serve(node);
    }

    /// Sends what the line has room for, connection by connection in turn.
    fn serve(&mut self, node: NodeId) {
        let now = self.now();
        if !self.nodes[node].alive {
            return;
        }
        loop {
            let Node { uplink, line, .. } = &mut self.nodes[node];
            let Some(Departure { link, messages, at }) = uplink.depart(now, line) else { break };
            self.nodes[node].up_bytes += messages.iter().map(payload).sum::<u64>();
            let delay = self.delay(link);
            let of = self.link_mut(link);
            let end = usize::from(of.ends[0] == node);
            let arrives = (at + delay).max(of.last[end]);
            of.last[end] = arrives;
            self.schedule(arrives, Happening::Arrive { link, end, messages });
        }
        let Node { uplink, line, .. } = &mut self.nodes[node];
        if let Some(at) = uplink.next_look(now, line) {
            self.schedule(at, Happening::Line(node));
        }
    }

    fn pass(&mut self, node: NodeId) {
        let now = self.now();
        let Node { uplink, line, .. } = &mut self.nodes[node];
        for (link, bytes) in uplink.pass(now, line) {
            if self.is_up(link, node) {
                self.tell(node, |swarm, now| swarm.handle_sent(PeerKey(link), bytes, now));
            }
        }
        self.serve(node);
    }

    fn verified(&mut self, node: NodeId, piece: PieceIndex, blocks: Vec<Bytes>) {
        let mut at = self.torrent.geometry.piece_start(piece);
        let whole = blocks.iter().map(|block| block.len() as u64).sum::<u64>()
            == u64::from(self.torrent.geometry.piece_len(piece));
        let right = whole
            && blocks.iter().all(|block| {
                let same = is_same(&self.torrent.bytes(at, block.len() as u32), block);
                at += block.len() as u64;
                same
            });
        if right {
            self.nodes[node].store.insert(piece, blocks);
            self.schedule(self.now() + Duration::from_millis(5), Happening::Stored(node, piece));
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
        let at = swarm.poll_timeout().max(self.now());
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
                let link = self.link_mut(key.0);
                let mine = usize::from(link.ends[1] == node);
                link.up[mine] = false;
                self.nodes[node].uplink.forget(key.0);
                self.nodes[node].links.remove(&key.0);
                let at = self.now() + self.delay(key.0);
                self.schedule(at, Happening::Close { link: key.0, end: 1 - mine });
            }
            Event::Complete => {
                self.completed.push(node);
                self.nodes[node].completed = Some(self.now());
            }
            Event::NeedPeers if self.announced.contains(&node) => {
                self.schedule(self.now(), Happening::Announce(node));
            }
            Event::Banned(culprit) => {
                self.nodes[node].banned.insert(culprit);
            }
            Event::Have(_) | Event::NeedPeers | Event::DhtNode(_) => {}
        }
    }

    fn work(&mut self, node: NodeId, job: Job) {
        match job {
            Job::Verify { piece, blocks } => {
                let len = u64::from(self.torrent.geometry.piece_len(piece));
                let at = self.now() + Duration::from_micros(100 + len / 1000);
                self.schedule(at, Happening::Verified(node, piece, blocks));
            }
            Job::Check { piece } => panic!("nobody doubts {piece:?}"),
            Job::Load { key, spans } => {
                let at = self.now() + Duration::from_micros(300);
                self.schedule(at, Happening::Loaded(node, key, spans));
            }
        }
    }

    fn dial(&mut self, node: NodeId, addr: SocketAddr) {
        let other = node_at(addr).filter(|other| self.nodes.get(*other).is_some_and(|o| o.alive));
        let Some(other) = other else {
            let at = self.now() + Duration::from_millis(100);
            return self.schedule(at, Happening::DialFailed(node, addr));
        };
        self.links.push(Link { ends: [node, other], up: [false; 2], last: [self.now(); 2] });
        let link = self.links.len() as u64;
        for end in [node, other] {
            self.nodes[end].links.insert(link);
        }
        let way = self.nodes[node].line.delay + self.nodes[other].line.delay;
        self.schedule(self.now() + 3 * way, Happening::Connect { link, end: 1 });
        self.schedule(self.now() + 4 * way, Happening::Connect { link, end: 0 });
    }

    /// A read is answered: its bytes must be here and right.
    fn answer(&mut self, ticket: Ticket) {
        let now = self.now();
        let read = self.reads.get_mut(&ticket).expect("a ticket that was given");
        assert!(read.answered.is_none(), "{ticket:?} is answered twice");
        read.answered = Some(now);
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

fn node_at(addr: SocketAddr) -> Option<NodeId> {
    let IpAddr::V4(ip) = addr.ip() else { return None };
    let [_, _, high, low] = ip.octets();
    Some(usize::from(high) << 8 | usize::from(low))
}

/// Compares at little cost what is a slice of the same content.
fn is_same(one: &Bytes, other: &Bytes) -> bool {
    (one.as_ptr() == other.as_ptr() && one.len() == other.len()) || one == other
}
