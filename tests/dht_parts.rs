//! The rooms of a DHT node by themselves: table, lookup, queries, tokens, peers, floods, how others see us.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use btfs::proto::announce::udp::Family;
use btfs::proto::dht::contact::{Contact, Host};
use btfs::proto::dht::flood::{BURST, Flood, MAX_HOSTS, PENALTY, REPLY_BYTES, SPAN};
use btfs::proto::dht::lookup::Lookup;
use btfs::proto::dht::node_id::NodeId;
use btfs::proto::dht::queries::{MAX_OPEN, Overdue, Queries};
use btfs::proto::dht::saved::{Saved, SavedTable};
use btfs::proto::dht::store::{LIFE, MAX_PEERS, MAX_TORRENTS, PeerStore, given};
use btfs::proto::dht::table::{BUCKET, GOOD_FOR, Standing, Table};
use btfs::proto::dht::tokens::{ROTATION, Tokens};
use btfs::proto::dht::torrents::{ANNOUNCE, FIRST_GAP, LONGEST_GAP, Outcome, Torrents};
use btfs::proto::dht::vantage::Vantage;
use btfs::proto::units::InfoHash;
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

const OWN: NodeId = NodeId([0; 20]);

/// A node in the bucket of so many shared bits, at a host and in a network of its own.
fn node(shared: usize, n: u8) -> Contact {
    let mut id = OWN.sharing(shared, &mut StdRng::seed_from_u64(n.into()));
    // Nobody's by BEP 42, for certain.
    let addr = SocketAddr::from(([50, n, shared as u8, 1], 6881));
    while id.fits(addr.ip()) {
        id.0[19] ^= 1;
    }
    Contact { id, addr }
}

/// One in the first bucket with an id that its address may have.
fn fitting() -> Contact {
    let mut all = (100..).map(|n| {
        let addr = node(0, n).addr;
        Contact { id: NodeId::of_ip(addr.ip(), &mut StdRng::seed_from_u64(n.into())), addr }
    });
    all.find(|contact| contact.id.shared_bits(&OWN) == 0).unwrap()
}

fn full_table(now: Instant) -> Table {
    let mut table = Table::new(OWN);
    (0..BUCKET as u8).for_each(|n| table.answered(node(0, n), now));
    assert_eq!(table.len(), BUCKET);
    table
}

fn has(table: &Table, contact: Contact) -> bool {
    table.contacts().any(|known| known == contact)
}

#[test]
fn good_nodes_stay_and_bad_ones_make_room() {
    let now = Instant::now();
    let mut table = full_table(now);
    table.answered(node(0, 100), now);
    assert!(!has(&table, node(0, 100)), "the bucket is full of good nodes");
    let first = node(0, 0);
    table.failed(&first.addr, now);
    assert!(has(&table, first), "one silence is no proof");
    table.failed(&first.addr, now);
    assert!(!has(&table, first) && has(&table, node(0, 100)), "the spare stands in its place");
}

#[test]
fn an_id_that_fits_its_address_is_preferred() {
    let now = Instant::now();
    let mut table = full_table(now);
    let newcomer = fitting();
    table.answered(newcomer, now);
    assert!(has(&table, newcomer));
    assert_eq!(table.len(), BUCKET);
}

#[test]
fn nobody_takes_the_name_or_the_host_of_a_good_node() {
    let now = Instant::now();
    let known = node(0, 1);
    let other_port = Contact { id: node(0, 2).id, addr: SocketAddr::new(known.addr.ip(), 1) };
    let other_addr = Contact { id: known.id, addr: node(0, 3).addr };
    for (name, intruder) in [("its host", other_port), ("its name", other_addr)] {
        let mut table = Table::new(OWN);
        table.answered(known, now);
        table.answered(intruder, now);
        assert!(has(&table, known) && !has(&table, intruder), "{name}");
        table.answered(intruder, now + GOOD_FOR);
        assert!(!has(&table, known) && has(&table, intruder), "{name}, once it is silent for long");
    }
}

