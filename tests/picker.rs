//! What the picker asks of a peer, as pictures and against a naive model.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use btfs::proto::bitfield::Bitfield;
use btfs::proto::geometry::Geometry;
use btfs::proto::partial::{Block, MAX_COPIES};
use btfs::proto::picker::{Demand, Picker, RANDOM_FIRST, Receipt, View};
use btfs::proto::units::{BLOCK_LEN, BlockRef, PeerKey, PieceIndex};

const BLOCKS: u32 = 4;
const PIECE: u32 = BLOCKS * BLOCK_LEN;

/// A peer that has what `has` marks with `*`.
struct Peer {
    key: PeerKey,
    pieces: Bitfield,
    refused: BTreeSet<PieceIndex>,
    suggested: VecDeque<PieceIndex>,
    only: Option<BTreeSet<PieceIndex>>,
    /// Blocks that it may be asked for though others were.
    again: BTreeSet<BlockRef>,
}

impl Peer {
    fn view(&self) -> View<'_> {
        View {
            key: self.key,
            pieces: &self.pieces,
            refused: &self.refused,
            suggested: &self.suggested,
            only: self.only.as_ref(),
            again: &self.again,
        }
    }
}

fn layout(pieces: usize) -> Geometry {
    Geometry::new(pieces as u64 * u64::from(PIECE), i64::from(PIECE)).expect("legal lengths")
}

fn every_block(pieces: usize) -> BTreeSet<BlockRef> {
    let geometry = layout(pieces);
    geometry.pieces().flat_map(|piece| geometry.blocks(piece)).collect()
}

fn marked(marks: &str) -> Bitfield {
    let geometry = layout(marks.len());
    let mut field = Bitfield::empty(geometry.piece_count());
    for (piece, _) in geometry.pieces().zip(marks.chars()).filter(|(_, mark)| *mark == '*') {
        field.insert(piece);
    }
    field
}

fn peer(key: u64, has: &str) -> Peer {
    let pieces = marked(has);
    Peer {
        key: PeerKey(key),
        pieces,
        refused: BTreeSet::new(),
        suggested: VecDeque::new(),
        only: None,
        again: BTreeSet::new(),
    }
}

/// One character a piece. `have`: `*` here. `avail`: peers that have it, 0 to 9. `urgent`: `!` a read waits,
/// `w` in a window. `partial`: a hexadecimal digit whose bits are the blocks that are here.
fn scene(have: &str, avail: &str, urgent: &str, partial: &str) -> Picker {
    let geometry = layout(have.len());
    let mut picker = Picker::new(geometry.clone(), marked(have), true, 1 << 40, 1);
    for others in 1..=9 {
        let has = |mark: char| mark.to_digit(10).is_some_and(|count| count >= others);
        let marks: String = avail.chars().map(|mark| if has(mark) { '*' } else { ' ' }).collect();
        let pieces = marked(&marks);
        // One peer short of a seed, lest it be counted apart.
        assert!(!pieces.is_full(), "leave one piece with availability 0");
        picker.peer_came(&pieces);
    }
    for (piece, mark) in geometry.pieces().zip(partial.chars()) {
        let bits = mark.to_digit(16).unwrap_or(0);
        if bits > 0 {
            begin(&mut picker, &geometry, piece, bits);
        }
    }
    let marks: Vec<_> = geometry.pieces().zip(urgent.chars()).collect();
    let of = |mark: char, blocked| {
        let wanted = marks.iter().filter(move |(_, m)| *m == mark);
        wanted.map(move |(piece, _)| Demand { piece: *piece, blocked })
    };
    picker.set_demands(of('!', true).chain(of('w', false)));
    picker
}

