//! The info dictionary from peers that are honest, slow, silent or lie about its length or its bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use btfs::proto::metadata::fetch::{COPIES, Fetch, IN_FLIGHT, MAX_HELD, Outcome};
use btfs::proto::metadata::serve::{Allowance, BURST, Description};
use btfs::proto::metadata::{Word, block_count, block_len};
use btfs::proto::units::{BLOCK_LEN, InfoHash, PeerKey};
use bytes::Bytes;
use proptest::prelude::*;
use sha1::{Digest, Sha1};

/// How a peer differs from an honest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    Honest,
    /// It tells a length that is wrong by so much, and answers with noise of that length.
    Length(i32),
    /// Every so many blocks hold a false byte.
    Corrupts(u32),
    /// It answers nothing.
    Silent,
    /// It rejects everything.
    Rejects,
    /// Its blocks are too short.
    Short,
    /// It answers each block just before its time is up.
    Trickles,
}

#[derive(Clone, Copy, Debug)]
struct Actor {
    manners: Manners,
    delay: Duration,
    joins: Duration,
}

const fn actor(manners: Manners) -> Actor {
    Actor { manners, delay: Duration::from_millis(50), joins: Duration::ZERO }
}

fn info(len: usize) -> Bytes {
    let mut state = 7_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect::<Vec<_>>().into()
}

/// What the world does next.
enum Happens {
    Joins(PeerKey),
    Answers(PeerKey, Word),
}

struct World {
    info: Bytes,
    actors: Vec<Actor>,
    fetch: Fetch,
    start: Instant,
    now: Instant,
    queue: BTreeMap<(Instant, u64), Happens>,
    number: u64,
    /// Block bytes that were on the wire, and requests under way.
    received: u64,
    asked: BTreeSet<(PeerKey, u32)>,
    gone: BTreeSet<PeerKey>,
}

impl World {
    fn new(len: usize, actors: &[Actor]) -> Self {
        let info = info(len);
        let start = Instant::now();
        let hash = InfoHash(Sha1::digest(&info).into());
        let mut world = Self {
            fetch: Fetch::new(hash, 5),
            info,
            actors: actors.to_vec(),
            start,
            now: start,
            queue: BTreeMap::new(),
            number: 0,
            received: 0,
            asked: BTreeSet::new(),
            gone: BTreeSet::new(),
        };
        for (n, actor) in actors.iter().enumerate() {
            world.later(actor.joins, Happens::Joins(PeerKey(n as u64)));
        }
        world
    }

    fn later(&mut self, after: Duration, what: Happens) {
        self.number += 1;
        self.queue.insert((self.now + after, self.number), what);
    }

    fn total(&self, key: PeerKey) -> u32 {
        match self.actors[key.0 as usize].manners {
            Manners::Length(by) => (self.info.len() as u32).saturating_add_signed(by),
            _ => self.info.len() as u32,
        }
    }

    /// Runs until the dictionary is there; how long that took.
    fn run(&mut self, limit: Duration) -> Option<Duration> {
        loop {
            self.drain()?;
            let wake = self.fetch.poll_timeout();
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            self.now = match (wake, next) {
                (None, None) => return None,
                (wake, next) => wake.into_iter().chain(next).min().unwrap().max(self.now),
            };
            if self.now > self.start + limit {
                return None;
            }
            match self.queue.first_entry().filter(|first| first.key().0 <= self.now) {
                Some(first) => {
                    let happens = first.remove();
                    self.happen(happens);
                }
                None => self.fetch.handle_timeout(self.now),
            }
            assert!(self.fetch.held() <= self.received.min(MAX_HELD));
            while let Some(outcome) = self.fetch.poll_outcome() {
                match outcome {
                    Outcome::Done(info) => {
                        assert_eq!(info, self.info);
                        return Some(self.now - self.start);
                    }
                    Outcome::Liar(key) => {
                        assert_ne!(self.actors[key.0 as usize].manners, Manners::Honest);
                        self.gone.insert(key);
                        self.fetch.handle_gone(key, self.now);
                    }
                }
            }
        }
    }