#[test]
fn one_network_does_not_fill_a_bucket() {
    let now = Instant::now();
    let mut table = Table::new(OWN);
    for n in 1..100 {
        let neighbour = SocketAddr::from(([50, 0, 0, n], 6881));
        table.answered(Contact { id: node(0, n).id, addr: neighbour }, now);
    }
    assert_eq!(table.len(), 1);
    let mut table = Table::new(OWN);
    (1..=8).for_each(|n| {
        table.answered(
            Contact { id: node(0, n).id, addr: SocketAddr::from(([127, 0, 0, 1], n.into())) },
            now,
        )
    });
    assert_eq!(table.len(), 8, "at home they are all different");
}

#[test]
fn a_table_around_another_id_keeps_its_nodes() {
    let now = Instant::now();
    let mut table = Table::new(OWN);
    (0..5).for_each(|n| (0..5).for_each(|shared| table.answered(node(shared, n), now)));
    table.rebase(NodeId([0xff; 20]), now);
    assert_eq!((table.own(), table.invariants()), (NodeId([0xff; 20]), Ok(())));
    // All but those of the first bucket share no bit with the new id, and there is room for eight.
    assert_eq!(table.len(), 5 + BUCKET);
}

/// What may befall a table; nodes by bucket and number.
#[derive(Clone, Debug)]
enum Op {
    Answered(usize, u8),
    Remember(usize, u8),
    Asked(usize, u8),
    Failed(usize, u8),
    Wait(u64),
    Rebase(u8),
}

fn ops() -> impl Strategy<Value = Op> {
    let node = || (0..4_usize, 0..20_u8);
    prop_oneof![
        6 => node().prop_map(|(shared, n)| Op::Answered(shared, n)),
        1 => node().prop_map(|(shared, n)| Op::Remember(shared, n)),
        2 => node().prop_map(|(shared, n)| Op::Asked(shared, n)),
        3 => node().prop_map(|(shared, n)| Op::Failed(shared, n)),
        1 => (0..1000_u64).prop_map(Op::Wait),
        1 => any::<u8>().prop_map(Op::Rebase),
    ]
}

proptest! {
    #[test]
    fn a_table_keeps_its_rules_and_names_the_nearest(ops in vec(ops(), 1..80), target: [u8; 20]) {
        let (mut table, mut now) = (Table::new(OWN), Instant::now());
        for op in ops {
            match op {
                Op::Answered(shared, n) => table.answered(node(shared, n), now),
                Op::Remember(shared, n) => table.remember(node(shared, n), now),
                Op::Asked(shared, n) => { table.was_asked_by(node(shared, n), now); }
                Op::Failed(shared, n) => table.failed(&node(shared, n).addr, now),
                Op::Wait(seconds) => now += Duration::from_secs(seconds),
                Op::Rebase(byte) => table.rebase(NodeId([byte; 20]), now),
            }
            prop_assert_eq!(table.invariants(), Ok(()));
        }
        let target = NodeId(target);
        let mut all: Vec<_> = table.contacts().collect();
        all.sort_by_key(|contact| contact.id.distance(&target));
        all.truncate(5);
        prop_assert_eq!(table.closest(&target, 5, Standing::Bad, now), all);
    }
}

#[test]
fn every_bucket_is_searched_once_in_a_while() {
    let now = Instant::now();
    let mut table = Table::new(OWN);
    table.answered(node(2, 1), now);
    let due =
        |table: &mut Table, now| std::iter::from_fn(|| table.next_search(now)).collect::<Vec<_>>();
    assert_eq!(due(&mut table, now), [0, 1, 2]);
    assert!(due(&mut table, now + GOOD_FOR / 2).is_empty());
    assert_eq!(due(&mut table, now + GOOD_FOR), [0, 1, 2]);
}

#[test]
fn a_token_is_good_for_its_address_and_some_minutes() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let (ours, others) = ("1.2.3.4".parse().unwrap(), "1.2.3.5".parse().unwrap());
    let mut tokens = Tokens::new(&mut rng, now);
    let token = tokens.give(ours);
    assert!(tokens.accepts(ours, &token) && !tokens.accepts(others, &token));
    assert!(!tokens.accepts(ours, &token[..7]) && !tokens.accepts(ours, b""));
    for (age, good) in [(1, true), (2, false)] {
        let mut tokens = tokens.clone();
        (1..=age).for_each(|n| tokens.rotate(&mut rng, now + ROTATION * n));
        assert_eq!(tokens.accepts(ours, &token), good, "{age} rotations");
    }
    tokens.rotate(&mut rng, now + ROTATION * 2);
    assert!(!tokens.accepts(ours, &token), "after a pause both secrets are old");
}

