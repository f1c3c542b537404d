//! The cache against a list in order of use with a byte sum.

use btfs::proto::cache::{Cache, Refused};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// The last is a set of bits: the keys that are spared.
    Insert(u8, u64, u8),
    Lookup(u8),
    Peek(u8),
    Pin(u8),
    Unpin(u8),
    Remove(u8),
    RetainBelow(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = 0u8..8;
    let op = prop_oneof![
        6 => (key.clone(), 0u64..40, any::<u8>()).prop_map(|(k, b, s)| Op::Insert(k, b, s)),
        3 => key.clone().prop_map(Op::Lookup),
        1 => key.clone().prop_map(Op::Peek),
        3 => key.clone().prop_map(Op::Pin),
        3 => key.clone().prop_map(Op::Unpin),
        1 => key.clone().prop_map(Op::Remove),
        1 => key.prop_map(Op::RetainBelow),
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
}

/// Most bytes in the cache.
const BUDGET: u64 = 100;

impl Model {
    fn at(&self, key: u8) -> Option<usize> {
        self.rows.iter().position(|row| row.key == key)
    }

    fn sum(&self, counts: impl Fn(&Row) -> bool) -> u64 {
        self.rows.iter().filter(|row| counts(row)).map(|row| row.bytes).sum()
    }

    /// Rows go from the oldest on; those that are spared are set aside, and go if that was not enough.
    fn make_room(&mut self, bytes: u64, spared: u8) -> Vec<(u8, u32)> {
        let (mut aside, mut gone) = (Vec::new(), Vec::new());
        let mut at = 0;
        while self.sum(|_| true) + aside.iter().map(|row: &Row| row.bytes).sum::<u64>() + bytes
            > BUDGET
        {
            match self.rows.get(at) {
                Some(row) if row.pins > 0 => at += 1,
                Some(row) if is_spared(spared, row.key) => aside.push(self.rows.remove(at)),
                Some(_) => gone.push(self.rows.remove(at)),
                None => gone.push(aside.remove(0)),
            }
        }
        self.rows.extend(aside);
        gone.into_iter().map(|row| (row.key, row.value)).collect()
    }

    fn insert(&mut self, key: u8, value: u32, bytes: u64, spared: u8) -> Option<Vec<(u8, u32)>> {
        if self.sum(|row| row.pins > 0 && row.key != key) + bytes > BUDGET {
            return None;
        }
        let pins = self.at(key).map_or(0, |at| self.rows.remove(at).pins);
        let gone = self.make_room(bytes, spared);
        self.rows.push(Row { key, value, bytes, pins });
        Some(gone)
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
    fn unpin(&mut self, key: u8) {
        let Some(at) = self.at(key).filter(|&at| self.rows[at].pins > 0) else { return };
        self.rows[at].pins -= 1;
        if self.rows[at].pins == 0 {
            self.lookup(key);
        }
    }
}

fn is_spared(bits: u8, key: u8) -> bool {
    bits >> key & 1 == 1
}

fn nobody<K>(_: &K) -> bool {
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn behaves_as_a_list_by_last_use(ops in ops()) {
        let mut model = Model { rows: vec![] };
        let mut cache = Cache::new(BUDGET);
        for (value, op) in (0u32..).zip(ops) {
            match op {
                Op::Insert(key, bytes, spared) => {
                    prop_assert_eq!(
                        cache.insert(key, value, bytes, |key| is_spared(spared, *key)).ok(),
                        model.insert(key, value, bytes, spared)
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
                Op::Unpin(key) => {
                    cache.unpin(&key);
                    model.unpin(key);
                }
                Op::Remove(key) => {
                    let there = model.at(key).map(|at| model.rows.remove(at).value);
                    prop_assert_eq!(cache.remove(&key), there);
                }
                Op::RetainBelow(bound) => {
                    cache.retain(|&key| key < bound);
                    model.rows.retain(|row| row.key < bound);
                }
            }
            prop_assert_eq!(cache.used(), model.sum(|_| true));
            prop_assert_eq!(cache.pinned(), model.sum(|row| row.pins > 0));
            prop_assert_eq!(cache.len(), model.rows.len());
            prop_assert!(cache.used() <= cache.budget());
        }
    }
}

#[test]
fn a_value_without_room_beside_the_pins_comes_back_and_nothing_is_evicted_for_it() {
    let mut cache = Cache::new(10);
    cache.insert('p', "pinned", 6, nobody).expect("fits");
    cache.pin(&'p');
    cache.insert('q', "queued", 4, nobody).expect("fits");
    assert_eq!(cache.insert('n', "new", 5, nobody), Err(Refused { value: "new", bytes: 5 }));
    assert_eq!(cache.peek(&'q'), Some(&"queued"));
    assert_eq!(cache.insert('n', "new", 4, nobody), Ok(vec![('q', "queued")]));
}

#[test]
fn pins_are_counted() {
    let mut cache = Cache::new(10);
    cache.insert('a', (), 10, nobody).expect("fits");
    assert!(cache.pin(&'a') && cache.pin(&'a'));
    cache.unpin(&'a');
    assert!(cache.insert('b', (), 1, nobody).is_err());
    cache.unpin(&'a');
    assert_eq!(cache.insert('b', (), 1, nobody), Ok(vec![('a', ())]));
}

#[test]
fn what_is_spared_goes_last_and_what_is_new_not_at_all() {
    let mut cache = Cache::new(4);
    let spared = |key: &char| key.is_lowercase();
    for key in ['a', 'b', 'C', 'd'] {
        cache.insert(key, (), 1, spared).expect("fits");
    }
    assert_eq!(cache.insert('E', (), 1, spared), Ok(vec![('C', ())]));
    assert_eq!(cache.insert('F', (), 1, spared), Ok(vec![('E', ())]));
    assert_eq!(cache.insert('g', (), 1, spared), Ok(vec![('F', ())]));
    // Only spared ones are left: by their use, which being passed over was.
    assert_eq!(cache.insert('H', (), 1, spared), Ok(vec![('d', ())]));
    assert_eq!(
        cache.insert('I', (), 4, spared),
        Ok(['H', 'a', 'b', 'g'].map(|k| (k, ())).to_vec())
    );
}
