//! A DHT node as others meet it: what it answers, what it refuses, and what no datagram can do to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use btfs::proto::announce::udp::Family;
use btfs::proto::blocklist::Draft;
use btfs::proto::dht::contact::Contact;
use btfs::proto::dht::krpc::{Body, Message, Query, Refusal, Reply, Want};
use btfs::proto::dht::node_id::NodeId;
use btfs::proto::dht::saved::{Saved, SavedTable};
use btfs::proto::dht::{Dht, Event, Setup};
use btfs::proto::units::InfoHash;
use proptest::collection::vec;
use proptest::prelude::*;

const HASH: InfoHash = InfoHash([7; 20]);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn dht(own: &[SocketAddr], now: Instant) -> Dht {
    let seed = own[0].port() as u8;
    let (saved, blocklist) = (Saved::default(), Arc::default());
    Dht::new(Setup { own: own.to_vec(), saved, blocklist, seed: [seed; 32] }, now)
}

fn query(query: Query, read_only: bool) -> Vec<u8> {
    let body = Body::Query { id: NodeId([1; 20]), query, read_only };
    Message { transaction: b"aa".to_vec(), body }.encode()
}

/// What the node sends back, but for questions of its own.
fn ask(dht: &mut Dht, datagram: &[u8], from: SocketAddr, now: Instant) -> Option<Body> {
    dht.handle_datagram(datagram, from, now);
    let said = std::iter::from_fn(|| dht.poll_transmit()).filter(|(to, _)| *to == from);
    let mut bodies = said.map(|(_, datagram)| Message::parse(&datagram).unwrap().body);
    bodies.find(|body| !matches!(body, Body::Query { .. }))
}

#[track_caller]
fn reply(body: Option<Body>) -> Reply {
    match body {
        Some(Body::Reply { reply, .. }) => reply,
        other => panic!("no reply: {other:?}"),
    }
}

#[test]
fn a_peer_that_is_announced_is_told_to_others() {
    let now = Instant::now();
    let (own, seed, leech) = (addr("10.0.0.1:1"), addr("10.0.0.2:2"), addr("10.0.0.3:3"));
    let mut dht = dht(&[own], now);
    let want = query(Query::GetPeers { info_hash: HASH, want: Want::default() }, true);
    let announce = |port, token: &[u8]| {
        query(Query::AnnouncePeer { info_hash: HASH, port, token: token.to_vec() }, true)
    };
    let before = reply(ask(&mut dht, &want, seed, now));
    assert_eq!(before.peers, []);
    let token = before.token.unwrap();
    let foreign = ask(&mut dht, &announce(Some(6881), &token), leech, now);
    assert_eq!(foreign, Some(Body::Error(Refusal::Protocol)), "a token is for one address");
    reply(ask(&mut dht, &announce(Some(6881), &token), seed, now));
    assert_eq!(reply(ask(&mut dht, &want, leech, now)).peers, [addr("10.0.0.2:6881")]);
    reply(ask(&mut dht, &announce(None, &token), seed, now));
    assert!(reply(ask(&mut dht, &want, leech, now)).peers.contains(&seed), "its port is implied");
    let later = now + Duration::from_secs(31 * 60);
    assert_eq!(reply(ask(&mut dht, &want, leech, later)).peers, []);
}

#[test]
fn every_answer_says_where_the_asker_is_seen() {
    let now = Instant::now();
    let from = addr("8.8.8.8:6881");
    let body = ask(&mut dht(&[addr("10.0.0.1:1")], now), &query(Query::Ping, true), from, now);
    assert!(matches!(body, Some(Body::Reply { seen_at: Some(at), .. }) if at == from), "{body:?}");
}

#[test]
fn what_is_newer_than_we_are_is_led_on() {
    let now = Instant::now();
    let mut dht = dht(&[addr("10.0.0.1:1")], now);
    let from = addr("10.0.0.2:2");
    let target = Some(NodeId([9; 20]));
    reply(ask(&mut dht, &query(Query::Unknown { target }, true), from, now));
    let refused = ask(&mut dht, &query(Query::Unknown { target: None }, true), from, now);
    assert_eq!(refused, Some(Body::Error(Refusal::MethodUnknown)));
}