/// Puts a piece under way: a passer-by brought the blocks in `bits` and left.
fn begin(picker: &mut Picker, geometry: &Geometry, piece: PieceIndex, bits: u32) {
    let passer_by = Peer {
        key: PeerKey(u64::MAX),
        pieces: Bitfield::full(geometry.piece_count()),
        refused: BTreeSet::new(),
        suggested: VecDeque::new(),
        only: Some(BTreeSet::from([piece])),
        again: BTreeSet::new(),
    };
    picker.set_demands([Demand { piece, blocked: true }]);
    for block in picker.pick(passer_by.view(), BLOCKS as usize, true) {
        if bits >> block.index & 1 == 1 {
            assert!(matches!(picker.receive(block, passer_by.key, true), Receipt::New { .. }));
        } else {
            picker.release(block, passer_by.key);
        }
    }
    picker.disown(passer_by.key);
    picker.set_demands([]);
}

/// The blocks as `piece.block`, in the order picked.
fn told(blocks: &[BlockRef]) -> String {
    let names: Vec<_> =
        blocks.iter().map(|block| format!("{}.{}", block.piece.raw(), block.index)).collect();
    names.join(" ")
}

#[track_caller]
fn check(picker: &mut Picker, peer: &Peer, count: usize, expected: &str) {
    let picked = picker.pick(peer.view(), count, true);
    assert_eq!(picker.invariants(), Ok(()));
    assert_eq!(told(&picked), expected);
    assert!(picked.iter().all(|block| peer.pieces.has(block.piece)), "asked for what it lacks");
    let once: BTreeSet<_> = picked.iter().collect();
    assert_eq!(once.len(), picked.len(), "asked twice");
}

/// Have, availability, urgency, blocks here, the peer's pieces, count, expected.
type Row = (&'static str, [&'static str; 5], usize, &'static str);

#[test]
fn pictures() {
    let rows: [Row; 12] = [
        (
            "the rarest first",
            ["****   ", "0000312", "       ", "       ", "*******"],
            4,
            "5.0 5.1 5.2 5.3",
        ),
        (
            "the rarest that the peer has",
            ["****   ", "0000312", "       ", "       ", "****  *"],
            4,
            "6.0 6.1 6.2 6.3",
        ),
        (
            "nothing of a peer that has nothing new",
            ["****   ", "0000312", "       ", "       ", "****   "],
            4,
            "",
        ),
        (
            "a read that waits before the rarest",
            ["****   ", "0000312", "    !  ", "       ", "*******"],
            5,
            "4.0 4.1 4.2 4.3 5.0",
        ),
        (
            "a read that waits before a window",
            ["****   ", "0000312", "    w !", "       ", "*******"],
            5,
            "6.0 6.1 6.2 6.3 4.0",
        ),
        (
            "only the missing blocks",
            ["****   ", "0000312", "    !  ", "    5  ", "*******"],
            2,
            "4.1 4.3",
        ),
        (
            "an orphaned piece before a new one",
            ["****   ", "0000312", "       ", "    5  ", "*******"],
            3,
            "4.1 4.3 5.0",
        ),
        (
            "a demanded piece that is here is no demand",
            ["****   ", "0000312", "!      ", "       ", "*******"],
            1,
            "5.0",
        ),
        (
            "what the peer lacks is passed over",
            ["****   ", "0000312", "    !! ", "       ", "**** **"],
            5,
            "5.0 5.1 5.2 5.3 6.0",
        ),
        (
            "a piece whose blocks are all here waits for its verdict",
            ["****   ", "0000312", "    !  ", "    F  ", "*******"],
            1,
            "5.0",
        ),
        (
            "waiting reads in the order they came",
            ["****   ", "0000111", "    !!!", "       ", "*******"],
            12,
            "4.0 4.1 4.2 4.3 5.0 5.1 5.2 5.3 6.0 6.1 6.2 6.3",
        ),
        (
            "an eighth goes to fill while only windows are open",
            ["****   ", "0000312", "      w", "       ", "*******"],
            5,
            "5.0 6.0 6.1 6.2 6.3",
        ),
    ];
    for (name, [have, avail, urgent, partial, has], count, expected) in rows {
        println!("{name}");
        check(&mut scene(have, avail, urgent, partial), &peer(1, has), count, expected);
    }
}

