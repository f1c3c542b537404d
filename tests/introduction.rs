//! A torrent that is known by its hash alone: whom it meets, what it asks, and what it hands to its swarm.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use btfs::proto::blocklist::Draft;
use btfs::proto::config::Config;
use btfs::proto::introduction::{Event, Introduction, MAX_KEPT, Setup};
use btfs::proto::metadata::Word;
use btfs::proto::origin::Origin;
use btfs::proto::parting::Parting;
use btfs::proto::units::{BLOCK_LEN, InfoHash, PeerId, PeerKey};
use btfs::proto::wire::extension::{Extension, ExtensionHandshake, ExtensionIds, HANDSHAKE_ID};
use btfs::proto::wire::message::{Handshake, Message, Request, Reserved};
use btfs::proto::wire::pex::{Exchange, Traits};
use bytes::Bytes;
use sha1::{Digest, Sha1};

/// Our number for ut_metadata.
const OURS: u8 = 2;

fn info() -> Bytes {
    vec![b'x'; BLOCK_LEN as usize + 5].into()
}

fn introduction(now: Instant) -> Introduction {
    introduction_with(Config::default(), now)
}

fn introduction_with(config: Config, now: Instant) -> Introduction {
    let info_hash = InfoHash(Sha1::digest(info()).into());
    let peer_id = PeerId([1; 20]);
    Introduction::new(Setup { info_hash, peer_id, listen_port: 6881, config, seed: 3 }, now)
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 6881))
}

fn meet(introduction: &mut Introduction, n: u8, words: Vec<Message>, now: Instant) {
    let reserved = Reserved { fast: true, extended: true, ..Reserved::default() };
    let said = Handshake { reserved, info_hash: InfoHash([0; 20]), peer_id: PeerId([n + 1; 20]) };
    introduction.handle_connected(PeerKey(n.into()), addr(n), false, said, now);
    introduction.handle_messages(PeerKey(n.into()), words, now);
}

fn hello(len: Option<u32>) -> Message {
    let ids = ExtensionIds::local(&[Extension::Metadata, Extension::Pex]);
    let hello = ExtensionHandshake { ids, metadata_len: len, ..ExtensionHandshake::default() };
    Message::Extended { id: HANDSHAKE_ID, payload: hello.encode() }
}

fn word(word: &Word) -> Message {
    Message::Extended { id: OURS, payload: word.encode() }
}

fn block(index: u32) -> Message {
    let (total, start) = (info().len() as u32, (index * BLOCK_LEN) as usize);
    let end = (start + BLOCK_LEN as usize).min(info().len());
    word(&Word::Data { block: index, total, data: info().slice(start..end) })
}

fn said(introduction: &mut Introduction) -> Vec<(u64, Message)> {
    let all = std::iter::from_fn(|| introduction.poll_transmit());
    all.map(|(key, message)| (key.0, message)).collect()
}

fn asked(introduction: &mut Introduction) -> Vec<(u64, u32)> {
    let words = said(introduction).into_iter().filter_map(|(key, message)| match message {
        Message::Extended { id: OURS, payload } => Some((key, Word::parse(&payload)?)),
        _ => None,
    });
    words.filter_map(|(key, word)| Some((key, request(&word)?))).collect()
}

fn request(word: &Word) -> Option<u32> {
    if let Word::Request(block) = word { Some(*block) } else { None }
}

fn events(introduction: &mut Introduction) -> Vec<Event> {
    std::iter::from_fn(|| introduction.poll_event()).collect()
}

#[test]
fn a_peer_is_greeted_asked_and_handed_over_with_all_that_it_said() {
    let now = Instant::now();
    let mut introduction = introduction(now);
    introduction.handle_candidates([addr(1)], Origin::Tracker, now);
    assert_eq!(events(&mut introduction), [Event::Dial(addr(1)), Event::NeedPeers]);
    let len = info().len() as u32;
    meet(&mut introduction, 1, vec![hello(Some(len)), Message::Bitfield(vec![0xf0].into())], now);
    let all = said(&mut introduction);
    let (_, Message::Extended { id: HANDSHAKE_ID, payload }) = &all[0] else { panic!("{all:?}") };
    let ours = ExtensionHandshake::parse(payload).unwrap();
    assert_eq!((ours.ids.of(Extension::Metadata), ours.metadata_len), (Some(OURS), None));
    // It is told at once that we want something, so that it may serve us by the time we know what.
    assert!(all.contains(&(1, Message::Interested)), "{all:?}");
    let requests = [0, 1].map(|block| (1, word(&Word::Request(block))));
    assert!(requests.iter().all(|request| all.contains(request)), "{all:?}");
    let more = vec![Message::Have(5), Message::Unchoke, block(1), Message::Choke, Message::Unchoke];
    introduction.handle_messages(PeerKey(1), more, now);
    assert_eq!(introduction.standing().here, 1);
    introduction.handle_messages(PeerKey(1), vec![block(0), Message::Have(6)], now);
    assert_eq!(events(&mut introduction), [Event::Known(info())]);
    let company = introduction.into_company();
    assert_eq!((company.peers.len(), company.dials.candidates.len()), (1, 1));
    let words = company.peers.into_values().next().unwrap().into_words();
    let expected = [
        hello(Some(len)),
        Message::Bitfield(vec![0xf0].into()),
        Message::Have(5),
        Message::Unchoke,
        Message::Have(6),
    ];
    assert_eq!(words, expected);
}

