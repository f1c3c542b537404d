//! Web seeds (BEP 19): which URL is asked for which bytes, servers of all manners, and whole downloads from them.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

#[path = "support/torrent.rs"]
mod torrent;
#[path = "support/web.rs"]
mod web;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use btfs::engine::egress::LocalAddrs;
use btfs::engine::home::Home;
use btfs::engine::message::FromPeer;
use btfs::engine::network::{Door, Network};
use btfs::engine::node::{Limits, Node, Options, Reach, Ways};
use btfs::engine::throttle::Rates;
use btfs::engine::tracker::Dialer;
use btfs::engine::web_seed::{WebSeed, serve};
use btfs::proto::config::Config;
use btfs::proto::metainfo::Metainfo;
use btfs::proto::units::{FileIndex, PeerId};
use btfs::proto::web_seed::{Queue, address, index, url_of};
use btfs::proto::wire::extension::parse_dont_have;
use btfs::proto::wire::message::{Message, Request};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use web::{Manners, Site};

const PIECE: usize = 64 << 10;
const BLOCK: usize = 16 << 10;
const LIMIT: Duration = Duration::from_secs(30);

/// Three files and padding, none of which ends with a piece.
fn several() -> (Metainfo, Vec<u8>) {
    let entries = [
        ("a film.bin", torrent::noise(1, 300_001), ""),
        (".pad/1", vec![0; 27_679], "p"),
        ("b/ü.bin", torrent::noise(2, 70_000), ""),
        ("c", torrent::noise(3, 99_999), ""),
    ];
    let (metainfo, bytes) = torrent::many(PIECE, &entries);
    (Metainfo::clone(&metainfo), bytes)
}

fn single() -> (Metainfo, Vec<u8>) {
    let bytes = torrent::noise(4, 500_000);
    (Metainfo::clone(&torrent::single(PIECE, &bytes)), bytes)
}

#[test]
fn a_file_is_sought_where_the_bep_says() {
    let (several, single) = (several().0, single().0);
    for (base, torrent, file, expected) in [
        ("http://h/x.iso", &single, 0, Some("http://h/x.iso")),
        ("http://h/x.iso?a=b", &single, 0, Some("http://h/x.iso?a=b")),
        ("http://h/dir/", &single, 0, Some("http://h/dir/top")),
        ("http://h/dir/", &several, 0, Some("http://h/dir/top/a%20film.bin")),
        ("http://h/dir", &several, 2, Some("http://h/dir/top/b/%C3%BC.bin")),
        ("http://h/dir?q", &several, 3, None),
        ("http://h/dir/", &several, 9, None),
    ] {
        assert_eq!(url_of(base, torrent, FileIndex(file)).as_deref(), expected, "{base} {file}");
    }
}

#[test]
fn an_address_stands_for_one_web_seed_and_no_peer_has_it() {
    for n in [0, 1, 63, u16::MAX] {
        assert_eq!(index(address(n)), Some(n));
    }
    for other in ["1.2.3.4:80", "[100::1]:81", "[100::1:1]:80", "[101::1]:80"] {
        assert_eq!(index(other.parse().unwrap()), None, "{other}");
    }
}

fn block(torrent: &Metainfo, n: usize) -> Request {
    let (offset, total) = (n * BLOCK, torrent.geometry.total() as usize);
    Request {
        piece: (offset / PIECE) as u32,
        begin: (offset % PIECE) as u32,
        len: BLOCK.min(total - offset) as u32,
    }
}