#[test]
fn a_newcomer_takes_random_pieces_before_the_rarest() {
    let first = |seed| {
        let geometry = layout(64);
        let mut picker = Picker::new(geometry.clone(), Bitfield::empty(64), true, 1 << 40, seed);
        let mut rare = Bitfield::full(64);
        rare.remove(geometry.piece(9).expect("of 64"));
        picker.peer_came(&rare);
        picker.pick(peer(1, &"*".repeat(64)).view(), 1, true)[0].piece.raw()
    };
    let firsts: BTreeSet<_> = (0..16).map(first).collect();
    assert!(firsts.len() > 8, "{firsts:?}");
    let mut later = scene("****    ", "00003120", "        ", "        ");
    assert!(later.have().count() >= RANDOM_FIRST);
    check(&mut later, &peer(1, "********"), 1, "7.0");
}

#[test]
fn a_random_first_piece_is_found_beside_a_refused_one() {
    for seed in 0..8 {
        let geometry = layout(2);
        let mut picker = Picker::new(geometry.clone(), Bitfield::empty(2), true, 1 << 40, seed);
        let mut view = peer(1, "**");
        view.refused = geometry.pieces().take(1).collect();
        check(&mut picker, &view, 1, "1.0");
    }
}

#[test]
fn each_peer_fills_a_piece_of_its_own() {
    let mut picker = scene("****   ", "0000312", "       ", "       ");
    check(&mut picker, &peer(1, "*******"), 2, "5.0 5.1");
    check(&mut picker, &peer(2, "*******"), 2, "6.0 6.1");
    check(&mut picker, &peer(1, "*******"), 2, "5.2 5.3");
    check(&mut picker, &peer(2, "*******"), 2, "6.2 6.3");
}

#[test]
fn a_full_house_shares_pieces_and_begins_only_those_that_reads_wait_for() {
    let all = peer(1, "******");
    let open = |bytes| Picker::new(layout(6), marked("****  "), true, bytes, 1);
    let mut picker = Picker::new(layout(6), marked("      "), true, 2 * u64::from(PIECE), 1);
    let opened: Vec<_> =
        (1..=4).flat_map(|key| picker.pick(peer(key, "******").view(), 2, true)).collect();
    assert_eq!(picker.open(), 2, "{opened:?}");
    let closed = layout(6).pieces().find(|piece| picker.partial(*piece).is_none()).expect("four");
    picker.set_demands([Demand { piece: closed, blocked: true }]);
    assert_eq!(picker.pick(all.view(), 1, true)[0].piece, closed);
    let mut picker = open(1 << 40);
    assert_eq!(picker.pick(all.view(), 1, false), []);
    picker.set_demands(layout(6).piece(4).map(|piece| Demand { piece, blocked: false }));
    assert_eq!(picker.pick(all.view(), 1, false), [], "a window waits for memory");
    picker.set_demands(layout(6).piece(4).map(|piece| Demand { piece, blocked: true }));
    assert_eq!(told(&picker.pick(all.view(), 1, false)), "4.0");
    picker.set_demands(layout(6).piece(4).map(|piece| Demand { piece, blocked: false }));
    assert_eq!(told(&picker.pick(all.view(), 1, false)), "4.1", "what is begun is finished");
}

#[test]
fn windows_keep_within_memory_and_fill_leaves_them_half_of_it() {
    let wide = "*".repeat(32);
    let back = " ".repeat(16) + &"*".repeat(16);
    let all = peer(1, &wide);
    let memory = 8 * u64::from(PIECE);
    let window = || layout(32).pieces().take(16).map(|piece| Demand { piece, blocked: false });
    for (name, fill_first, windows, expected) in [
        ("fill alone", true, false, 8),
        ("windows alone", false, true, 8),
        ("fill and then windows", true, true, 10),
    ] {
        let none = marked(&" ".repeat(32));
        let mut picker = Picker::new(layout(32), none, fill_first, memory, 1);
        if fill_first {
            for key in 1..=32 {
                picker.pick(peer(key, &back).view(), 4, true);
            }
        }
        if windows {
            picker.set_demands(window());
            for _ in 0..32 {
                picker.pick(all.view(), 4, true);
            }
        }
        assert_eq!(picker.open(), expected, "{name}");
    }
    let mut picker = Picker::new(layout(32), marked(&" ".repeat(32)), true, memory, 1);
    picker.set_demands(window());
    (0..64).for_each(|key| drop(picker.pick(peer(key, &wide).view(), 1, true)));
    let read = window().filter(|demand| picker.partial(demand.piece).is_some()).count();
    assert!(read >= 4, "{read} pieces of the window are under way");
}

