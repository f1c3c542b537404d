//! Announces: their bytes in both directions, and the tiers on a virtual clock.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use btfs::proto::announce::answer::{self, Scraped};
use btfs::proto::announce::reach::Reach;
use btfs::proto::announce::tiers::{Order, Outcome, Pace, Tiers};
use btfs::proto::announce::udp::{self, ConnectionId, Family, Request, Transaction};
use btfs::proto::announce::{
    Announce, Answer, AnswerError, Event, MAX_PEERS, Progress, Retry, query,
};
use btfs::proto::units::{InfoHash, PeerId};
use proptest::prelude::*;

fn announce() -> Announce {
    Announce {
        info_hash: InfoHash(
            *b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a",
        ),
        peer_id: PeerId(*b"-BF0100-~.&=+ %\0\xff123"),
        port: 6881,
        progress: Progress { uploaded: 1, downloaded: 2, left: 3 },
        event: Event::Started,
        wanted: Some(50),
        key: 0xbeef,
        ipv6: Some("2001:db8::1".parse().expect("an address")),
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn a_query_escapes_as_the_standard_shows() {
    let query = query::write(&announce(), Some(b"a b"));
    assert_eq!(
        query,
        "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
         &peer_id=-BF0100-~.%26%3D%2B%20%25%00%FF123&port=6881&uploaded=1&downloaded=2&left=3\
         &compact=1&no_peer_id=1&key=0000beef&event=started&numwant=50&ipv6=2001%3Adb8%3A%3A1&trackerid=a%20b"
            .replace("%3A", ":")
    );
}

#[test]
fn a_url_may_not_speak_for_the_peer() {
    let table = [
        ("nothing", "", false),
        ("a passkey", "passkey=abc&x", false),
        ("a torrent", "info_hash=x", true),
        ("hidden by escapes", "a=1&%69nfo_hash=x", true),
        ("a port", "port=25", true),
        ("a longer name", "support=1", false),
    ];
    for (name, query, expected) in table {
        assert_eq!(query::speaks_for_the_peer(query), expected, "{name}");
    }
}

#[test]
fn answers_are_read_in_every_form() {
    let long = format!("d5:peers{}:{}e", 6 * 3000, "\x01\x02\x03\x04\x1a\x0a".repeat(3000));
    let table: [(&str, &[u8], Result<Answer, AnswerError>); 12] = [
        (
            "compact, both families, all fields",
            b"d8:completei5e11:external ip4:\x01\x02\x03\x0410:incompletei7e8:intervali1800e12:min intervali60e\
              5:peers12:\x0a\x00\x00\x01\x1a\xe1\x0a\x00\x00\x02\x00\x006:peers618:\
              \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe110:tracker id2:xy15:warning message3:a\x1bbe",
            Ok(Answer {
                peers: vec![addr("10.0.0.1:6881"), addr("[2001:db8::1]:6881")],
                interval: Some(Duration::from_secs(1800)),
                min_interval: Some(Duration::from_secs(60)),
                seeds: Some(5),
                leechers: Some(7),
                warning: Some("a b".to_owned()),
                external_ip: Some("1.2.3.4".parse().unwrap()),
                tracker_id: Some(b"xy".to_vec()),
            }),
        ),
        (
            "plain list, one of them a name",
            b"d5:peersld2:ip9:127.0.0.14:porti1eed2:ip7:a.b.com4:porti2eed2:ip3:::17:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti3eeee",
            Ok(Answer { peers: vec![addr("127.0.0.1:1"), addr("[::1]:3")], ..Answer::default() }),
        ),
        ("nothing at all", b"de", Ok(Answer::default())),
        (
            "interval out of this world",
            b"d8:intervali-5e12:min intervali9223372036854775807ee",
            Ok(Answer { min_interval: Some(Duration::from_secs(u32::MAX.into())), ..Answer::default() }),
        ),
        (
            "a ragged compact list",
            b"d5:peers8:\x0a\x00\x00\x01\x1a\xe1\x00\x00e",
            Ok(Answer { peers: vec![addr("10.0.0.1:6881")], ..Answer::default() }),
        ),
        (
            "too many",
            long.as_bytes(),
            Ok(Answer { peers: vec![addr("1.2.3.4:6666"); MAX_PEERS], ..Answer::default() }),
        ),
        (
            "refused",
            b"d14:failure reason4:no\n!e",
            Err(AnswerError::Refused { reason: "no !".to_owned(), retry: None }),
        ),
        (
            "refused for a while",
            b"d14:failure reason2:no8:retry ini3ee",
            Err(AnswerError::Refused {
                reason: "no".to_owned(),
                retry: Some(Retry::After(Duration::from_secs(180))),
            }),
        ),
        (
            "refused for good",
            b"d14:failure reason2:no8:retry in5:nevere",
            Err(AnswerError::Refused { reason: "no".to_owned(), retry: Some(Retry::Never) }),
        ),
        ("a web page", b"<html>", Err(AnswerError::Malformed("no bencoded dictionary"))),
        ("a list", b"l4:spame", Err(AnswerError::Malformed("no bencoded dictionary"))),
        ("cut short", b"d8:interval", Err(AnswerError::Malformed("no bencoded dictionary"))),
    ];
    for (name, body, expected) in table {
        assert_eq!(answer::read(body), expected, "{name}");
    }
}

#[test]
fn a_deeply_nested_answer_is_refused() {
    let deep = [b"d1:a".as_slice(), &b"l".repeat(900_000)].concat();
    assert!(matches!(answer::read(&deep), Err(AnswerError::Malformed(_))));
}

#[test]
fn a_udp_reply_counts_only_for_its_transaction() {
    let ours = Transaction(7);
    let peers = Answer { peers: vec![addr("1.2.3.4:5")], ..Answer::default() };
    let good = udp::write_announced(ours, &peers, "9.9.9.9".parse().unwrap());
    let other = udp::write_announced(Transaction(8), &peers, "9.9.9.9".parse().unwrap());
    let read = |packet: &[u8]| udp::read_announced(packet, ours, Family::V4);
    assert_eq!(read(&good).unwrap().unwrap().peers, peers.peers);
    assert_eq!(read(&other), None, "another transaction");
    assert_eq!(read(&good[..7]), None, "cut in its head");
    assert!(matches!(read(&good[..19]), Some(Err(AnswerError::Malformed(_)))), "cut in its body");
    assert_eq!(read(&udp::write_connected(ours, ConnectionId(1))), None, "another action");
    let refusal = udp::write_refusal(ours, "go away");
    let expected = AnswerError::Refused { reason: "go away".to_owned(), retry: None };
    assert_eq!(read(&refusal), Some(Err(expected)));
    assert_eq!(
        udp::read_connected(&udp::write_connected(ours, ConnectionId(1)), ours),
        Some(Ok(ConnectionId(1)))
    );
}

#[test]
fn a_udp_announce_is_as_the_standard_says() {
    let packet =
        udp::write_announce(ConnectionId(0x0102), Transaction(0x0304), &announce(), "/a?b");
    assert_eq!(packet.len(), 98 + 6);
    assert_eq!(packet[..16], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 3, 4]);
    assert_eq!(packet[80..84], [0, 0, 0, 2], "event");
    assert_eq!(packet[96..98], 6881u16.to_be_bytes());
    assert_eq!(&packet[98..], b"\x02\x04/a?b");
    let long = udp::write_announce(ConnectionId(1), Transaction(1), &announce(), &"/".repeat(300));
    assert_eq!((long[98], long[99], long[355], long[356]), (2, 255, 2, 45));
    let connect = udp::write_connect(Transaction(9));
    assert_eq!(connect, [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 0, 0, 0, 9]);
}

#[test]
fn a_tracker_url_reaches_only_where_it_may() {
    let (open, inside) = (Some("8.8.8.8".parse().unwrap()), Some("192.168.0.1".parse().unwrap()));
    let table = [
        ("public", "/x", None, "8.8.8.8", true),
        ("loopback tracker", "/announce", None, "127.0.0.1", true),
        ("loopback tracker with a suffix", "/announce.php", None, "::1", true),
        ("loopback service", "/admin", None, "127.0.0.1", false),
        ("mapped loopback", "/admin", None, "::ffff:127.0.0.1", false),
        ("NAT64 loopback", "/admin", None, "64:ff9b::7f00:1", false),
        ("private tracker", "/x", None, "192.168.0.2", true),
        ("link-local", "/announce", None, "169.254.169.254", false),
        ("link-local v6", "/announce", None, "fe80::1", false),
        ("unspecified", "/announce", None, "0.0.0.0", false),
        ("redirect from outside to inside", "/announce", open, "192.168.0.2", false),
        ("redirect from outside to here", "/announce", open, "::1", false),
        ("redirect from outside to outside", "/x", open, "9.9.9.9", true),
        ("redirect inside", "/announce", inside, "127.0.0.1", true),
    ];
    for (name, path, came_from, ip, expected) in table {
        let reach = Reach::of_http(path, came_from);
        assert_eq!(reach.allows(ip.parse().unwrap()), expected, "{name}");
    }
}

prop_compose! {
    fn any_announce()(
        info_hash: [u8; 20], peer_id: [u8; 20], port: u16, key: u32,
        numbers: [u64; 3], event in 0..4, wanted in proptest::option::of(0..1000u32),
    ) -> Announce {
        Announce {
            info_hash: InfoHash(info_hash), peer_id: PeerId(peer_id), port, key, wanted, ipv6: None,
            progress: Progress { uploaded: numbers[0], downloaded: numbers[1], left: numbers[2] },
            event: [Event::None, Event::Completed, Event::Started, Event::Stopped][event as usize],
        }
    }
}

prop_compose! {
    fn any_peers()(v4 in any::<Vec<([u8; 4], u16)>>(), v6 in any::<Vec<([u8; 16], u16)>>()) -> Vec<SocketAddr> {
        let v4 = v4.into_iter().map(|(ip, port)| SocketAddr::from((ip, port)));
        let v6 = v6.into_iter().map(|(ip, port)| SocketAddr::from((ip, port)));
        let dialable = |addr: &SocketAddr| {
            let broadcast = matches!(addr, SocketAddr::V4(v4) if v4.ip().is_broadcast());
            addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast() && !broadcast
        };
        v4.chain(v6).filter(dialable).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read(announce in any_announce(), transaction: u32, id: u64, peers in any_peers()) {
        prop_assert_eq!(query::read(query::write(&announce, None).as_bytes()), Ok(announce.clone()));

        let transaction = Transaction(transaction);
        let connection = ConnectionId(id);
        let packet = udp::write_announce(connection, transaction, &announce, "/announce");
        prop_assert_eq!(udp::read_request(&packet), Some((transaction, Request::Announce { connection, announce })));

        let answer = Answer { peers, seeds: Some(3), leechers: Some(9), interval: Some(Duration::from_secs(60)), ..Answer::default() };
        prop_assert_eq!(answer::read(&answer::write(&answer)), Ok(answer.clone()));
        for (asker, family) in [("1.1.1.1", Family::V4), ("::1", Family::V6)] {
            let packet = udp::write_announced(transaction, &answer, asker.parse().unwrap());
            let mut read = udp::read_announced(&packet, transaction, family).unwrap().unwrap();
            read.peers.extend(answer.peers.iter().filter(|addr| Family::of(addr) != family));
            read.peers.sort();
            let mut all = answer.peers.clone();
            all.sort();
            prop_assert_eq!(read.peers, all);
        }
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>, transaction: u32) {
        let _ = (answer::read(&bytes), query::read(&bytes), query::read_scrape(&bytes), udp::read_request(&bytes));
        let mut reply = 1u32.to_be_bytes().to_vec();
        reply.extend(transaction.to_be_bytes());
        reply.extend(&bytes);
        let _ = udp::read_announced(&reply, Transaction(transaction), Family::V6);
        let _ = udp::read_scraped(&reply, Transaction(transaction));
    }
}

#[test]
fn a_scrape_travels_both_ways() {
    let torrents = vec![InfoHash([1; 20]), InfoHash([2; 20])];
    let packet = udp::write_scrape(ConnectionId(5), Transaction(6), &torrents);
    let expected = Request::Scrape { connection: ConnectionId(5), torrents };
    assert_eq!(udp::read_request(&packet), Some((Transaction(6), expected)));
    let numbers = vec![Scraped { seeds: 1, downloads: 2, leechers: 3 }, Scraped::default()];
    let reply = udp::write_scraped(Transaction(6), &numbers);
    assert_eq!(udp::read_scraped(&reply, Transaction(6)), Some(Ok(numbers)));
}

/// Tiers, a clock, and every announce that they have ordered.
struct Scene {
    tiers: Tiers,
    start: Instant,
    now: Instant,
    open: Vec<Order>,
}

/// One line for each announce: seconds since the start, URL, event.
type Trace = Vec<(u64, String, Event)>;

/// A way to make tiers of URLs.
type Make = fn(&[Vec<String>], Pace, u64, Instant) -> Tiers;

impl Scene {
    fn new(tiers: &[&[&str]], seed: u64) -> Self {
        Self::made_by(Tiers::new, tiers, seed)
    }

    /// The trackers of a private torrent.
    fn private(tiers: &[&[&str]], seed: u64) -> Self {
        Self::made_by(Tiers::private, tiers, seed)
    }

    fn made_by(make: Make, tiers: &[&[&str]], seed: u64) -> Self {
        let now = Instant::now();
        let urls: Vec<Vec<String>> = tiers
            .iter()
            .map(|tier| tier.iter().map(|host| format!("http://{host}/announce")).collect())
            .collect();
        Self { tiers: make(&urls, Pace::default(), seed, now), start: now, now, open: Vec::new() }
    }

    /// Jumps from wake-up to wake-up until `secs` after the start and answers as `world` says; `None`
    /// leaves the announce hanging.
    fn run(
        &mut self,
        secs: u64,
        mut world: impl FnMut(&Order) -> Option<Result<Answer, &'static str>>,
    ) -> Trace {
        let end = self.start + Duration::from_secs(secs);
        let mut trace = Trace::new();
        for _ in 0..10_000 {
            while let Some(order) = self.tiers.poll_announce() {
                let host = order.url.trim_start_matches("http://").trim_end_matches("/announce");
                trace.push(((self.now - self.start).as_secs(), host.to_owned(), order.event));
                match world(&order) {
                    Some(Ok(answer)) => self.tiers.handle_answer(order.tracker, &answer, self.now),
                    Some(Err(why)) => {
                        self.tiers.handle_failure(order.tracker, why.to_owned(), None, self.now)
                    }
                    None => self.open.push(order),
                }
            }
            match self.tiers.poll_timeout() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => {
                    self.now = end;
                    return trace;
                }
            }
            self.tiers.handle_timeout(self.now);
        }
        panic!("the tiers never rest: {trace:?}");
    }
}

fn every(secs: u64) -> Option<Result<Answer, &'static str>> {
    Some(Ok(Answer { interval: Some(Duration::from_secs(secs)), ..Answer::default() }))
}

