//! Rate limits over connections: on a clock that we hold, and once over loopback.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

#[path = "support/torrent.rs"]
mod torrent;

use std::fs;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use btfs::engine::connection;
use btfs::engine::egress::Egress;
use btfs::engine::home::Home;
use btfs::engine::message::{FromPeer, Hello};
use btfs::engine::network::{Door, Network};
use btfs::engine::node::{Limits, Node, Options, Reach, Ways};
use btfs::engine::throttle::{Rates, Throttle};
use btfs::proto::config::Config;
use btfs::proto::units::{InfoHash, PeerId};
use btfs::proto::wire::decoder::Decoder;
use btfs::proto::wire::message::{Handshake, Message, Request, Reserved};
use btfs::proto::wire::pex::Traits;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

const BLOCK: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(3600);

fn rates(up: u64, down: u64) -> Rates {
    Rates { up: NonZeroU64::new(up), down: NonZeroU64::new(down) }
}

fn network(rates: Rates) -> Arc<Network> {
    Arc::new(Network::new(Egress::default()).limited(rates))
}

/// A connection over memory: the far end, what the torrent hears, and its way out.
async fn connected(
    network: &Arc<Network>,
    buffer: usize,
) -> (DuplexStream, mpsc::Receiver<FromPeer>, mpsc::Sender<Message>) {
    let (to_torrent, mut heard) = mpsc::channel(4);
    let info_hash = InfoHash([7; 20]);
    let door =
        Door { info_hash, peer_id: PeerId([b'a'; 20]), dht: false, pieces: None, to_torrent };
    let reserved = Reserved { extended: true, fast: true, dht: false };
    let handshake = Handshake { reserved, info_hash, peer_id: PeerId([b'b'; 20]) };
    let addr = SocketAddr::from(([127, 0, 0, 1], 6881));
    let (near, far) = duplex(buffer);
    let network = network.clone();
    let traits = Traits::default();
    let hello = Hello { addr, incoming: false, handshake, round_trip: None, traits };
    tokio::spawn(async move { connection::run(&network, door, hello, split(near)).await });
    let FromPeer::Connected { sender, .. } = heard.recv().await.unwrap() else { panic!("a hello") };
    (far, heard, sender)
}

fn block(piece: u32) -> Message {
    Message::Piece { piece, begin: 0, data: Bytes::from(vec![piece as u8; BLOCK]) }
}

