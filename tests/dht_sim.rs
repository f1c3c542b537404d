//! A DHT of ten thousand nodes, of which three in ten are dead or lie: what was announced is found.
//!
//! The honest ones are whole nodes of ours, made when they are first asked, with the table that they would have;
//! they answer, and ask nothing themselves. All time and chance is the test's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use btfs::proto::announce::udp::Family;
use btfs::proto::dht::contact::{Contact, Net};
use btfs::proto::dht::krpc::{Body, Message, Query, Reply};
use btfs::proto::dht::node_id::NodeId;
use btfs::proto::dht::saved::{Saved, SavedTable};
use btfs::proto::dht::{Dht, Event, Setup};
use btfs::proto::units::InfoHash;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Nodes in the network, beside those that are tried.
const NODES: usize = 10_000;

/// Nodes that a bucket of an honest node holds.
const BUCKET: usize = 8;

/// Networks that are tried.
const SEEDS: u64 = 6;

/// Leading bits that no two of them have in common.
const DEEPEST: usize = 40;

/// Virtual time after which a search has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a node is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Honest,
    Dead,
    /// Sends bytes that are no answer.
    Garbage,
    /// Names nodes that are nowhere near.
    Misleads,
    /// Invents nodes beside the target, all of them in its own network, where it answers for each.
    Sybil,
    /// Names others of its kind by ids beside the target, and calls itself by such when asked.
    Colludes,
}

/// One datagram on its way: when it arrives, in which order it was sent, from and to whom.
type Flight = Reverse<(Instant, u64, SocketAddr, SocketAddr, Vec<u8>)>;

/// What was sent, for comparison.
type Trace = Vec<(Duration, SocketAddr, SocketAddr, usize)>;

struct World {
    start: Instant,
    now: Instant,
    rng: StdRng,
    /// By id.
    all: Vec<(Contact, Nature)>,
    by_addr: BTreeMap<SocketAddr, usize>,
    sybils: BTreeMap<Net, usize>,
    colluders: Vec<SocketAddr>,
    awake: BTreeMap<usize, Dht>,
    tried: BTreeMap<SocketAddr, Dht>,
    events: Vec<(SocketAddr, Event)>,
    flights: BinaryHeap<Flight>,
    sent: u64,
    trace: Trace,
}

impl World {
    /// A network in which so many of a hundred nodes are not honest.
    fn new(bad: u32, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut by_net = BTreeMap::new();
        while by_net.len() < NODES {
            let addr = public_addr(&mut rng);
            by_net.insert(Net::of(addr.ip()), addr);
        }
        let mut all: Vec<_> = by_net
            .into_values()
            .map(|addr| (contact(addr, &mut rng), nature(bad, &mut rng)))
            .collect();
        all.sort_unstable_by_key(|(contact, _)| contact.id);
        let numbered =
            || all.iter().enumerate().map(|(n, (contact, nature))| (n, contact.addr, *nature));
        let now = Instant::now();
        Self {
            start: now,
            now,
            by_addr: numbered().map(|(n, addr, _)| (addr, n)).collect(),
            sybils: numbered()
                .filter(|(.., nature)| *nature == Nature::Sybil)
                .filter_map(|(n, addr, _)| Some((Net::of(addr.ip())?, n)))
                .collect(),
            colluders: numbered()
                .filter(|(.., nature)| *nature == Nature::Colludes)
                .map(|(_, addr, _)| addr)
                .collect(),
            rng,
            all,
            awake: BTreeMap::new(),
            tried: BTreeMap::new(),
            events: Vec::new(),
            flights: BinaryHeap::new(),
            sent: 0,
            trace: Vec::new(),
        }
    }