#[test]
fn who_is_on_the_blocklist_is_not_asked_answered_or_kept() {
    let now = Instant::now();
    let (own, blocked, other) = (addr("10.0.0.1:1"), addr("8.8.8.8:6881"), addr("9.9.9.9:6881"));
    let named = [blocked, other].map(|addr| Contact { id: NodeId([2; 20]), addr });
    let mut list = Draft::default();
    list.line(b"8.8.8.0/24");
    let saved = SavedTable { id: NodeId([5; 20]), nodes: vec![named[0]] };
    let saved = Saved { v4: Some(saved), v6: None };
    let blocklist = Arc::new(list.finish());
    let mut dht = Dht::new(Setup { own: vec![own], saved, blocklist, seed: [1; 32] }, now);
    dht.add_routers([blocked], now);
    dht.add_node(blocked, now);
    dht.enlist(HASH, None, now);
    dht.handle_timeout(now);
    assert_eq!(dht.poll_transmit(), None, "it is asked");
    assert_eq!(ask(&mut dht, &query(Query::Ping, true), blocked, now), None, "it is answered");
    dht.add_routers([other], now);
    let (_, question) = std::iter::from_fn(|| dht.poll_transmit()).last().unwrap();
    let transaction = Message::parse(&question).unwrap().transaction;
    let reply = Reply { nodes: vec![named[0]], peers: vec![blocked, other], token: None };
    let body = Body::Reply { id: named[1].id, reply, seen_at: None };
    dht.handle_datagram(&Message { transaction, body }.encode(), other, now);
    assert!(std::iter::from_fn(|| dht.poll_transmit()).all(|(to, _)| to == other), "it is asked");
    let told: Vec<_> = std::iter::from_fn(|| dht.poll_event()).collect();
    assert!(told.contains(&Event::Peers { info_hash: HASH, addrs: vec![other] }), "{told:?}");
    assert_eq!(dht.save().v4.unwrap().nodes, [named[1]], "it is kept");
}

#[test]
fn a_node_that_cannot_be_asked_says_so_and_is_asked_nothing() {
    let now = Instant::now();
    let (own, other) = (addr("192.168.0.2:1"), addr("8.8.8.8:6881"));
    let mut dht = dht(&[own], now);
    dht.add_node(other, now);
    let (to, datagram) = dht.poll_transmit().unwrap();
    let body = Message::parse(&datagram).unwrap().body;
    assert!(to == other && matches!(body, Body::Query { read_only: true, .. }), "{body:?}");
    assert_eq!(
        ask(&mut dht, &query(Query::Ping, false), other, now),
        None,
        "it came through our own opening"
    );
    let likewise = ask(&mut dht, &query(Query::Ping, true), other, now);
    assert!(likewise.is_some(), "who cannot be asked either waits for us");
    assert!(dht.is_read_only(Family::V4), "it came through our own opening");
    assert!(ask(&mut dht, &query(Query::Ping, true), addr("9.9.9.9:6881"), now).is_some());
    assert!(!dht.is_read_only(Family::V4), "a stranger has reached us");
    let asked =
        std::iter::from_fn(|| dht.poll_transmit()).any(|(to, _)| to == addr("9.9.9.9:6881"));
    assert!(!asked, "a read-only node is none for a table");
}

/// Nodes in a local network, all of them ours, that hear each other at once.
struct Village {
    now: Instant,
    nodes: BTreeMap<SocketAddr, Dht>,
    flights: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    events: Vec<(SocketAddr, Event)>,
}

