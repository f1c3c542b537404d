//! Our DHT nodes over real sockets, on loopback addresses: they find each other, and what they know outlives them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/torrent.rs"]
mod torrent;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use btfs::engine::dht::{Dht, DhtStatus, Settings};
use btfs::engine::egress::Egress;
use btfs::engine::handle::Handle;
use btfs::engine::home::Home;
use btfs::engine::message::Command;
use btfs::engine::node::{Limits, Node, Options, Reach, Ways};
use btfs::engine::throttle::Rates;
use btfs::engine::udp_port::UdpPort;
use btfs::proto::config::Config;
use btfs::proto::dht::saved::Saved;
use btfs::proto::metainfo::Metainfo;
use btfs::proto::origin::Origin;
use btfs::proto::units::InfoHash;
use tempfile::tempdir;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const TORRENT: InfoHash = InfoHash([7; 20]);

/// Longest wait for anything that must happen.
const LIMIT: Duration = Duration::from_secs(30);

/// A node at an address of its own, which enters by this one.
fn start(n: u8, entry: Option<SocketAddr>, dir: Option<&Path>) -> (Dht, SocketAddr) {
    let port =
        UdpPort::bind(&Egress::default(), &[SocketAddr::from((Ipv4Addr::new(127, 0, 7, n), 0))])
            .unwrap();
    let at = port.local_addrs()[0];
    let bootstrap = entry.iter().map(|addr| (addr.ip().to_string(), addr.port())).collect();
    let settings = Settings { bootstrap, dir: dir.map(Path::to_path_buf) };
    (Dht::start(settings, Arc::new(port), Arc::default()), at)
}

/// Waits until it stands so.
async fn until(dht: &Dht, stands: impl Fn(&DhtStatus) -> bool) {
    let happened = async {
        while !stands(&dht.status()) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, happened).await.unwrap_or_else(|_| panic!("{:?}", *dht.status()));
}

async fn until_knows(dht: &Dht, nodes: usize) {
    until(dht, |status| status.nodes >= nodes).await;
}

async fn until_met(inbox: &mut mpsc::Receiver<Command>, peer: SocketAddr) {
    let met = async {
        loop {
            match inbox.recv().await.unwrap() {
                Command::Meet { addrs, origin: Origin::Dht } if addrs.contains(&peer) => return,
                _ => {}
            }
        }
    };
    timeout(LIMIT, met).await.expect("the peer is found");
}

#[tokio::test]
async fn peers_find_each_other_through_a_third() {
    let (_hub, entry) = start(1, None, None);
    let (seed, seed_at) = start(2, Some(entry), None);
    let (leech, _) = start(3, Some(entry), None);
    let (to_seed, _seed_hears) = mpsc::channel(100);
    let (to_leech, mut leech_hears) = mpsc::channel(100);
    seed.join(TORRENT, to_seed);
    until(&seed, |status| status.found(TORRENT).is_some()).await;
    leech.join(TORRENT, to_leech);
    until_met(&mut leech_hears, seed_at).await;
    until(&leech, |status| status.found(TORRENT) == Some(1)).await;
}

#[tokio::test]
async fn id_and_table_outlive_a_run_and_belong_to_one_process() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("nodes");
    let saved = || Saved::parse(&fs::read(&file).unwrap()).unwrap().v4.unwrap();
    let (_hub, entry) = start(4, None, None);
    let (first, _) = start(5, Some(entry), Some(dir.path()));
    until_knows(&first, 1).await;
    first.stop().await;
    let kept = saved();
    assert_eq!(kept.nodes.iter().map(|node| node.addr).collect::<Vec<_>>(), [entry]);

    let (second, _) = start(5, None, Some(dir.path()));
    let (beside, _) = start(6, None, Some(dir.path()));
    until_knows(&second, 1).await;
    until_knows(&beside, 1).await;
    beside.stop().await;
    second.stop().await;
    assert_eq!(saved().id, kept.id, "whoever comes second bears another name, and does not save");

    for spoilt in [&b""[..], b"d2:id3:abce", &[b'l'; 100_000]] {
        fs::write(&file, spoilt).unwrap();
        let (third, _) = start(5, Some(entry), Some(dir.path()));
        until_knows(&third, 1).await;
        third.stop().await;
        assert_eq!(saved().nodes.len(), 1);
    }
}

