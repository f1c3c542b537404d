//! Connections: over an in-memory stream with a clock that we hold, and over loopback sockets.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use btfs::engine::connection::{self, IDLE_LIMIT, LINGER};
use btfs::engine::dial::dial;
use btfs::engine::egress::{Egress, LocalAddrs};
use btfs::engine::handshake::{self, HandshakeError};
use btfs::engine::listen;
use btfs::engine::message::{FromPeer, Hello};
use btfs::engine::network::{
    CONNECTIONS, Door, HALF_OPEN, Network, SHAKING, Transports, canonical,
};
use btfs::proto::blocklist::Draft;
use btfs::proto::mse::Encryption;
use btfs::proto::units::{InfoHash, PeerId, PeerKey};
use btfs::proto::wire::message::{Handshake, Message, Reserved};
use btfs::proto::wire::pex::Traits;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

const TORRENT: InfoHash = InfoHash([7; 20]);
const PATIENCE: Duration = Duration::from_secs(20);

fn door(name: u8, capacity: usize) -> (Door, mpsc::Receiver<FromPeer>) {
    let (to_torrent, heard) = mpsc::channel(capacity);
    (
        Door {
            info_hash: TORRENT,
            peer_id: PeerId([name; 20]),
            dht: false,
            pieces: None,
            to_torrent,
        },
        heard,
    )
}

fn network() -> Arc<Network> {
    network_by(Encryption::default())
}

fn network_by(encryption: Encryption) -> Arc<Network> {
    let transports = Transports { encryption, ..Transports::default() };
    Arc::new(Network::new(Egress::default()).by(transports))
}

fn handshake_of(name: u8) -> Handshake {
    let reserved = Reserved { extended: true, fast: true, dht: false };
    Handshake { reserved, info_hash: TORRENT, peer_id: PeerId([name; 20]) }
}

async fn next(heard: &mut mpsc::Receiver<FromPeer>) -> FromPeer {
    timeout(PATIENCE, heard.recv())
        .await
        .expect("something is told in time")
        .expect("a sender lives")
}

/// Of a peer that we dialled.
fn hello(addr: SocketAddr, handshake: Handshake) -> Hello {
    Hello { addr, incoming: false, handshake, round_trip: None, traits: Traits::default() }
}

/// A connection over memory: the far end, what the torrent hears, and its way out.
async fn connected(
    buffer: usize,
    capacity: usize,
) -> (DuplexStream, mpsc::Receiver<FromPeer>, PeerKey, mpsc::Sender<Message>) {
    let (door, mut heard) = door(b'a', capacity);
    let (near, far) = duplex(buffer);
    let addr = SocketAddr::from(([127, 0, 0, 1], 6881));
    let hello = hello(addr, handshake_of(b'b'));
    tokio::spawn(async move { connection::run(&network(), door, hello, split(near)).await });
    let FromPeer::Connected { key, hello, sender } = next(&mut heard).await else {
        panic!("a hello")
    };
    assert_eq!((hello.addr, hello.handshake.peer_id), (addr, PeerId([b'b'; 20])));
    (far, heard, key, sender)
}

