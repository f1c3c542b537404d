//! The have-map's ranges against one flag for each byte.

use btfs::engine::have_map::HaveMap;
use btfs::proto::geometry::Geometry;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn ranges_agree_with_a_flag_for_each_byte(
        total in 1u64..2000,
        piece_len in 1i64..9,
        changes in prop::collection::vec((any::<u32>(), prop::bool::weighted(0.7)), 0..400),
        ends in prop::collection::vec((0u64..2100, 0u64..2100), 20),
    ) {
        let geometry = Geometry::new(total, piece_len).expect("legal lengths");
        let have = HaveMap::new(geometry.clone());
        let mut bytes = vec![false; total as usize];
        let mut epoch = 0;
        for (raw, add) in changes {
            let piece = geometry.piece(raw % geometry.piece_count()).expect("in range");
            let range = geometry.piece_range(piece);
            let was = bytes[range.start as usize];
            let changed = if add { have.insert(piece) } else { have.evict(piece) };
            prop_assert_eq!(changed, was != add);
            epoch += u64::from(!add);
            bytes[range.start as usize..range.end as usize].fill(add);
        }
        prop_assert_eq!(have.epoch(), epoch);
        prop_assert_eq!(have.count(), have.snapshot().count());
        prop_assert_eq!(have.is_full(), bytes.iter().all(|&b| b));
        for (a, b) in ends {
            let range = a.min(b)..a.max(b);
            let inside = (range.start..range.end.min(total)).filter(|at| bytes[*at as usize]);
            prop_assert_eq!(have.resident_bytes(&range), inside.count() as u64);
        }
    }
}