    /// A fresh node that knows two ways in.
    fn join(&mut self) -> SocketAddr {
        let addr = loop {
            let addr = public_addr(&mut self.rng);
            if !self.by_addr.contains_key(&addr)
                && !self.sybils.contains_key(&Net::of(addr.ip()).unwrap())
            {
                break addr;
            }
        };
        let (saved, seed) = (Saved::default(), self.rng.random());
        let setup = Setup { own: vec![addr], saved, blocklist: Arc::default(), seed };
        let mut dht = Dht::new(setup, self.now);
        let honest: Vec<_> =
            self.all.iter().filter(|(_, nature)| *nature == Nature::Honest).collect();
        let routers: Vec<_> =
            honest.sample(&mut self.rng, 2).map(|(contact, _)| contact.addr).collect();
        dht.add_routers(routers, self.now);
        self.tried.insert(addr, dht);
        self.drain(addr);
        addr
    }

    fn order(&mut self, addr: SocketAddr, command: impl FnOnce(&mut Dht, Instant)) {
        command(self.tried.get_mut(&addr).unwrap(), self.now);
        self.drain(addr);
    }

    /// Goes on until it happens; tells how long that took.
    fn until(&mut self, mut happened: impl FnMut(&SocketAddr, &Event) -> bool) -> Option<Duration> {
        let begin = self.now;
        while self.now < begin + PATIENCE {
            if self.events.drain(..).any(|(addr, event)| happened(&addr, &event)) {
                return Some(self.now - begin);
            }
            self.step();
        }
        None
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        let wake = self.tried.values().map(Dht::poll_timeout).min();
        let arrival = self.flights.peek().map(|Reverse((at, ..))| *at);
        match (arrival, wake) {
            (Some(at), wake) if wake.is_none_or(|wake| at <= wake) => {
                let Reverse((at, _, from, to, datagram)) = self.flights.pop().unwrap();
                self.now = at;
                self.arrive(&datagram, from, to);
            }
            (_, Some(wake)) => {
                self.now = self.now.max(wake);
                let due: Vec<_> = self
                    .tried
                    .iter()
                    .filter(|(_, dht)| dht.poll_timeout() <= wake)
                    .map(|(addr, _)| *addr)
                    .collect();
                due.into_iter().for_each(|addr| self.order(addr, Dht::handle_timeout));
            }
            (None, None) => panic!("nothing is going on"),
            (Some(_), None) => unreachable!("taken by the first arm"),
        }
    }

    fn arrive(&mut self, datagram: &[u8], from: SocketAddr, to: SocketAddr) {
        if let Some(dht) = self.tried.get_mut(&to) {
            dht.handle_datagram(datagram, from, self.now);
            return self.drain(to);
        }
        let net = Net::of(to.ip()).unwrap();
        let Some(n) = self.by_addr.get(&to).or_else(|| self.sybils.get(&net)).copied() else {
            return;
        };
        match self.all[n].1 {
            Nature::Dead => {}
            Nature::Honest => self.ask_honest(n, datagram, from),
            liar => {
                let reply = self.lie(liar, to, datagram);
                self.send(to, from, reply);
            }
        }
    }

    fn ask_honest(&mut self, n: usize, datagram: &[u8], from: SocketAddr) {
        if !self.awake.contains_key(&n) {
            let dht = self.settled(n);
            self.awake.insert(n, dht);
        }
        let dht = self.awake.get_mut(&n).unwrap();
        dht.handle_datagram(datagram, from, self.now);
        let said: Vec<_> = std::iter::from_fn(|| dht.poll_transmit()).collect();
        let is_answer =
            |datagram: &[u8]| !matches!(Message::parse(datagram).unwrap().body, Body::Query { .. });
        let at = self.all[n].0.addr;
        for (to, datagram) in said.into_iter().filter(|(_, datagram)| is_answer(datagram)) {
            self.send(at, to, datagram);
        }
    }