#[test]
fn blocks_that_follow_on_each_other_are_asked_for_at_once() {
    let (torrent, _) = single();
    let last = torrent.geometry.total() as usize / BLOCK;
    for (name, asked, cancelled, expected) in [
        ("in order", vec![3, 4, 5], vec![], vec![vec![3, 4, 5]]),
        ("across pieces, out of order", vec![5, 3, 4, 6], vec![], vec![vec![5, 6], vec![3, 4]]),
        ("with a gap", vec![1, 2, 8, 9], vec![], vec![vec![1, 2], vec![8, 9]]),
        ("one taken back", vec![1, 2, 3], vec![2], vec![vec![1], vec![3]]),
        ("the end", vec![last - 1, last], vec![], vec![vec![last - 1, last]]),
    ] {
        let mut queue = Queue::default();
        asked.iter().for_each(|&n| queue.push(block(&torrent, n)));
        cancelled.iter().for_each(|&n| assert!(queue.cancel(block(&torrent, n)), "{name}"));
        assert!(!queue.cancel(block(&torrent, 20)), "{name}");
        let runs: Vec<_> = std::iter::from_fn(|| queue.take_run(&torrent.geometry)).collect();
        let blocks = |run: &[usize]| run.iter().map(|&n| block(&torrent, n)).collect::<Vec<_>>();
        let found: Vec<Vec<_>> = runs.iter().map(|run| run.blocks.clone().into()).collect();
        assert_eq!(found, expected.iter().map(|run| blocks(run)).collect::<Vec<_>>(), "{name}");
        for run in &runs {
            let len: u64 = run.blocks.iter().map(|block| u64::from(block.len)).sum();
            assert_eq!(run.range.end - run.range.start, len, "{name}");
        }
    }
}

/// A web seed as the torrent sees it.
struct Talk {
    messages: mpsc::Sender<Message>,
    events: mpsc::Receiver<FromPeer>,
}

/// What came of some requests.
#[derive(Debug, Default)]
struct Outcome {
    pieces: Vec<(u32, u32)>,
    rejects: usize,
    missing: BTreeSet<u32>,
    closed: Option<String>,
}

impl Talk {
    async fn with(site: &Site, torrent: &Metainfo, path: &str) -> Self {
        let mut torrent = torrent.clone();
        torrent.web_seeds = vec![format!("{}{path}", site.url())];
        let (to_torrent, mut events) = mpsc::channel(1000);
        let network = Arc::new(Network::new(LocalAddrs::default()));
        let door = Door {
            dht: false,
            info_hash: torrent.info_hash,
            peer_id: PeerId([1; 20]),
            pieces: Some(torrent.geometry.piece_count()),
            to_torrent,
        };
        let seed = WebSeed { index: 0, metainfo: Arc::new(torrent) };
        tokio::spawn(serve(network, Dialer::new(LocalAddrs::default()), door, seed));
        let Some(FromPeer::Connected { hello, sender: messages, .. }) = events.recv().await else {
            panic!("it does not connect");
        };
        assert_eq!((hello.addr, hello.incoming), (address(0), false));
        let Some(FromPeer::Messages { batch, .. }) = events.recv().await else {
            panic!("it does not greet");
        };
        assert!(batch.ends_with(&[Message::HaveAll, Message::Unchoke]), "{batch:?}");
        Self { messages, events }
    }

    /// Asks for these blocks, and returns when each is answered or the connection is closed.
    async fn ask(&mut self, requests: Vec<Request>, bytes: &[u8]) -> Outcome {
        let asked = requests.len();
        for request in requests {
            self.messages.send(Message::Request(request)).await.unwrap();
        }
        let mut outcome = Outcome::default();
        while outcome.pieces.len() + outcome.rejects < asked && outcome.closed.is_none() {
            let event = timeout(LIMIT, self.events.recv()).await.expect("in time").unwrap();
            match event {
                FromPeer::Messages { batch, .. } => {
                    batch.into_iter().for_each(|message| outcome.take(message, bytes));
                }
                FromPeer::Closed { reason, .. } => outcome.closed = Some(reason),
                other => panic!("{other:?}"),
            }
        }
        outcome
    }

    /// Why the connection is closed with the next event.
    async fn closed(&mut self) -> Option<String> {
        match timeout(LIMIT, self.events.recv()).await.expect("in time") {
            Some(FromPeer::Closed { reason, .. }) => Some(reason),
            _ => None,
        }
    }
}

impl Outcome {
    fn take(&mut self, message: Message, bytes: &[u8]) {
        match message {
            Message::Piece { piece, begin, data } => {
                let at = piece as usize * PIECE + begin as usize;
                assert_eq!(data, bytes[at..at + data.len()], "{piece} {begin}");
                self.pieces.push((piece, begin));
            }
            Message::Reject(_) => self.rejects += 1,
            Message::Extended { payload, .. } => self.missing.extend(parse_dont_have(&payload)),
            other => panic!("{other:?}"),
        }
    }
}

