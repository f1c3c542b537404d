//! What a part of a mount waits for and why it does not come, for people and for programs.
//!
//! Invariant: an answer is no longer than an attribute may be, whatever peers and trackers say.
//! Invariant: nothing that a stranger wrote reaches a terminal with control or bidirectional characters in it.
//!
//! Not here: how it gets to the user ([`super::why`]), and what it is made from ([`crate::engine::handle`]).

mod words;

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::engine::handle::{Fill, Handle, Status};
use crate::engine::introduction;
use crate::fs::source::MAX_WHY_LEN;
use crate::proto::announce::tiers::{Outcome, TrackerStatus};
use crate::proto::awaited::{Awaited, Holder, Stage, Standing};
use crate::proto::magnet::Magnet;
use crate::proto::metainfo::Metainfo;
use crate::proto::names::printable;
use crate::proto::units::PieceIndex;
use crate::proto::web_seed;

/// Pieces that are told of.
const MAX_PIECES: usize = 16;

/// Trackers that are told of.
const MAX_TRACKERS: usize = 12;

/// Characters of what a tracker or its URL says.
const MAX_WORDS: usize = 200;

/// Room for what stands around a list of torrents.
const FRAME: usize = 64;

/// A read that waits.
#[derive(Clone, Debug)]
pub struct WaitingRead {
    /// Bytes of the torrent.
    pub range: Range<u64>,
    /// Since when.
    pub since: Instant,
}

/// What is asked about in one torrent.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its bytes: all of the torrent, or one file.
    pub range: Range<u64>,
    /// Handles that are open there.
    pub readers: usize,
    /// Reads that wait there.
    pub reads: Vec<WaitingRead>,
    /// Nothing is fetched.
    pub offline: bool,
    /// When it is asked.
    pub now: Instant,
}

/// The answer for one torrent. Names and meanings of keys are stable; keys may be added.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    torrent: String,
    info_hash: String,
    /// What is known of the torrent while that is its hash alone.
    metadata: Option<Metadata>,
    bytes: u64,
    bytes_here: u64,
    /// Payload of the whole torrent since it was mounted.
    downloaded: u64,
    uploaded: u64,
    open: usize,
    reads_waiting: usize,
    longest_wait_ms: Option<u64>,
    pieces: Vec<Piece>,
    peers: Peers,
    trackers: Vec<Tracker>,
    dht: Option<Dht>,
    fill: Filling,
    offline: bool,
    store_trouble: Option<String>,
}