fn hash(n: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    InfoHash(bytes)
}

fn peer(n: u32) -> SocketAddr {
    SocketAddr::from((n.to_be_bytes(), 6881))
}

#[test]
fn peers_are_bounded_and_fade() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut store = PeerStore::default();
    let moment = |n: u32| now + Duration::from_millis(n.into());
    (0..MAX_PEERS as u32 + 10)
        .for_each(|n| store.announce(hash(0), peer(0x2000_0000 + n), moment(n)));
    assert_eq!(store.peers(), MAX_PEERS);
    let drawn = store.draw(&hash(0), Family::V4, now, &mut rng);
    assert_eq!(drawn.len(), given(Family::V4));
    assert!(drawn.iter().all(|addr| *addr >= peer(0x2000_000a)), "the oldest have gone");
    assert_eq!(store.draw(&hash(0), Family::V6, now, &mut rng), []);
    (0..MAX_TORRENTS as u32)
        .for_each(|n| store.announce(hash(n + 1), peer(0x2000_0000), moment(n)));
    assert_eq!(store.torrents(), MAX_TORRENTS);
    assert_eq!(
        store.draw(&hash(0), Family::V4, now, &mut rng),
        [],
        "nobody announced it for longest"
    );
    let later = now + LIFE + Duration::from_secs(1);
    assert_eq!(store.draw(&hash(1), Family::V4, later, &mut rng), []);
    store.expire(later + LIFE);
    assert_eq!((store.torrents(), store.peers()), (0, 0));
}

#[test]
fn a_host_is_one_peer() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut store = PeerStore::default();
    (1..100).for_each(|port| store.announce(hash(0), SocketAddr::from(([8, 8, 8, 8], port)), now));
    assert_eq!(
        store.draw(&hash(0), Family::V4, now, &mut rng),
        [SocketAddr::from(([8, 8, 8, 8], 99))]
    );
}

#[test]
fn who_asks_too_much_is_not_heard_for_a_while() {
    let now = Instant::now();
    let mut flood = Flood::new(now);
    let (loud, quiet) = (Host::of(&peer(0x0808_0808)), Host::of(&peer(0x0909_0909)));
    assert!((0..BURST).all(|_| flood.hears(loud, now)));
    assert!(!flood.hears(loud, now) && flood.hears(quiet, now));
    assert!(!flood.hears(loud, now + SPAN * 2));
    assert!(flood.hears(loud, now + PENALTY + Duration::from_secs(1)));
    assert!(
        (0..BURST * 10).all(|n| flood.hears(quiet, now + SPAN / 40 * n)),
        "five a second are heard for ever"
    );
    (0..MAX_HOSTS as u32 * 2).for_each(|n| flood.counts(Host::of(&peer(0x2000_0000 + n)), now));
    assert_eq!(flood.hosts(), MAX_HOSTS);
}

#[test]
fn replies_have_their_rate() {
    let now = Instant::now();
    let mut flood = Flood::new(now);
    for second in 0..3 {
        let at = now + Duration::from_secs(second);
        let sent = (0..1000).filter(|_| flood.answers(1000, at)).count();
        assert_eq!(sent, REPLY_BYTES / 1000, "second {second}");
    }
}

#[test]
fn most_voters_decide_our_address() {
    let (own, elsewhere) = (peer(0x0a00_0001), peer(0x0808_0808));
    let voter = |n: u32| Host::of(&peer(0x2000_0000 + n));
    let mut vantage = Vantage::new(vec![own]);
    (0..3).for_each(|n| vantage.was_seen(voter(n), elsewhere));
    (0..10).for_each(|_| vantage.was_seen(voter(0), elsewhere));
    assert_eq!(vantage.external_ip(), None, "three hosts are too few, however often they say it");
    vantage.was_seen(voter(3), elsewhere);
    assert_eq!(vantage.external_ip(), Some(elsewhere.ip()));
    (10..15).for_each(|n| vantage.was_seen(voter(n), own));
    assert_eq!(vantage.external_ip(), Some(own.ip()), "we have moved");
}