#[test]
fn a_silent_peer_and_one_that_refuses_are_passed_over() {
    let start = Instant::now();
    let mut introduction = introduction(start);
    let len = Some(info().len() as u32);
    meet(&mut introduction, 1, vec![hello(len)], start);
    assert_eq!(asked(&mut introduction), [(1, 0), (1, 1)]);
    let reject = word(&Word::Reject(0));
    introduction.handle_messages(PeerKey(1), vec![reject], start);
    assert_eq!(asked(&mut introduction), []);
    meet(&mut introduction, 2, vec![hello(len)], start);
    assert_eq!(asked(&mut introduction), [(2, 0), (2, 1)]);
    let mut now = start;
    let mut again = Vec::new();
    while again.is_empty() && now < start + Duration::from_secs(60) {
        now = introduction.poll_timeout().max(now + Duration::from_millis(1));
        introduction.handle_timeout(now);
        again = asked(&mut introduction);
    }
    // Nobody else is there: it is asked once more.
    assert_eq!(again, [(2, 0), (2, 1)]);
}

#[test]
fn a_liar_is_banned_and_left() {
    let now = Instant::now();
    let mut introduction = introduction(now);
    meet(&mut introduction, 1, vec![hello(Some(4))], now);
    let lie = word(&Word::Data { block: 0, total: 4, data: Bytes::from_static(b"liar") });
    events(&mut introduction);
    introduction.handle_messages(PeerKey(1), vec![lie], now);
    let all = events(&mut introduction);
    assert!(all.contains(&Event::Close(PeerKey(1), Parting::Banned)), "{all:?}");
    introduction.handle_candidates([addr(1)], Origin::Tracker, now);
    assert!(!events(&mut introduction).contains(&Event::Dial(addr(1))));
    assert_eq!(introduction.standing().false_drafts, 1);
}

#[test]
fn nobody_makes_us_keep_more_than_this() {
    let have = |n: u32| Message::Have(n);
    let junk = |_| Message::Extended { id: 9, payload: vec![0; 100_000].into() };
    let suggest = |n: u32| Message::Suggest(n);
    for (name, word) in
        [("haves", &have as &dyn Fn(u32) -> Message), ("junk", &junk), ("suggestions", &suggest)]
    {
        let now = Instant::now();
        let mut introduction = introduction(now);
        meet(&mut introduction, 1, Vec::new(), now);
        let most = (MAX_KEPT / size_of::<Message>() + 1) as u32;
        introduction.handle_messages(PeerKey(1), (0..most).map(word).collect(), now);
        let closed = |event: &Event| matches!(event, Event::Close(_, Parting::Violation(_)));
        assert!(events(&mut introduction).iter().any(closed), "{name}");
        assert_eq!(introduction.peers().len(), 0, "{name}");
    }
}

#[test]
fn words_that_are_said_again_take_no_room() {
    let now = Instant::now();
    let mut introduction = introduction(now);
    meet(&mut introduction, 1, Vec::new(), now);
    let request = Request { piece: 0, begin: 0, len: BLOCK_LEN };
    for _ in 0..10_000 {
        let words = vec![
            Message::Choke,
            Message::Unchoke,
            Message::Interested,
            Message::NotInterested,
            Message::Bitfield(vec![0xff; 1000].into()),
            Message::Request(request),
            Message::KeepAlive,
        ];
        introduction.handle_messages(PeerKey(1), words, now);
    }
    let company = introduction.into_company();
    let words = company.peers.into_values().next().unwrap().into_words();
    let kept =
        [Message::Unchoke, Message::NotInterested, Message::Bitfield(vec![0xff; 1000].into())];
    assert_eq!(words, kept);
}

#[test]
fn peers_name_others_but_none_on_the_blocklist_and_are_refused_twice() {
    let now = Instant::now();
    let mut draft = Draft::default();
    draft.line(b"10.0.0.66");
    let blocklist = Arc::new(draft.finish());
    let mut introduction = introduction_with(Config { blocklist, ..Config::default() }, now);
    introduction.handle_candidates([addr(66)], Origin::Tracker, now);
    let named = Exchange {
        added: vec![
            (addr(7), Traits::default()),
            (SocketAddr::from(([127, 0, 0, 1], 1)), Traits::default()),
            (addr(66), Traits::default()),
        ],
        dropped: Vec::new(),
    };
    let gossip = Message::Extended { id: 1, payload: named.encode() };
    meet(&mut introduction, 1, vec![hello(None), gossip], now);
    let all = events(&mut introduction);
    assert!(all.contains(&Event::Dial(addr(7))) && all.len() == 2, "{all:?}");
    let twin = Handshake {
        reserved: Reserved::default(),
        info_hash: InfoHash([0; 20]),
        peer_id: PeerId([2; 20]),
    };
    for (name, key, id, closed, parting) in [
        ("it dialled us when we dialled it", 5, 2, 1, Parting::Duplicate),
        ("and once more", 6, 2, 6, Parting::Duplicate),
        ("ourselves", 7, 1, 7, Parting::Ourselves),
    ] {
        let said = Handshake { peer_id: PeerId([id; 20]), ..twin };
        introduction.handle_connected(PeerKey(key), addr(9), true, said, now);
        let told = events(&mut introduction);
        assert!(told.contains(&Event::Close(PeerKey(closed), parting)), "{name}: {told:?}");
        assert_eq!(introduction.peers().len(), 1, "{name}");
    }
}
