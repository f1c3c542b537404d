//! What DHT nodes call themselves and say to each other: ids, addresses, messages.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{IpAddr, SocketAddr};

use btfs::proto::dht::contact::{Contact, Host, Net, may_name};
use btfs::proto::dht::krpc::{
    Body, KrpcError, MAX_DATAGRAM, MAX_NODES, MAX_VALUES, Message, Query, Refusal, Reply, Want,
};
use btfs::proto::dht::node_id::NodeId;
use btfs::proto::units::InfoHash;
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn id(byte: u8) -> NodeId {
    NodeId([byte; 20])
}

fn hex(text: &str) -> [u8; 20] {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
}

/// The examples of BEP 42.
#[test]
fn an_address_decides_the_ids_that_may_be_there() {
    let table = [
        ("124.31.75.21", "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
        ("21.75.31.124", "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
        ("65.23.51.170", "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
        ("84.124.73.14", "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
        ("43.213.53.83", "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
    ];
    for (ip, example) in table {
        let (ip, example) = (ip.parse::<IpAddr>().unwrap(), NodeId(hex(example)));
        assert!(example.fits(ip), "{ip}");
        assert!(!example.fits("8.8.8.8".parse().unwrap()), "{ip}");
        let mut broken = example;
        broken.0[1] ^= 0x10;
        assert!(!broken.fits(ip), "{ip}");
        assert!(broken.fits("192.168.1.1".parse().unwrap()), "any id may be in a local network");
    }
}

#[test]
fn ids_made_for_an_address_fit_it_and_differ() {
    let mut rng = StdRng::seed_from_u64(1);
    for ip in ["124.31.75.21", "2001:db8:1:2::3", "127.0.0.1"] {
        let ip: IpAddr = ip.parse().unwrap();
        let ids: Vec<_> = (0..20).map(|_| NodeId::of_ip(ip, &mut rng)).collect();
        assert!(ids.iter().all(|id| id.fits(ip)), "{ip}");
        assert!(ids.windows(2).all(|two| two[0] != two[1]), "{ip}");
    }
}

proptest! {
    #[test]
    fn shared_bits_are_those_that_were_asked_for(bytes: [u8; 20], bits in 0..160_usize, seed: u64) {
        let (own, mut rng) = (NodeId(bytes), StdRng::seed_from_u64(seed));
        prop_assert_eq!(own.sharing(bits, &mut rng).shared_bits(&own), bits);
    }

    #[test]
    fn distance_orders_as_the_numbers_do(a: [u8; 20], b: [u8; 20], target: [u8; 20]) {
        let xor = |x: [u8; 20]| (0..20).map(|n| x[n] ^ target[n]).collect::<Vec<_>>();
        let target = NodeId(target);
        let ours = NodeId(a).distance(&target).cmp(&NodeId(b).distance(&target));
        prop_assert_eq!(ours, xor(a).cmp(&xor(b)));
    }
}

#[test]
fn what_is_cheap_to_have_many_of_counts_once() {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let same_host = [
        ("two ports", "8.8.8.8:1", "8.8.8.8:2", true),
        ("two addresses", "8.8.8.8:1", "8.8.4.4:1", false),
        ("one /64", "[2001:db8::1]:1", "[2001:db8::2]:1", true),
        ("two /64", "[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false),
        ("two ports at home", "127.0.0.1:1", "127.0.0.1:2", false),
    ];
    for (name, a, b, same) in same_host {
        assert_eq!(Host::of(&addr(a)) == Host::of(&addr(b)), same, "{name}");
    }
    let net = |text: &str| Net::of(addr(text).ip());
    assert_eq!(net("8.8.8.8:1"), net("8.8.8.4:1"));
    assert_ne!(net("8.8.8.8:1"), net("8.8.4.4:1"));
    assert_eq!(net("10.0.0.1:1"), None);
}

#[test]
fn nobody_outside_names_what_is_inside() {
    let table = [
        ("8.8.8.8", "9.9.9.9", true),
        ("8.8.8.8", "192.168.1.1", false),
        ("8.8.8.8", "127.0.0.1", false),
        ("192.168.1.1", "192.168.1.2", true),
        ("192.168.1.1", "127.0.0.1", false),
        ("127.0.0.1", "127.0.0.2", true),
        ("127.0.0.1", "169.254.169.254", false),
    ];
    for (source, named, allowed) in table {
        assert_eq!(
            may_name(source.parse().unwrap(), named.parse().unwrap()),
            allowed,
            "{source} {named}"
        );
    }
}

/// The examples of BEP 5, and what the later ones add.
#[test]
fn messages_read_as_the_documents_say() {
    let (asker, hash) = (NodeId(*b"abcdefghij0123456789"), InfoHash(*b"mnopqrstuvwxyz123456"));
    let query = |query| Body::Query { id: asker, query, read_only: false };
    let target = NodeId(hash.0);
    let none = Want::default();
    let announce =
        |port| Query::AnnouncePeer { info_hash: hash, port, token: b"aoeusnth".to_vec() };
    let table: Vec<(&str, &[u8], Body)> = vec![
        ("ping", b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", query(Query::Ping)),
        (
            "ping of a read-only node",
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:roi1e1:t2:aa1:y1:qe",
            Body::Query { id: asker, query: Query::Ping, read_only: true },
        ),
        (
            "find_node",
            b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
            query(Query::FindNode { target, want: none }),
        ),
        (
            "get_peers",
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:wantl2:n42:n6ee1:q9:get_peers1:t2:aa1:y1:qe",
            query(Query::GetPeers { info_hash: hash, want: Want { v4: true, v6: true } }),
        ),
        (
            "announce_peer",
            b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
            query(announce(None)),
        ),
        (
            "announce_peer with a port",
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
            query(announce(Some(6881))),
        ),
        (
            "a query of the future",
            b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q4:vote1:t2:aa1:y1:qe",
            query(Query::Unknown { target: Some(target) }),
        ),
        (
            "peers",
            b"d2:ip6:\x01\x02\x03\x04\x1a\xe11:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
            Body::Reply {
                id: asker,
                reply: Reply {
                    nodes: vec![],
                    peers: vec!["97.120.106.101:11893".parse().unwrap(), "105.100.104.116:28269".parse().unwrap()],
                    token: Some(b"aoeusnth".to_vec()),
                },
                seen_at: Some("1.2.3.4:6881".parse().unwrap()),
            },
        ),
        (
            "nodes",
            b"d1:rd2:id20:abcdefghij01234567895:nodes26:mnopqrstuvwxyz123456axje.ue1:t2:aa1:y1:re",
            Body::Reply {
                id: asker,
                reply: Reply {
                    nodes: vec![Contact { id: target, addr: "97.120.106.101:11893".parse().unwrap() }],
                    ..Reply::default()
                },
                seen_at: None,
            },
        ),
        ("error", b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee", Body::Error(Refusal::Other(201))),
        ("error without words", b"d1:eli203ee1:t2:aa1:y1:ee", Body::Error(Refusal::Other(0))),
    ];
    for (name, datagram, body) in table {
        let read = Message::parse(datagram).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, Message { transaction: b"aa".to_vec(), body }, "{name}");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let table: [(&str, Vec<u8>, &str); 10] = [
        ("nothing", b"".to_vec(), "ends too early"),
        ("a list", b"le".to_vec(), "not a dictionary"),
        ("no transaction", b"d1:y1:qe".to_vec(), "`t`"),
        ("an empty transaction", b"d1:t0:1:y1:qe".to_vec(), "`t`"),
        ("no kind", b"d1:t2:aae".to_vec(), "`y`"),
        ("no arguments", b"d1:q4:ping1:t2:aa1:y1:qe".to_vec(), "`a`"),
        ("a short id", b"d1:ad2:id2:abe1:q4:ping1:t2:aa1:y1:qe".to_vec(), "`id`"),
        (
            "port 0",
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti0e5:token1:xe1:q13:announce_peer1:t2:aa1:y1:qe".to_vec(),
            "`port`",
        ),
        ("deep", [b"d1:a".to_vec(), vec![b'l'; 1000], vec![b'e'; 1001]].concat(), "nested deeper"),
        ("long", vec![b'd'; MAX_DATAGRAM + 1], "more than a message"),
    ];
    for (name, datagram, complaint) in table {
        let told = Message::parse(&datagram).unwrap_err().to_string();
        assert!(told.contains(complaint), "{name}: {told}");
    }
    assert_eq!(Message::parse(&[b'd'; 4000]), Err(KrpcError::TooLong(4000)));
}

fn ids() -> impl Strategy<Value = NodeId> {
    any::<[u8; 20]>().prop_map(NodeId)
}

fn addrs() -> impl Strategy<Value = SocketAddr> {
    let ports = 1..=u16::MAX;
    prop_oneof![
        ([1..=223_u8, 0..=255, 0..=255, 0..=255], ports.clone())
            .prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        (any::<[u8; 15]>(), ports).prop_map(|(tail, port)| {
            let mut ip = [0x20; 16];
            ip[1..].copy_from_slice(&tail);
            SocketAddr::from((ip, port))
        }),
    ]
}

fn contacts() -> impl Strategy<Value = Contact> {
    (ids(), addrs()).prop_map(|(id, addr)| Contact { id, addr })
}

fn wants() -> impl Strategy<Value = Want> {
    (any::<bool>(), any::<bool>()).prop_map(|(v4, v6)| Want { v4, v6 })
}

fn queries() -> impl Strategy<Value = Query> {
    let hashes = || any::<[u8; 20]>().prop_map(InfoHash);
    prop_oneof![
        Just(Query::Ping),
        (ids(), wants()).prop_map(|(target, want)| Query::FindNode { target, want }),
        (hashes(), wants()).prop_map(|(info_hash, want)| Query::GetPeers { info_hash, want }),
        (hashes(), proptest::option::of(1..=u16::MAX), vec(any::<u8>(), 1..20))
            .prop_map(|(info_hash, port, token)| Query::AnnouncePeer { info_hash, port, token }),
        proptest::option::of(ids()).prop_map(|target| Query::Unknown { target }),
    ]
}

fn bodies() -> impl Strategy<Value = Body> {
    let replies = (
        vec(contacts(), 0..MAX_NODES),
        vec(addrs(), 0..MAX_VALUES / 2),
        proptest::option::of(vec(any::<u8>(), 1..20)),
    );
    prop_oneof![
        (ids(), queries(), any::<bool>()).prop_map(|(id, query, read_only)| Body::Query {
            id,
            query,
            read_only
        }),
        (ids(), replies, proptest::option::of(addrs())).prop_map(
            |(id, (mut nodes, peers, token), seen_at)| {
                // They are written by family.
                nodes.sort_by_key(|node| node.addr.is_ipv6());
                Body::Reply { id, reply: Reply { nodes, peers, token }, seen_at }
            }
        ),
        Just(Body::Error(Refusal::Protocol)),
        Just(Body::Error(Refusal::MethodUnknown)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(transaction in vec(any::<u8>(), 1..9), body in bodies()) {
        let message = Message { transaction, body };
        let datagram = message.encode();
        if datagram.len() <= MAX_DATAGRAM {
            prop_assert_eq!(Message::parse(&datagram), Ok(message));
        }
    }

    #[test]
    fn no_bytes_are_too_strange(
        body in bodies(),
        spoils in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut datagram = Message { transaction: b"aa".to_vec(), body }.encode();
        for (at, byte) in spoils {
            let at = at.index(datagram.len());
            datagram[at] = byte;
        }
        datagram.truncate(cut.index(datagram.len()) + 1);
        if let Ok(Message { transaction, body: Body::Reply { reply, .. } }) = Message::parse(&datagram) {
            prop_assert!(transaction.len() <= 64);
            prop_assert!(reply.nodes.len() <= 2 * MAX_NODES && reply.peers.len() <= MAX_VALUES);
        }
    }
}

#[test]
fn a_reply_with_a_thousand_nodes_and_peers_is_cut() {
    let node = |n: u16| Contact { id: id(n as u8), addr: SocketAddr::from(([8, 8, 8, 8], n + 1)) };
    let peers = (0..150).map(|n| SocketAddr::from(([9, 9, 9, 9], n + 1))).collect();
    let reply = Reply { nodes: (0..20).map(node).collect(), peers, token: None };
    let message =
        Message { transaction: vec![1], body: Body::Reply { id: id(1), reply, seen_at: None } };
    let Body::Reply { reply, .. } = Message::parse(&message.encode()).unwrap().body else {
        panic!()
    };
    assert_eq!((reply.nodes.len(), reply.peers.len()), (MAX_NODES, MAX_VALUES));
}
