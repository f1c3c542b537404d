//! uTP beside TCP: which of the two is taken, and what strangers can do to the port.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use btfs::engine::dial::dial;
use btfs::engine::egress::{Egress, LocalAddrs};
use btfs::engine::listen;
use btfs::engine::message::{FromPeer, Hello};
use btfs::engine::network::{Door, Network, SHAKING, Transports};
use btfs::engine::udp_port::UdpPort;
use btfs::engine::utp::Utp;
use btfs::proto::mse::Encryption;
use btfs::proto::units::{InfoHash, PeerId};
use btfs::proto::wire::message::Message;
use btfs::proto::wire::pex::Traits;
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

const TORRENT: InfoHash = InfoHash([7; 20]);
/// Where all peers are; those who ask for any free port of the usual address take none of theirs.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 3);
const PATIENCE: Duration = Duration::from_secs(20);
const UTP_ONLY: Transports = Transports { encryption: Encryption::Prefer, tcp: false, utp: true };

/// A peer with one torrent: where it listens, by these ways, and what its torrent hears.
struct Peer {
    network: Arc<Network>,
    door: Door,
    heard: mpsc::Receiver<FromPeer>,
    addr: SocketAddr,
}

impl Peer {
    fn new(name: u8, transports: Transports) -> Self {
        let (listener, addr) = listener();
        let utp = transports
            .utp
            .then(|| Utp::start(Arc::new(UdpPort::bind(&Egress::default(), &[addr]).unwrap())));
        let network = Network::new(LocalAddrs::default()).by(transports).with_utp(utp);
        let network = Arc::new(network);
        let (to_torrent, heard) = mpsc::channel(16);
        let peer_id = PeerId([name; 20]);
        let door = Door { info_hash: TORRENT, peer_id, dht: false, pieces: None, to_torrent };
        network.open(door.clone());
        if transports.tcp {
            tokio::spawn(listen::serve(network.clone(), listener));
        }
        tokio::spawn(listen::serve_utp(network.clone()));
        Self { network, door, heard, addr }
    }

    fn dial(&self, addr: SocketAddr) {
        tokio::spawn(dial(self.network.clone(), self.door.clone(), addr));
    }

    async fn next(&mut self) -> FromPeer {
        let heard = timeout(PATIENCE, self.heard.recv()).await;
        heard.expect("something is told in time").expect("a sender lives")
    }

    /// The next connection: who is there, and the way out.
    async fn connected(&mut self) -> (Hello, mpsc::Sender<Message>) {
        match self.next().await {
            FromPeer::Connected { hello, sender, .. } => (hello, sender),
            other => panic!("a hello was expected, not {other:?}"),
        }
    }

