//! Thresholds for hints that a destination uses up local ports, by the number of connects in a
//! window of about 69 s.

use crate::hash::{self, HashSecret};

/// Number of counters for connects, indexed by a hash of namespace and destination.
pub const BUCKETS: u32 = 4096;

/// Base-2 logarithm of the window in nanoseconds. The window of 2^36 ns is slightly longer than
/// `TIME_WAIT` holds a port.
pub const WINDOW_BITS: u32 = 36;

/// Number of connects at the first hint in a window. A smaller rest is carried over into the
/// next window, so that slow connects are reported too.
pub const FIRST: u32 = 64;

/// Interval of hints, in connects, once that many are counted. Before that, a hint is due
/// whenever the count has doubled.
pub const STEP: u32 = 256;

/// Returns the bucket of a destination in the network namespace with this number. The
/// address is in two words ([`hash::words_of`]), IPv4 v4-mapped.
#[inline(always)]
#[must_use]
pub const fn bucket_of(
    secret: HashSecret,
    netns: u32,
    [first, second]: [u64; 2],
    port: u16,
) -> u32 {
    let rest = (netns as u64) << u16::BITS | port as u64;
    hash::of_words(secret, [first, second, rest]) as u32 % BUCKETS
}

/// Returns true if a hint is due at this number of connects within a window.
#[inline(always)]
#[must_use]
pub const fn is_hint(count: u32) -> bool {
    count >= FIRST && (count & (count - 1) == 0 || count.is_multiple_of(STEP))
}

/// Returns the number of connects that a hint stands for: at least those since the last hint,
/// and at least those until the next one.
#[must_use]
pub const fn told_by(hint: u32) -> u32 {
    if hint < STEP { hint } else { STEP }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hints and the carried rest account for every connect of a window.
    #[test]
    fn hints_stand_for_all() {
        let mut told = 0;
        for count in 1..100_000 {
            if is_hint(count) {
                told += told_by(count);
            }
            assert!(told + count % FIRST >= count, "{count}");
            assert!(told <= count + STEP, "{count}");
        }
    }
}