fn line(at: u64, host: &str, event: Event) -> (u64, String, Event) {
    (at, host.to_owned(), event)
}

#[test]
fn all_tiers_are_asked_at_once_and_the_interval_is_obeyed() {
    let mut scene = Scene::new(&[&["a"], &["b"], &["c"]], 1);
    let trace =
        scene.run(1900, |order| if order.url.contains('b') { every(600) } else { every(1800) });
    let expected = [
        line(0, "a", Event::Started),
        line(0, "b", Event::Started),
        line(0, "c", Event::Started),
        line(600, "b", Event::None),
        line(1200, "b", Event::None),
        line(1800, "a", Event::None),
        line(1800, "b", Event::None),
        line(1800, "c", Event::None),
    ];
    assert_eq!(trace, expected);
}

#[test]
fn one_that_hangs_is_joined_by_the_next_of_its_tier() {
    for seed in 0..20 {
        let mut scene = Scene::new(&[&["hangs", "good"]], seed);
        let trace =
            scene.run(100, |order| if order.url.contains("hangs") { None } else { every(60) });
        let first = trace.iter().position(|(_, host, _)| host == "good").unwrap();
        assert!(trace[first].0 <= 3, "{trace:?}");
        // The good one has come to the front; the other still hangs, so nobody asks it again.
        assert_eq!(
            trace.last(),
            Some(&line(trace[first].0 + 60, "good", Event::None)),
            "{trace:?}"
        );
    }
}

