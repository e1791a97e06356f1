//! Thresholds for hints that a destination uses up local ports, by the number of connects in a
//! window of about 69 s.
//!
//! Each CPU counts one connect of eight, for eight. The distance between two varies, so that
//! destinations that take turns are all counted.

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

/// Number of connects that a counted one stands for.
pub const SAMPLED: u32 = 8;

/// Returns the number of connects of a CPU until the next one that is counted, [`SAMPLED`] on
/// average. `random` is any number that differs from time to time.
#[inline(always)]
#[must_use]
pub const fn until_sample(random: u64) -> u64 {
    // The upper bits of the product depend on all bits of the number: of 0 to 6, seven numbers.
    let upper = random.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> u32::BITS;
    SAMPLED as u64 - 3 + ((upper * 7) >> u32::BITS)
}

/// Returns the bucket of a destination ([`hash::of_destination`](crate::hash::of_destination)).
#[inline(always)]
#[must_use]
pub const fn bucket_of(hash: u64) -> u32 {
    hash as u32 % BUCKETS
}

/// Returns true if a hint is due at this number of connects within a window.
#[inline(always)]
#[must_use]
pub const fn is_hint(count: u32) -> bool {
    count >= FIRST && (count & (count - 1) == 0 || count.is_multiple_of(STEP))
}

/// Returns the number of connects that a hint stands for: about those since the last hint, and about
/// those until the next one.
#[must_use]
pub const fn told_by(hint: u32) -> u32 {
    if hint < STEP { hint } else { STEP }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hints and the carried rest account for every connect of a window that is counted.
    #[test]
    fn hints_stand_for_all() {
        let mut told = 0;
        for count in (SAMPLED..100_000).step_by(SAMPLED as usize) {
            if is_hint(count) {
                told += told_by(count);
            }
            assert!(told + count % FIRST >= count, "{count}");
            assert!(told <= count + STEP, "{count}");
        }
    }

    /// Times of any clock, also of one that only counts multiples, sample as often as they should.
    #[test]
    fn one_connect_of_eight_is_sampled() {
        for step_ns in [1, 40, 1000, 4_000_000, 1 << 20] {
            let (mut connects, samples) = (0, 10_000);
            for sample in 0..samples {
                let until = until_sample(7_000_000_000 + sample * step_ns);
                assert!((5..=11).contains(&until), "{until}");
                connects += until;
            }
            let mean = connects as f64 / samples as f64;
            assert!((7.8..8.2).contains(&mean), "{step_ns}: {mean}");
        }
    }

    /// Destinations that take turns are all counted, however many they are.
    #[test]
    fn destinations_that_take_turns_are_counted_alike() {
        for destinations in [2, 5, 7, 8, 11, 16, 64] {
            let mut counted = [0_u32; 64];
            let mut left = 1;
            for connect in 0..100_000_usize {
                left -= 1;
                if left == 0 {
                    left = until_sample(7_000_000_000 + connect as u64 * 12_345);
                    counted[connect % destinations] += SAMPLED;
                }
            }
            let fair = 100_000 / destinations as u32;
            for count in &counted[..destinations] {
                assert!(
                    count.abs_diff(fair) < fair / 4,
                    "{destinations}: {counted:?}"
                );
            }
        }
    }
}