impl Village {
    /// Each node at the addresses of this function; all but the first know the first.
    fn new(count: u16, addrs: impl Fn(u16) -> Vec<SocketAddr>) -> Self {
        let now = Instant::now();
        let mut village =
            Self { now, nodes: BTreeMap::new(), flights: VecDeque::new(), events: vec![] };
        for n in 0..count {
            let own = addrs(n + 1);
            let mut dht = dht(&own, now);
            if n > 0 {
                dht.add_routers(addrs(1), now);
            }
            village.nodes.insert(own[0], dht);
        }
        village
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.exchange();
            let wake = self.nodes.values().map(Dht::poll_timeout).min().unwrap();
            self.now = wake.max(self.now);
            self.nodes
                .values_mut()
                .filter(|dht| dht.poll_timeout() <= wake)
                .for_each(|dht| dht.handle_timeout(wake));
        }
    }

    fn exchange(&mut self) {
        loop {
            for (at, dht) in &mut self.nodes {
                let other = |to: &SocketAddr| {
                    SocketAddr::new(if to.is_ipv4() { at.ip() } else { v6(at) }, at.port())
                };
                self.flights.extend(
                    std::iter::from_fn(|| dht.poll_transmit())
                        .map(|(to, datagram)| (other(&to), to, datagram)),
                );
                self.events
                    .extend(std::iter::from_fn(|| dht.poll_event()).map(|event| (*at, event)));
            }
            let Some((from, to, datagram)) = self.flights.pop_front() else { return };
            let home = self.nodes.iter_mut().find(|(at, _)| at.port() == to.port());
            if let Some((_, dht)) = home {
                dht.handle_datagram(&datagram, from, self.now);
            }
        }
    }
}

/// The IPv6 address of the node that has this IPv4 address.
fn v6(at: &SocketAddr) -> std::net::IpAddr {
    std::net::Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, at.port()).into()
}