/// Everything that arrives, with the time since now.
async fn arrivals(mut far: DuplexStream, count: usize) -> Vec<(Duration, Message)> {
    let start = Instant::now();
    let mut decoder = Decoder::new(None, btfs::engine::pool::Pool::new(1));
    let (mut all, mut buffer, mut batch) = (Vec::new(), vec![0; 4096], Vec::new());
    while all.len() < count {
        let read = timeout(PATIENCE, far.read(&mut buffer)).await.unwrap().unwrap();
        decoder.feed(&buffer[..read], &mut batch).unwrap();
        all.extend(batch.drain(..).map(|message| (start.elapsed(), message)));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn blocks_wait_for_their_turn_and_control_overtakes_them() {
    let (far, _heard, sender) = connected(&network(rates(10_000, 0)), 1 << 20).await;
    let request = Message::Request(Request { piece: 1, begin: 0, len: 16_384 });
    let said = (0..20).map(block).chain([Message::Choke, Message::Have(3), request.clone()]);
    for message in said {
        sender.send(message).await.unwrap();
    }
    let all = arrivals(far, 23).await;
    let blocks: Vec<u32> = all
        .iter()
        .filter_map(|(_, message)| match message {
            Message::Piece { piece, .. } => Some(*piece),
            _ => None,
        })
        .collect();
    assert_eq!(blocks, (0..20).collect::<Vec<_>>(), "in order");
    for control in [Message::Have(3), request] {
        let (at, _) = all.iter().find(|(_, message)| *message == control).unwrap();
        assert!(*at < Duration::from_secs(1), "{control:?} waited for {at:?}");
    }
    let (last, choke) = all.last().unwrap();
    assert_eq!(*choke, Message::Choke, "what tells of the blocks comes after them");
    let due = 19.0 * (BLOCK + 13) as f64 / 10_000.0;
    let off = last.as_secs_f64() - due;
    assert!((-0.2..0.3).contains(&off), "20 blocks took {last:?}, not {due} s");
}

#[tokio::test(start_paused = true)]
async fn reading_keeps_to_the_rate_and_holds_the_peer_back() {
    let (mut far, mut heard, _sender) = connected(&network(rates(0, 50_000)), BLOCK).await;
    let mut message = Vec::new();
    let one = block(1);
    if let Some(data) = one.encode(&mut message) {
        message.extend_from_slice(data);
    }
    let (counter, mut counted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while far.write_all(&message).await.is_ok() {
            counter.send(message.len()).unwrap();
        }
    });
    let start = Instant::now();
    let mut payload = 0;
    while start.elapsed() < Duration::from_secs(60) {
        let FromPeer::Messages { batch, .. } = heard.recv().await.unwrap() else { continue };
        payload += batch.len() * (BLOCK + 13);
    }
    let most = 50_000.0 * start.elapsed().as_secs_f64();
    let part = payload as f64 / most;
    assert!((0.98..1.005).contains(&part), "{part} of the rate");
    let mut written = 0;
    while let Ok(bytes) = counted.try_recv() {
        written += bytes;
    }
    assert!(written - payload <= 4 * BLOCK, "the peer is {} bytes ahead", written - payload);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_keeps_nobody_from_uploading() {
    let network = network(rates(100_000, 0));
    let (_deaf, _heard, to_deaf) = connected(&network, 64).await;
    let (far, _also_heard, sender) = connected(&network, 1 << 20).await;
    for piece in 0..30 {
        to_deaf.send(block(piece)).await.unwrap();
        to_deaf.send(Message::Have(piece)).await.unwrap();
        sender.send(block(piece)).await.unwrap();
    }
    let all = arrivals(far, 30).await;
    let last = all.last().unwrap().0.as_secs_f64();
    let due = 30.0 * (BLOCK + 13) as f64 / 100_000.0;
    assert!(last < due + 1.0, "30 blocks took {last} s, not {due} s");
}

#[tokio::test(start_paused = true)]
async fn connections_share_a_rate_evenly() {
    let throttle = Throttle::new(NonZeroU64::new(40_000));
    let start = Instant::now();
    let takers: Vec<_> = (0..5)
        .map(|_| {
            let mut tap = throttle.tap();
            tokio::spawn(async move {
                let mut taken = 0;
                while start.elapsed() < Duration::from_secs(100) {
                    poll_fn(|cx| tap.poll_take(BLOCK, cx)).await;
                    taken += BLOCK;
                }
                taken
            })
        })
        .collect();
    let mut shares = Vec::new();
    for taker in takers {
        shares.push(taker.await.unwrap());
    }
    let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
    assert!(most - least <= 2 * BLOCK, "{shares:?}");
    let total: usize = shares.iter().sum();
    assert!(total.abs_diff(4_000_000) <= 6 * BLOCK, "{total} bytes in 100 s");
}

#[tokio::test(start_paused = true)]
async fn a_tap_that_gives_up_lets_the_next_one_through() {
    let throttle = Throttle::new(NonZeroU64::new(1000));
    let (mut first, mut second) = (throttle.tap(), throttle.tap());
    poll_fn(|cx| first.poll_take(5000, cx)).await;
    let soon = Duration::from_secs(1);
    assert!(timeout(soon, poll_fn(|cx| first.poll_take(5000, cx))).await.is_err());
    assert!(first.is_waiting());
    let waiting = tokio::spawn(async move { poll_fn(|cx| second.poll_take(1, cx)).await });
    sleep(Duration::from_secs(10)).await;
    assert!(!waiting.is_finished(), "it is the first one's turn");
    first.give_up();
    timeout(soon, waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_move_no_more_than_the_rate() {
    const RATE: u64 = 256 << 10;
    let bytes = torrent::noise(5, 1 << 20);
    let metainfo = torrent::single(64 << 10, &bytes);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("top");
    fs::write(&path, &bytes).unwrap();
    let at = Reach::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let limits = |rates| Limits { memory_bytes: 32 << 20, store_bytes: 32 << 20, rates };
    let options =
        |home, peers| Options { home, peers, trackers: vec![], config: Config::default() };

    let seed = Node::start(at, &Ways::default(), limits(rates(RATE, 0))).unwrap();
    seed.add(metainfo.clone(), options(Home::Exact(path), vec![]), |_| {}).await.unwrap();
    let leech = Node::start(at, &Ways::default(), limits(Rates::default())).unwrap();
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, seed.port()));
    let start = Instant::now();
    let handle = leech.add(metainfo, options(Home::Memory, vec![peer]), |_| {}).await.unwrap();
    let mut status = handle.watch();
    let done = status.wait_for(|status| status.have_bytes == bytes.len() as u64);
    timeout(Duration::from_secs(120), done).await.expect("in time").unwrap();
    let took = start.elapsed().as_secs_f64();
    let least = (bytes.len() as u64 - RATE / 10 - BLOCK as u64) as f64 / RATE as f64;
    assert!(took >= least, "1 MiB in {took} s, which takes {least} s at this rate");
    leech.stop().await;
    seed.stop().await;
}
