//! Trackers over real sockets on loopback: our client, our server, those of others, and liars.

#![allow(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use btfs::engine::egress::{Egress, LocalAddrs};
use btfs::engine::message::{FROM_TRACKER_CAPACITY, TrackerEvent};
use btfs::engine::tracker::{self, Dialer, Job, TrackerHandle};
use btfs::engine::tracker_server::TrackerServer;
use btfs::proto::announce::Progress;
use btfs::proto::announce::answer;
use btfs::proto::announce::tiers::{Outcome, Pace, TrackerStatus};
use btfs::proto::announce::udp::{self, ConnectionId, Request, Transaction};
use btfs::proto::announce::{Announce, Answer, Event};
use btfs::proto::registry::{Config, Registry};
use btfs::proto::units::{InfoHash, PeerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// For whatever must happen; far more than it takes.
const LIMIT: Duration = Duration::from_secs(20);

const TORRENT: InfoHash =
    InfoHash(*b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a");

/// One torrent of one peer, announced by our client.
struct Peer {
    handle: TrackerHandle,
    events: mpsc::Receiver<TrackerEvent>,
    progress: watch::Sender<Progress>,
}

impl Peer {
    fn start(tiers: &[&[&str]], port: u16, left: u64) -> Self {
        Self::start_from(LocalAddrs::default(), tiers, port, left)
    }

    fn start_from(local: LocalAddrs, tiers: &[&[&str]], port: u16, left: u64) -> Self {
        Self::start_by(Dialer::new(local), tiers, port, left)
    }

    fn start_by(dialer: Arc<Dialer>, tiers: &[&[&str]], port: u16, left: u64) -> Self {
        let tiers =
            tiers.iter().map(|tier| tier.iter().map(|&url| url.to_owned()).collect()).collect();
        let mut peer_id = *b"-BF0100-000000000000";
        peer_id[18..].copy_from_slice(&port.to_be_bytes());
        let pace = Pace { patience: Duration::from_millis(100), ..Pace::default() };
        let job = Job {
            tiers,
            info_hash: TORRENT,
            private: false,
            peer_id: PeerId(peer_id),
            port,
            pace,
            seed: u64::from(port),
        };
        let (progress, reader) = watch::channel(Progress { left, ..Progress::default() });
        let (out, events) = mpsc::channel(FROM_TRACKER_CAPACITY);
        let handle = tracker::spawn(job, dialer, reader, out);
        Self { handle, events, progress }
    }

    /// The next answer's peers, without ourselves.
    async fn peers(&mut self) -> Vec<SocketAddr> {
        let next = async {
            loop {
                match self.events.recv().await.expect("the tracker's task runs") {
                    TrackerEvent::Peers { addrs, .. } => return addrs,
                    TrackerEvent::ExternalIp(ip) => assert!(ip.is_loopback()),
                }
            }
        };
        timeout(LIMIT, next).await.expect("peers in time")
    }

    /// Waits until what is said of the first tracker satisfies.
    async fn until(&self, satisfied: impl Fn(&TrackerStatus) -> bool) -> TrackerStatus {
        let mut status = self.handle.watch_status();
        let all = timeout(LIMIT, status.wait_for(|all| satisfied(&all[0])));
        all.await.expect("in time").expect("the tracker's task runs")[0].clone()
    }

    async fn answered(&self) -> TrackerStatus {
        self.until(|status| matches!(status.last, Outcome::Answered { .. })).await
    }

    async fn failure(&self) -> String {
        let status = self.until(|status| matches!(status.last, Outcome::Failed { .. })).await;
        match status.last {
            Outcome::Failed { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn serve(listen: &str) -> TrackerServer {
    TrackerServer::bind(&[listen.parse().unwrap()], Registry::new(Config::default())).unwrap()
}

/// Sends raw bytes and reads until the other side closes.
async fn raw(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut response = Vec::new();
    // A server that refuses may reset what it has not read.
    let _ = timeout(LIMIT, stream.read_to_end(&mut response)).await.expect("an end in time");
    response
}

async fn page(addr: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    String::from_utf8_lossy(&raw(addr, request.as_bytes()).await).into_owned()
}

async fn life_of_a_swarm(scheme: &str, listen: &str) {
    let server = serve(listen);
    let addr = server.addrs()[0];
    let url = format!("{scheme}://{addr}/announce");
    let seed = Peer::start(&[&[&url]], 1001, 0);
    seed.answered().await;
    let mut leecher = Peer::start(&[&[&url]], 1002, 77);
    assert_eq!(leecher.peers().await, [SocketAddr::new(addr.ip(), 1001)]);
    let status = leecher.answered().await;
    assert_eq!((status.seeds, status.leechers), (Some(1), Some(1)), "{scheme} {listen}");

    leecher.progress.send_replace(Progress { left: 0, downloaded: 77, ..Progress::default() });
    leecher.handle.completed().await;
    leecher.until(|status| status.seeds == Some(2)).await;
    let scrape = page(addr, "/scrape?info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A").await;
    assert!(scrape.ends_with("d8:completei2e10:downloadedi1e10:incompletei0eeee"), "{scrape}");

    leecher.handle.stop().await;
    assert_eq!(server.summary().peers, 1);
    seed.handle.stop().await;
    assert_eq!(server.summary().peers, 0);
    server.stop().await;
}

/// A tracker tells others the address that it sees, so that must be where peers reach us.
#[tokio::test]
async fn announces_leave_from_where_we_listen() {
    for scheme in ["http", "udp"] {
        let server = serve("127.0.0.1:0");
        let url = format!("{scheme}://{}/announce", server.addrs()[0]);
        let ours = Ipv4Addr::new(127, 0, 0, 2);
        let local = LocalAddrs { v4: Some(ours), v6: None };
        let seed = Peer::start_from(local, &[&[&url]], 1001, 0);
        seed.answered().await;
        let mut leecher = Peer::start(&[&[&url]], 1002, 77);
        assert_eq!(leecher.peers().await, [SocketAddr::new(ours.into(), 1001)], "{scheme}");
        server.stop().await;
    }
}

/// Where a router lets peers in is announced, and where nobody listens when we do not.
#[tokio::test]
async fn the_port_is_announced_at_which_peers_reach_us() {
    for (ours, mapped, announced) in [(1001, None, 1001), (1001, Some(4711), 4711), (0, None, 1)] {
        let server = serve("127.0.0.1:0");
        let url = format!("http://{}/announce", server.addrs()[0]);
        let dialer = Dialer::new(Egress::default());
        mapped.into_iter().for_each(|port| dialer.reached_at(port));
        let seed = Peer::start_by(dialer, &[&[&url]], ours, 0);
        seed.answered().await;
        let mut leecher = Peer::start(&[&[&url]], 1002, 77);
        let expected = SocketAddr::from((Ipv4Addr::LOCALHOST, announced));
        assert_eq!(leecher.peers().await, [expected]);
        server.stop().await;
    }
}

#[tokio::test]
async fn our_client_and_server_over_http_v4() {
    life_of_a_swarm("http", "127.0.0.1:0").await;
}

#[tokio::test]
async fn our_client_and_server_over_http_v6() {
    life_of_a_swarm("http", "[::1]:0").await;
}

#[tokio::test]
async fn our_client_and_server_over_udp_v4() {
    life_of_a_swarm("udp", "127.0.0.1:0").await;
}

#[tokio::test]
async fn our_client_and_server_over_udp_v6() {
    life_of_a_swarm("udp", "[::1]:0").await;
}

#[tokio::test]
async fn one_socket_serves_both_families() {
    let server = serve("[::]:0");
    let port = server.addrs()[0].port();
    for (scheme, host, ip) in [
        ("http", "127.0.0.1", IpAddr::from(Ipv4Addr::LOCALHOST)),
        ("udp", "[::1]", IpAddr::from(Ipv6Addr::LOCALHOST)),
        ("udp", "127.0.0.1", IpAddr::from(Ipv4Addr::LOCALHOST)),
    ] {
        let url = format!("{scheme}://{host}:{port}/announce");
        let first = Peer::start(&[&[&url]], 2001, 1);
        first.answered().await;
        let mut second = Peer::start(&[&[&url]], 2002, 1);
        assert_eq!(second.peers().await, [SocketAddr::new(ip, 2001)], "{url}");
        first.handle.stop().await;
        second.handle.stop().await;
    }
}

#[tokio::test]
async fn a_name_with_both_families_is_announced_over_both() {
    let names: Vec<SocketAddr> = tokio::net::lookup_host("localhost:0").await.unwrap().collect();
    let families =
        names.iter().map(SocketAddr::is_ipv4).collect::<std::collections::BTreeSet<bool>>().len();
    for scheme in ["http", "udp"] {
        let server = serve("[::]:0");
        let url = format!("{scheme}://localhost:{}/announce", server.addrs()[0].port());
        let peer = Peer::start(&[&[&url]], 2003, 1);
        let known = async {
            while server.summary().peers < families {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, known).await.expect("an announce in each family");
        peer.answered().await;
        peer.handle.stop().await;
        assert_eq!(server.summary().peers, 0, "{scheme}: a good-bye in each family");
    }
}

#[tokio::test]
async fn a_tracker_that_hangs_costs_nothing() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = format!("http://{}/announce", hanging.local_addr().unwrap());
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("udp://{}", silent.local_addr().unwrap());
    let server = serve("127.0.0.1:0");
    let good = format!("http://{}/announce", server.addrs()[0]);
    let seed = Peer::start(&[&[&good]], 3001, 0);
    seed.answered().await;
    for tiers in
        [[&[&*hanging] as &[&str], &[&silent], &[&good]], [&[&hanging, &silent, &good], &[], &[]]]
    {
        let mut peer = Peer::start(&tiers, 3002, 9);
        assert!(peer.peers().await.contains(&SocketAddr::from(([127, 0, 0, 1], 3001))));
        assert_eq!(peer.handle.status()[0].last, Outcome::Unknown, "it still hangs");
        timeout(Duration::from_secs(10), peer.handle.stop())
            .await
            .expect("nor does it hold up the end");
    }
}

/// Answers every connection with what `script` says for the request's target, then closes it.
async fn scripted(script: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let head = String::from_utf8_lossy(&head);
            let target = head.split(' ').nth(1).unwrap_or_default();
            // The client may have heard enough before the end.
            let _ = stream.write_all(&script(target)).await;
            let _ = stream.shutdown().await;
        }
    });
    addr
}

fn ok(extra: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{extra}\r\n").as_bytes(), body].concat()
}

fn redirect(to: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn hostile_answers_come_to_nothing() {
    let zeros = vec![0; 8 * 1024 * 1024];
    let bomb = gzip(&zeros);
    assert!(bomb.len() < 16 * 1024);
    let gzipped = "Content-Encoding: gzip\r\n";
    let nested = [b"d1:a".as_slice(), &b"l".repeat(500_000)].concat();
    let table: [(&str, Vec<u8>, &str); 15] = [
        ("a huge body", ok("", &zeros), "longer than 1 MiB"),
        ("a gzip bomb", ok(gzipped, &bomb), "longer than 1 MiB"),
        ("broken gzip", ok(gzipped, b"\x1f\x8b\x08\x00nonsense"), ""),
        ("a redirect loop", redirect("/announce"), "too many redirects"),
        (
            "a redirect to a file",
            redirect("file:///etc/passwd"),
            "refused to follow the URL to file:",
        ),
        (
            "a redirect to a local service",
            redirect("/admin"),
            "refused to follow the URL to 127.0.0.1",
        ),
        (
            "a redirect to a cloud's keys",
            redirect("http://169.254.169.254/announce"),
            "169.254.169.254",
        ),
        ("a redirect to nowhere", redirect("http://"), "not a tracker's URL"),
        ("garbage", ok("", b"spam and eggs"), "makes no sense"),
        ("bencode cut short", ok("", b"d8:intervali18"), "makes no sense"),
        ("bencode nested deep", ok("", &nested), "makes no sense"),
        ("a body cut short", ok("Content-Length: 100\r\n", b"d8:"), ""),
        (
            "an error page",
            b"HTTP/1.1 404 No\r\nContent-Length: 6\r\n\r\n<html>".to_vec(),
            "HTTP status 404",
        ),
        (
            "a refusal with a status",
            b"HTTP/1.1 403 No\r\nContent-Length: 26\r\n\r\nd14:failure reason5:nope!e".to_vec(),
            "refused: nope",
        ),
        ("no HTTP at all", b"\0\x01\x02\x03\r\n\r\n".to_vec(), ""),
    ];
    for (name, response, expected) in table {
        let addr = scripted(move |_| response.clone()).await;
        let mut peer = Peer::start(&[&[&format!("http://{addr}/announce")]], 4001, 1);
        let reason = peer.failure().await;
        assert!(reason.contains(expected), "{name}: {reason}");
        assert!(peer.events.try_recv().is_err(), "{name}: no peers");
    }
}

#[tokio::test]
async fn honest_detours_are_followed() {
    let peers = Answer { peers: vec![SocketAddr::from(([1, 2, 3, 4], 5))], ..Answer::default() };
    let body = answer::write(&peers);
    let zipped = ok("Content-Encoding: gzip\r\n", &gzip(&body));
    let addr = scripted(move |target| match target.split('?').next().unwrap() {
        "/announce" => redirect("/announce/2"),
        "/announce/2" => redirect("announce/3"),
        _ => zipped.clone(),
    })
    .await;
    let mut peer = Peer::start(&[&[&format!("http://{addr}/announce?passkey=a")]], 4002, 1);
    assert_eq!(peer.peers().await, peers.peers);
}

#[tokio::test]
async fn a_url_is_not_followed_where_it_must_not_lead() {
    let addr = scripted(|_| panic!("nobody may come here")).await;
    let table = [
        ("a local service", format!("http://{addr}/admin"), "refused to follow"),
        ("words of the peer", format!("http://{addr}/announce?info_hash=x"), "only a peer may say"),
        ("UDP without a port", "udp://127.0.0.1/announce".to_owned(), "no port"),
        ("a closed port", "http://127.0.0.1:1/announce".to_owned(), "refused"),
        ("a closed UDP port", "udp://127.0.0.1:1".to_owned(), "refused"),
    ];
    for (name, url, expected) in table {
        let reason = Peer::start(&[&[&url]], 4003, 1).failure().await;
        assert!(reason.contains(expected), "{name}: {reason}");
    }
}

#[tokio::test]
async fn udp_replies_of_others_are_not_taken() {
    let tracker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let liar = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = tracker.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let bad = Answer { peers: vec![SocketAddr::from(([6, 6, 6, 6], 6))], ..Answer::default() };
        let good = Answer { peers: vec![SocketAddr::from(([1, 2, 3, 4], 5))], ..Answer::default() };
        loop {
            let (len, from) = tracker.recv_from(&mut buffer).await.unwrap();
            let (transaction, request) = udp::read_request(&buffer[..len]).unwrap();
            let other = Transaction(transaction.0 ^ 1);
            let [forged, stray, right] = match request {
                Request::Connect => [
                    udp::write_connected(transaction, ConnectionId(6)),
                    udp::write_connected(other, ConnectionId(6)),
                    udp::write_connected(transaction, ConnectionId(1)),
                ],
                Request::Announce { connection, .. } => {
                    assert_eq!(connection, ConnectionId(1));
                    [
                        udp::write_announced(transaction, &bad, from.ip()),
                        udp::write_announced(other, &bad, from.ip()),
                        udp::write_announced(transaction, &good, from.ip()),
                    ]
                }
                Request::Scrape { .. } => panic!("nobody scrapes"),
            };
            liar.send_to(&forged, from).await.unwrap();
            for packet in [&stray, &[][..], &right[..7], &right] {
                tracker.send_to(packet, from).await.unwrap();
            }
        }
    });
    let mut peer = Peer::start(&[&[&format!("udp://{addr}")]], 4004, 1);
    assert_eq!(peer.peers().await, [SocketAddr::from(([1, 2, 3, 4], 5))]);
    assert!(!served.is_finished(), "the tracker has seen only what it may");
}

#[tokio::test]
async fn the_server_answers_bad_requests_plainly() {
    let server = serve("127.0.0.1:0");
    let addr = server.addrs()[0];
    let hash = "info_hash=aaaaaaaaaaaaaaaaaaaa";
    let id = "peer_id=bbbbbbbbbbbbbbbbbbbb";
    let table = [
        ("no fields", "/announce".to_owned(), "info_hash is missing"),
        ("a short hash", format!("/announce?info_hash=a&{id}&port=1"), "info_hash is not valid"),
        ("a port too far", format!("/announce?{hash}&{id}&port=65536"), "port is not valid"),
        ("no name", format!("/announce?{hash}&port=1"), "peer_id is missing"),
        ("a strange event", format!("/announce?{hash}&{id}&port=1&event=x"), "event is not valid"),
        ("a scrape of all", "/scrape".to_owned(), "info_hash is missing"),
        ("elsewhere", "/x".to_owned(), "404"),
        ("the front door", "/".to_owned(), "btfs tracker"),
    ];
    for (name, path, expected) in table {
        let response = page(addr, &path).await;
        assert!(response.contains(expected), "{name}: {response}");
    }
    let posted = raw(
        addr,
        b"POST /announce HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(posted.starts_with(b"HTTP/1.1 405"));
    let endless = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let refused = raw(addr, endless.as_bytes()).await;
    assert!(
        refused.is_empty() || refused.starts_with(b"HTTP/1.1 4"),
        "{}",
        String::from_utf8_lossy(&refused)
    );
    let twice = format!(
        "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /announce?{hash}&{id}&port=9&left=1&ip=8.8.8.8 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    let twice = String::from_utf8_lossy(&raw(addr, twice.as_bytes()).await).into_owned();
    assert_eq!(twice.matches("HTTP/1.1 200").count(), 2, "{twice}");
    let next = raw(
        addr,
        format!(
            "GET /announce?{hash}&{id}&port=10 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    )
    .await;
    let listed = b"5:peers6:\x7f\0\0\x01\0\x09";
    assert!(
        next.windows(listed.len()).any(|window| window == listed),
        "the address is the one that was seen"
    );
}

#[tokio::test]
async fn the_server_takes_no_udp_announce_without_its_connection_id() {
    let server = serve("127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.addrs()[0]).await.unwrap();
    let announce = Announce {
        info_hash: TORRENT,
        peer_id: PeerId([1; 20]),
        port: 5,
        progress: Progress { left: 1, ..Progress::default() },
        event: Event::Started,
        wanted: None,
        key: 1,
        ipv6: None,
    };
    let transaction = Transaction(9);
    // What is no request gets no answer, so the first answer is to the second packet.
    socket.send(b"garbage").await.unwrap();
    socket.send(&udp::write_announce(ConnectionId(1), transaction, &announce, "")).await.unwrap();
    let mut buffer = [0; 2048];
    let len = timeout(LIMIT, socket.recv(&mut buffer)).await.unwrap().unwrap();
    let reply = udp::read_announced(&buffer[..len], transaction, udp::Family::V4).unwrap();
    assert!(reply.unwrap_err().to_string().contains("connection id"));
    assert_eq!(server.summary().peers, 0);
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's opentracker, which serves only the torrents that its whitelist names.
async fn opentracker(dir: &std::path::Path) -> (Process, SocketAddr) {
    // At a host of its own: whoever asks for any free port meanwhile gets none there.
    let addr = TcpListener::bind("127.77.0.2:0").await.unwrap().local_addr().unwrap();
    std::fs::write(dir.join("whitelist"), format!("{TORRENT}\n")).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir, open).unwrap();
    let port = addr.port().to_string();
    let child = Command::new("opentracker")
        .args([
            "-i",
            &addr.ip().to_string(),
            "-p",
            &port,
            "-P",
            &port,
            "-u",
            "nobody",
            "-w",
            "whitelist",
            "-d",
        ])
        .arg(dir)
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opentracker is there (Debian package: opentracker)");
    let process = Process(child);
    let up = async {
        while TcpStream::connect(addr).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, up).await.expect("opentracker listens");
    (process, addr)
}

#[tokio::test]
async fn our_client_gets_peers_from_opentracker() {
    let dir = tempfile::tempdir().unwrap();
    let (_process, addr) = opentracker(dir.path()).await;
    for (scheme, port) in [("http", 5001), ("udp", 5003)] {
        let url = format!("{scheme}://{addr}/announce");
        let first = Peer::start(&[&[&url]], port, 0);
        first.answered().await;
        let mut second = Peer::start(&[&[&url]], port + 1, 1);
        let peers = second.peers().await;
        assert!(peers.contains(&SocketAddr::from(([127, 0, 0, 1], port))), "{scheme}: {peers:?}");
        let status = second.answered().await;
        assert_eq!((status.seeds, status.leechers), (Some(1), Some(1)), "{scheme}");
        second.handle.stop().await;
        first.handle.stop().await;
        // Whoever comes next is alone: the good-byes were heard.
        let third = Peer::start(&[&[&url]], port + 2, 1);
        let status = third.answered().await;
        assert_eq!((status.seeds, status.leechers), (Some(0), Some(1)), "{scheme}");
        third.handle.stop().await;
    }
}

/// Two sessions of libtorrent that have nothing but our tracker to meet.
async fn libtorrent_meets(scheme: &str) {
    let server = serve("127.0.0.1:0");
    let dir = tempfile::tempdir().unwrap();
    let url = format!("{scheme}://{}/announce", server.addrs()[0]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/two_sessions.py");
    let path = dir.path().to_owned();
    let run = move || Command::new("/usr/bin/python3").arg(script).arg(url).arg(path).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let output = output.expect("python3 is there (Debian packages: python3, python3-libtorrent)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !errors.contains("ModuleNotFoundError"),
        "install Debian's python3-libtorrent: {errors}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{errors}");
    assert!(server.summary().announces >= 2);
}

#[tokio::test]
async fn libtorrent_sessions_meet_through_our_http_tracker() {
    libtorrent_meets("http").await;
}

#[tokio::test]
async fn libtorrent_sessions_meet_through_our_udp_tracker() {
    libtorrent_meets("udp").await;
}

#[test]
fn the_dialer_can_be_shared() {
    let dialer = Dialer::new(Egress::default());
    assert!(format!("{:?}", Arc::clone(&dialer)).contains("free: 100"));
}

#[test]
fn the_command_says_where_it_listens_and_ends_when_told() {
    use nix::sys::signal::{Signal, kill};
    use std::io::{BufRead, BufReader};

    for ending in [Signal::SIGINT, Signal::SIGTERM] {
        let mut process = Process(
            Command::new(env!("CARGO_BIN_EXE_btfs"))
                .args(["tracker", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addrs = line.strip_prefix("listening on ").unwrap().trim_end().split(", ");
        for addr in addrs.map(|addr| addr.parse::<SocketAddr>().unwrap()) {
            assert_ne!(addr.port(), 0);
            std::net::TcpStream::connect(addr).unwrap();
        }
        kill(nix::unistd::Pid::from_raw(process.0.id().try_into().unwrap()), ending).unwrap();
        assert_eq!(process.0.wait().unwrap().code(), Some(0), "{ending}");
    }
}
