//! Whatever strangers say at the ports of a process, a proper peer is heard there, and memory stays bounded.
//!
//! Not here: each message by itself, in the tests of its protocol; answers of trackers (`tracker`), web servers
//! (`web_seed`) and routers (`port_map`).

#![allow(clippy::unwrap_used, reason = "the functions beside the test are tests too")]

#[path = "support/torrent.rs"]
mod torrent;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use btfs::engine::home::Home;
use btfs::engine::node::{Limits, Node, Options, Reach, Ways};
use btfs::engine::throttle::Rates;
use btfs::proto::config::Config;
use btfs::proto::dht::krpc::{self, Body, Query, Reply, Want};
use btfs::proto::dht::node_id::NodeId;
use btfs::proto::lsd::{self, Call, GROUP_V4};
use btfs::proto::magnet::Magnet;
use btfs::proto::metadata;
use btfs::proto::metainfo::Metainfo;
use btfs::proto::units::{BLOCK_LEN, InfoHash, PeerId};
use btfs::proto::wire::extension::{Extension, ExtensionHandshake, ExtensionIds};
use btfs::proto::wire::holepunch;
use btfs::proto::wire::message::{Handshake, Message, Request, Reserved};
use btfs::proto::wire::pex::{Exchange, Traits};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Less than the minute after which a call that was not heard is repeated.
const LIMIT: Duration = Duration::from_secs(50);
const PIECE: usize = 64 << 10;

/// What each kind of stranger says before a proper peer comes; they go on beside it.
const ROUNDS: usize = 600;

/// What the process under test may take, and by how much this one may grow, which is that and the strangers too.
const MEMORY: u64 = 16 << 20;
const MOST_GROWTH: u64 = 64 << 20;

fn options(home: Home, peers: Vec<SocketAddr>) -> Options {
    Options { home, peers, trackers: vec![], config: Config::default() }
}

fn start(ways: &Ways) -> (Node, SocketAddr) {
    let reach = Reach::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let limits = Limits { memory_bytes: MEMORY, store_bytes: MEMORY, rates: Rates::default() };
    let node = Node::start(reach, ways, limits).unwrap();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, node.port()));
    (node, at)
}

fn noise(most: usize, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..most)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// As it is, cut short, with another byte in it, or something else.
fn spoiled(mut whole: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..4) {
        0 => {}
        1 => whole.truncate(rng.random_range(0..=whole.len())),
        2 => {
            let at = rng.random_range(0..=whole.len());
            whole.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.random());
        }
        _ => whole = noise(3000, rng),
    }
    whole
}

/// What an extension of ours can be told.
fn extension(rng: &mut StdRng) -> Vec<u8> {
    let addr = SocketAddr::from((rng.random::<[u8; 4]>(), rng.random::<u16>()));
    let payload = match rng.random_range(0..5) {
        0 => ExtensionHandshake {
            ids: ExtensionIds::local(&[Extension::Metadata, Extension::Pex, Extension::Holepunch]),
            metadata_len: Some(rng.random_range(0..40_000)),
            ..ExtensionHandshake::default()
        }
        .encode(),
        1 => {
            let added = vec![(addr, Traits(rng.random())); 60];
            Exchange { added, dropped: vec![addr] }.encode()
        }
        2 => metadata::Word::Request(rng.random_range(0..3)).encode(),
        3 => {
            let data = noise(BLOCK_LEN as usize, rng).into();
            metadata::Word::Data { block: rng.random_range(0..3), total: 40_000, data }.encode()
        }
        _ => holepunch::Word::Rendezvous(addr).encode(),
    };
    spoiled(payload.to_vec(), rng)
}

/// A message of any kind, as bytes.
fn message(rng: &mut StdRng) -> Vec<u8> {
    let asked = Request { piece: rng.random_range(0..70), begin: rng.random(), len: BLOCK_LEN };
    let message = match rng.random_range(0..10) {
        0 => Message::HaveAll,
        1 => Message::Unchoke,
        2 => Message::Interested,
        3 => Message::Have(rng.random_range(0..70)),
        4 => Message::Request(Request { begin: 0, ..asked }),
        5 => Message::Reject(asked),
        6 => Message::Bitfield(noise(20, rng).into()),
        7 => Message::Piece { piece: asked.piece, begin: 0, data: vec![1; 16_384].into() },
        _ => Message::Extended { id: rng.random_range(0..8), payload: extension(rng).into() },
    };
    let mut bytes = Vec::new();
    if let Some(payload) = message.encode(&mut bytes).cloned() {
        bytes.extend_from_slice(&payload);
    }
    if rng.random_range(0..8) == 0 { spoiled(bytes, rng) } else { bytes }
}

/// What a connection says from its beginning to its end: noise, which may be the key of an encrypted one, or a handshake
/// and messages.
fn conversation(torrent: InfoHash, rng: &mut StdRng) -> Vec<u8> {
    if rng.random_range(0..3) == 0 {
        return noise(2000, rng);
    }
    let reserved = Reserved { fast: rng.random(), extended: true, dht: rng.random() };
    let handshake = Handshake { reserved, info_hash: torrent, peer_id: PeerId(rng.random()) };
    let mut said = handshake.encode().to_vec();
    if rng.random_range(0..5) == 0 {
        said = spoiled(said, rng);
    }
    (0..rng.random_range(0..30)).for_each(|_| said.extend(message(rng)));
    said
}