#[test]
fn pieces_that_only_the_gone_have_do_not_close_the_house() {
    let mut picker = Picker::new(layout(6), marked("      "), true, 2 * u64::from(PIECE), 1);
    for (key, has) in [(1, "*     "), (2, " *    ")] {
        let gone = peer(key, has);
        for block in picker.pick(gone.view(), 2, true) {
            if block.index == 0 {
                picker.receive(block, gone.key, true);
            } else {
                picker.release(block, gone.key);
            }
        }
        picker.disown(gone.key);
    }
    assert_eq!(picker.open(), 2);
    assert_eq!(picker.pick(peer(3, "  ****").view(), 1, true).len(), 1);
}

#[test]
fn without_fill_only_demands_are_picked() {
    let mut picker = scene("****   ", "0000312", "     w ", "    5  ");
    picker.set_fill(false);
    check(&mut picker, &peer(1, "*******"), 9, "5.0 5.1 5.2 5.3");
    picker.set_demands([]);
    assert!(!picker.wants_anything());
    check(&mut picker, &peer(2, "*******"), 9, "");
}

#[test]
fn fill_begins_no_piece_beyond_the_room_for_it_and_readers_do() {
    let mut picker = scene("****   ", "0000123", "       ", "       ");
    picker.set_fill_room(1);
    check(&mut picker, &peer(1, "*******"), 9, "4.0 4.1 4.2 4.3");
    check(&mut picker, &peer(2, "*******"), 9, "");
    picker.set_fill_room(2);
    check(&mut picker, &peer(2, "*******"), 9, "5.0 5.1 5.2 5.3");
    picker.set_fill_room(0);
    let piece = layout(7).piece(6).expect("of seven");
    picker.set_demands([Demand { piece, blocked: false }]);
    check(&mut picker, &peer(3, "*******"), 9, "6.0 6.1 6.2 6.3");
}

#[test]
fn a_doubted_piece_is_asked_of_nobody_until_it_is_known_to_be_missing() {
    let mut picker = scene("****   ", "0000123", "    ww ", "       ");
    let piece = |raw| layout(7).piece(raw).expect("of seven");
    for raw in [0, 4, 5] {
        picker.doubt(piece(raw));
    }
    assert_eq!(picker.doubted().count(), 2, "what is had is beyond doubt");
    picker.set_demands([4, 5].map(|raw| Demand { piece: piece(raw), blocked: true }));
    assert!(!picker.is_blocked());
    check(&mut picker, &peer(1, "*******"), 99, "6.0 6.1 6.2 6.3");
    let chokes = BTreeSet::from([piece(4), piece(5)]);
    let view = peer(2, "*******");
    assert_eq!(picker.pick(View { only: Some(&chokes), ..view.view() }, 9, true), []);
    assert!(picker.resolve(piece(4), true) && !picker.resolve(piece(4), false));
    assert!(picker.have().has(piece(4)));
    assert!(picker.resolve(piece(5), false));
    check(&mut picker, &peer(2, "*******"), 9, "5.0 5.1 5.2 5.3");
    assert_eq!(picker.invariants(), Ok(()));
}

