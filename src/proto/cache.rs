//! A least-recently-used map with a hard budget of bytes, and two ways to stay in it.
//!
//! Pinned entries never go: they stand apart from the queue of the others, so that making room never walks over them;
//! losing the last pin counts as a use. Spared entries go when nothing else is left: making room passes over them
//! once, which counts as a use.
//!
//! Invariant: `used` is the byte sum of all entries and `pinned` that of the pinned ones; `used <= budget`.
//!
//! Not here: locks, and what the bytes are.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;

use lru::LruCache;

/// A map that forgets what was used longest ago.
pub struct Cache<K: Ord + Hash + Clone, V> {
    queue: LruCache<K, Entry<V>>,
    held: BTreeMap<K, Held<V>>,
    budget: u64,
    used: u64,
    pinned: u64,
}

struct Entry<V> {
    value: V,
    bytes: u64,
}

struct Held<V> {
    entry: Entry<V>,
    pins: u32,
}

/// An entry that was not taken in: beside the pinned entries the budget has no room for it.
///
/// Nothing was evicted for it, and what stood under its key is still there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {bytes} bytes beside what is pinned")]
pub struct Refused<V> {
    /// What was to be stored.
    pub value: V,
    /// Its size.
    pub bytes: u64,
}

impl<K: Ord + Hash + Clone, V> Cache<K, V> {
    /// An empty cache for at most `budget` bytes.
    pub fn new(budget: u64) -> Self {
        Self { queue: LruCache::unbounded(), held: BTreeMap::new(), budget, used: 0, pinned: 0 }
    }

    /// Stores the value as the one used last, and returns what had to go for it, oldest use first, and those that are
    /// `spared` after all others.
    ///
    /// A value that stood under the key is replaced, and keeps its pins.
    ///
    /// # Errors
    /// [`Refused`] when the value does not fit beside the pinned entries.
    pub fn insert(
        &mut self,
        key: K,
        value: V,
        bytes: u64,
        spared: impl Fn(&K) -> bool,
    ) -> Result<Vec<(K, V)>, Refused<V>> {
        let replaced = self.held.get(&key).map_or(0, |held| held.entry.bytes);
        if (self.pinned - replaced).saturating_add(bytes) > self.budget {
            return Err(Refused { value, bytes });
        }
        let entry = Entry { value, bytes };
        if let Some(old) = self.queue.pop(&key) {
            self.used -= old.bytes;
        }
        self.used -= replaced;
        let gone = self.make_room(bytes, spared);
        self.used += bytes;
        if let Some(held) = self.held.get_mut(&key) {
            held.entry = entry;
            self.pinned = self.pinned - replaced + bytes;
        } else {
            self.queue.push(key, entry);
        }
        self.debug_invariants();
        Ok(gone)
    }

    /// The value, which becomes the one used last.
    pub fn lookup(&mut self, key: &K) -> Option<&V> {
        match self.held.get(key) {
            Some(held) => Some(&held.entry.value),
            None => self.queue.get(key).map(|entry| &entry.value),
        }
    }

    /// Makes the entry the one used last; false when there is none.
    pub fn touch(&mut self, key: &K) -> bool {
        self.lookup(key).is_some()
    }

    /// The value, without counting as a use.
    pub fn peek(&self, key: &K) -> Option<&V> {
        match self.held.get(key) {
            Some(held) => Some(&held.entry.value),
            None => self.queue.peek(key).map(|entry| &entry.value),
        }
    }

    /// Holds the entry until as many [`Self::unpin`]; false when there is none.
    pub fn pin(&mut self, key: &K) -> bool {
        if let Some(held) = self.held.get_mut(key) {
            held.pins += 1;
            return true;
        }
        let Some((key, entry)) = self.queue.pop_entry(key) else { return false };
        self.pinned += entry.bytes;
        self.held.insert(key, Held { entry, pins: 1 });
        self.debug_invariants();
        true
    }

    /// Takes one pin back.
    pub fn unpin(&mut self, key: &K) {
        let Some(held) = self.held.get_mut(key) else { return };
        held.pins -= 1;
        if held.pins > 0 {
            return;
        }
        if let Some((key, held)) = self.held.remove_entry(key) {
            self.pinned -= held.entry.bytes;
            self.queue.push(key, held.entry);
        }
        self.debug_invariants();
    }

    /// Takes the entry out, pinned or not.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = match self.held.remove(key) {
            Some(held) => {
                self.pinned -= held.entry.bytes;
                held.entry
            }
            None => self.queue.pop(key)?,
        };
        self.used -= entry.bytes;
        self.debug_invariants();
        Some(entry.value)
    }

    /// Takes out every entry whose key does not satisfy `keep`, pinned or not.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.held.retain(|key, _| keep(key));
        let gone: Vec<K> =
            self.queue.iter().map(|(key, _)| key).filter(|k| !keep(k)).cloned().collect();
        for key in &gone {
            self.queue.pop(key);
        }
        self.pinned = self.held.values().map(|held| held.entry.bytes).sum();
        self.used = self.pinned + self.queue.iter().map(|(_, entry)| entry.bytes).sum::<u64>();
        self.debug_invariants();
    }

    /// Bytes of all entries.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Bytes of the pinned entries.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// Most bytes that the cache holds.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.queue.len() + self.held.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for so many bytes.
    fn make_room(&mut self, bytes: u64, spared: impl Fn(&K) -> bool) -> Vec<(K, V)> {
        let mut gone = Vec::new();
        let mut to_pass = self.queue.len();
        while self.used + bytes > self.budget {
            let Some((key, entry)) = self.queue.pop_lru() else { break };
            if to_pass > 0 {
                to_pass -= 1;
                if spared(&key) {
                    self.queue.push(key, entry);
                    continue;
                }
            }
            self.used -= entry.bytes;
            gone.push((key, entry.value));
        }
        gone
    }

    /// The head of this file, in words that fail: the budget and the pins always, the sums where they
    /// are cheap to take.
    fn debug_invariants(&self) {
        debug_assert!(self.used <= self.budget, "over budget");
        debug_assert!(self.held.values().all(|held| held.pins > 0), "held without a pin");
        debug_assert!(
            self.len() > 256 || {
                let held: u64 = self.held.values().map(|held| held.entry.bytes).sum();
                let queued: u64 = self.queue.iter().map(|(_, entry)| entry.bytes).sum();
                (held, held + queued) == (self.pinned, self.used)
            },
            "byte sums"
        );
    }
}

impl<K: Ord + Hash + Clone, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("len", &self.len())
            .field("used", &self.used)
            .field("pinned", &self.pinned)
            .field("budget", &self.budget)
            .finish()
    }
}