/// All messages up to the end, and its reason; checks that nothing follows.
async fn until_closed(heard: &mut mpsc::Receiver<FromPeer>) -> (Vec<Message>, u64, String) {
    let (mut messages, mut sent) = (Vec::new(), 0);
    loop {
        match next(heard).await {
            FromPeer::Messages { batch, .. } => {
                assert!(!batch.is_empty());
                messages.extend(batch);
            }
            FromPeer::Sent { payload, .. } => {
                assert!(payload > 0);
                sent += payload;
            }
            FromPeer::Closed { reason, .. } => {
                assert!(
                    timeout(PATIENCE, heard.recv()).await.unwrap().is_none(),
                    "the task is gone"
                );
                return (messages, sent, reason);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        if let Some(data) = message.encode(&mut out) {
            out.extend_from_slice(data);
        }
    }
    out
}

fn block(piece: u32, len: usize) -> Message {
    Message::Piece { piece, begin: 0, data: Bytes::from(vec![piece as u8; len]) }
}

#[tokio::test]
async fn messages_come_whole_and_in_order() {
    let (mut far, mut heard, _, _sender) = connected(10_000, 4).await;
    let said: Vec<_> = (0..200)
        .flat_map(|i| [Message::Have(i), block(i, 16_384 - i as usize), Message::KeepAlive])
        .collect();
    let bytes = encode(&said);
    tokio::spawn(async move { far.write_all(&bytes).await.unwrap() });
    let (messages, _, reason) = until_closed(&mut heard).await;
    assert_eq!(messages, said);
    assert_eq!(reason, "the peer closed the connection");
}

#[tokio::test]
async fn messages_leave_in_order_and_payload_is_counted() {
    let (mut far, mut heard, _, sender) = connected(10_000, 4).await;
    let said: Vec<_> = (0..200).flat_map(|i| [Message::Have(i), block(i, 16_384)]).collect();
    let expected = encode(&said);
    let speak = async {
        for message in said {
            sender.send(message).await.unwrap();
        }
        drop(sender);
    };
    let mut bytes = Vec::new();
    let listen = async { timeout(PATIENCE, far.read_to_end(&mut bytes)).await.unwrap().unwrap() };
    let (_, (_, sent, reason), _) = tokio::join!(speak, until_closed(&mut heard), listen);
    assert!(bytes == expected, "what arrives is what was said");
    assert_eq!((sent, reason.as_str()), (200 * 16_384, "we closed the connection"));
}

#[tokio::test(start_paused = true)]
async fn a_full_torrent_queue_stops_reading_but_not_writing() {
    let (mut far, mut heard, _, sender) = connected(64 * 1024, 2).await;
    let one = encode(&[block(1, 16_384)]);
    let mut written = 0;
    while timeout(Duration::from_secs(1), far.write_all(&one)).await.is_ok() {
        written += one.len();
    }
    let bound = 64 * 1024 + 4 * 64 * 1024;
    assert!(written > 64 * 1024 && written < bound, "{written} bytes went in");

    for _ in 0..3 {
        sender.send(block(2, 30_000)).await.unwrap();
    }
    let mut out = vec![0; 3 * (30_000 + 13)];
    timeout(Duration::from_secs(1), far.read_exact(&mut out)).await.unwrap().unwrap();

    drop(far);
    let (messages, sent, _) = until_closed(&mut heard).await;
    assert!(messages.len() >= written / one.len());
    assert_eq!(sent, 90_000);
}

#[tokio::test(start_paused = true)]
async fn connections_without_a_place_in_the_queue_read_nothing() {
    const BUFFER: usize = 32 * 1024;
    const PEERS: usize = 50;
    let (door, mut heard) = door(b'a', 2);
    let network = network();
    let mut held = Vec::new();
    let mut written = 0;
    for name in 0..PEERS {
        let (near, far) = duplex(BUFFER);
        let addr = SocketAddr::from(([127, 0, 0, 1], 6881));
        let hello = hello(addr, handshake_of(name as u8));
        let (network, door) = (network.clone(), door.clone());
        tokio::spawn(async move { connection::run(&network, door, hello, split(near)).await });
        let FromPeer::Connected { sender, .. } = next(&mut heard).await else { panic!("a hello") };
        held.push((far, sender));
    }
    // Keep-alives, so that the stream makes sense wherever a write was cut.
    let zeros = [0; 16 * 1024];
    for (far, _) in &mut held {
        while let Ok(taken) = timeout(Duration::from_secs(1), far.write(&zeros)).await {
            written += taken.unwrap();
        }
    }
    let queued = written - PEERS * BUFFER;
    assert!((1..=2 * 64 * 1024).contains(&queued), "{queued} bytes beyond what the streams hold");
    for _ in 0..PEERS {
        assert!(matches!(next(&mut heard).await, FromPeer::Messages { .. }), "all get their turn");
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_sender_ends_the_connection_even_if_the_peer_never_reads() {
    let (_far, mut heard, _, sender) = connected(1000, 4).await;
    sender.send(block(1, 16_384)).await.unwrap();
    drop(sender);
    let begun = Instant::now();
    let (_, _, reason) = until_closed(&mut heard).await;
    assert_eq!(reason, "we closed the connection");
    assert!(begun.elapsed() <= 2 * LINGER + Duration::from_millis(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_trickles_its_reads_cannot_hold_a_closed_connection() {
    let (mut far, mut heard, _, sender) = connected(100, 4).await;
    for _ in 0..100 {
        sender.send(block(1, 16_384)).await.unwrap();
    }
    drop(sender);
    let begun = Instant::now();
    let trickle = async {
        let mut byte = [0];
        while far.read_exact(&mut byte).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let ((_, sent, _), ()) = tokio::join!(until_closed(&mut heard), trickle);
    assert!(begun.elapsed() <= 3 * LINGER, "{:?}", begun.elapsed());
    assert!(sent < 16_384);
}

#[tokio::test]
async fn garbage_closes_with_its_reason_after_what_came_before() {
    for (bytes, reason) in [
        (
            b"\0\0\0\x01\x01\0\0\0\x01\x04".as_slice(),
            "bad bytes: message 4 with 0 bytes is malformed",
        ),
        (
            b"\0\0\0\x01\x01GET / HTTP/1.1",
            "bad bytes: message 47 with 1195725855 bytes is too long",
        ),
    ] {
        let (mut far, mut heard, _, _sender) = connected(1000, 4).await;
        far.write_all(bytes).await.unwrap();
        let (messages, _, told) = until_closed(&mut heard).await;
        assert_eq!(messages, [Message::Unchoke]);
        assert_eq!(told, reason);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_closes_and_a_keep_alive_prevents_it() {
    let (mut far, mut heard, _, _sender) = connected(1000, 4).await;
    let begun = Instant::now();
    sleep(IDLE_LIMIT / 2).await;
    far.write_all(&[0; 4]).await.unwrap();
    let FromPeer::Messages { batch, .. } = heard.recv().await.unwrap() else { panic!("a batch") };
    assert_eq!(batch, [Message::KeepAlive]);
    let Some(FromPeer::Closed { reason, .. }) = heard.recv().await else { panic!("the end") };
    assert_eq!(reason, "nothing heard for 240 s");
    assert!(begun.elapsed() >= IDLE_LIMIT * 3 / 2);
}

#[tokio::test]
async fn a_torrent_that_is_gone_ends_its_connections() {
    let (mut far, heard, _, _sender) = connected(1000, 4).await;
    drop(heard);
    far.write_all(&encode(&[Message::Choke])).await.unwrap();
    assert_eq!(timeout(PATIENCE, far.read(&mut [0; 10])).await.unwrap().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_trickled_handshake_counts_as_long_as_it_is_in_time() {
    for (pause_ms, in_time) in [(0, true), (70, true), (75, false)] {
        let (mut near, mut far) = duplex(1000);
        let (door, _heard) = door(b'a', 1);
        let network = network();
        network.open(door);
        tokio::spawn(async move {
            for byte in handshake_of(b'b').encode() {
                sleep(Duration::from_millis(pause_ms)).await;
                far.write_all(&[byte]).await.unwrap();
            }
            sleep(PATIENCE).await;
        });
        let begun = Instant::now();
        let answered = handshake::within_limit(handshake::answer(&mut near, &network)).await;
        match answered {
            Ok((shaken, _)) => {
                assert!(in_time && shaken.handshake == handshake_of(b'b'), "{pause_ms} ms")
            }
            Err(HandshakeError::TimedOut) => {
                assert!(!in_time, "{pause_ms} ms");
                assert!(begun.elapsed() < handshake::LIMIT + Duration::from_millis(10));
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// A listener of its own network on loopback, with a door of the given name open.
fn listening(addr: &str, name: u8) -> (SocketAddr, Arc<Network>, mpsc::Receiver<FromPeer>) {
    listening_in(network(), addr, name)
}

fn listening_in(
    network: Arc<Network>,
    addr: &str,
    name: u8,
) -> (SocketAddr, Arc<Network>, mpsc::Receiver<FromPeer>) {
    let (door, heard) = door(name, 16);
    network.open(door);
    let listener = listen::bind(&Egress::default(), addr.parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    assert_ne!(addr.port(), 0, "the real port is told");
    tokio::spawn(listen::serve(Arc::clone(&network), listener));
    (addr, network, heard)
}

async fn failure(heard: &mut mpsc::Receiver<FromPeer>) -> (SocketAddr, String) {
    match next(heard).await {
        FromPeer::DialFailed { addr, reason } => (addr, reason),
        other => panic!("a failure was expected, not {other:?}"),
    }
}

async fn meet(addr: &str) {
    let (addr, network, mut there) = listening(addr, b'b');
    let (door, mut here) = door(b'a', 16);
    tokio::spawn(dial(self::network(), door, addr));
    let FromPeer::Connected { hello: to, sender, .. } = next(&mut here).await else {
        panic!("a hello")
    };
    let FromPeer::Connected { hello: from, sender: back, .. } = next(&mut there).await else {
        panic!("a hello")
    };
    assert_eq!((to.addr, to.incoming, to.handshake), (addr, false, handshake_of(b'b')));
    assert_eq!(
        (from.addr.ip(), from.incoming, from.handshake),
        (addr.ip(), true, handshake_of(b'a'))
    );
    sender.send(Message::Interested).await.unwrap();
    back.send(Message::HaveAll).await.unwrap();
    for (heard, expected) in [(&mut there, Message::Interested), (&mut here, Message::HaveAll)] {
        let FromPeer::Messages { batch, .. } = next(heard).await else { panic!("a message") };
        assert_eq!(batch, [expected]);
    }
    network.shut(TORRENT);
    drop(sender);
    assert_eq!(until_closed(&mut here).await.2, "we closed the connection");
    assert_eq!(until_closed(&mut there).await.2, "the peer closed the connection");
}

#[tokio::test]
async fn a_dial_meets_a_listener_over_ipv4() {
    meet("127.0.0.1:0").await;
}

#[tokio::test]
async fn a_dial_meets_a_listener_over_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 loopback on this machine");
        return;
    }
    meet("[::1]:0").await;
}

#[tokio::test]
async fn both_families_share_a_port() {
    let v4 = listen::bind(&Egress::default(), "0.0.0.0:0".parse().unwrap()).unwrap();
    let port = v4.local_addr().unwrap().port();
    match listen::bind(&Egress::default(), format!("[::]:{port}").parse().unwrap()) {
        Ok(v6) => assert_eq!(v6.local_addr().unwrap().port(), port),
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}"),
    }
}

#[tokio::test]
async fn whoever_is_on_the_blocklist_is_hung_up_on() {
    let mut draft = Draft::default();
    draft.line(b"127.0.0.2");
    let choosy = Network::new(Egress::default()).without(Arc::new(draft.finish()));
    let (addr, _, _there) = listening_in(Arc::new(choosy), "127.0.0.1:0", b'b');
    for (last, welcome) in [(2, false), (3, true)] {
        let (door, mut here) = door(b'a', 16);
        let local = LocalAddrs { v4: Some(Ipv4Addr::new(127, 0, 0, last)), v6: None };
        tokio::spawn(dial(Arc::new(Network::new(local)), door, addr));
        let connected = matches!(next(&mut here).await, FromPeer::Connected { .. });
        assert_eq!(connected, welcome, "127.0.0.{last}");
    }
}

#[tokio::test]
async fn a_dial_leaves_from_the_address_it_is_bound_to() {
    let (addr, _, mut there) = listening("127.0.0.1:0", b'b');
    let (door, _here) = door(b'a', 16);
    let local = LocalAddrs { v4: Some(Ipv4Addr::new(127, 0, 0, 2)), v6: None };
    tokio::spawn(dial(Arc::new(Network::new(local)), door, addr));
    let FromPeer::Connected { hello, .. } = next(&mut there).await else { panic!("a hello") };
    assert_eq!(hello.addr.ip(), Ipv4Addr::new(127, 0, 0, 2));
}

#[test]
fn a_mapped_address_is_its_ipv4_address() {
    let mapped = "[::ffff:10.0.0.1]:5".parse().unwrap();
    assert_eq!(canonical(mapped), "10.0.0.1:5".parse().unwrap());
    assert_eq!(canonical("[fe80::1]:5".parse().unwrap()), "[fe80::1]:5".parse().unwrap());
}

#[tokio::test]
async fn we_do_not_talk_to_ourselves() {
    let (addr, network, mut heard) = listening("127.0.0.1:0", b'a');
    let own = network.door(TORRENT).unwrap();
    dial(network, own, addr).await;
    let told = next(&mut heard).await;
    assert!(matches!(told, FromPeer::DialledOurselves { addr: ours } if ours == addr), "{told:?}");
    assert!(heard.try_recv().is_err(), "the listening side told nothing");
}

#[tokio::test]
async fn an_unknown_torrent_is_turned_away() {
    let (addr, network, _there) = listening("127.0.0.1:0", b'b');
    network.shut(TORRENT);
    let (door, mut here) = door(b'a', 16);
    dial(Arc::clone(&network), door, addr).await;
    assert_eq!(failure(&mut here).await.1, "closed during the handshake");
}

#[tokio::test]
async fn an_answer_for_another_torrent_or_in_another_protocol_is_refused() {
    let other = Handshake { info_hash: InfoHash([8; 20]), ..handshake_of(b'b') };
    for (answer, reason) in [
        (other.encode(), format!("the peer answered for torrent {}", InfoHash([8; 20]))),
        ([b'x'; 68], "the peer does not speak BitTorrent".into()),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (door, mut here) = door(b'a', 16);
        tokio::spawn(dial(network(), door, addr));
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&answer).await.unwrap();
        assert_eq!(failure(&mut here).await, (addr, reason));
    }
}

/// Each side's mind about encryption, and what comes of a dial.
#[tokio::test]
async fn sides_meet_if_either_way_suits_both() {
    use Encryption::{Off, Prefer, Require};
    let closed = Err("closed during the handshake");
    for (dials, listens, expected) in [
        (Prefer, Prefer, Ok(())),
        (Prefer, Require, Ok(())),
        (Prefer, Off, Ok(())),
        (Require, Prefer, Ok(())),
        (Require, Require, Ok(())),
        (Require, Off, closed),
        (Off, Prefer, Ok(())),
        (Off, Require, closed),
        (Off, Off, Ok(())),
    ] {
        let name = format!("{dials:?} to {listens:?}");
        let (addr, _, mut there) = listening_in(network_by(listens), "127.0.0.1:0", b'b');
        let (door, mut here) = door(b'a', 16);
        tokio::spawn(dial(network_by(dials), door, addr));
        match next(&mut here).await {
            FromPeer::Connected { sender, .. } => {
                assert_eq!(Ok(()), expected, "{name}");
                let FromPeer::Connected { sender: back, .. } = next(&mut there).await else {
                    panic!("a hello")
                };
                let blocks: Vec<_> = (0..50).map(|i| block(i, 16_384)).collect();
                for (from, to) in [(sender, &mut there), (back, &mut here)] {
                    let said = blocks.clone();
                    tokio::spawn(async move {
                        for message in said {
                            from.send(message).await.unwrap();
                        }
                        // Held, since dropping it would end the connection for both.
                        std::future::pending::<()>().await;
                    });
                    assert_eq!(take(to, blocks.len()).await, blocks, "{name}");
                }
            }
            FromPeer::DialFailed { reason, .. } => assert_eq!(Err(&*reason), expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// The next so many messages.
async fn take(heard: &mut mpsc::Receiver<FromPeer>, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        match next(heard).await {
            FromPeer::Messages { batch, .. } => messages.extend(batch),
            FromPeer::Sent { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    messages
}

#[tokio::test]
async fn a_closed_port_fails_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let (door, mut here) = door(b'a', 16);
    dial(network(), door, addr).await;
    let (failed, reason) = failure(&mut here).await;
    assert_eq!(failed, addr);
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn silent_peers_cost_the_limit_and_no_more_than_the_half_open_at_once() {
    let listener = listen::bind(&Egress::default(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let network = network();
    let (door, mut here) = door(b'a', 2 * HALF_OPEN);
    let begun = Instant::now();
    for _ in 0..=HALF_OPEN {
        tokio::spawn(dial(Arc::clone(&network), door.clone(), addr));
    }
    for _ in 0..=HALF_OPEN {
        assert_eq!(failure(&mut here).await, (addr, "no handshake within 5 s".into()));
    }
    let rounds = begun.elapsed().as_secs_f64() / handshake::LIMIT.as_secs_f64();
    assert!((2.0..2.01).contains(&rounds), "{rounds} rounds");
}

#[tokio::test(start_paused = true)]
async fn strangers_that_say_nothing_hold_their_turns_for_the_limit() {
    let (addr, _, mut there) = listening("127.0.0.1:0", b'b');
    let mut silent = Vec::new();
    for _ in 0..SHAKING {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let mut late = TcpStream::connect(addr).await.unwrap();
    late.write_all(&handshake_of(b'a').encode()).await.unwrap();
    let mut answer = [0; 68];
    late.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, handshake_of(b'b').encode());
    let FromPeer::Connected { hello, .. } = next(&mut there).await else { panic!("a hello") };
    assert_eq!(hello.addr, late.local_addr().unwrap());
    assert_eq!(silent[0].read(&mut answer).await.unwrap(), 0, "cut off");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_until_one_ends() {
    let (addr, network, mut there) = listening("127.0.0.1:0", b'b');
    let mut answer = [0; 68];
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(&handshake_of(b'a').encode()).await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        let FromPeer::Connected { sender, .. } = next(&mut there).await else { panic!("a hello") };
        open.push((stream, sender));
    }
    let mut late = TcpStream::connect(addr).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, late.read(&mut answer)).await.unwrap().unwrap(),
        0,
        "closed at once"
    );
    let (other, mut here) = door(b'a', 16);
    dial(Arc::clone(&network), other.clone(), addr).await;
    assert_eq!(failure(&mut here).await.1, "200 connections are open, which is the limit");

    open.pop();
    let FromPeer::Closed { .. } = next(&mut there).await else { panic!("an end") };
    let mut late = TcpStream::connect(addr).await.unwrap();
    late.write_all(&handshake_of(b'a').encode()).await.unwrap();
    late.read_exact(&mut answer).await.unwrap();
}