#[test]
fn nodes_that_know_one_of_them_become_a_network_of_both_families() {
    let mut village = Village::new(12, |n| {
        let at = SocketAddr::from(([10, 0, 0, n as u8], n));
        vec![at, SocketAddr::new(v6(&at), n)]
    });
    village.run_for(Duration::from_secs(30));
    for (at, dht) in &village.nodes {
        assert!(dht.nodes(village.now) >= 16, "{at} knows {} nodes", dht.nodes(village.now));
        assert!(!dht.is_read_only(Family::V4) && !dht.is_read_only(Family::V6));
    }
    let (seed, leech) = (addr("10.0.0.2:2"), addr("10.0.0.9:9"));
    let now = village.now;
    village.nodes.get_mut(&seed).unwrap().enlist(HASH, Some(6881), now);
    village.run_for(Duration::from_secs(5));
    village.nodes.get_mut(&leech).unwrap().enlist(HASH, None, village.now);
    village.events.clear();
    village.run_for(Duration::from_secs(5));
    let found: Vec<_> = village
        .events
        .iter()
        .filter_map(|(at, event)| match event {
            Event::Peers { addrs, .. } if *at == leech => Some(addrs.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(
        found.contains(&addr("10.0.0.2:6881")) && found.contains(&SocketAddr::new(v6(&seed), 6881)),
        "{found:?}"
    );
}

#[test]
fn two_that_have_no_way_in_but_each_other_meet() {
    let mut village = Village::new(2, |n| vec![SocketAddr::from(([10, 0, 0, n as u8], n))]);
    let (first, second) = (addr("10.0.0.1:1"), addr("10.0.0.2:2"));
    let now = village.now;
    let one = village.nodes.get_mut(&first).unwrap();
    one.add_routers([second], now);
    one.enlist(HASH, Some(6881), now);
    village.run_for(Duration::from_secs(30));
    for (at, dht) in &village.nodes {
        assert_eq!(dht.nodes(village.now), 1, "{at}");
        assert!(!dht.is_read_only(Family::V4), "{at}");
    }
}

#[test]
fn a_table_outlives_its_node() {
    let mut village = Village::new(6, |n| vec![SocketAddr::from(([10, 0, 0, n as u8], n))]);
    village.run_for(Duration::from_secs(20));
    let at = addr("10.0.0.3:3");
    let before = village.nodes.remove(&at).unwrap();
    let saved = Saved::parse(&before.save().encode()).unwrap();
    let after = Dht::new(
        Setup { own: vec![at], saved, blocklist: Arc::default(), seed: [9; 32] },
        village.now,
    );
    assert_eq!(after.id(Family::V4), before.id(Family::V4));
    village.nodes.insert(at, after);
    village.nodes.get_mut(&at).unwrap().enlist(HASH, None, village.now);
    village.run_for(Duration::from_secs(1));
    let all_answered = |(from, event): &(SocketAddr, Event)| {
        *from == at && matches!(event, Event::Searched { answered: 5, .. })
    };
    assert!(village.events.iter().any(all_answered), "it needs no way in");
}

#[test]
fn a_loud_host_is_not_answered_and_silences_nobody_else() {
    let now = Instant::now();
    let mut dht = dht(&[addr("10.0.0.1:1")], now);
    let (loud, quiet) = (addr("8.8.8.8:1"), addr("9.9.9.9:1"));
    let answered =
        (0..200).filter(|_| ask(&mut dht, &query(Query::Ping, true), loud, now).is_some()).count();
    assert_eq!(answered, 50);
    assert!(
        ask(&mut dht, &query(Query::Ping, true), quiet, now + Duration::from_secs(1)).is_some()
    );
}

fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let queries = prop_oneof![
        Just(Query::Ping),
        any::<[u8; 20]>().prop_map(|id| Query::FindNode {
            target: NodeId(id),
            want: Want { v4: true, v6: true }
        }),
        any::<[u8; 20]>()
            .prop_map(|id| Query::GetPeers { info_hash: InfoHash(id), want: Want::default() }),
        (any::<[u8; 20]>(), vec(any::<u8>(), 1..9)).prop_map(|(id, token)| {
            Query::AnnouncePeer { info_hash: InfoHash(id), port: None, token }
        }),
    ];
    let valid = (any::<[u8; 20]>(), queries, any::<bool>()).prop_map(|(id, query, read_only)| {
        let body = Body::Query { id: NodeId(id), query, read_only };
        Message { transaction: b"xx".to_vec(), body }.encode()
    });
    let replies = (any::<[u8; 4]>(), any::<[u8; 20]>()).prop_map(|(transaction, id)| {
        let body = Body::Reply { id: NodeId(id), reply: Reply::default(), seen_at: None };
        Message { transaction: transaction.to_vec(), body }.encode()
    });
    let spoiled = (valid, any::<prop::sample::Index>(), any::<u8>(), 0..10_u8).prop_map(
        |(mut datagram, at, byte, spoil)| {
            if spoil < 5 {
                let at = at.index(datagram.len());
                datagram[at] = byte;
            }
            datagram
        },
    );
    prop_oneof![6 => spoiled, 2 => replies, 1 => vec(any::<u8>(), 0..3000), 1 => (1..3000_usize).prop_map(|n| vec![b'd'; n])]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Strangers send what they like while a torrent is looked up: what is said back is bounded, and the answer
    /// that counts is still heard.
    #[test]
    fn no_datagram_loses_a_lookup(rubbish in vec((datagrams(), 0..30_u8), 1..150)) {
        let now = Instant::now();
        let (own, friend) = (addr("10.0.0.1:1"), addr("10.0.0.2:2"));
        let mut dht = dht(&[own], now);
        dht.add_routers([friend], now);
        dht.enlist(HASH, None, now);
        let asked = std::iter::from_fn(|| dht.poll_transmit()).map(|(_, datagram)| Message::parse(&datagram).unwrap());
        let wanted = asked.filter(|message| matches!(message.body, Body::Query { query: Query::GetPeers { .. }, .. }));
        let transaction = wanted.last().unwrap().transaction;
        for (datagram, host) in rubbish {
            dht.handle_datagram(&datagram, SocketAddr::from(([8, 8, host, 8], 1000)), now);
            let said = std::iter::from_fn(|| dht.poll_transmit()).count();
            prop_assert!(said <= 10, "{} datagrams for one", said);
        }
        prop_assert_eq!((dht.stored_peers(), dht.nodes(now)), (0, 0), "nobody has shown anything");
        let peer = addr("10.0.0.7:7");
        let reply = Reply { peers: vec![peer], ..Reply::default() };
        let body = Body::Reply { id: NodeId([2; 20]), reply, seen_at: None };
        dht.handle_datagram(&Message { transaction, body }.encode(), friend, now);
        let found = std::iter::from_fn(|| dht.poll_event()).any(|event| event == Event::Peers { info_hash: HASH, addrs: vec![peer] });
        prop_assert!(found);
    }
}
