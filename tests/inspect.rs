//! What `btfs verify` says of files, from pieces and lengths.

#[path = "support/torrent.rs"]
mod torrent;

use btfs::proto::bitfield::Bitfield;
use btfs::proto::inspect::{FileState, inspect};

/// Three files of 100 bytes with padding, in pieces of 64:
///
/// ```text
/// piece  0    1    2    3    4
/// file   aaaa aabb bbbb b.cc cccc
/// ```
#[test]
fn files_are_as_right_as_their_pieces_and_lengths() {
    use FileState::{Long, Missing, Right, Short, Unproven, Wrong};
    let file = |seed| torrent::noise(seed, 100);
    let entries = [
        ("a", file(1), ""),
        ("b", file(2), ""),
        (".pad/20", vec![0; 20], "p"),
        ("c", file(3), ""),
        ("empty", vec![], ""),
        ("link", vec![], "l"),
    ];
    let (metainfo, _) = torrent::many(64, &entries);
    let all = [Some(100), Some(100), None, Some(100), Some(0), Some(0)];
    let with = |at: usize, found| {
        let mut lengths = all;
        lengths[at] = found;
        lengths
    };
    let fine = [Right; 6];
    let but = |changes: &[(usize, FileState)]| {
        let mut states = fine;
        changes.iter().for_each(|&(at, state)| states[at] = state);
        states
    };
    let table: &[(&str, &[u32], _, _)] = &[
        ("all right", &[], all, fine),
        ("a piece of one file", &[0], all, but(&[(0, Wrong { bytes: 64 })])),
        (
            "a piece of two files",
            &[1],
            all,
            but(&[(0, Wrong { bytes: 36 }), (1, Wrong { bytes: 28 })]),
        ),
        (
            "a file gone, its neighbour unproven",
            &[0, 1],
            with(0, None),
            but(&[(0, Missing), (1, Unproven { bytes: 28 })]),
        ),
        (
            "a file gone, its neighbour wrong where they do not meet",
            &[0, 1, 2],
            with(0, None),
            but(&[(0, Missing), (1, Wrong { bytes: 92 })]),
        ),
        ("a file cut", &[4], with(3, Some(70)), but(&[(3, Short { found: 70 })])),
        (
            "a file gone, with padding between",
            &[3, 4],
            with(3, None),
            but(&[(1, Unproven { bytes: 8 }), (3, Missing)]),
        ),
        ("a file with a tail", &[], with(1, Some(101)), but(&[(1, Long { found: 101 })])),
        ("an empty file gone", &[], with(4, None), but(&[(4, Missing)])),
        ("an empty file with bytes", &[], with(4, Some(1)), but(&[(4, Long { found: 1 })])),
        ("a link gone", &[], with(5, None), but(&[(5, Missing)])),
    ];
    for (name, bad, found, expected) in table {
        let geometry = &metainfo.geometry;
        let mut right = Bitfield::full(geometry.piece_count());
        for &raw in *bad {
            right.remove(geometry.piece(raw).expect("in range"));
        }
        assert_eq!(inspect(&metainfo, &right, found), expected, "{name}");
    }
}