fn all_blocks(torrent: &Metainfo) -> Vec<Request> {
    (0..(torrent.geometry.total() as usize).div_ceil(BLOCK)).map(|n| block(torrent, n)).collect()
}

#[tokio::test]
async fn every_block_comes_from_its_files_by_few_requests() {
    let (torrent, bytes) = several();
    let site = Site::of(&torrent, &bytes, Manners::Good).await;
    let mut talk = Talk::with(&site, &torrent, "/").await;
    let outcome = talk.ask(all_blocks(&torrent), &bytes).await;
    assert_eq!((outcome.pieces.len(), outcome.rejects), (all_blocks(&torrent).len(), 0));
    assert!(site.requests() <= 9, "{} requests for three files", site.requests());
    assert!(site.connections() <= 6, "{} connections", site.connections());
}

#[tokio::test]
async fn a_whole_file_is_taken_where_its_beginning_was_asked_for() {
    let (torrent, bytes) = single();
    let site = Site::of(&torrent, &bytes, Manners::Whole).await;
    let mut talk = Talk::with(&site, &torrent, "/top").await;
    let outcome = talk.ask(vec![block(&torrent, 0)], &bytes).await;
    assert_eq!(outcome.pieces, [(0, 0)]);
    assert_eq!(talk.ask(vec![block(&torrent, 9)], &bytes).await.rejects, 1);
    assert_eq!(talk.closed().await.as_deref(), Some("the server knows no ranges"));
}

#[tokio::test]
async fn a_server_without_manners_gives_nothing_and_is_left() {
    let (torrent, bytes) = single();
    for (manners, attempts, reason) in [
        (
            Manners::Status(404),
            1,
            "the server lacks the file, or has another (HTTP status 404 Not Found)",
        ),
        (
            Manners::Status(503),
            3,
            "the server answers a request for bytes with HTTP status 503 Service Unavailable",
        ),
        (Manners::OtherRange, 1, "the server sends other bytes than were asked for"),
        (
            Manners::OtherTotal,
            1,
            "the server lacks the file, or has another (HTTP status 206 Partial Content)",
        ),
        (Manners::NoRangeTold, 1, "the server sends other bytes than were asked for"),
        (Manners::Endless, 1, "the server sends more than was asked for"),
        (Manners::Short, 3, "the server sends less than was asked for"),
        (Manners::Breaks, 3, "connection lost"),
        (Manners::RedirectsRound, 1, "too many redirects"),
        (Manners::RedirectsTo("ftp://127.0.0.1/x".into()), 1, "refused to follow the URL to ftp:"),
        (
            Manners::RedirectsTo("http://169.254.169.254/x".into()),
            1,
            "refused to follow the URL to 169.254.169.254",
        ),
        (Manners::RedirectsTo("/top?key=1".into()), 1, "refused to follow the URL to 127.0.0.1"),
    ] {
        let site = Site::of(&torrent, &bytes, manners.clone()).await;
        let mut talk = Talk::with(&site, &torrent, "/top").await;
        let mut closed = None;
        for attempt in 0..attempts {
            assert_eq!(closed, None, "{manners:?} ends after {attempt}");
            // The last block: no server may send what comes before it.
            let outcome = talk.ask(vec![block(&torrent, 30)], &bytes).await;
            assert_eq!(outcome.pieces, [], "{manners:?}");
            let is_last = attempt + 1 == attempts;
            closed = if is_last { talk.closed().await } else { outcome.closed };
        }
        let told = closed.unwrap_or_default();
        assert!(told.starts_with(reason), "{manners:?}: {told}");
    }
}

/// One byte a second would keep the connection for days.
#[tokio::test(start_paused = true)]
async fn a_server_that_trickles_is_left_after_a_minute() {
    let (torrent, bytes) = single();
    let site = Site::of(&torrent, &bytes, Manners::Trickles).await;
    let mut talk = Talk::with(&site, &torrent, "/top").await;
    let begun = tokio::time::Instant::now();
    talk.messages.send(Message::Request(block(&torrent, 30))).await.unwrap();
    let event = talk.events.recv().await.unwrap();
    let FromPeer::Messages { batch, .. } = event else { panic!("{event:?}") };
    assert_eq!(batch, [Message::Reject(block(&torrent, 30))]);
    let took = begun.elapsed().as_secs();
    assert!((60..70).contains(&took), "{took} s");
}