    /// The node as it would be after hours in the network.
    fn settled(&self, n: usize) -> Dht {
        let mut rng = StdRng::seed_from_u64(n as u64);
        let own = self.all[n].0;
        let mut nodes = Vec::new();
        for shared in 0..DEEPEST {
            let bucket = self.sharing(&own.id, shared);
            nodes.extend(bucket.sample(&mut rng, BUCKET).map(|(contact, _)| *contact));
        }
        let saved = Saved { v4: Some(SavedTable { id: own.id, nodes }), v6: None };
        let (own, seed) = (vec![own.addr], rng.random());
        Dht::new(Setup { own, saved, blocklist: Arc::default(), seed }, self.now)
    }

    /// The nodes that have exactly so many leading bits in common with this one.
    fn sharing(&self, id: &NodeId, bits: usize) -> &[(Contact, Nature)] {
        let own = |bit: usize| id.0[bit / 8] & (0x80 >> (bit % 8)) != 0;
        let edge = |rest: bool| {
            NodeId(std::array::from_fn(|byte| {
                (byte * 8..byte * 8 + 8).fold(0, |sum, bit| {
                    let set = if bit <= bits { own(bit) != (bit == bits) } else { rest };
                    sum << 1 | u8::from(set)
                })
            }))
        };
        let (first, last) = (edge(false), edge(true));
        let from = self.all.partition_point(|(contact, _)| contact.id < first);
        let to = self.all.partition_point(|(contact, _)| contact.id <= last);
        &self.all[from..to]
    }

    fn lie(&mut self, liar: Nature, at: SocketAddr, datagram: &[u8]) -> Vec<u8> {
        let Ok(Message { transaction, body: Body::Query { query, .. } }) = Message::parse(datagram)
        else {
            return vec![];
        };
        let target = match query {
            Query::FindNode { target, .. } => target,
            Query::GetPeers { info_hash, .. } => info_hash.into(),
            Query::Ping | Query::AnnouncePeer { .. } | Query::Unknown { .. } => NodeId([0; 20]),
        };
        let beside = |rng: &mut StdRng| target.sharing(rng.random_range(40..150), rng);
        let own = self.by_addr.get(&at).map(|n| self.all[*n].0.id);
        let rng = &mut self.rng;
        let (id, nodes): (NodeId, Vec<Contact>) = match liar {
            Nature::Garbage => {
                let mut bytes = datagram.to_vec();
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 0x55;
                return bytes;
            }
            Nature::Misleads => {
                let far = self.all.sample(rng, BUCKET).map(|(contact, _)| *contact);
                (own.unwrap(), far.filter(|node| node.id.shared_bits(&target) < 3).collect())
            }
            Nature::Sybil => {
                let SocketAddr::V4(v4) = at else { unreachable!("all are in the IPv4 network") };
                let [a, b, c, _] = v4.ip().octets();
                let one =
                    |n| Contact { id: beside(rng), addr: SocketAddr::from(([a, b, c, n], 7000)) };
                let nodes = (1..=8).map(one).collect();
                (own.unwrap_or_else(|| beside(rng)), nodes)
            }
            Nature::Colludes => {
                let friends: Vec<_> = self.colluders.sample(rng, BUCKET).copied().collect();
                let nodes =
                    friends.into_iter().map(|addr| Contact { id: beside(rng), addr }).collect();
                (beside(rng), nodes)
            }
            Nature::Honest | Nature::Dead => unreachable!("these do not lie"),
        };
        let reply = Reply {
            nodes,
            peers: vec![SocketAddr::from(([6, 6, 6, 6], 666))],
            token: Some(vec![6; 4]),
        };
        Message { transaction, body: Body::Reply { id, reply, seen_at: None } }.encode()
    }

    fn drain(&mut self, addr: SocketAddr) {
        let dht = self.tried.get_mut(&addr).unwrap();
        let out: Vec<_> = std::iter::from_fn(|| dht.poll_transmit()).collect();
        self.events.extend(std::iter::from_fn(|| dht.poll_event()).map(|event| (addr, event)));
        out.into_iter().for_each(|(to, datagram)| self.send(addr, to, datagram));
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.trace.push((self.now - self.start, from, to, datagram.len()));
        self.sent += 1;
        let lost = self.rng.random_range(0..100) == 0;
        let way = Duration::from_micros(self.rng.random_range(5_000..90_000));
        if !lost {
            self.flights.push(Reverse((self.now + way, self.sent, from, to, datagram)));
        }
    }
}