#[test]
fn a_failure_falls_back_at_once_and_who_answers_comes_first() {
    for seed in 0..20 {
        let mut scene = Scene::new(&[&["bad", "worse", "good"]], seed);
        let answer =
            |order: &Order| if order.url.contains("good") { every(60) } else { Some(Err("down")) };
        let first = scene.run(59, answer);
        assert!(
            first.iter().all(|(at, _, event)| (*at, *event) == (0, Event::Started)),
            "{first:?}"
        );
        assert_eq!(first.last().unwrap().1, "good");
        assert_eq!(scene.run(60, answer), [line(60, "good", Event::None)]);
    }
}

#[test]
fn tiers_are_shuffled_by_their_seed() {
    let first = |seed| Scene::new(&[&["a", "b", "c", "d"]], seed).run(0, |_| None)[0].1.clone();
    let firsts: std::collections::BTreeSet<String> = (0..50).map(first).collect();
    assert_eq!(firsts.len(), 4);
    assert_eq!(first(7), first(7));
}

#[test]
fn a_private_torrent_uses_one_tracker_until_it_fails() {
    let mut scene = Scene::private(&[&["a"], &["b"]], 1);
    assert_eq!(scene.run(25, |_| None), [line(0, "a", Event::Started)], "b waits for a");
    let hanging = scene.open.remove(0);
    scene.tiers.handle_failure(hanging.tracker, "down".into(), None, scene.now);
    assert_eq!(scene.run(26, |_| every(100)), [line(25, "b", Event::Started)]);
    let at = |secs| line(secs, "b", Event::None);
    assert_eq!(scene.run(300, |_| every(100)), [at(125), at(225)], "b stays");
    let trace = scene
        .run(326, |order| if order.url.contains('b') { Some(Err("down")) } else { every(100) });
    assert_eq!(trace, [at(325), line(325, "a", Event::Started)]);
    assert!(Scene::private(&[], 1).run(10, |_| every(1)).is_empty());
}

