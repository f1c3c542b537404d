//! The token bucket on a clock of our own, against sums of what it gave.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use btfs::proto::limit::Bucket;
use proptest::prelude::*;

const BLOCK: u64 = 16 * 1024;

#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Take(u64),
    /// A taking of which so much in a thousand comes back.
    TakeAndRefund(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = 1..=8 * BLOCK;
    prop_oneof![
        (0..3_000_000_000u64).prop_map(Op::Wait),
        (0..3_000_000u64).prop_map(Op::Wait),
        bytes.clone().prop_map(Op::Take),
        (bytes, 0..=1000u64).prop_map(|(bytes, part)| Op::TakeAndRefund(bytes, part)),
    ]
}

/// From bytes a second to gigabytes, each order of magnitude as often.
fn rate() -> impl Strategy<Value = NonZeroU64> {
    (0..31u32, 0..1000u64).prop_map(|(shift, more)| {
        NonZeroU64::new((1 << shift) + more * ((1 << shift) / 1000)).expect("at least one")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn no_span_of_time_gets_more_than_its_rate(rate in rate(), ops in prop::collection::vec(op(), 1..80)) {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = Bucket::new(rate, now);
        let mut given: Vec<(Instant, u64, u64)> = Vec::new();
        for op in ops {
            match op {
                Op::Wait(nanos) => now += Duration::from_nanos(nanos),
                Op::Take(bytes) => match bucket.take(bytes, now) {
                    Ok(()) => given.push((now, bytes, bytes)),
                    Err(paid) => prop_assert!(paid > now, "a refusal names a later time"),
                },
                Op::TakeAndRefund(bytes, part) => if bucket.take(bytes, now).is_ok() {
                    let back = bytes * part / 1000;
                    bucket.refund(back);
                    given.push((now, bytes - back, bytes));
                },
            }
        }
        for (i, &(from, ..)) in given.iter().enumerate() {
            let (mut sum, mut largest) = (0, 0);
            for &(to, used, taken) in &given[i..] {
                sum += u128::from(used);
                largest = taken.max(largest);
                let earned = u128::from(rate.get()) * (to - from).as_nanos() / 1_000_000_000 + 1;
                let most = earned + u128::from(bucket.burst() + largest);
                prop_assert!(sum <= most, "{sum} bytes in {:?} at {rate}", to - from);
            }
        }
    }

    #[test]
    fn a_taker_that_never_stops_gets_its_rate(
        rate in rate(),
        bytes in 1..=BLOCK,
        late in prop::collection::vec(0..50_000_000u64, 16),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = Bucket::new(rate, now);
        let (mut total, mut waits) = (0, late.iter().cycle());
        while total < 1000 * (bytes + bucket.burst()) && now - start < Duration::from_secs(1 << 40) {
            match bucket.take(bytes, now) {
                Ok(()) => total += bytes,
                // Timers are late.
                Err(paid) => now = paid + Duration::from_nanos(*waits.next().expect("a cycle")),
            }
            if total > 40_000 * bytes {
                break;
            }
        }
        let expected = rate.get() as f64 * (now - start).as_secs_f64();
        let allowed = (bytes + bucket.burst()) as f64 + expected / 100.0;
        prop_assert!((total as f64 - expected).abs() <= allowed, "{total} for {expected}");
    }
}

#[test]
fn what_does_not_wait_is_paid_back() {
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let mut bucket = Bucket::new(NonZeroU64::new(1000).expect("not zero"), start);
    assert_eq!(bucket.take(500, start), Ok(()));
    bucket.spend(1500, start);
    assert_eq!(bucket.take(1, start), Err(start + 2 * second));
    assert_eq!(bucket.take(1, start + second), Err(start + 2 * second));
    assert_eq!(bucket.take(1, start + 2 * second), Ok(()));
    bucket.refund(1);
    assert_eq!(bucket.take(1, start + 2 * second), Ok(()), "a refund leaves no debt");
    assert_eq!(bucket.take(300, start + 60 * second), Ok(()));
    let paid = start + 60 * second + Duration::from_millis(200);
    assert_eq!(bucket.take(1, start + 60 * second), Err(paid), "a tenth of a second is saved up");
}