    fn happen(&mut self, happens: Happens) {
        match happens {
            Happens::Joins(key) => {
                let total = self.total(key);
                self.fetch.handle_told(key, Some(total), self.now);
            }
            Happens::Answers(key, _) if self.gone.contains(&key) => {}
            Happens::Answers(key, word) => match word {
                Word::Data { block, total, data } => {
                    self.asked.remove(&(key, block));
                    self.received += data.len() as u64;
                    self.fetch.handle_data(key, block, total, &data, self.now);
                }
                Word::Reject(block) => {
                    self.asked.remove(&(key, block));
                    self.fetch.handle_reject(key, block, self.now);
                }
                Word::Request(_) => unreachable!("peers ask nothing here"),
            },
        }
    }

    fn drain(&mut self) -> Option<()> {
        while let Some((key, block)) = self.fetch.poll_request() {
            assert!(block < block_count(self.total(key)), "{block} of {}", self.total(key));
            self.asked.insert((key, block));
            let actor = self.actors[key.0 as usize];
            let delay = match actor.manners {
                Manners::Trickles => Duration::from_millis(2900),
                _ => actor.delay,
            };
            if let Some(word) = self.answer(key, actor.manners, block) {
                self.later(delay, Happens::Answers(key, word));
            }
        }
        Some(())
    }

    fn answer(&self, key: PeerKey, manners: Manners, block: u32) -> Option<Word> {
        let total = self.total(key);
        let len = block_len(total, block) as usize;
        let start = (block * BLOCK_LEN) as usize;
        let right = || self.info[start..start + len].to_vec();
        let data = match manners {
            Manners::Silent => return None,
            Manners::Rejects => return Some(Word::Reject(block)),
            Manners::Honest => right(),
            Manners::Length(_) => vec![key.0 as u8; len],
            Manners::Short => right()[..len - 1].to_vec(),
            Manners::Corrupts(every) => {
                let mut data = right();
                data[0] ^= u8::from(block.is_multiple_of(every));
                data
            }
            Manners::Trickles => {
                let mut data = right();
                data[0] ^= 1;
                data
            }
        };
        Some(Word::Data { block, total, data: data.into() })
    }
}

#[track_caller]
fn took(len: usize, actors: &[Actor]) -> Duration {
    let limit = Duration::from_secs(3600);
    World::new(len, actors).run(limit).unwrap_or_else(|| panic!("never came from {actors:?}"))
}

#[test]
fn one_honest_peer_gives_it_in_as_many_round_trips_as_it_takes() {
    let block = BLOCK_LEN as usize;
    for (len, trips) in [(1, 1), (block, 1), (2 * block, 1), (2 * block + 1, 2), (20 * block, 10)] {
        let expected = Duration::from_millis(50 * trips);
        assert_eq!(took(len, &[actor(Manners::Honest)]), expected, "{len} bytes");
    }
}

#[test]
fn several_peers_give_it_side_by_side() {
    let blocks = 20 * BLOCK_LEN as usize;
    let honest = [actor(Manners::Honest); 10];
    assert_eq!(took(blocks, &honest[..5]), Duration::from_millis(100));
    assert_eq!(took(blocks, &honest), Duration::from_millis(50));
}

#[test]
fn who_lies_about_the_length_holds_nobody_up() {
    let honest = actor(Manners::Honest);
    for by in [-1, 1, 100_000, 16 << 20, -29_999] {
        let lie = actor(Manners::Length(by));
        let took = took(30_000, &[lie, lie, lie, honest]);
        assert_eq!(took, Duration::from_millis(50), "{by}");
    }
}