#[test]
fn failures_back_off_with_jitter_up_to_a_limit() {
    let waits = |seed| {
        let trace = Scene::new(&[&["dead"]], seed).run(40_000, |_| Some(Err("down")));
        trace.windows(2).map(|pair| pair[1].0 - pair[0].0).collect::<Vec<u64>>()
    };
    for (round, wait) in waits(3).into_iter().enumerate() {
        let base = (10u64 << round.min(20)).min(1800);
        assert!((base * 3 / 4 - 1..=base * 5 / 4 + 1).contains(&wait), "round {round}: {wait} s");
    }
    assert_ne!(waits(3), waits(4), "peers must not come back together");
}

#[test]
fn insane_intervals_are_made_sane() {
    for (named, taken) in [(0, 30), (1, 30), (45, 45), (u64::from(u32::MAX), 7200)] {
        let trace = Scene::new(&[&["a"]], 1).run(taken, |_| every(named));
        assert_eq!(trace, [line(0, "a", Event::Started), line(taken, "a", Event::None)], "{named}");
    }
}

#[test]
fn more_peers_are_asked_for_only_after_the_min_interval() {
    let mut scene = Scene::new(&[&["a"]], 1);
    let answer = |_: &Order| {
        let (interval, min) = (Duration::from_secs(1800), Duration::from_secs(90));
        Some(Ok(Answer { interval: Some(interval), min_interval: Some(min), ..Answer::default() }))
    };
    scene.run(10, answer);
    scene.tiers.need_peers();
    assert_eq!(scene.run(1000, answer), [line(90, "a", Event::None)]);
    scene.tiers.need_peers();
    assert_eq!(scene.run(1001, answer), [line(1000, "a", Event::None)]);
}

