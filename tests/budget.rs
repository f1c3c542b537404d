//! How torrents share what is bounded: who must go from the stores, and who may have how much under way.

use btfs::engine::budget::{Assembling, Budget, BudgetFull};
use btfs::proto::geometry::Geometry;
use btfs::proto::units::{PieceIndex, TorrentId};

const A: TorrentId = TorrentId(1);
const B: TorrentId = TorrentId(2);

fn piece(raw: u32) -> PieceIndex {
    Geometry::new(100, 10).expect("legal lengths").piece(raw).expect("ten pieces")
}

#[test]
fn the_piece_used_longest_ago_goes_whatever_torrent_it_is_of() {
    let budget = Budget::new(30);
    for (torrent, raw) in [(A, 0), (B, 0), (A, 1)] {
        assert!(budget.room() >= 10);
        assert_eq!(budget.admit(torrent, piece(raw), 10), Ok(vec![]));
    }
    assert_eq!(budget.room(), 0);
    budget.touch(A, piece(0));
    assert_eq!(budget.admit(B, piece(1), 10), Ok(vec![(B, piece(0))]));
    assert_eq!(budget.admit(B, piece(2), 20), Ok(vec![(A, piece(1)), (A, piece(0))]));
}

#[test]
fn pinned_pieces_stay_and_what_has_no_room_beside_them_is_refused() {
    let budget = Budget::new(20);
    budget.admit(A, piece(0), 10).expect("room");
    budget.admit(A, piece(1), 10).expect("room");
    assert!(budget.pin(A, piece(0)) && budget.pin(A, piece(1)) && !budget.pin(A, piece(2)));
    assert_eq!(budget.admit(A, piece(2), 10), Err(BudgetFull));
    budget.unpin(A, piece(1));
    assert_eq!(budget.admit(A, piece(2), 10), Ok(vec![(A, piece(1))]));
    budget.forget_torrent(A);
    assert_eq!(budget.used(), 0);
}

#[test]
fn what_readers_have_need_of_goes_last_and_the_budget_holds() {
    let budget = Budget::new(30);
    for raw in 0..3 {
        budget.admit(A, piece(raw), 10).expect("room");
    }
    budget.spare(A, vec![piece(0)..=piece(1)]);
    assert_eq!(budget.admit(B, piece(0), 10), Ok(vec![(A, piece(2))]));
    assert_eq!(budget.admit(B, piece(1), 10), Ok(vec![(B, piece(0))]));
    budget.spare(B, vec![piece(1)..=piece(2)]);
    assert_eq!(budget.admit(B, piece(2), 10), Ok(vec![(A, piece(0))]), "nothing else is left");
    budget.spare(A, vec![]);
    assert_eq!(budget.admit(B, piece(3), 10), Ok(vec![(A, piece(1))]));
    assert_eq!(budget.used(), 30);
}

#[test]
fn bytes_under_way_are_shared_among_the_torrents_that_have_any() {
    const C: TorrentId = TorrentId(3);
    let memory = Assembling::new(60);
    for (name, torrent, held, expected) in [
        ("alone, it may have all", A, 60, 60),
        ("the second gets its part at once", B, 30, 30),
        ("and the first begins nothing until it is down to its own", A, 40, 30),
        ("what the others leave", A, 10, 30),
        ("is for whoever needs it", B, 30, 50),
        ("a third", C, 20, 20),
        ("has a part of what the three have", A, 10, 20),
        ("that ends", C, 0, 20),
        ("leaves its part to the others", A, 30, 30),
        ("all of it", B, 0, 30),
        ("in the end", A, 60, 60),
    ] {
        assert_eq!(memory.share(torrent, held), expected, "{name}");
    }
}

#[test]
fn what_is_held_leaves_a_quarter_to_others() {
    let budget = Budget::new(40);
    assert!(budget.may_hold(30) && !budget.may_hold(31));
    budget.admit(A, piece(0), 10).expect("room");
    assert!(budget.may_hold(30), "what is not pinned can go");
    assert!(budget.pin(A, piece(0)));
    assert!(budget.may_hold(20) && !budget.may_hold(21));
    assert!(Budget::new(u64::MAX).may_hold(1 << 62));
}