#[test]
fn who_lies_about_the_bytes_costs_a_few_round_trips() {
    let lie = actor(Manners::Corrupts(1));
    let took = took(10 * BLOCK_LEN as usize, &[lie, lie, lie, actor(Manners::Honest)]);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_silent_peer_costs_a_second_request_and_no_time() {
    let took = took(30_000, &[actor(Manners::Silent), actor(Manners::Honest)]);
    assert!(took <= Duration::from_millis(100), "{took:?}");
}

#[test]
fn a_slow_peer_is_waited_for_when_there_is_no_other() {
    let slow = Actor { delay: Duration::from_millis(4500), ..actor(Manners::Honest) };
    assert!(took(30_000, &[slow]) < Duration::from_secs(10));
}

#[test]
fn nobody_is_asked_for_more_than_his_share() {
    let mut world = World::new(40 * BLOCK_LEN as usize, &[actor(Manners::Silent); 5]);
    world.run(Duration::from_secs(2));
    for n in 0..5 {
        let asked = world.asked.iter().filter(|(key, _)| *key == PeerKey(n)).count();
        assert_eq!(asked, IN_FLIGHT);
    }
    let mut copies: BTreeMap<u32, usize> = BTreeMap::new();
    world.asked.iter().for_each(|(_, block)| *copies.entry(*block).or_default() += 1);
    assert!(copies.values().all(|copies| *copies <= COPIES), "{copies:?}");
}

#[test]
fn a_flood_of_false_lengths_takes_no_more_memory_than_this() {
    let floods = (0..12).map(|n| actor(Manners::Length((8 << 20) + n * 20_000)));
    let late = Actor { joins: Duration::from_secs(30), ..actor(Manners::Honest) };
    let all: Vec<_> = floods.chain([late]).collect();
    assert!(took(30_000, &all) <= Duration::from_secs(31));
}

fn manners() -> impl Strategy<Value = Manners> {
    prop_oneof![
        (-29_000..200_000_i32).prop_map(Manners::Length),
        (1..4_u32).prop_map(Manners::Corrupts),
        Just(Manners::Silent),
        Just(Manners::Rejects),
        Just(Manners::Short),
        Just(Manners::Trickles),
    ]
}

fn actors() -> impl Strategy<Value = Vec<Actor>> {
    let times = (1..400_u64, 0..5000_u64);
    let rude = (manners(), times).prop_map(|(manners, (delay, joins))| Actor {
        manners,
        delay: Duration::from_millis(delay),
        joins: Duration::from_millis(joins),
    });
    (prop::collection::vec(rude, 0..12), 0..5000_u64, any::<prop::sample::Index>()).prop_map(
        |(mut all, joins, at)| {
            let honest = Actor { joins: Duration::from_millis(joins), ..actor(Manners::Honest) };
            all.insert(at.index(all.len() + 1), honest);
            all
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn one_honest_peer_wins_against_any_others(len in 30_000..200_000_usize, actors in actors()) {
        let took = World::new(len, &actors).run(Duration::from_secs(1800));
        prop_assert!(took.is_some());
    }

    #[test]
    fn words_come_back_as_they_were(block in any::<u32>(), total in any::<u32>(), data in any::<Vec<u8>>()) {
        let data = Bytes::from(data);
        for word in [Word::Request(block), Word::Reject(block), Word::Data { block, total, data }] {
            prop_assert_eq!(Word::parse(&word.encode()), Some(word));
        }
    }

    #[test]
    fn no_bytes_break_the_reading(bytes in any::<Vec<u8>>()) {
        let _ = Word::parse(&bytes.into());
    }
}

#[test]
fn words_that_bep_9_does_not_know_are_none() {
    for (name, bytes) in [
        ("no dictionary", "i0e"),
        ("no type", "d5:piecei0ee"),
        ("another type", "d8:msg_typei3e5:piecei0ee"),
        ("a negative block", "d8:msg_typei0e5:piecei-1ee"),
        ("a block beyond 32 bits", "d8:msg_typei0e5:piecei4294967296ee"),
        ("data without a total", "d8:msg_typei1e5:piecei0eeabc"),
        ("nested", "d8:msg_typelllllei0ee"),
    ] {
        assert_eq!(Word::parse(&Bytes::from_static(bytes.as_bytes())), None, "{name}");
    }
}

#[test]
fn blocks_are_given_to_the_last_and_none_after_it() {
    let now = Instant::now();
    let block = BLOCK_LEN as usize;
    for (len, blocks) in [(1, 1), (block - 1, 1), (block, 1), (block + 1, 2), (3 * block, 3)] {
        let info = info(len);
        let mut description = Description::new(info.clone());
        let mut allowance = Allowance::full(now);
        let mut ask = |n| Word::parse(&description.answer(n, &mut allowance, now)).unwrap();
        let given: Vec<u8> = (0..blocks)
            .flat_map(|n| match ask(n) {
                Word::Data { block, total, data } if block == n && total as usize == len => data,
                other => panic!("{len} bytes, block {n}: {other:?}"),
            })
            .collect();
        assert_eq!(given, info, "{len} bytes");
        for beyond in [blocks, blocks + 1, u32::MAX] {
            assert_eq!(ask(beyond), Word::Reject(beyond), "{len} bytes");
        }
        assert!(blocks < BURST);
    }
}
