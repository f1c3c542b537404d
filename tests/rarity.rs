//! The rarity list against plain counts.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use btfs::proto::bitfield::Bitfield;
use btfs::proto::geometry::Geometry;
use btfs::proto::rarity::Rarity;
use btfs::proto::units::PieceIndex;

const PIECES: u32 = 12;

#[derive(Clone, Debug)]
enum Op {
    Insert(u32),
    Remove(u32),
    Gain(u32),
    Lose(u32),
}

fn op() -> impl Strategy<Value = Op> {
    (0..4, 0..PIECES).prop_map(|(kind, piece)| match kind {
        0 => Op::Insert(piece),
        1 => Op::Remove(piece),
        2 => Op::Gain(piece),
        _ => Op::Lose(piece),
    })
}

fn pieces() -> Vec<PieceIndex> {
    Geometry::new(u64::from(PIECES), 1).expect("legal lengths").pieces().collect()
}

fn set(members: u16) -> Bitfield {
    let mut field = Bitfield::empty(PIECES);
    for piece in pieces().into_iter().filter(|piece| members >> piece.raw() & 1 == 1) {
        field.insert(piece);
    }
    field
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn the_rarest_is_what_plain_counts_say(
        ops in prop::collection::vec(op(), 1..200),
        members in any::<u16>(),
        seed in any::<u64>(),
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (pieces, peer) = (pieces(), set(members));
        let mut rarity = Rarity::new(PIECES);
        let (mut counts, mut listed) = ([0u16; PIECES as usize], [false; PIECES as usize]);
        for op in ops {
            match op {
                Op::Insert(at) => {
                    rarity.insert(pieces[at as usize], &mut rng);
                    listed[at as usize] = true;
                }
                Op::Remove(at) => {
                    rarity.remove(pieces[at as usize]);
                    listed[at as usize] = false;
                }
                Op::Gain(at) => {
                    rarity.gain(pieces[at as usize], &mut rng);
                    counts[at as usize] += 1;
                }
                Op::Lose(at) => {
                    rarity.lose(pieces[at as usize], &mut rng);
                    counts[at as usize] = counts[at as usize].saturating_sub(1);
                }
            }
            prop_assert_eq!(rarity.invariants(), Ok(()));
            prop_assert_eq!(rarity.len(), listed.iter().filter(|listed| **listed).count());
            let offered = |piece: &&PieceIndex| listed[piece.slot()] && peer.has(**piece);
            let least = pieces.iter().filter(offered).map(|piece| counts[piece.slot()]).min();
            let rarest = rarity.rarest(&peer);
            prop_assert!(rarest.is_none_or(|piece| offered(&&piece)));
            prop_assert_eq!(rarest.map(|piece| counts[piece.slot()]), least);
            let any = rarity.random(&peer, &mut rng);
            prop_assert_eq!(any.is_some(), least.is_some());
            prop_assert!(any.is_none_or(|piece| offered(&&piece)));
            for piece in &pieces {
                prop_assert_eq!(rarity.count(*piece), counts[piece.slot()]);
            }
        }
    }
}

#[test]
fn pieces_alike_are_not_always_taken_in_the_same_order() {
    let firsts = (0..32).map(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut rarity = Rarity::new(PIECES);
        pieces().into_iter().for_each(|piece| rarity.insert(piece, &mut rng));
        rarity.rarest(&Bitfield::full(PIECES)).expect("all are listed")
    });
    let different: std::collections::BTreeSet<_> = firsts.collect();
    assert!(different.len() > 6, "{different:?}");
}