#[test]
fn in_end_game_a_block_has_two_askers_and_a_late_one_three() {
    let mut picker = scene("****  ", "000010", "      ", "      ");
    let idle = |key| Peer { again: every_block(6), ..peer(key, "******") };
    assert_eq!(picker.pick(idle(1).view(), 8, true).len(), 8);
    assert_eq!(picker.pick(peer(2, "******").view(), 8, true), [], "not to a busy peer");
    assert_eq!(picker.pick(idle(2).view(), 99, true).len(), 8);
    assert_eq!(picker.pick(idle(3).view(), 99, true), []);
    let late = layout(6).piece(4).and_then(|piece| layout(6).block(piece, 2)).expect("a block");
    picker.mark_late(late, 1);
    assert_eq!(picker.pick(idle(3).view(), 99, true), [], "one of its two askers is in time");
    picker.mark_late(late, 2);
    check(&mut picker, &idle(3), 99, "4.2");
    picker.mark_late(late, 9);
    check(&mut picker, &idle(4), 99, "");
    let Receipt::New { askers, .. } = picker.receive(late, PeerKey(1), true) else {
        panic!("it was needed")
    };
    assert_eq!(askers.count(), MAX_COPIES);
    assert_eq!(picker.receive(late, PeerKey(1), true), Receipt::Redundant);
}

#[test]
fn a_late_block_of_a_waiting_read_goes_before_fill() {
    let mut picker = scene("****   ", "0000312", "    !  ", "       ");
    check(&mut picker, &peer(1, "*******"), 4, "4.0 4.1 4.2 4.3");
    let late = layout(7).piece(4).and_then(|piece| layout(7).block(piece, 1)).expect("a block");
    picker.mark_late(late, 9);
    let idle = Peer { again: every_block(7), ..peer(2, "*******") };
    check(&mut picker, &idle, 2, "4.1 5.0");
}

#[test]
fn fill_takes_what_the_peer_suggests_first_but_no_reader_waits_for_it() {
    let piece = |raw| layout(7).piece(raw).expect("of seven");
    let suggesting = |key| Peer {
        suggested: VecDeque::from([piece(0), piece(6), piece(4)]),
        ..peer(key, "*******")
    };
    let mut picker = scene("****   ", "0000312", "       ", "       ");
    check(&mut picker, &suggesting(1), 8, "6.0 6.1 6.2 6.3 4.0 4.1 4.2 4.3");
    let mut picker = scene("****   ", "0000312", "     ! ", "       ");
    check(&mut picker, &suggesting(1), 5, "5.0 5.1 5.2 5.3 6.0");
}

#[test]
fn refused_pieces_are_not_asked_for_and_a_choking_peer_gives_only_what_it_allows() {
    let piece = |raw| layout(7).piece(raw).expect("of seven");
    let mut picker = scene("****   ", "0000312", "    !! ", "       ");
    let refusing = Peer { refused: BTreeSet::from([piece(4)]), ..peer(1, "*******") };
    check(&mut picker, &refusing, 5, "5.0 5.1 5.2 5.3 6.0");
    let choking = Peer { only: Some(BTreeSet::from([piece(4), piece(6)])), ..peer(2, "***** *") };
    check(&mut picker, &choking, 5, "4.0 4.1 4.2 4.3 6.1");
    let both = Peer {
        only: Some(BTreeSet::from([piece(5)])),
        refused: BTreeSet::from([piece(5)]),
        ..peer(3, "*******")
    };
    check(&mut scene("****   ", "0000312", "       ", "       "), &both, 5, "");
}

#[test]
fn a_failed_piece_is_brought_again_by_one_peer_alone() {
    let mut picker = scene("****   ", "0000312", "    !  ", "    F  ");
    let piece = layout(7).piece(4).expect("of seven");
    picker.failed(piece);
    check(&mut picker, &peer(1, "*******"), 2, "4.0 4.1");
    check(&mut picker, &peer(2, "*******"), 1, "5.0");
    check(&mut picker, &peer(1, "*******"), 2, "4.2 4.3");
    let block = layout(7).block(piece, 0).expect("a block");
    assert_eq!(picker.receive(block, PeerKey(2), false), Receipt::Redundant, "of another");
    assert!(matches!(picker.receive(block, PeerKey(1), true), Receipt::New { .. }));
    assert_eq!(picker.restart_exclusive(PeerKey(1)), [piece]);
    check(&mut picker, &peer(2, "*******"), 4, "4.0 4.1 4.2 4.3");
}

