//! The choker under any crowd, round after round.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use btfs::proto::choker::{Choker, ROUND, SEED_TURN, Standing};
use btfs::proto::units::PeerKey;

fn crowd(start: Instant) -> impl Strategy<Value = Vec<Standing>> {
    let one = (any::<bool>(), any::<bool>(), 0..1000u32, 0..300u64);
    prop::collection::vec(one, 0..20).prop_map(move |peers| {
        let standing = |(key, (interested, snubbed, score, age)): (usize, _)| Standing {
            key: PeerKey(key as u64),
            interested,
            snubbed,
            rides_free: false,
            score: f64::from(score),
            since: start + Duration::from_secs(age),
            unchoked: None,
            waiting: start + Duration::from_secs(age),
        };
        peers.into_iter().enumerate().map(standing).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn slots_go_to_the_interested_and_the_best(
        mut peers in crowd(Instant::now()),
        slots in 0..6usize,
        seeding in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut now = peers.first().map_or_else(Instant::now, |peer| peer.since) + Duration::from_secs(300);
        let mut choker = Choker::new(slots, now);
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..12 {
            let chosen = choker.round(&peers, seeding, now, &mut rng);
            prop_assert!(chosen.len() <= slots + 1);
            prop_assert_eq!(choker.poll_timeout(), now + ROUND);
            let by_key: BTreeMap<_, _> = peers.iter().map(|peer| (peer.key, *peer)).collect();
            for (nth, key) in chosen.iter().enumerate() {
                prop_assert!(by_key[key].interested);
                prop_assert!(!chosen[..nth].contains(key), "chosen twice");
            }
            let wanting = peers.iter().filter(|peer| peer.interested).count();
            let fit = peers.iter().filter(|p| p.interested && (seeding || !p.snubbed)).count();
            let regular = fit.min(slots);
            prop_assert_eq!(chosen.len(), wanting.min(regular + 1), "a slot stays empty");
            if !seeding {
                let good: Vec<_> =
                    peers.iter().filter(|peer| peer.interested && !peer.snubbed).collect();
                let regular = &chosen[..slots.min(good.len()).min(chosen.len())];
                for key in regular {
                    prop_assert!(!by_key[key].snubbed, "a snubbed peer has a regular slot");
                    let better = good.iter().filter(|peer| peer.score > by_key[key].score).count();
                    prop_assert!(better < slots);
                }
            }
            for peer in &mut peers {
                match (chosen.contains(&peer.key), peer.unchoked) {
                    (true, None) => peer.unchoked = Some(now),
                    (false, Some(_)) => {
                        peer.unchoked = None;
                        peer.waiting = now;
                    }
                    (true, Some(_)) | (false, None) => {}
                }
            }
            now += ROUND;
        }
    }
}

#[test]
fn a_seed_serves_everyone_in_turn() {
    let start = Instant::now();
    let mut peers: Vec<_> = (0..12)
        .map(|key| Standing {
            key: PeerKey(key),
            interested: true,
            snubbed: false,
            rides_free: false,
            score: key as f64,
            since: start,
            unchoked: None,
            waiting: start,
        })
        .collect();
    let mut choker = Choker::new(3, start);
    let mut rng = StdRng::seed_from_u64(5);
    let mut served = BTreeMap::<PeerKey, Duration>::new();
    let mut now = start;
    while now < start + 8 * SEED_TURN {
        let chosen = choker.round(&peers, true, now, &mut rng);
        for peer in &mut peers {
            if chosen.contains(&peer.key) {
                *served.entry(peer.key).or_default() += ROUND;
                peer.unchoked.get_or_insert(now);
            } else if peer.unchoked.take().is_some() {
                peer.waiting = now;
            }
        }
        now += ROUND;
    }
    assert_eq!(served.len(), 12, "{served:?}");
    assert!(served.values().all(|time| *time >= SEED_TURN), "{served:?}");
}
