//! Local service discovery (BEP 14): its bytes, its pace, and two of us on one network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use btfs::engine::egress::{Egress, LocalAddrs};
use btfs::engine::lsd::Lsd;
use btfs::engine::message::Command;
use btfs::proto::lsd::{AT_MOST, Call, Calls, GROUP_V4, GROUP_V6, MAX_HEARD, MAX_LEN, PORT};
use btfs::proto::origin::Origin;
use btfs::proto::units::InfoHash;
use proptest::prelude::*;
use tokio::sync::mpsc;

const MINUTE: Duration = Duration::from_secs(60);

fn torrent(n: u8) -> InfoHash {
    InfoHash([n; 20])
}

fn call(torrents: impl IntoIterator<Item = u8>) -> Call {
    Call { port: 6881, torrents: torrents.into_iter().map(torrent).collect(), cookie: Some(0xabc) }
}

#[test]
fn a_call_has_its_bytes_both_ways() {
    let hex = "01".repeat(20);
    let expected = format!(
        "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: {hex}\r\n\
         cookie: 00000abc\r\n\r\n\r\n"
    );
    let bytes = call([1]).encode((GROUP_V4, PORT).into());
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
    assert_eq!(Call::parse(&bytes), Some(call([1])));
    let v6 = call([1]).encode((GROUP_V6, PORT).into());
    assert!(String::from_utf8_lossy(&v6).contains("\r\nHost: [ff15::efc0:988f]:6771\r\n"));
    let many = call(0..255).encode((GROUP_V6, PORT).into());
    assert!(many.len() <= MAX_LEN, "{} bytes", many.len());
    assert_eq!(Call::parse(&many), Some(call(0..20)));
}

#[test]
fn what_is_no_call_is_passed_over() {
    let hex = "0A".repeat(20);
    let ours = |head: &str, rest: &str| format!("{head}\r\n{rest}\r\n\r\n\r\n");
    let head = "BT-SEARCH * HTTP/1.1";
    let plain = Call { cookie: None, ..call([10]) };
    for (name, datagram, expected) in [
        (
            "as libtorrent writes it",
            ours(head, &format!("Host: x\r\nPort: 6881\r\nInfohash: {hex}\r\ncookie: abc")),
            Some(call([10])),
        ),
        (
            "as transmission writes it",
            ours(head, &format!("Host: x\r\nPort: 6881\r\nInfohash: {hex}\r\n")),
            Some(plain.clone()),
        ),
        ("other letters", ours(head, &format!("PORT:6881\r\ninfohash:{hex}")), Some(plain.clone())),
        (
            "a cookie of text",
            ours(head, &format!("Port: 6881\r\nInfohash: {hex}\r\ncookie: name=x")),
            Some(plain),
        ),
        (
            "another protocol",
            ours("M-SEARCH * HTTP/1.1", &format!("Port: 6881\r\nInfohash: {hex}")),
            None,
        ),
        ("no port", ours(head, &format!("Infohash: {hex}")), None),
        ("port 0", ours(head, &format!("Port: 0\r\nInfohash: {hex}")), None),
        ("no torrent", ours(head, "Port: 6881"), None),
        ("half a hash", ours(head, "Port: 6881\r\nInfohash: 0a0a"), None),
        ("nothing", String::new(), None),
    ] {
        assert_eq!(Call::parse(datagram.as_bytes()), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn no_datagram_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..3000), lines in ".{0,400}") {
        let _ = Call::parse(&bytes);
        let head = format!("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n{lines}");
        prop_assert!(Call::parse(head.as_bytes()).is_none_or(|call| call.torrents.len() <= 20));
    }

    /// Whatever is wished when: each torrent at once, once in five minutes at least, once a minute at most.
    #[test]
    fn torrents_are_called_out_neither_too_often_nor_too_seldom(
        wishes in proptest::collection::vec((0u64..1200, 0u8..40), 0..100),
    ) {
        let start = Instant::now();
        let mut calls = Calls::new(start);
        (0..40).for_each(|n| calls.join(torrent(n), start));
        let mut called: BTreeMap<InfoHash, Vec<u64>> = BTreeMap::new();
        for second in 0..1200 {
            let now = start + Duration::from_secs(second);
            wishes.iter().filter(|wish| wish.0 == second).for_each(|wish| calls.seek(torrent(wish.1), now));
            loop {
                let due = calls.poll_call(now);
                if due.is_empty() {
                    break;
                }
                prop_assert!(due.len() <= 20);
                due.into_iter().for_each(|torrent| called.entry(torrent).or_default().push(second));
            }
            prop_assert!(calls.poll_timeout().is_some_and(|at| at > now));
        }
        prop_assert_eq!(called.len(), 40);
        for times in called.values() {
            prop_assert_eq!(times[0], 0);
            prop_assert!(times.windows(2).all(|t| (AT_MOST.as_secs()..=300).contains(&(t[1] - t[0]))));
        }
    }
}

#[test]
fn a_flood_of_calls_is_heard_in_part() {
    let start = Instant::now();
    let mut calls = Calls::new(start);
    let mut heard = |now| (0..3 * MAX_HEARD).filter(|_| calls.hear(now)).count();
    assert_eq!(heard(start), MAX_HEARD as usize);
    assert_eq!(heard(start + MINUTE / 2), 0);
    assert_eq!(heard(start + MINUTE), MAX_HEARD as usize);
}

/// Two of us on the loopback network, where other tests may call too: each hears of the other and not of itself.
#[tokio::test]
async fn two_hear_of_each_other_and_neither_of_itself() {
    let local = LocalAddrs { v4: Some(Ipv4Addr::LOCALHOST), v6: None };
    let torrent = InfoHash(rand::random());
    let ports = [40_001, 40_002];
    let [mut first, mut second] = ports.map(|port| {
        let (commands, inbox) = mpsc::channel(16);
        let lsd = Lsd::start(&Egress::from(local), port);
        lsd.join(torrent, commands);
        (lsd, inbox)
    });
    // The second has called when the first was there, and not the other way round.
    assert_eq!(met(&mut first.1).await, at(ports[1]));
    // A torrent that comes again is called out again.
    first.0.leave(torrent);
    let (commands, mut inbox) = mpsc::channel(16);
    first.0.join(torrent, commands);
    assert_eq!(met(&mut second.1).await, at(ports[0]));
    second.0.leave(torrent);
    second.0.join(torrent, mpsc::channel(1).0);
    assert_eq!(met(&mut inbox).await, at(ports[1]), "and never its own call");
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

async fn met(inbox: &mut mpsc::Receiver<Command>) -> SocketAddr {
    let heard = tokio::time::timeout(Duration::from_secs(20), inbox.recv()).await;
    let heard = heard.expect("in time").expect("the channel is open");
    let Command::Meet { addrs, origin: Origin::Lsd } = heard else { panic!("{heard:?}") };
    addrs[0]
}
