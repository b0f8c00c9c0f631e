//! Values in a bounded number of bytes; what was used longest ago goes first.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// Largest part of the memory that one value may take.
const MAX_PART: usize = 4;

/// Values by key, at most so many bytes of them. A use takes time in proportion to the logarithm of their number.
#[derive(Debug)]
pub struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by when they were used last.
    order: BTreeMap<u64, K>,
    /// Uses so far.
    clock: u64,
    n_bytes: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    n_bytes: usize,
    used: u64,
}

/// What became of a value that was to be kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Stored<V> {
    /// It is kept; these had to go, to be dropped where that holds nobody up.
    Kept(Vec<V>),
    /// It is too large.
    TooLarge(V),
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    /// Memory of an entry beside that of its value and what its key holds elsewhere, in bytes: the key stands in both maps.
    pub const ENTRY_BYTES: usize = size_of::<Entry<V>>() + 2 * size_of::<K>() + size_of::<u64>();

    /// Nothing, and room for `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), clock: 0, n_bytes: 0, max_bytes }
    }

    /// Whether a value of so many bytes, all told, would be kept.
    #[must_use]
    pub fn takes(&self, n_bytes: usize) -> bool {
        n_bytes <= self.max_bytes / MAX_PART
    }

    /// The value of a key, which counts as a use.
    pub fn find(&mut self, key: &K) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        let key = self.order.remove(&entry.used)?;
        self.clock += 1;
        entry.used = self.clock;
        self.order.insert(self.clock, key);
        Some(&entry.value)
    }

    /// Keeps a value of `n_bytes`, all told, in place of what the key had.
    pub fn insert(&mut self, key: K, value: V, n_bytes: usize) -> Stored<V> {
        if !self.takes(n_bytes) {
            return Stored::TooLarge(value);
        }
        let mut gone: Vec<V> = self.remove(&key).into_iter().collect();
        while self.max_bytes - self.n_bytes < n_bytes {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            gone.extend(self.take(&oldest));
        }
        self.clock += 1;
        self.n_bytes += n_bytes;
        self.order.insert(self.clock, key.clone());
        self.entries.insert(key, Entry { value, n_bytes, used: self.clock });
        Stored::Kept(gone)
    }

    /// Gives up the value of a key.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.order.remove(&self.entries.get(key)?.used);
        self.take(key)
    }

    /// Gives up all values that are not to stay.
    pub fn retain(&mut self, stays: impl Fn(&V) -> bool) -> Vec<V> {
        let leaving = |(key, entry): (&K, &Entry<V>)| (!stays(&entry.value)).then(|| key.clone());
        let leaving: Vec<K> = self.entries.iter().filter_map(leaving).collect();
        leaving.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Bytes of all values.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn take(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.n_bytes -= entry.n_bytes;
        Some(entry.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room_and_bytes_are_exact() {
        let mut lru = Lru::new(100);
        for key in ['a', 'b', 'c', 'd'] {
            assert_eq!(lru.insert(key, key, 25), Stored::Kept(vec![]));
        }
        assert_eq!(lru.find(&'a'), Some(&'a'));
        assert_eq!(lru.insert('e', 'e', 1), Stored::Kept(vec!['b']));
        assert_eq!((lru.n_bytes(), lru.len()), (76, 4));
        assert_eq!(lru.insert('f', 'f', 25), Stored::Kept(vec!['c']));
        assert_eq!(lru.n_bytes(), 76);
    }

    #[test]
    fn a_value_of_more_than_a_quarter_comes_back_and_costs_nobody_a_place() {
        let mut lru = Lru::new(100);
        lru.insert('a', 1, 20);
        assert_eq!(lru.insert('b', 2, 26), Stored::TooLarge(2));
        assert_eq!((lru.find(&'a').copied(), lru.n_bytes()), (Some(1), 20));
    }

    #[test]
    fn a_key_has_one_value_and_what_is_not_to_stay_goes_at_once() {
        let mut lru = Lru::new(100);
        lru.insert('a', 1, 10);
        assert_eq!(lru.insert('a', 2, 20), Stored::Kept(vec![1]));
        lru.insert('b', 3, 5);
        assert_eq!(lru.retain(|value| *value != 2), [2]);
        assert_eq!((lru.len(), lru.n_bytes(), lru.remove(&'b')), (1, 5, Some(3)));
        assert!(lru.is_empty() && lru.n_bytes() == 0);
    }

    /// The same by a list that is searched: the most recently used last.
    #[derive(Default)]
    struct Naive(Vec<(u8, u32, usize)>);

    impl Naive {
        fn find(&mut self, key: u8) -> Option<u32> {
            let idx = self.0.iter().position(|entry| entry.0 == key)?;
            let entry = self.0.remove(idx);
            self.0.push(entry);
            Some(entry.1)
        }

        fn insert(&mut self, key: u8, value: u32, n_bytes: usize, max_bytes: usize) {
            if 4 * n_bytes > max_bytes {
                return;
            }
            self.0.retain(|entry| entry.0 != key);
            self.0.push((key, value, n_bytes));
            while self.n_bytes() > max_bytes {
                self.0.remove(0);
            }
        }

        fn n_bytes(&self) -> usize {
            self.0.iter().map(|entry| entry.2).sum()
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_list_does(
            max_bytes in 0usize..200,
            steps in prop::collection::vec((0u8..4, 0u8..12, 0usize..60), 0..200),
        ) {
            let (mut lru, mut naive) = (Lru::new(max_bytes), Naive::default());
            for (value, (what, key, n_bytes)) in (0u32..).zip(steps) {
                match what {
                    0 | 1 => {
                        lru.insert(key, value, n_bytes);
                        naive.insert(key, value, n_bytes, max_bytes);
                    }
                    2 => prop_assert_eq!(lru.find(&key).copied(), naive.find(key)),
                    _ => {
                        lru.retain(|kept| kept % 3 != 0);
                        naive.0.retain(|entry| entry.1 % 3 != 0);
                    }
                }
                prop_assert_eq!((lru.n_bytes(), lru.len()), (naive.n_bytes(), naive.0.len()));
                prop_assert!(lru.n_bytes() <= max_bytes);
            }
            for (key, value, _) in &naive.0 {
                prop_assert_eq!(lru.entries.get(key).map(|entry| entry.value), Some(*value));
            }
        }
    }
}