/// For a node of the DHT, or for uTP.
fn datagram(torrent: InfoHash, rng: &mut StdRng) -> Vec<u8> {
    let (id, info_hash) = (NodeId(rng.random()), torrent);
    let want = Want { v4: rng.random(), v6: rng.random() };
    let query = match rng.random_range(0..4) {
        0 => Query::Ping,
        1 => Query::FindNode { target: NodeId(rng.random()), want },
        2 => Query::GetPeers { info_hash, want },
        _ => Query::AnnouncePeer { info_hash, port: Some(rng.random()), token: noise(20, rng) },
    };
    let body = match rng.random_range(0..5) {
        0 => Body::Reply { id, reply: Reply::default(), seen_at: None },
        _ => Body::Query { id, query, read_only: rng.random() },
    };
    if rng.random() {
        return spoiled(krpc::Message { transaction: noise(5, rng), body }.encode(), rng);
    }
    let mut packet = noise(60, rng);
    if let Some(first) = packet.first_mut() {
        *first = rng.random_range(0..6) << 4 | 1;
    }
    packet
}

/// What is no call on the local network: others on this machine hear it too.
fn call(torrent: InfoHash, group: SocketAddr, rng: &mut StdRng) -> Vec<u8> {
    let call = Call { port: 1, torrents: vec![torrent], cookie: None }.encode(group);
    let no_call = |bytes: &Vec<u8>| Call::parse(bytes).is_none();
    std::iter::repeat_with(|| spoiled(call.clone(), rng)).find(no_call).expect("it goes on")
}

/// Strangers of every kind at the process that listens there, who go on until they are dropped.
struct Strangers {
    /// What each kind has said.
    said: Arc<[AtomicUsize; 3]>,
    _tasks: JoinSet<()>,
}

impl Strangers {
    fn at(victim: SocketAddr, torrent: InfoHash) -> Self {
        let (said, mut tasks) = (Arc::<[AtomicUsize; 3]>::default(), JoinSet::new());
        for seed in 0..4 {
            tasks.spawn(connect(victim, torrent, said.clone(), StdRng::seed_from_u64(seed)));
        }
        let group = SocketAddr::from((GROUP_V4, lsd::PORT));
        let to_port = move |rng: &mut StdRng| datagram(torrent, rng);
        let to_group = move |rng: &mut StdRng| call(torrent, group, rng);
        tasks.spawn(send(victim, to_port, said.clone(), 1));
        tasks.spawn(send(group, to_group, said.clone(), 2));
        Self { said, _tasks: tasks }
    }

    async fn until_loud(&self) {
        let loud = async {
            while self.said.iter().any(|said| said.load(Ordering::Relaxed) < ROUNDS) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, loud).await.unwrap_or_else(|_| panic!("only {:?} were said", self.said));
    }
}

async fn connect(at: SocketAddr, torrent: InfoHash, said: Arc<[AtomicUsize; 3]>, mut rng: StdRng) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(at).await {
            // It may hang up on us meanwhile, as it should.
            let _ = stream.write_all(&conversation(torrent, &mut rng)).await;
            let _ = timeout(Duration::from_millis(5), stream.read(&mut [0; 4096])).await;
            said[0].fetch_add(1, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

async fn send(
    to: SocketAddr,
    make: impl Fn(&mut StdRng) -> Vec<u8>,
    said: Arc<[AtomicUsize; 3]>,
    kind: usize,
) {
    let mut rng = StdRng::seed_from_u64(9);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    loop {
        // What finds no room is not heard, and does not count.
        if socket.send_to(&make(&mut rng), to).await.is_ok() {
            said[kind].fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let told = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = told.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Strangers come while it is unknown what the torrent is, or known; then a proper peer comes by itself, or calls, and
/// gives all of it.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_every_port_keep_no_peer_from_being_heard() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, path) = (torrent::noise(1, 64 * PIECE), dir.path().join("top"));
    fs::write(&path, &bytes).unwrap();
    let metainfo = torrent::single(PIECE, &bytes);
    let before = resident();
    for (is_known, calls) in [(false, false), (true, true)] {
        let ways = Ways { dht: Some(Default::default()), lsd: true, ..Ways::default() };
        let (node, at) = start(&ways);
        let strangers = Strangers::at(at, metainfo.info_hash);
        let (peer, _) = start(&Ways { lsd: calls, ..Ways::default() });
        let mut download = pin!(download(&node, &metainfo, is_known));
        tokio::select! {
            () = &mut download => panic!("from nobody"),
            () = strangers.until_loud() => {}
        }
        let all = options(Home::Exact(path.clone()), if calls { vec![] } else { vec![at] });
        peer.add(metainfo.clone(), all, |_| {}).await.unwrap();
        timeout(LIMIT, download).await.expect("all of it comes");
        let growth = resident().saturating_sub(before);
        assert!(growth < MOST_GROWTH, "known {is_known}: {} MiB more", growth >> 20);
        drop(strangers);
        node.stop().await;
        peer.stop().await;
    }
}

async fn download(node: &Node, metainfo: &Arc<Metainfo>, is_known: bool) {
    let options = options(Home::Memory, vec![]);
    let handle = if is_known {
        node.add(metainfo.clone(), options, |_| {}).await.unwrap()
    } else {
        let magnet = Magnet::parse(&metainfo.info_hash.to_string()).unwrap();
        let mut seeking = node.seek(magnet, &options);
        let known = seeking.known().await.unwrap().unwrap();
        node.adopt(known, options).await.unwrap()
    };
    let mut status = handle.watch();
    status.wait_for(|status| status.have_bytes == metainfo.geometry.total()).await.unwrap();
}
