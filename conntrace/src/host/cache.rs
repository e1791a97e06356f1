use std::{
    collections::hash_map::Entry,
    hash::Hash,
    time::{Duration, Instant},
};

use foldhash::HashMap;

/// Cache of at most `len_max` answers, none older than `age_max`. It is cleared as a whole:
/// frequent keys are soon back.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    answers: HashMap<K, V>,
    since: Option<Instant>,
    age_max: Duration,
    len_max: usize,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(age_max: Duration, len_max: usize) -> Self {
        Self {
            answers: HashMap::default(),
            since: None,
            age_max,
            len_max,
        }
    }

    /// Returns the cached answer for `key`, or calls `ask` and caches the result.
    pub(super) fn get(&mut self, key: K, now: Instant, ask: impl FnOnce() -> V) -> V {
        self.get_if(key, now, |_| true, ask)
    }

    /// Like [`get`](Self::get), but uses a cached answer only if `serves` accepts it.
    pub(super) fn get_if(
        &mut self,
        key: K,
        now: Instant,
        serves: impl FnOnce(&V) -> bool,
        ask: impl FnOnce() -> V,
    ) -> V {
        let old = self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= self.age_max);
        if old || self.answers.len() >= self.len_max {
            self.answers.clear();
            self.since = Some(now);
        }
        let entry = self.answers.entry(key);
        if let Entry::Occupied(known) = &entry
            && serves(known.get())
        {
            return known.get().clone();
        }
        entry.insert_entry(ask()).get().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(
            cache.get(1, start + Duration::from_secs(1), || 'e'),
            'e',
            "full"
        );
    }

    #[test]
    fn what_does_not_serve_is_asked_for_again() {
        let start = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(1), 2);
        assert_eq!(cache.get_if(1, start, |_| false, || 'a'), 'a');
        assert_eq!(cache.get_if(1, start, |&known| known == 'a', || 'b'), 'a');
        assert_eq!(cache.get_if(1, start, |&known| known != 'a', || 'c'), 'c');
        assert_eq!(cache.get(1, start, || 'd'), 'c');
    }
}
