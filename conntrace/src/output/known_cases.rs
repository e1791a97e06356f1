//! Memory of a format for failures that come again.

use std::hash::BuildHasher as _;

use foldhash::{HashMap, fast::RandomState};

use super::event::SharedFacts;

/// Maximum number of cases; all are evicted when it is exceeded.
pub(super) const CASES_MAX: usize = 96;

/// Values kept for cases that have come at least twice. A case that came once takes a hash only:
/// in a storm of different failures nothing is made in vain.
#[derive(Debug)]
pub(super) struct KnownCases<T> {
    hasher: RandomState,
    /// Cases by the hash of their facts; `None` while nothing is kept.
    cases: HashMap<u64, Option<Box<(SharedFacts, T)>>>,
}

/// Memory of one case.
#[derive(Debug)]
pub(super) enum KnownCase<'a, T> {
    /// The facts have not come before.
    New,
    /// The facts have come before, but nothing is kept. The hash is for [`KnownCases::keep`].
    Again(u64),
    /// A value is kept. The hash is for one in its place.
    Kept(u64, &'a T),
}

impl<T> Default for KnownCases<T> {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            cases: HashMap::default(),
        }
    }
}

impl<T> KnownCases<T> {
    /// Returns what is known of the case with these facts, and remembers that it came.
    pub(super) fn find(&mut self, facts: &SharedFacts) -> KnownCase<'_, T> {
        let hash = self.hasher.hash_one(facts);
        if self.cases.len() >= CASES_MAX && !self.cases.contains_key(&hash) {
            self.cases.clear();
        }
        let mut is_new = false;
        let case = self.cases.entry(hash).or_insert_with(|| {
            is_new = true;
            None
        });
        match case {
            Some(kept) if kept.0 == *facts => KnownCase::Kept(hash, &kept.1),
            Some(_) | None if is_new => KnownCase::New,
            Some(_) | None => KnownCase::Again(hash),
        }
    }

    /// Keeps a value for the facts with this hash.
    pub(super) fn keep(&mut self, hash: u64, facts: SharedFacts, value: T) {
        // Not inserted if the case was evicted meanwhile: this cannot exceed the limit.
        if let Some(case) = self.cases.get_mut(&hash) {
            *case = Some(Box::new((facts, value)));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cases.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::event::{
            self, Owner,
            tests::{at, refused},
        },
        record,
    };

    fn facts(netns: u32) -> SharedFacts {
        let attempt = record::Attempt { netns, ..refused() };
        event::stall(&attempt, (at(), at()), Owner::default(), &"web-1".into()).facts
    }

    #[test]
    fn a_case_is_kept_from_its_second_time_on() {
        let mut cases = KnownCases::default();
        assert!(matches!(cases.find(&facts(1)), KnownCase::New));
        let KnownCase::Again(hash) = cases.find(&facts(1)) else {
            panic!("it has come before");
        };
        cases.keep(hash, facts(1), "value");
        assert!(matches!(
            cases.find(&facts(1)),
            KnownCase::Kept(_, &"value")
        ));
        assert!(matches!(cases.find(&facts(2)), KnownCase::New));
    }

    #[test]
    fn cases_are_bounded() {
        let mut cases = KnownCases::default();
        for n in 0..5 * u32::try_from(CASES_MAX).unwrap() {
            for _ in 0..3 {
                if let KnownCase::Again(hash) = cases.find(&facts(n)) {
                    cases.keep(hash, facts(n), n);
                }
            }
            assert!(matches!(cases.find(&facts(n)), KnownCase::Kept(_, kept) if *kept == n));
            assert!(cases.len() <= CASES_MAX);
        }
        assert!(matches!(cases.find(&facts(0)), KnownCase::New));
    }
}