/// A whole process at an address of its own, whose node of the DHT knows no way in.
fn process(n: u8) -> Node {
    let at = Reach::At(SocketAddr::from((Ipv4Addr::new(127, 0, 7, n), 0)));
    let ways = Ways { dht: Some(Settings::default()), ..Ways::default() };
    let limits = Limits { memory_bytes: 32 << 20, store_bytes: 32 << 20, rates: Rates::default() };
    Node::start(at, &ways, limits).unwrap()
}

async fn add(node: &Node, metainfo: Metainfo, peers: Vec<SocketAddr>) -> Handle {
    let options =
        Options { home: Home::Memory, peers, trackers: vec![], config: Config::default() };
    node.add(Arc::new(metainfo), options, |_| {}).await.unwrap()
}

/// Waits until the torrent's status tells of a node.
async fn until_helped(handle: &Handle) {
    let mut status = handle.watch();
    let helped = status.wait_for(|status| status.dht.is_some_and(|dht| dht.nodes > 0));
    timeout(LIMIT, helped).await.expect("a node is known").unwrap();
}

#[tokio::test]
async fn a_torrent_names_nodes_and_a_private_one_is_kept_out() {
    let (hub, entry) = start(8, None, None);
    let (node, private) = (process(9), process(10));
    let mut metainfo = (*torrent::single(16 << 10, b"content")).clone();
    metainfo.nodes = vec![(entry.ip().to_string(), entry.port())];
    until_helped(&add(&node, metainfo.clone(), vec![]).await).await;
    until_knows(&hub, 1).await;
    metainfo.private = true;
    let handle = add(&private, metainfo, vec![]).await;
    let mut status = handle.watch();
    timeout(LIMIT, status.changed()).await.expect("a report").unwrap();
    assert_eq!(handle.status().dht, None);
    private.stop().await;
    node.stop().await;
}

#[tokio::test]
async fn peers_that_meet_enter_by_each_other() {
    let (one, other) = (process(11), process(12));
    let metainfo = (*torrent::single(16 << 10, b"content")).clone();
    let at = SocketAddr::from((Ipv4Addr::new(127, 0, 7, 11), one.port()));
    let ours = add(&one, metainfo.clone(), vec![]).await;
    let theirs = add(&other, metainfo, vec![at]).await;
    until_helped(&ours).await;
    until_helped(&theirs).await;
    other.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn the_dht_and_utp_share_a_port() {
    let port =
        UdpPort::bind(&Egress::default(), &[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).unwrap();
    let other =
        UdpPort::bind(&Egress::default(), &[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).unwrap();
    let (at, from) = (port.local_addrs()[0], other.local_addrs()[0]);
    let (mut dht, mut utp) = (port.take_dht(), port.take_utp());
    let (longest, longer) = ([1; 4096], [2; 4097]);
    for datagram in [&b"\x41\x00 syn"[..], b"d1:q", b"", &longer, &longest, b"\x01\x00 data", b"d"]
    {
        other.send_to(datagram, at).await.unwrap();
    }
    let next =
        async |inbox: &mut mpsc::Receiver<_>| timeout(LIMIT, inbox.recv()).await.unwrap().unwrap();
    for expected in [&b"d1:q"[..], b"d"] {
        assert_eq!(next(&mut dht).await, (expected.to_vec(), from));
    }
    for expected in [&b"\x41\x00 syn"[..], &longest, b"\x01\x00 data"] {
        assert_eq!(next(&mut utp).await, (expected.to_vec(), from));
    }
    let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 1));
    assert!(port.try_send_to(b"d", v6).is_err(), "we have no address there");
}
