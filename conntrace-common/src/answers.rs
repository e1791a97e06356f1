//! Selects the completed handshakes that the agent is told: one about every second for a host and
//! port.
//!
//! Each bucket has the last two of them, a word each: a fingerprint in the upper half, the time in
//! the lower. A word is loaded and stored as a whole, so that CPUs need no order among themselves.
//! Destinations that share a bucket are told more often at most. Two with the same fingerprint
//! would hide each other; nobody can look for such a pair, because the hash has a secret key.

use crate::shared::{load, store};

/// Number of buckets, a power of two.
pub const BUCKETS: u32 = 8192;

/// Base-2 logarithm of the unit of time in nanoseconds, 134 ms. The lower half of a word counts
/// these for 18 years.
const UNIT_BITS: u32 = 27;
/// Number of units for which a handshake need not be told again, about a second.
const FRESH: u64 = 7;
/// Number of units by which the time that was told may be later than the given one, about two
/// seconds: an attempt that lasts longer has sent its SYN again, and gives the time of its end.
const LATER: u64 = 15;

/// Maximum time in nanoseconds for which handshakes are not told after one that was: as long as that
/// one is fresh, and as long as an attempt lasts that begins then and does not send its SYN again.
pub const UNTOLD_NS: u64 = (FRESH + LATER + 1) << UNIT_BITS;

/// Returns the bucket of a destination ([`hash::of_destination`](crate::hash::of_destination)).
#[inline(always)]
#[must_use]
pub const fn bucket_of(hash: u64) -> u32 {
    hash as u32 % BUCKETS
}

/// Last handshakes that were told of the destinations with one bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerBucket {
    newest: u64,
    older: u64,
}

impl AnswerBucket {
    /// Returns true if a handshake with this destination was told lately. `at_ns` is the time of the
    /// handshake, or the start of an attempt that sent one SYN, in nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    #[must_use]
    pub fn knows(&self, hash: u64, at_ns: u64) -> bool {
        let wanted = word_of(hash, at_ns);
        let is_fresh = |word: u64| wanted.wrapping_sub(word).wrapping_add(LATER) < FRESH + LATER;
        is_fresh(load(&self.newest)) || is_fresh(load(&self.older))
    }

    /// Stores that a handshake with this destination was told at this time.
    #[inline(always)]
    pub fn note(&mut self, hash: u64, at_ns: u64) {
        let told = word_of(hash, at_ns);
        let newest = load(&self.newest);
        if newest >> u32::BITS != told >> u32::BITS {
            store(&mut self.older, newest);
        }
        store(&mut self.newest, told);
    }
}

/// Returns the word of a hash and a time. An unused word stands for the time of boot.
#[inline(always)]
const fn word_of(hash: u64, at_ns: u64) -> u64 {
    hash & !(u32::MAX as u64) | (at_ns >> UNIT_BITS) & u32::MAX as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{self, HashSecret};

    const SECRET: HashSecret = HashSecret::new([3, 5 << 40 | 9, 7 << 50 | 11]);
    /// An hour after boot.
    const NOW_NS: u64 = 3_600_000_000_000;
    const SECOND_NS: u64 = 1_000_000_000;

    fn hash(namespace: u32, host: u64, port: u16) -> u64 {
        hash::of_destination(SECRET, namespace, [0, host], port)
    }

    #[test]
    fn a_handshake_is_told_once_a_second() {
        let mut bucket = AnswerBucket::default();
        let hash = hash(1, 2, 443);
        assert!(!bucket.knows(hash, NOW_NS));
        bucket.note(hash, NOW_NS);
        assert!(bucket.knows(hash, NOW_NS));
        assert!(bucket.knows(hash, NOW_NS + SECOND_NS / 2));
        assert!(!bucket.knows(hash, NOW_NS + UNTOLD_NS));
        // A year later, and ten.
        for years in [1, 10] {
            let later_ns = NOW_NS + years * 366 * 86_400 * SECOND_NS;
            assert!(!bucket.knows(hash, later_ns));
        }
    }

    #[test]
    fn one_that_was_told_after_the_start_of_the_attempt_counts() {
        let mut bucket = AnswerBucket::default();
        let hash = hash(1, 2, 443);
        bucket.note(hash, NOW_NS);
        assert!(bucket.knows(hash, NOW_NS - SECOND_NS));
        // So long an attempt sends its SYN again, and gives the time of its end.
        assert!(!bucket.knows(hash, NOW_NS - 3 * SECOND_NS));
    }

    /// Whatever is hidden by a handshake ends before the time that is taken for unknown.
    #[test]
    fn nothing_is_hidden_for_longer_than_is_said() {
        let mut bucket = AnswerBucket::default();
        let hash = hash(1, 2, 443);
        bucket.note(hash, NOW_NS);
        let hidden = (0..10_000).map(|ms| ms * 1_000_000);
        let hidden = hidden.filter(|later_ns| bucket.knows(hash, NOW_NS + later_ns));
        // The first SYN is sent again after a second.
        let last_ns = hidden.max().unwrap() + SECOND_NS;
        assert!(last_ns < UNTOLD_NS, "{last_ns}");
    }

    #[test]
    fn another_host_port_or_namespace_is_told_at_once() {
        let mut bucket = AnswerBucket::default();
        bucket.note(hash(1, 2, 443), NOW_NS);
        for other in [hash(1, 3, 443), hash(1, 2, 444), hash(2, 2, 443)] {
            assert!(!bucket.knows(other, NOW_NS));
        }
    }

    #[test]
    fn two_that_take_turns_are_told_once_a_second_too() {
        let mut bucket = AnswerBucket::default();
        let both = [hash(1, 2, 443), hash(1, 3, 443)];
        let mut told = [0; 2];
        for turn in 0..500 {
            let at_ns = NOW_NS + turn * SECOND_NS / 50;
            for (hash, told) in both.iter().zip(&mut told) {
                if !bucket.knows(*hash, at_ns) {
                    bucket.note(*hash, at_ns);
                    *told += 1;
                }
            }
        }
        assert!(told.iter().all(|told| (9..=12).contains(told)), "{told:?}");
    }

    /// The first handshakes after boot are told, whatever the hash.
    #[test]
    fn an_unused_bucket_knows_nothing() {
        let bucket = AnswerBucket::default();
        let known = (1..10_000).filter(|&host| bucket.knows(hash(1, host, 443), 1));
        assert_eq!(known.count(), 0);
    }
}