/// Its answer came after another's of its tier, which then fails.
#[test]
fn the_min_interval_of_a_slow_tracker_is_obeyed_too() {
    let mut scene = Scene::new(&[&["a", "b"]], 1);
    let told = scene.run(3, |order| if order.url.contains("//a") { None } else { every(60) });
    assert_eq!(told.len(), 2, "{told:?}");
    let slow = scene.open.pop().unwrap();
    let answer = Answer {
        interval: Some(Duration::from_secs(1800)),
        min_interval: Some(Duration::from_secs(900)),
        ..Answer::default()
    };
    scene.tiers.handle_answer(slow.tracker, &answer, scene.now);
    let trace = scene
        .run(2000, |order| if order.url.contains("//a") { every(1800) } else { Some(Err("down")) });
    let first = trace.iter().find(|line| line.1 == "a").expect("a is asked at last");
    assert!(first.0 >= 903, "{trace:?}");
}

#[test]
fn completion_is_told_once_to_those_that_know_us() {
    let mut scene = Scene::new(&[&["a"], &["b"], &["slow"]], 1);
    let mut world = |order: &Order| match order.url.as_str() {
        "http://b/announce" => Some(Err("down")),
        "http://slow/announce" if order.event == Event::Started => None,
        _ => every(1800),
    };
    scene.run(2, &mut world);
    scene.tiers.complete(scene.now);
    assert_eq!(scene.run(5, &mut world), [line(2, "a", Event::Completed)]);
    // It was asked before the end of the download, so it shall hear of it.
    let slow = scene.open.pop().unwrap();
    scene.tiers.handle_answer(slow.tracker, &Answer::default(), scene.now);
    assert_eq!(scene.run(6, &mut world), [line(5, "slow", Event::Completed)]);
    let later = scene.run(4000, &mut world);
    assert!(later.iter().all(|(_, _, event)| *event != Event::Completed), "{later:?}");
}