#[test]
fn a_node_is_read_only_until_it_is_reached() {
    let (own, outside, asked) = (peer(0x0a00_0001), peer(0x0808_0808), peer(0x0909_0909));
    let now = Instant::now();
    type Scene = fn(&mut Vantage, SocketAddr, Host, Instant);
    let table: [(&str, Scene, bool); 4] = [
        ("nothing happened", |_, _, _, _| {}, true),
        (
            "asked by one that it wrote to",
            |v, _, host, now| {
                v.writes_to(host, now);
                v.was_asked_by(host, now);
            },
            true,
        ),
        ("asked by a stranger", |v, _, host, now| v.was_asked_by(host, now), false),
        ("seen at its own address", |v, own, host, _| v.was_seen(host, own), false),
    ];
    for (name, scene, read_only) in table {
        let mut vantage = Vantage::new(vec![own]);
        vantage.was_seen(Host::of(&outside), outside);
        scene(&mut vantage, own, Host::of(&asked), now);
        assert_eq!(vantage.is_read_only(), read_only, "{name}");
    }
}

#[test]
fn a_query_ends_once() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let (addr, stranger) = (peer(0x0808_0808), peer(0x0909_0909));
    let mut queries = Queries::default();
    let id = queries.open(addr, 'a', &mut rng, now);
    let lost = queries.open(addr, 'b', &mut rng, now);
    assert!(queries.answered(&id.bytes(), stranger, now).is_none(), "from somebody else");
    assert!(queries.answered(b"x", addr, now).is_none(), "with another number");
    let ms = Duration::from_millis;
    assert_eq!(queries.answered(&id.bytes(), addr, now + ms(100)).unwrap().purpose, 'a');
    assert!(queries.answered(&id.bytes(), addr, now).is_none(), "twice");
    let mut seen = String::new();
    while let Some(at) = queries.poll_timeout() {
        for overdue in queries.overdue(at) {
            match overdue {
                Overdue::Late(open) => {
                    seen.push('l');
                    assert_eq!((open.purpose, at), ('b', now + ms(500)));
                }
                Overdue::Lost(open) => {
                    seen.push('x');
                    assert_eq!((open.purpose, at), ('b', now + ms(2000)));
                }
            }
        }
    }
    assert_eq!(seen, "lx");
    assert!(queries.answered(&lost.bytes(), addr, now).is_none(), "too late");
    // What was learnt: 100 ms, give or take 50.
    queries.open(addr, 'c', &mut rng, now);
    assert_eq!(queries.poll_timeout(), Some(now + ms(300)));
    (0..MAX_OPEN).for_each(|_| {
        queries.open(addr, 'd', &mut rng, now);
    });
    assert!(!queries.has_room());
}

/// Answers come from all but the silent; each node knows the eight nearest to the target.
#[test]
fn a_lookup_ends_at_the_nearest_that_answer() {
    let target = NodeId([0x77; 20]);
    let mut all: Vec<_> = (0..200).map(|n| node((n % 6).into(), n)).collect();
    all.sort_by_key(|contact| contact.id.distance(&target));
    let silent = |contact: &Contact| contact.addr.ip().to_string().contains('3');
    let mut lookup = Lookup::new(target, Family::V4, &all[190..], vec![]);
    while !lookup.is_done() {
        let addr = lookup.poll_ask().expect("while it is not done there is somebody to ask");
        let asked = *all.iter().find(|contact| contact.addr == addr).unwrap();
        if silent(&asked) {
            lookup.handle_late(&addr);
            lookup.handle_silent(&addr);
        } else {
            let near = all
                .iter()
                .filter(|contact| contact.id.distance(&target) < asked.id.distance(&target));
            let near = near.copied().collect::<Vec<_>>();
            let named = near[near.len() / 2..].iter().take(8).copied().collect();
            lookup.handle_answer(asked, Some(b"token".to_vec()), named, true);
        }
    }
    let best: Vec<_> =
        all.iter().filter(|contact| !silent(contact)).map(|contact| contact.addr).collect();
    let holders = lookup.holders();
    assert!(
        holders.len() >= BUCKET && best[..3].iter().all(|addr| holders.contains_key(addr)),
        "{holders:?}"
    );
}

