//! The cache against a list in order of use with a byte sum.

use btfs::proto::cache::{Cache, Refused};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, u64),
    Lookup(u8),
    Peek(u8),
    Pin(u8),
    Unpin(u8),
    Remove(u8),
    RetainBelow(u8),
    SetBudget(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = 0u8..8;
    let op = prop_oneof![
        6 => (key.clone(), 0u64..40).prop_map(|(k, b)| Op::Insert(k, b)),
        3 => key.clone().prop_map(Op::Lookup),
        1 => key.clone().prop_map(Op::Peek),
        3 => key.clone().prop_map(Op::Pin),
        3 => key.clone().prop_map(Op::Unpin),
        1 => key.clone().prop_map(Op::Remove),
        1 => key.prop_map(Op::RetainBelow),
        1 => (0u64..120).prop_map(Op::SetBudget),
    ];
    prop::collection::vec(op, 1..80)
}

#[derive(Clone, Debug)]
struct Row {
    key: u8,
    value: u32,
    bytes: u64,
    pins: u32,
}

/// Rows by last use, oldest first.
struct Model {
    rows: Vec<Row>,
    budget: u64,
}

impl Model {
    fn at(&self, key: u8) -> Option<usize> {
        self.rows.iter().position(|row| row.key == key)
    }

    fn sum(&self, counts: impl Fn(&Row) -> bool) -> u64 {
        self.rows.iter().filter(|row| counts(row)).map(|row| row.bytes).sum()
    }

    fn evict(&mut self) -> Vec<(u8, u32)> {
        let mut gone = Vec::new();
        while self.sum(|_| true) > self.budget {
            let Some(at) = self.rows.iter().position(|row| row.pins == 0) else { break };
            let row = self.rows.remove(at);
            gone.push((row.key, row.value));
        }
        gone
    }

    fn insert(&mut self, key: u8, value: u32, bytes: u64) -> Option<Vec<(u8, u32)>> {
        if self.sum(|row| row.pins > 0 && row.key != key) + bytes > self.budget {
            return None;
        }
        let pins = self.at(key).map_or(0, |at| self.rows.remove(at).pins);
        self.rows.push(Row { key, value, bytes, pins });
        Some(self.evict())
    }

    fn lookup(&mut self, key: u8) -> Option<u32> {
        let row = self.at(key).map(|at| self.rows.remove(at))?;
        self.rows.push(row.clone());
        Some(row.value)
    }

    fn pin(&mut self, key: u8) -> bool {
        let Some(at) = self.at(key) else { return false };
        self.rows[at].pins += 1;
        true
    }

    /// Losing the last pin is a use.
    fn unpin(&mut self, key: u8) -> Vec<(u8, u32)> {
        let Some(at) = self.at(key).filter(|&at| self.rows[at].pins > 0) else { return vec![] };
        self.rows[at].pins -= 1;
        if self.rows[at].pins == 0 {
            self.lookup(key);
        }
        self.evict()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn behaves_as_a_list_by_last_use(ops in ops()) {
        let mut model = Model { rows: vec![], budget: 100 };
        let mut cache = Cache::new(100);
        for (value, op) in (0u32..).zip(ops) {
            match op {
                Op::Insert(key, bytes) => {
                    prop_assert_eq!(
                        cache.insert(key, value, bytes).ok(),
                        model.insert(key, value, bytes)
                    );
                }
                Op::Lookup(key) => {
                    prop_assert_eq!(cache.lookup(&key).copied(), model.lookup(key));
                }
                Op::Peek(key) => {
                    let there = model.at(key).map(|at| model.rows[at].value);
                    prop_assert_eq!(cache.peek(&key).copied(), there);
                }
                Op::Pin(key) => prop_assert_eq!(cache.pin(&key), model.pin(key)),
                Op::Unpin(key) => prop_assert_eq!(cache.unpin(&key), model.unpin(key)),
                Op::Remove(key) => {
                    let there = model.at(key).map(|at| model.rows.remove(at).value);
                    prop_assert_eq!(cache.remove(&key), there);
                }
                Op::RetainBelow(bound) => {
                    cache.retain(|&key| key < bound);
                    model.rows.retain(|row| row.key < bound);
                }
                Op::SetBudget(bytes) => {
                    model.budget = bytes;
                    prop_assert_eq!(cache.set_budget(bytes), model.evict());
                }
            }
            prop_assert_eq!(cache.used(), model.sum(|_| true));
            prop_assert_eq!(cache.pinned(), model.sum(|row| row.pins > 0));
            prop_assert_eq!(cache.len(), model.rows.len());
            prop_assert!(cache.used() <= cache.budget() || cache.used() == cache.pinned());
        }
    }
}

#[test]
fn a_value_without_room_beside_the_pins_comes_back_and_nothing_is_evicted_for_it() {
    let mut cache = Cache::new(10);
    cache.insert('p', "pinned", 6).expect("fits");
    cache.pin(&'p');
    cache.insert('q', "queued", 4).expect("fits");
    assert_eq!(cache.insert('n', "new", 5), Err(Refused { value: "new", bytes: 5 }));
    assert_eq!(cache.peek(&'q'), Some(&"queued"));
    assert_eq!(cache.insert('n', "new", 4), Ok(vec![('q', "queued")]));
}

#[test]
fn pins_are_counted() {
    let mut cache = Cache::new(10);
    cache.insert('a', (), 10).expect("fits");
    assert!(cache.pin(&'a') && cache.pin(&'a'));
    cache.unpin(&'a');
    assert!(cache.insert('b', (), 1).is_err());
    cache.unpin(&'a');
    assert_eq!(cache.insert('b', (), 1), Ok(vec![('a', ())]));
}

#[test]
fn regression_an_empty_entry_does_not_fit_beside_pins_over_a_shrunk_budget() {
    let mut cache = Cache::new(10);
    assert!(cache.insert(5, "pinned", 10).is_ok());
    assert!(cache.pin(&5));
    assert!(cache.set_budget(0).is_empty());
    assert!(cache.insert(0, "empty", 0).is_err());
}