/// The description of a torrent, on its way here.
#[derive(Clone, Debug, Serialize)]
struct Metadata {
    bytes: Option<u32>,
    blocks: u32,
    blocks_here: u32,
    told_by: usize,
    times_false: u32,
    trouble: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Piece {
    index: u32,
    /// Whether a read waits for it; else it is the next of a window.
    awaited: bool,
    state: State,
    blocks: Option<u32>,
    blocks_here: Option<u32>,
    blocks_asked: Option<u32>,
    have: u32,
    serving: u32,
    choking: u32,
    snubbed: u32,
    refusing: u32,
    holders: Vec<Who>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Unproven,
    Whole,
    Fetching,
}

#[derive(Clone, Debug, Serialize)]
struct Who {
    addr: String,
    standing: &'static str,
    asked: u32,
    asked_ms_ago: Option<u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Peers {
    connected: usize,
    dialling: usize,
    known: usize,
    serving: usize,
    choking: usize,
    snubbed: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Tracker {
    url: String,
    state: &'static str,
    ms_ago: Option<u64>,
    said: Option<String>,
    peers: Option<usize>,
    seeds: Option<u32>,
    leechers: Option<u32>,
    next_in_ms: Option<u64>,
}

/// Nodes that we know, and peers that the last lookup found.
#[derive(Clone, Copy, Debug, Serialize)]
struct Dht {
    nodes: usize,
    peers: Option<usize>,
}

/// What becomes of what nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Filling {
    Complete,
    Off,
    On,
    NoRoom,
    Halted,
}

impl Diagnosis {
    /// What the torrent answers, from its last report.
    pub fn new(handle: &Handle, question: &Question) -> Self {
        let (status, have) = (handle.status(), &handle.content().have);
        let metainfo: &Metainfo = handle.metainfo();
        let geometry = &metainfo.geometry;
        let missing = |range: &Range<u64>| have.resident_bytes(range) < range.end - range.start;
        let reads: Vec<_> = question.reads.iter().filter(|read| missing(&read.range)).collect();
        let blocked: BTreeSet<PieceIndex> =
            reads.iter().flat_map(|read| geometry.pieces_in(&read.range)).collect();
        let ours: Range<u32> = {
            let mut all = geometry.pieces_in(&question.range);
            let first = all.next().map_or(0, PieceIndex::raw);
            first..all.next_back().map_or(first, PieceIndex::raw) + 1
        };
        let told = |awaited: &&Awaited| blocked.contains(&awaited.piece);
        let next = |awaited: &&Awaited| {
            !awaited.blocked && question.readers > 0 && ours.contains(&awaited.piece.raw())
        };
        let absent = || status.awaited.iter().filter(|awaited| !have.has(awaited.piece));
        let pieces = absent().filter(told).take(MAX_PIECES - 1).chain(absent().find(next));
        let longest = reads.iter().map(|read| question.now.saturating_duration_since(read.since));
        Self {
            torrent: printable(&metainfo.name),
            info_hash: metainfo.info_hash.to_string(),
            metadata: None,
            bytes: question.range.end - question.range.start,
            bytes_here: have.resident_bytes(&question.range),
            downloaded: status.totals.downloaded,
            uploaded: status.totals.uploaded,
            open: question.readers,
            reads_waiting: reads.len(),
            longest_wait_ms: longest.max().map(millis),
            pieces: pieces
                .map(|awaited| Piece::new(awaited, blocked.contains(&awaited.piece), question.now))
                .collect(),
            peers: Peers::new(&status),
            trackers: trackers(&status.trackers, question.now),
            dht: status.dht.map(|dht| Dht { nodes: dht.nodes, peers: dht.found }),
            fill: filling(status.fill, have.is_full()),
            offline: question.offline,
            store_trouble: status.trouble.as_deref().map(short),
        }
    }
}

impl Diagnosis {
    /// What is told of a torrent that is known by its hash alone.
    pub fn sought(
        magnet: &Magnet,
        status: &introduction::Status,
        trouble: Option<&str>,
        now: Instant,
    ) -> Self {
        let standing = status.standing;
        let (connected, dialling, known) = (status.connected, status.dials, status.known);
        Self {
            torrent: printable(&magnet.directory()),
            info_hash: magnet.info_hash.to_string(),
            metadata: Some(Metadata {
                bytes: standing.total,
                blocks: standing.blocks,
                blocks_here: standing.here,
                told_by: standing.tellers,
                times_false: standing.false_drafts,
                trouble: trouble.or(status.trouble.as_deref()).map(short),
            }),
            bytes: 0,
            bytes_here: 0,
            downloaded: 0,
            uploaded: 0,
            open: 0,
            reads_waiting: 0,
            longest_wait_ms: None,
            pieces: Vec::new(),
            peers: Peers { connected, dialling, known, serving: 0, choking: 0, snubbed: 0 },
            trackers: trackers(&status.trackers, now),
            dht: status.dht.map(|dht| Dht { nodes: dht.nodes, peers: dht.found }),
            fill: Filling::Off,
            offline: false,
            store_trouble: None,
        }
    }
}

fn trackers(all: &[TrackerStatus], now: Instant) -> Vec<Tracker> {
    all.iter().take(MAX_TRACKERS).map(|tracker| Tracker::new(tracker, now)).collect()
}

/// One JSON object of all, as far as there is room: those with reads that wait first.
pub fn json(mut all: Vec<Diagnosis>) -> String {
    all.sort_by_key(|one| std::cmp::Reverse(one.reads_waiting));
    let mut list = String::new();
    let mut told = 0;
    for one in &all {
        let text = serde_json::to_string(one).expect("plain data can be written");
        if list.len() + text.len() + FRAME > MAX_WHY_LEN {
            break;
        }
        if told > 0 {
            list.push(',');
        }
        list.push_str(&text);
        told += 1;
    }
    format!("{{\"torrents\":[{list}],\"left_out\":{}}}", all.len() - told)
}

/// The same in words.
pub fn text(mut all: Vec<Diagnosis>) -> String {
    all.sort_by_key(|one| std::cmp::Reverse(one.reads_waiting));
    let mut told = String::new();
    for (at, one) in all.iter().enumerate() {
        let words = one.words();
        if told.len() + words.len() + FRAME > MAX_WHY_LEN {
            told.push_str(&format!("\nand {} torrents more\n", all.len() - at));
            break;
        }
        if at > 0 {
            told.push('\n');
        }
        told.push_str(&words);
    }
    told
}

impl Piece {
    fn new(awaited: &Awaited, blocked: bool, now: Instant) -> Self {
        let (state, counts) = match awaited.stage {
            Stage::Unproven => (State::Unproven, None),
            Stage::Whole => (State::Whole, None),
            Stage::Fetching { blocks, here, asked } => {
                (State::Fetching, Some((blocks, here, asked)))
            }
        };
        let holders = awaited.holders;
        Self {
            index: awaited.piece.raw(),
            awaited: blocked,
            state,
            blocks: counts.map(|(blocks, ..)| blocks),
            blocks_here: counts.map(|(_, here, _)| here),
            blocks_asked: counts.map(|(.., asked)| asked),
            have: holders.count(),
            serving: holders.serving,
            choking: holders.choking,
            snubbed: holders.snubbed,
            refusing: holders.refusing,
            holders: awaited.named.iter().map(|holder| Who::new(holder, now)).collect(),
        }
    }
}

impl Who {
    fn new(holder: &Holder, now: Instant) -> Self {
        let standing = match holder.standing {
            Standing::Serving => "serving",
            Standing::Choking => "choking",
            Standing::Snubbed => "snubbed",
            Standing::Refusing => "refusing",
        };
        let ago = holder.since.map(|since| millis(now.saturating_duration_since(since)));
        let addr = match web_seed::index(holder.addr) {
            Some(index) => format!("web seed {}", u32::from(index) + 1),
            None => holder.addr.to_string(),
        };
        Self { addr, standing, asked: holder.asked, asked_ms_ago: ago }
    }
}

impl Peers {
    fn new(status: &Status) -> Self {
        let choking = status.peers.iter().filter(|peer| peer.choking).count();
        let snubbed = status.peers.iter().filter(|peer| !peer.choking && peer.snubbed).count();
        Self {
            connected: status.peers.len(),
            dialling: status.dials,
            known: status.known,
            serving: status.peers.len() - choking - snubbed,
            choking,
            snubbed,
        }
    }
}

impl Tracker {
    fn new(tracker: &TrackerStatus, now: Instant) -> Self {
        let (state, at, said, peers) = match &tracker.last {
            Outcome::Unknown => ("unanswered", None, None, None),
            Outcome::Answered { at, peers, warning } => {
                ("answered", Some(*at), warning.as_deref(), Some(*peers))
            }
            Outcome::Failed { at, reason } => ("failed", Some(*at), Some(reason.as_str()), None),
        };
        Self {
            url: short(&tracker.url),
            state,
            ms_ago: at.map(|at| millis(now.saturating_duration_since(at))),
            said: said.map(short),
            peers,
            seeds: tracker.seeds,
            leechers: tracker.leechers,
            next_in_ms: tracker.next.map(|at| millis(at.saturating_duration_since(now))),
        }
    }
}

const fn filling(fill: Fill, complete: bool) -> Filling {
    match fill {
        _ if complete => Filling::Complete,
        Fill::Off => Filling::Off,
        Fill::On => Filling::On,
        Fill::NoRoom => Filling::NoRoom,
        Fill::Halted => Filling::Halted,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A stranger's words, cut to a line.
fn short(text: &str) -> String {
    let text = printable(text);
    match text.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As much as anybody can make it say.
    fn longest() -> Diagnosis {
        let words = || short(&"\u{1F3AC}".repeat(5000));
        let who = Who {
            addr: "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".to_owned(),
            standing: "refusing",
            asked: u32::MAX,
            asked_ms_ago: Some(u64::MAX),
        };
        let piece = Piece {
            index: u32::MAX,
            awaited: true,
            state: State::Unproven,
            blocks: Some(u32::MAX),
            blocks_here: Some(u32::MAX),
            blocks_asked: Some(u32::MAX),
            have: u32::MAX,
            serving: 1,
            choking: 1,
            snubbed: 1,
            refusing: 1,
            holders: vec![who; crate::proto::awaited::MAX_HOLDERS],
        };
        let tracker = Tracker {
            url: words(),
            state: "unanswered",
            ms_ago: Some(u64::MAX),
            said: Some(words()),
            peers: Some(usize::MAX),
            seeds: Some(u32::MAX),
            leechers: Some(u32::MAX),
            next_in_ms: Some(u64::MAX),
        };
        Diagnosis {
            torrent: words(),
            info_hash: "0".repeat(40),
            metadata: None,
            bytes: u64::MAX,
            bytes_here: 0,
            downloaded: u64::MAX,
            uploaded: u64::MAX,
            open: 1,
            reads_waiting: 1,
            longest_wait_ms: Some(u64::MAX),
            pieces: vec![piece; MAX_PIECES],
            peers: Peers {
                connected: 1,
                dialling: 1,
                known: 1,
                serving: 1,
                choking: 0,
                snubbed: 0,
            },
            trackers: vec![tracker; MAX_TRACKERS],
            dht: Some(Dht { nodes: usize::MAX, peers: Some(usize::MAX) }),
            fill: Filling::Halted,
            offline: false,
            store_trouble: Some(words()),
        }
    }

    #[test]
    fn the_longest_answer_fits_and_what_does_not_is_counted() {
        for count in [1, 2, 50] {
            let (json, text) = (json(vec![longest(); count]), text(vec![longest(); count]));
            assert!(json.len() <= MAX_WHY_LEN && text.len() <= MAX_WHY_LEN, "{count}");
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            let told = read["torrents"].as_array().unwrap().len();
            assert!(told > 0);
            assert_eq!(told + read["left_out"].as_u64().unwrap() as usize, count);
            assert_eq!(count > told, text.ends_with("torrents more\n"), "{count}");
        }
    }

    #[test]
    fn strangers_words_are_a_short_line() {
        assert_eq!(short("a\nb\u{202e}c"), "a_bc");
        assert_eq!(short(&"x".repeat(MAX_WORDS)).len(), MAX_WORDS);
        assert_eq!(short(&"x".repeat(MAX_WORDS + 1)), "x".repeat(MAX_WORDS) + "…");
    }
}
