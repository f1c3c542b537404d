//! Who must go so that the stored pieces of all torrents keep within one budget.

use btfs::engine::budget::{Budget, BudgetFull};
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
        assert!(budget.has_room(10));
        assert_eq!(budget.admit(torrent, piece(raw), 10), Ok(vec![]));
    }
    assert!(!budget.has_room(10) && budget.would_admit(10));
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
    assert!(!budget.would_admit(10));
    assert_eq!(budget.unpin(A, piece(1)), []);
    assert_eq!(budget.admit(A, piece(2), 10), Ok(vec![(A, piece(1))]));
    budget.forget_torrent(A);
    assert_eq!(budget.used(), 0);
}