#[test]
fn a_released_block_is_asked_for_again_and_an_untouched_piece_closes() {
    let mut picker = scene("****   ", "0000312", "       ", "       ");
    let first = peer(1, "*******");
    let picked = picker.pick(first.view(), 2, true);
    picker.receive(picked[0], PeerKey(1), true);
    picker.release(picked[1], PeerKey(2));
    check(&mut picker, &first, 1, "5.2");
    picker.release(picked[1], PeerKey(1));
    check(&mut picker, &first, 1, "5.1");
    let mut picker = scene("****   ", "0000312", "       ", "       ");
    let picked = picker.pick(first.view(), 1, true);
    picker.release(picked[0], PeerKey(1));
    assert_eq!(picker.open(), 0);
}

#[test]
fn a_block_that_was_asked_for_is_welcome_after_its_piece_was_given_up() {
    let mut picker = scene("****   ", "0000312", "       ", "       ");
    let block = picker.pick(peer(1, "*******").view(), 1, true)[0];
    picker.release(block, PeerKey(1));
    assert_eq!(picker.receive(block, PeerKey(2), false), Receipt::Redundant);
    assert!(matches!(picker.receive(block, PeerKey(1), true), Receipt::New { whole: false, .. }));
    check(&mut picker, &peer(2, "*******"), 9, "5.1 5.2 5.3 6.0 6.1 6.2 6.3 4.0 4.1");
}

#[test]
fn an_evicted_piece_is_wanted_again() {
    let mut picker = scene("*******", "0000312", "       ", "       ");
    check(&mut picker, &peer(1, "*******"), 1, "");
    picker.evicted(layout(7).piece(5).expect("of seven"));
    check(&mut picker, &peer(1, "*******"), 9, "5.0 5.1 5.2 5.3");
}

#[derive(Clone, Debug)]
enum Op {
    Pick { peer: usize, count: usize, idle: bool, room: bool },
    Receive(usize),
    Release(usize),
    Leave(usize),
    Verify(bool),
    Evict(usize),
    Gain(usize, u32),
    Lose(usize, u32),
    Demand(Vec<(u32, bool)>),
    Fill(bool),
    Late(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..4usize, 1..9usize, any::<bool>(), any::<bool>())
            .prop_map(|(peer, count, idle, room)| Op::Pick { peer, count, idle, room }),
        6 => any::<usize>().prop_map(Op::Receive),
        2 => any::<usize>().prop_map(Op::Release),
        1 => (0..4usize).prop_map(Op::Leave),
        3 => prop::bool::weighted(0.8).prop_map(Op::Verify),
        1 => any::<usize>().prop_map(Op::Evict),
        3 => (0..4usize, 0..8u32).prop_map(|(peer, piece)| Op::Gain(peer, piece)),
        1 => (0..4usize, 0..8u32).prop_map(|(peer, piece)| Op::Lose(peer, piece)),
        2 => prop::collection::vec((0..8u32, any::<bool>()), 0..4).prop_map(Op::Demand),
        1 => any::<bool>().prop_map(Op::Fill),
        1 => any::<usize>().prop_map(Op::Late),
    ]
}

/// The picker beside what a caller remembers in plain lists.
struct Model {
    geometry: Geometry,
    picker: Picker,
    peers: Vec<Peer>,
    asked: Vec<(BlockRef, PeerKey)>,
    late: BTreeSet<BlockRef>,
    here: BTreeSet<BlockRef>,
    demanded: BTreeSet<PieceIndex>,
}