#[test]
fn a_lookup_asks_one_node_a_host_and_two_a_network() {
    let target = NodeId([0x77; 20]);
    let sybil = |n: u8| Contact {
        id: target.sharing(100, &mut StdRng::seed_from_u64(n.into())),
        addr: SocketAddr::from(([50, 0, 0, n % 4], 6000 + u16::from(n))),
    };
    let mut lookup = Lookup::new(target, Family::V4, &[node(0, 1)], vec![]);
    lookup.poll_ask().unwrap();
    (0..100).for_each(|n| lookup.consider(sybil(n)));
    assert_eq!(std::iter::from_fn(|| lookup.poll_ask()).count(), 2);
}

#[test]
fn a_lookup_without_end_ends() {
    let target = NodeId([0x77; 20]);
    let mut rng = StdRng::seed_from_u64(1);
    let mut invented = (0_u32..)
        .map(|n| Contact { id: target.sharing(150, &mut rng), addr: peer(0x2000_0000 + n * 256) });
    let mut lookup = Lookup::new(target, Family::V4, &[node(0, 1)], vec![]);
    let (mut asked, mut names) = (0, BTreeMap::from([(node(0, 1).addr, node(0, 1))]));
    while let Some(addr) = lookup.poll_ask() {
        asked += 1;
        let more: Vec<_> = invented.by_ref().take(16).collect();
        names.extend(more.iter().map(|contact| (contact.addr, *contact)));
        lookup.handle_answer(names[&addr], None, more, true);
    }
    assert!(lookup.is_done() && asked <= 200, "{asked} asked");
}

#[test]
fn torrents_are_looked_up_when_it_is_time() {
    let start = Instant::now();
    let mut torrents = Torrents::default();
    let wanted = hash(1);
    let both = |torrents: &mut Torrents, now| {
        std::iter::from_fn(|| torrents.begin(now)).collect::<Vec<_>>()
    };
    let search = |torrents: &mut Torrents, peers, now| {
        let begun = both(torrents, now);
        for (hash, family, _) in &begun {
            torrents.begun(*hash, *family, true, now);
            torrents.ended(*hash, *family, Outcome { answered: 9, peers }, now);
        }
        begun.len()
    };
    torrents.enlist(wanted, Some(6881), [Family::V4, Family::V6], start);
    assert_eq!(
        both(&mut torrents, start),
        [(wanted, Family::V4, Some(6881)), (wanted, Family::V6, Some(6881))]
    );
    torrents.enlist(wanted, Some(6881), [Family::V4, Family::V6], start);
    assert_eq!(search(&mut torrents, 0, start), 2);
    assert_eq!(torrents.poll_timeout(), Some(start + ANNOUNCE));
    assert_eq!(FIRST_GAP * 20, LONGEST_GAP);
    let mut now = start;
    for gap in [1, 2, 4, 8, 16, 20, 20].map(|times| FIRST_GAP * times) {
        torrents.need_peers(wanted, now);
        torrents.need_peers(wanted, now);
        assert_eq!(
            torrents.poll_timeout(),
            Some(now + gap),
            "a search in vain makes the next one wait"
        );
        now += gap;
        assert_eq!(search(&mut torrents, 0, now), 2);
    }
    torrents.forget(wanted);
    assert_eq!(torrents.poll_timeout(), None);
}

proptest! {
    #[test]
    fn what_is_saved_comes_back(ids in vec(any::<[u8; 20]>(), 1..60), v6: bool) {
        let nodes: Vec<_> = ids.iter().zip(0_u32..).map(|(id, n)| Contact { id: NodeId(*id), addr: peer(0x2000_0000 + n) }).collect();
        let table = SavedTable { id: NodeId(ids[0]), nodes };
        let saved = Saved { v4: Some(table), v6: v6.then_some(SavedTable { id: NodeId(ids[0]), nodes: vec![] }) };
        prop_assert_eq!(Saved::parse(&saved.encode()), Ok(saved));
    }

    #[test]
    fn no_file_is_too_strange(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Saved::parse(&bytes);
        let inside = [b"d2:id20:aaaaaaaaaaaaaaaaaaaa5:nodes".to_vec(), format!("{}:", bytes.len()).into_bytes(), bytes, b"e".to_vec()].concat();
        let saved = Saved::parse(&inside).unwrap();
        prop_assert!(saved.v4.unwrap().nodes.iter().all(|node| node.addr.port() != 0));
    }
}
