//! Which file holds which byte, against a table with one row for each byte.

#[path = "support/torrent.rs"]
mod torrent;

use btfs::proto::layout::{Layout, Segment, Source};
use btfs::proto::metainfo::{FileKind, Metainfo};
use btfs::proto::units::FileIndex;
use proptest::prelude::*;

fn in_file(file: u32, offset: u64, len: u64) -> Segment {
    Segment { source: Source::File { file: FileIndex(file), offset }, len }
}

fn zeros(len: u64) -> Segment {
    Segment { source: Source::Zeros, len }
}

#[test]
fn ranges_fall_into_files() {
    let (metainfo, _) = torrent::many(
        16,
        &[
            ("a", vec![1; 10], ""),
            ("empty", vec![], ""),
            (".pad/6", vec![0; 6], "p"),
            ("link", vec![], "l"),
            ("b", vec![2; 3], "x"),
            ("c/d", vec![3; 20], ""),
            ("last", vec![], ""),
        ],
    );
    let layout = Layout::new(&metainfo);
    assert_eq!(layout.total(), 39);
    let rows: [(&str, std::ops::Range<u64>, Vec<Segment>); 8] = [
        ("inside a file", 2..5, vec![in_file(0, 2, 3)]),
        ("a whole file", 0..10, vec![in_file(0, 0, 10)]),
        ("over the empty ones", 8..18, vec![in_file(0, 8, 2), zeros(6), in_file(4, 0, 2)]),
        ("padding alone", 11..13, vec![zeros(2)]),
        ("a piece of three files", 16..32, vec![in_file(4, 0, 3), in_file(5, 0, 13)]),
        ("past the end", 38..50, vec![in_file(5, 19, 1)]),
        ("nothing", 7..7, vec![]),
        ("all past the end", 39..40, vec![]),
    ];
    for (name, range, expected) in rows {
        assert_eq!(layout.segments(range).collect::<Vec<_>>(), expected, "{name}");
    }
}

/// Byte by byte: the file and the offset in it, or `None` for padding.
fn naive(metainfo: &Metainfo) -> Vec<Option<(u32, u64)>> {
    let rows = metainfo.files.iter().zip(0..).flat_map(|(file, index)| {
        let stored = matches!(file.kind, FileKind::Regular { .. });
        (0..file.length).map(move |offset| stored.then_some((index, offset)))
    });
    rows.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_byte_is_where_the_table_has_it(
        lengths in prop::collection::vec((0usize..12, prop::bool::weighted(0.2)), 1..20),
        ends in prop::collection::vec((0u64..260, 0u64..260), 10),
    ) {
        prop_assume!(lengths.iter().any(|(len, _)| *len > 0));
        let names: Vec<String> = (0..lengths.len()).map(|n| format!("f{n}")).collect();
        let entries: Vec<_> = names
            .iter()
            .zip(&lengths)
            .map(|(name, &(len, pad))| (name.as_str(), vec![0; len], if pad { "p" } else { "" }))
            .collect();
        let (metainfo, all) = torrent::many(16, &entries);
        let table = naive(&metainfo);
        prop_assert_eq!(table.len(), all.len());
        let layout = Layout::new(&metainfo);
        for (a, b) in ends {
            let range = a.min(b)..a.max(b);
            let mut bytes = Vec::new();
            for segment in layout.segments(range.clone()) {
                prop_assert!(segment.len > 0);
                bytes.extend((0..segment.len).map(|at| match segment.source {
                    Source::File { file, offset } => Some((file.0, offset + at)),
                    Source::Zeros => None,
                }));
            }
            let end = table.len().min(range.end as usize);
            let expected = &table[end.min(range.start as usize)..end];
            prop_assert_eq!(bytes, expected);
        }
    }
}