impl Model {
    fn new() -> Self {
        let geometry = layout(8);
        let picker =
            Picker::new(geometry.clone(), Bitfield::empty(8), true, 3 * u64::from(PIECE), 1);
        let peers = (0..4).map(|key| peer(key, "        ")).collect();
        Self {
            geometry,
            picker,
            peers,
            asked: Vec::new(),
            late: BTreeSet::new(),
            here: BTreeSet::new(),
            demanded: BTreeSet::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Pick { peer, count, idle, room } => self.pick(peer, count, idle, room),
            Op::Receive(at) => {
                if let Some((block, key)) = self.nth(at) {
                    let receipt = self.picker.receive(block, key, true);
                    let asked: BTreeSet<_> = self.askers(block);
                    let Receipt::New { askers, .. } = receipt else {
                        panic!("{block:?} was asked")
                    };
                    assert_eq!(askers.iter().collect::<BTreeSet<_>>(), asked);
                    assert!(asked.contains(&key));
                    self.asked.retain(|(other, _)| *other != block);
                    self.here.insert(block);
                }
            }
            Op::Release(at) => {
                if let Some((block, key)) = self.nth(at) {
                    self.picker.release(block, key);
                    self.asked.retain(|asked| *asked != (block, key));
                }
            }
            Op::Leave(peer) => self.leave(peer),
            Op::Verify(right) => self.verify(right),
            Op::Evict(at) => {
                let had: Vec<_> = self.picker.have().iter().collect();
                if !had.is_empty() {
                    let piece = had[at % had.len()];
                    self.picker.evicted(piece);
                    self.here.retain(|block| block.piece != piece);
                }
            }
            Op::Gain(peer, raw) => {
                let piece = self.geometry.piece(raw).expect("of eight");
                let pieces = &mut self.peers[peer].pieces;
                if !pieces.has(piece) {
                    self.picker.peer_gained(pieces, piece);
                    pieces.insert(piece);
                }
            }
            Op::Lose(peer, raw) => {
                let piece = self.geometry.piece(raw).expect("of eight");
                let key = self.peers[peer].key;
                if self.peers[peer].pieces.has(piece) {
                    self.picker.peer_lost(&self.peers[peer].pieces, piece);
                    self.peers[peer].pieces.remove(piece);
                    self.give_up(key, |block| block.piece == piece);
                }
            }
            Op::Demand(wanted) => {
                let demand = |(raw, blocked)| Demand {
                    piece: self.geometry.piece(raw).expect("of eight"),
                    blocked,
                };
                let mut demands: Vec<_> = wanted.into_iter().map(demand).collect();
                demands.sort_by_key(|demand| !demand.blocked);
                self.demanded = demands.iter().map(|demand| demand.piece).collect();
                self.picker.set_demands(demands);
            }
            Op::Fill(fill) => self.picker.set_fill(fill),
            Op::Late(at) => {
                if let Some((block, _)) = self.nth(at) {
                    self.picker.mark_late(block, 9);
                    self.late.insert(block);
                }
            }
        }
        assert_eq!(self.picker.invariants(), Ok(()));
        self.compare();
    }

    fn nth(&self, at: usize) -> Option<(BlockRef, PeerKey)> {
        (!self.asked.is_empty()).then(|| self.asked[at % self.asked.len()])
    }

    fn askers(&self, block: BlockRef) -> BTreeSet<PeerKey> {
        self.asked.iter().filter(|asked| asked.0 == block).map(|asked| asked.1).collect()
    }

    fn untouched(&self, piece: PieceIndex) -> bool {
        !self.picker.have().has(piece) && self.picker.partial(piece).is_none()
    }

