//! A small cache that forgets what was used longest ago.

/// At most `limit` values, most recently used last. Lookups are linear, so it is for a handful of entries.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    entries: Vec<(K, V)>,
    limit: usize,
}

impl<K: PartialEq, V> Lru<K, V> {
    /// Holds one value at least.
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), limit: limit.max(1) }
    }

    /// The value of `key`, which becomes the most recently used.
    pub(super) fn find(&mut self, key: &K) -> Option<&mut V> {
        let idx = self.entries.iter().position(|(known, _)| known == key)?;
        self.entries[idx..].rotate_left(1);
        self.entries.last_mut().map(|(_, value)| value)
    }

    /// All values.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// Adds a value, after forgetting the oldest when there is no room.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.make_room();
        self.entries.push((key, value));
    }

    /// Forgets the oldest when the next value would have no room.
    pub(super) fn make_room(&mut self) {
        if self.entries.len() >= self.limit {
            self.entries.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_was_used_longest_ago() {
        let mut lru = Lru::new(2);
        lru.insert('a', 1);
        lru.insert('b', 2);
        assert_eq!(lru.find(&'a'), Some(&mut 1));
        lru.insert('c', 3);
        assert_eq!((lru.find(&'b').copied(), lru.find(&'a').copied(), lru.find(&'c').copied()), (None, Some(1), Some(3)));
    }
}
