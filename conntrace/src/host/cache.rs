//! Maps with a limit.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use foldhash::HashMap;

/// Map of at most `len_max` entries. A new key clears a full one as a whole: frequent keys are
/// soon back.
#[derive(Debug)]
pub(crate) struct BoundedMap<K, V> {
    entries: HashMap<K, V>,
    len_max: usize,
}

impl<K: Eq + Hash, V> BoundedMap<K, V> {
    /// Returns an empty map that never has more than `len_max` entries.
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            entries: HashMap::default(),
            len_max,
        }
    }

    /// Returns the value of `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// Sets the value of `key`.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.is_full_for(&key) {
            self.entries.clear();
        }
        self.entries.insert(key, value);
    }

    /// Returns true if this key would clear the map.
    fn is_full_for(&self, key: &K) -> bool {
        self.entries.len() >= self.len_max && !self.entries.contains_key(key)
    }

    fn clear(&mut self) {
        self.entries.clear();
    }
}

/// Cache of at most `len_max` answers, none older than `age_max`.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    answers: BoundedMap<K, V>,
    since: Option<Instant>,
    age_max: Duration,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(age_max: Duration, len_max: usize) -> Self {
        Self {
            answers: BoundedMap::new(len_max),
            since: None,
            age_max,
        }
    }

    /// Returns the cached answer for `key`, or calls `ask` and caches the result.
    pub(super) fn get(&mut self, key: K, now: Instant, ask: impl FnOnce() -> V) -> V {
        if let Some(known) = self.find(&key, now, |_| true) {
            return known;
        }
        let answer = ask();
        self.put(key, now, answer.clone());
        answer
    }

    /// Returns the cached answer for `key`, if `serves` accepts it.
    pub(super) fn find(
        &mut self,
        key: &K,
        now: Instant,
        serves: impl FnOnce(&V) -> bool,
    ) -> Option<V> {
        self.expire(now);
        let known = self.answers.get(key)?;
        serves(known).then(|| known.clone())
    }

    /// Caches an answer.
    pub(super) fn put(&mut self, key: K, now: Instant, answer: V) {
        self.expire(now);
        if self.answers.is_full_for(&key) {
            self.answers.clear();
            self.since = None;
        }
        self.since.get_or_insert(now);
        self.answers.insert(key, answer);
    }

    fn expire(&mut self, now: Instant) {
        let age = self.since.map(|since| now.saturating_duration_since(since));
        if age.is_some_and(|age| age >= self.age_max) {
            self.answers.clear();
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_starts_over_at_a_new_key() {
        let mut map = BoundedMap::new(2);
        map.insert(1, 'a');
        map.insert(2, 'b');
        map.insert(2, 'c');
        assert_eq!((map.get(&1), map.get(&2)), (Some(&'a'), Some(&'c')));
        map.insert(3, 'd');
        assert_eq!(
            (map.get(&1), map.get(&2), map.get(&3)),
            (None, None, Some(&'d'))
        );
    }

    #[test]
    fn forgets_by_age_and_by_number() {
        let start = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(1), 2);
        assert_eq!(cache.get(1, start, || 'a'), 'a');
        assert_eq!(
            cache.get(1, start + Duration::from_millis(999), || 'b'),
            'a'
        );
        assert_eq!(cache.get(1, start + Duration::from_secs(1), || 'c'), 'c');
        assert_eq!(cache.get(2, start + Duration::from_secs(1), || 'd'), 'd');
        let later = start + Duration::from_secs(1);
        assert_eq!(cache.get(1, later, || 'e'), 'c', "full, but known");
        assert_eq!(cache.get(3, later, || 'f'), 'f');
        assert_eq!(cache.get(1, later, || 'g'), 'g', "cleared by a third key");
    }

    #[test]
    fn what_does_not_serve_is_not_found() {
        let start = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(1), 2);
        cache.put(1, start, 'a');
        assert_eq!(cache.find(&1, start, |&known| known == 'a'), Some('a'));
        assert_eq!(cache.find(&1, start, |&known| known != 'a'), None);
        assert_eq!(cache.find(&2, start, |_| true), None);
    }
}