fn public_addr(rng: &mut StdRng) -> SocketAddr {
    let [b, c, d] = rng.random();
    let ip = Ipv4Addr::new(rng.random_range(11..100), b, c, d);
    SocketAddr::from((ip, rng.random_range(1024..=u16::MAX)))
}

/// Half of the nodes have the ids that BEP 42 asks for.
fn contact(addr: SocketAddr, rng: &mut StdRng) -> Contact {
    let id = if rng.random() { NodeId::of_ip(addr.ip(), rng) } else { NodeId::random(rng) };
    Contact { id, addr }
}

fn nature(bad: u32, rng: &mut StdRng) -> Nature {
    let kinds = [
        Nature::Dead,
        Nature::Dead,
        Nature::Garbage,
        Nature::Misleads,
        Nature::Sybil,
        Nature::Colludes,
    ];
    if rng.random_range(0..100) < bad { *kinds.choose(rng).unwrap() } else { Nature::Honest }
}

/// How one announce and one search after it went.
struct Run {
    found_after: Duration,
    queries: usize,
    trace: Trace,
}

fn announce_and_find(bad: u32, seed: u64) -> Run {
    let mut world = World::new(bad, seed);
    let info_hash = InfoHash(world.rng.random());
    let (seed_at, leech_at) = (world.join(), world.join());
    world.run_for(Duration::from_secs(6));
    world.order(seed_at, |dht, now| dht.enlist(info_hash, Some(6881), now));
    let told = world.until(
        |addr, event| matches!(event, Event::Searched { told: 1.., .. } if *addr == seed_at),
    );
    assert!(told.is_some(), "seed {seed}: nobody was told");
    world.run_for(Duration::from_secs(1));
    let before = world.trace.len();
    world.order(leech_at, |dht, now| dht.enlist(info_hash, None, now));
    let peer = SocketAddr::new(seed_at.ip(), 6881);
    let found_after = world
        .until(|addr, event| matches!(event, Event::Peers { addrs, .. } if *addr == leech_at && addrs.contains(&peer)))
        .unwrap_or_else(|| panic!("seed {seed}: not found"));
    world
        .until(|addr, event| matches!(event, Event::Searched { .. } if *addr == leech_at))
        .expect("every search ends");
    let queries = world.trace[before..].iter().filter(|(_, from, ..)| *from == leech_at).count();
    Run { found_after, queries, trace: world.trace }
}

#[test]
fn what_was_announced_is_found_among_the_dead_and_the_liars() {
    for seed in 0..SEEDS {
        let run = announce_and_find(30, seed);
        println!("seed {seed}: found after {:?}, {} queries", run.found_after, run.queries);
        assert!(run.queries <= 250, "seed {seed}: {} queries", run.queries);
    }
}

#[test]
fn among_honest_nodes_a_search_takes_a_second() {
    let run = announce_and_find(0, 7);
    println!("found after {:?}, {} queries", run.found_after, run.queries);
    assert!(run.found_after < Duration::from_secs(1) && run.queries < 60);
}

#[test]
fn a_run_repeats_to_the_byte() {
    assert_eq!(announce_and_find(30, 99).trace, announce_and_find(30, 99).trace);
}

#[test]
fn nodes_learn_their_address_and_become_nodes_for_others() {
    let mut world = World::new(30, 5);
    let at = world.join();
    world.run_for(Duration::from_secs(30));
    let dht = &world.tried[&at];
    assert!(dht.id(Family::V4).unwrap().fits(at.ip()), "the id follows from the address (BEP 42)");
    assert!(!dht.is_read_only(Family::V4), "its address is its own (BEP 43)");
    assert!(dht.nodes(world.now) >= 40, "{} nodes", dht.nodes(world.now));
}