    fn pick(&mut self, at: usize, count: usize, idle: bool, room: bool) {
        self.peers[at].again = if idle { every_block(8) } else { BTreeSet::new() };
        let untouched: Vec<_> =
            self.geometry.pieces().filter(|piece| self.untouched(*piece)).collect();
        let available: BTreeMap<_, _> =
            untouched.iter().map(|piece| (*piece, self.naive_availability(*piece))).collect();
        let wanted = self.picker.wants_anything();
        let peer = &self.peers[at];
        let blocks = self.picker.pick(peer.view(), count, room);
        assert!(wanted || blocks.is_empty(), "picked what nobody wants");
        let demanded = self.picker.is_blocked();
        for (nth, block) in blocks.iter().copied().enumerate() {
            assert!(peer.pieces.has(block.piece), "asked for what it lacks");
            assert!(!self.here.contains(&block), "asked for what is here");
            let askers = self.askers(block);
            assert!(!askers.contains(&peer.key), "asked twice of the same peer");
            let limit = if self.late.contains(&block) { MAX_COPIES } else { 2 };
            assert!(askers.len() < limit, "{block:?} has {askers:?}");
            let late = self.late.contains(&block);
            assert!(askers.is_empty() || idle || late, "a copy for a busy peer");
            let rarest = untouched.iter().filter(|piece| peer.pieces.has(**piece));
            let least = rarest.map(|piece| available[piece]).min();
            let by_fill = nth == 0 && !demanded && self.picker.have().count() >= RANDOM_FIRST;
            if by_fill
                && available.contains_key(&block.piece)
                && !self.demanded.contains(&block.piece)
            {
                assert_eq!(Some(available[&block.piece]), least, "not the rarest");
            }
            self.asked.push((block, peer.key));
        }
    }

    fn naive_availability(&self, piece: PieceIndex) -> usize {
        self.peers.iter().filter(|peer| peer.pieces.has(piece)).count()
    }

    fn give_up(&mut self, key: PeerKey, which: impl Fn(BlockRef) -> bool) {
        for (block, by) in &self.asked {
            if *by == key && which(*block) {
                self.picker.release(*block, key);
            }
        }
        self.asked.retain(|(block, by)| *by != key || !which(*block));
    }

    fn leave(&mut self, at: usize) {
        let key = self.peers[at].key;
        self.give_up(key, |_| true);
        for piece in self.picker.restart_exclusive(key) {
            self.here.retain(|block| block.piece != piece);
        }
        self.picker.disown(key);
        self.picker.peer_left(&self.peers[at].pieces);
        self.peers[at].pieces = Bitfield::empty(8);
        self.picker.peer_came(&self.peers[at].pieces);
    }

    fn verify(&mut self, right: bool) {
        let whole = |piece: &PieceIndex| self.picker.partial(*piece).is_some_and(|p| p.is_whole());
        let Some(piece) = self.geometry.pieces().find(whole) else { return };
        if right {
            self.picker.verified(piece);
        } else {
            self.picker.failed(piece);
            self.here.retain(|block| block.piece != piece);
        }
    }

    /// Every block is where the lists say: none is lost.
    fn compare(&self) {
        for piece in self.geometry.pieces() {
            assert_eq!(self.picker.availability(piece) as usize, self.naive_availability(piece));
            let had = self.picker.have().has(piece);
            for block in self.geometry.blocks(piece) {
                let state = self.picker.partial(piece).map(|partial| partial.block(block.index));
                let askers = self.askers(block);
                match state {
                    Some(Block::Requested { askers: told, .. }) => {
                        assert_eq!(told.iter().collect::<BTreeSet<_>>(), askers, "{block:?}");
                    }
                    Some(Block::Received) => assert!(self.here.contains(&block), "{block:?}"),
                    Some(Block::Missing) | None => {
                        assert!(askers.is_empty(), "{block:?} is asked of {askers:?}");
                        assert_eq!(self.here.contains(&block), had, "{block:?}");
                    }
                }
            }
        }
    }

    /// An honest seed comes and everyone else goes: everything is brought.
    fn finish(mut self) {
        (0..4).for_each(|at| self.leave(at));
        self.apply(Op::Fill(true));
        self.picker.peer_came(&Bitfield::full(8));
        self.peers[0].pieces = Bitfield::full(8);
        for _ in 0..200 {
            self.verify(true);
            self.apply(Op::Pick { peer: 0, count: 1, idle: true, room: true });
            self.apply(Op::Receive(0));
        }
        assert!(self.picker.have().is_full(), "a block was lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn the_picker_is_what_plain_lists_say(ops in prop::collection::vec(op(), 1..120)) {
        let mut model = Model::new();
        for op in ops {
            model.apply(op);
        }
        model.finish();
    }
}