    /// The next so many messages.
    async fn take(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < count {
            match self.next().await {
                FromPeer::Messages { batch, .. } => messages.extend(batch),
                FromPeer::Sent { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        messages
    }
}

/// Listens at a port that is free for UDP too.
fn listener() -> (TcpListener, SocketAddr) {
    loop {
        let any = SocketAddr::from((HOST, 0));
        let listener = listen::bind(&Egress::default(), any).unwrap();
        let addr = listener.local_addr().unwrap();
        if std::net::UdpSocket::bind(addr).is_ok() {
            return (listener, addr);
        }
    }
}

fn is_utp(hello: &Hello) -> bool {
    hello.traits.has(Traits::UTP)
}

#[tokio::test]
async fn tcp_is_taken_where_it_answers_and_utp_where_not() {
    let tcp_only = Transports { utp: false, ..Transports::default() };
    for (name, dials, listens, expected) in [
        ("both have both", Transports::default(), Transports::default(), false),
        ("who listens has TCP only", Transports::default(), tcp_only, false),
        ("who listens has uTP only", Transports::default(), UTP_ONLY, true),
        ("who dials has uTP only", UTP_ONLY, Transports::default(), true),
        ("who dials has TCP only", tcp_only, Transports::default(), false),
    ] {
        let (mut here, mut there) = (Peer::new(b'a', dials), Peer::new(b'b', listens));
        here.dial(there.addr);
        let (_, _sender) = here.connected().await;
        let (hello, _back) = there.connected().await;
        assert_eq!(is_utp(&hello), expected, "{name}");
    }
}

#[tokio::test]
async fn both_ends_of_a_connection_show_what_the_other_speaks() {
    let tcp_only = Transports { utp: false, ..Transports::default() };
    let (clear, encrypted) = (Traits::default(), Traits::ENCRYPTS);
    for (name, transports, encryption, expected) in [
        ("TCP", tcp_only, Encryption::Prefer, clear),
        ("TCP, encrypted", tcp_only, Encryption::Require, encrypted),
        ("uTP", UTP_ONLY, Encryption::Prefer, Traits::UTP),
        ("uTP, encrypted", UTP_ONLY, Encryption::Require, encrypted.with(Traits::UTP, true)),
    ] {
        let ways = Transports { encryption, ..transports };
        let (mut here, mut there) = (Peer::new(b'a', ways), Peer::new(b'b', ways));
        here.dial(there.addr);
        let (near, _sender) = here.connected().await;
        let (far, _back) = there.connected().await;
        assert_eq!((near.traits, far.traits), (expected, expected), "{name}");
    }
}

#[tokio::test]
async fn who_answers_over_tcp_hears_nothing_over_udp() {
    let tcp_only = Transports { utp: false, ..Transports::default() };
    let (mut here, there) = (Peer::new(b'a', Transports::default()), Peer::new(b'b', tcp_only));
    let ear = UdpSocket::bind(there.addr).await.unwrap();
    here.dial(there.addr);
    let (_, _sender) = here.connected().await;
    assert!(ear.try_recv(&mut [0; 100]).is_err(), "a datagram came");
}

fn block(piece: u32) -> Message {
    let data = Bytes::from(vec![piece as u8; 16_384]);
    Message::Piece { piece, begin: 0, data }
}

#[tokio::test]
async fn messages_pass_both_ways_in_the_clear_and_encrypted() {
    for encryption in [Encryption::Prefer, Encryption::Require] {
        let ways = Transports { encryption, ..UTP_ONLY };
        let (mut here, mut there) = (Peer::new(b'a', ways), Peer::new(b'b', ways));
        here.dial(there.addr);
        let (_, sender) = here.connected().await;
        let (_, back) = there.connected().await;
        let said: Vec<_> = (0..100).map(block).collect();
        for (from, to) in [(&sender, &mut there), (&back, &mut here)] {
            let speak = async {
                for message in &said {
                    from.send(message.clone()).await.unwrap();
                }
            };
            let ((), heard) = tokio::join!(speak, to.take(said.len()));
            assert!(heard == said, "{encryption:?}: what arrives is what was said");
        }
        drop((sender, back));
    }
}

/// Peers are silent for two minutes where nobody wants anything.
#[tokio::test]
async fn a_stream_outlives_silence() {
    let (mut here, mut there) = (Peer::new(b'a', UTP_ONLY), Peer::new(b'b', UTP_ONLY));
    here.dial(there.addr);
    let (_, sender) = here.connected().await;
    let (_, back) = there.connected().await;
    // The second acknowledges nothing, so who hears it has no reason to expect more.
    for message in [Message::Interested, Message::NotInterested] {
        sender.send(message).await.unwrap();
        there.take(1).await;
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    back.send(Message::Unchoke).await.unwrap();
    assert_eq!(here.take(1).await, [Message::Unchoke]);
}

/// A line to this address that keeps back each datagram for which `is_lost` holds: where to dial it.
async fn line(
    to: SocketAddr,
    mut is_lost: impl FnMut(usize) -> bool + Send + 'static,
) -> SocketAddr {
    let line = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = line.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut dialler, mut datagram) = (to, [0; 4096]);
        loop {
            let (len, from) = line.recv_from(&mut datagram).await.unwrap();
            if from != to {
                dialler = from;
            }
            if !is_lost(len) {
                let whither = if from == to { dialler } else { to };
                line.send_to(&datagram[..len], whither).await.unwrap();
            }
        }
    });
    addr
}

async fn carries_all(is_lost: impl FnMut(usize) -> bool + Send + 'static) {
    let (mut here, mut there) = (Peer::new(b'a', UTP_ONLY), Peer::new(b'b', UTP_ONLY));
    here.dial(line(there.addr, is_lost).await);
    let (_, sender) = here.connected().await;
    let (_, _back) = there.connected().await;
    let said: Vec<_> = (0..100).map(block).collect();
    let speak = async {
        for message in &said {
            sender.send(message.clone()).await.unwrap();
        }
    };
    let ((), heard) = tokio::join!(speak, there.take(said.len()));
    assert!(heard == said, "what arrives is what was said");
}

#[tokio::test]
async fn a_line_that_is_narrower_than_ethernet_carries_all() {
    const HEADERS_LEN: usize = 28;
    carries_all(|len| len + HEADERS_LEN > 1420).await;
}

/// The library tries how long a packet may be with bytes of the stream.
#[tokio::test]
async fn what_was_in_a_packet_that_was_lost_again_and_again_arrives() {
    let mut losses = 3;
    carries_all(move |len| {
        let is_lost = len > 600 && losses > 0;
        losses -= usize::from(is_lost);
        is_lost
    })
    .await;
}

/// Whatever comes to the port, a peer is still heard there.
#[tokio::test]
async fn senseless_datagrams_do_no_harm() {
    let mut there = Peer::new(b'b', UTP_ONLY);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let rng = &mut rand::rngs::StdRng::seed_from_u64(1);
    for round in 0..20_000 {
        let mut bytes: Vec<u8> = (0..rng.random_range(0..60)).map(|_| rng.random()).collect();
        // Half of them at least begin as packets of uTP do.
        if let Some(first) = bytes.first_mut().filter(|_| round % 2 == 0) {
            *first = rng.random_range(0..6) << 4 | 1;
        }
        stranger.send_to(&bytes, there.addr).await.unwrap();
        if round % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut here = Peer::new(b'a', UTP_ONLY);
    here.dial(there.addr);
    let (_, _sender) = here.connected().await;
    assert!(is_utp(&there.connected().await.0));
}

/// Strangers that begin streams and say nothing keep no peer from TCP, and from uTP for the time of a handshake.
#[tokio::test]
async fn a_flood_of_streams_ends_and_leaves_tcp_alone() {
    let mut there = Peer::new(b'b', Transports::default());
    for stranger in 0..4 * SHAKING as u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut syn = [0; 20];
        syn[0] = 0x41;
        syn[2..4].copy_from_slice(&stranger.to_be_bytes());
        syn[16..18].copy_from_slice(&1u16.to_be_bytes());
        socket.send_to(&syn, there.addr).await.unwrap();
    }
    let mut over_tcp = Peer::new(b'a', Transports { utp: false, ..Transports::default() });
    over_tcp.dial(there.addr);
    let (_, _sender) = over_tcp.connected().await;
    let (hello, _back) = there.connected().await;
    assert!(!is_utp(&hello));
    let mut over_utp = Peer::new(b'c', UTP_ONLY);
    loop {
        over_utp.dial(there.addr);
        match over_utp.next().await {
            FromPeer::Connected { sender, .. } => break drop(sender),
            FromPeer::DialFailed { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(is_utp(&there.connected().await.0));
}