#[test]
fn stopped_goes_to_those_that_know_us_and_takes_three_seconds_at_most() {
    let mut scene = Scene::new(&[&["a"], &["dead"], &["hangs at the end"]], 1);
    let mut world = |order: &Order| match order.event {
        Event::Stopped if order.url.contains("hangs") => None,
        _ if order.url.contains("dead") => Some(Err("down")),
        _ => every(1800),
    };
    scene.run(1, &mut world);
    scene.tiers.stop(scene.now);
    let trace = scene.run(2, &mut world);
    assert_eq!(trace, [line(1, "a", Event::Stopped), line(1, "hangs at the end", Event::Stopped)]);
    assert!(!scene.tiers.is_stopped());
    assert_eq!(scene.run(10_000, &mut world), []);
    assert!(scene.tiers.is_stopped());
    assert_eq!(scene.tiers.poll_timeout(), None);
}

/// A download that ends by itself stops as soon as it is complete.
#[test]
fn the_end_of_the_download_is_told_before_the_good_bye() {
    for ends_well in [true, false] {
        let mut scene = Scene::new(&[&["a"], &["b"]], 1);
        scene.run(1, |_| every(1800));
        scene.tiers.complete(scene.now);
        let told = scene.run(1, |order| if order.url.contains('b') { every(1800) } else { None });
        assert_eq!(told, [line(1, "a", Event::Completed), line(1, "b", Event::Completed)]);
        scene.tiers.stop(scene.now);
        assert_eq!(scene.run(2, |_| every(1800)), [line(1, "b", Event::Stopped)]);
        assert!(!scene.tiers.is_stopped());
        let told = scene.open.pop().unwrap();
        assert!(scene.tiers.is_open(&told));
        match ends_well {
            true => scene.tiers.handle_answer(told.tracker, &Answer::default(), scene.now),
            false => scene.tiers.handle_failure(told.tracker, "down".into(), None, scene.now),
        }
        assert_eq!(scene.run(3, |_| every(1800)), [line(2, "a", Event::Stopped)]);
        assert!(scene.tiers.is_stopped());
    }
}

#[test]
fn a_stop_with_nobody_to_tell_is_at_once() {
    let mut scene = Scene::new(&[&["hangs"]], 1);
    scene.run(1, |_| None);
    scene.tiers.stop(scene.now);
    assert!(scene.tiers.is_stopped());
    assert!(Scene::new(&[], 1).tiers.poll_timeout().is_none(), "a torrent without trackers");
}

#[test]
fn a_tracker_that_says_never_is_left_alone() {
    let mut scene = Scene::new(&[&["a"]], 1);
    scene.run(0, |_| None);
    let order = scene.open.pop().unwrap();
    scene.tiers.handle_failure(order.tracker, "banned".to_owned(), Some(Retry::Never), scene.now);
    assert_eq!(scene.run(100_000, |_| every(60)), []);
    let status = scene.tiers.status().next().unwrap();
    assert!(matches!(status.last, Outcome::Failed { reason, .. } if reason == "banned"));
    assert_eq!(status.next, None);
}

#[test]
fn a_tracker_that_says_later_is_asked_later() {
    let mut scene = Scene::new(&[&["a"]], 1);
    scene.run(0, |_| None);
    let order = scene.open.pop().unwrap();
    let retry = Some(Retry::After(Duration::from_secs(600)));
    scene.tiers.handle_failure(order.tracker, "busy".to_owned(), retry, scene.now);
    assert_eq!(scene.run(601, |_| every(1800)), [line(600, "a", Event::Started)]);
}

#[test]
fn strange_urls_are_left_out() {
    let urls = [
        "wss://a",
        "file:///etc/passwd",
        "HTTP://b/announce",
        "udp://c:1",
        "udp://c:1",
        "",
        "ftp://x",
    ];
    let tiers = Tiers::new(&[urls.map(str::to_owned).to_vec()], Pace::default(), 1, Instant::now());
    let kept: Vec<String> = tiers.status().map(|status| status.url).collect();
    assert_eq!(kept, ["HTTP://b/announce", "udp://c:1"]);
    let many = vec![(0..500).map(|n| format!("udp://t{n}:1")).collect()];
    assert_eq!(Tiers::new(&many, Pace::default(), 1, Instant::now()).status().count(), 64);
}