#[tokio::test]
async fn one_file_that_is_missing_does_not_spoil_the_others() {
    let (torrent, bytes) = several();
    let site = Site::of(&torrent, &bytes, Manners::Lacks("/top/b/ü.bin".into())).await;
    let mut talk = Talk::with(&site, &torrent, "/").await;
    // The second file begins with piece 5 and ends in piece 6.
    let outcome = talk.ask(vec![block(&torrent, 20)], &bytes).await;
    assert_eq!((outcome.pieces, outcome.rejects, outcome.closed), (vec![], 1, None));
    let outcome = talk.ask(vec![block(&torrent, 0), block(&torrent, 28)], &bytes).await;
    assert_eq!((outcome.pieces.len(), outcome.closed), (2, None));
    assert_eq!(outcome.missing, BTreeSet::from([5, 6]));
}

/// Six fetches are under way at most; what has a gap before it waits for its turn.
#[tokio::test(start_paused = true)]
async fn what_is_taken_back_in_time_is_not_asked_for() {
    let (torrent, bytes) = single();
    let site = Site::of(&torrent, &bytes, Manners::Trickles).await;
    let mut talk = Talk::with(&site, &torrent, "/top").await;
    for n in (0..=12).step_by(2) {
        talk.messages.send(Message::Request(block(&torrent, n))).await.unwrap();
    }
    while site.requests() < 6 {
        sleep(Duration::from_millis(1)).await;
    }
    for n in [12, 0] {
        talk.messages.send(Message::Cancel(block(&torrent, n))).await.unwrap();
    }
    let event = talk.events.recv().await.unwrap();
    let FromPeer::Messages { batch, .. } = event else { panic!("{event:?}") };
    assert_eq!(batch, [Message::Reject(block(&torrent, 12))], "only what was not sent for");
    assert_eq!(site.requests(), 6);
}

fn node() -> Node {
    let at = Reach::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let limits = Limits { memory_bytes: 32 << 20, store_bytes: 32 << 20, rates: Rates::default() };
    Node::start(at, &Ways::default(), limits).unwrap()
}

/// Downloads all from wherever it comes.
async fn download(torrent: Metainfo, peers: Vec<SocketAddr>) {
    let (node, total) = (node(), torrent.geometry.total());
    let options =
        Options { home: Home::Memory, peers, trackers: vec![], config: Config::default() };
    let handle = node.add(Arc::new(torrent), options, |_| {}).await.unwrap();
    let mut status = handle.watch();
    let done = status.wait_for(|status| status.have_bytes == total);
    timeout(LIMIT, done).await.expect("in time").unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_comes_from_its_web_seed_alone() {
    for ((mut torrent, bytes), path) in [(several(), "/"), (single(), "/top")] {
        let site = Site::of(&torrent, &bytes, Manners::Good).await;
        torrent.web_seeds = vec![format!("{}{path}", site.url())];
        download(torrent, Vec::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_web_seed_is_banned_and_the_next_one_serves() {
    let (mut torrent, bytes) = single();
    let lies = Site::of(&torrent, &bytes, Manners::Lies).await;
    let good = Site::of(&torrent, &bytes, Manners::Good).await;
    torrent.web_seeds = vec![format!("{}/top", lies.url()), format!("{}/top", good.url())];
    download(torrent, Vec::new()).await;
    assert!(good.requests() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_seed_serves_beside_a_peer() {
    let (mut torrent, bytes) = single();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("top");
    std::fs::write(&path, &bytes).unwrap();
    let site = Site::of(&torrent, &bytes, Manners::Good).await;
    let seed = node();
    let home = Home::Exact(path);
    let options = Options { home, peers: vec![], trackers: vec![], config: Config::default() };
    seed.add(Arc::new(torrent.clone()), options, |_| {}).await.unwrap();
    torrent.web_seeds = vec![format!("{}/top", site.url())];
    download(torrent, vec![SocketAddr::from((Ipv4Addr::LOCALHOST, seed.port()))]).await;
    seed.stop().await;
}
