//! When the kernel side gives a hint that a destination uses up local ports: by how
//! many connects it counted in a window of some 69 s.

use crate::hash;

/// Buckets that connects are counted in, by a hash of namespace and destination.
pub const BUCKETS: u32 = 4096;

/// A window lasts 2^36 ns: a little longer than `TIME_WAIT` holds a port.
pub const WINDOW_BITS: u32 = 36;

/// The first hint within a window. What is left below it goes on into the next one,
/// or a destination that is connected to slowly would never be told of.
pub const FIRST: u32 = 64;

/// From here on there is a hint every so many connects, before that whenever their
/// number has doubled.
pub const STEP: u32 = 256;

/// The bucket of a destination, by the inode number of the network namespace.
#[inline(always)]
#[must_use]
pub const fn bucket_of(secret: u64, netns: u32, addr: [u8; 16], port: u16) -> u32 {
    let [first, second] = hash::words_of(addr);
    let rest = (netns as u64) << u16::BITS | port as u64;
    hash::of_words(secret, [first, second, rest]) as u32 % BUCKETS
}

/// Whether so many connects within a window are worth a hint.
#[inline(always)]
#[must_use]
pub const fn is_hint(count: u32) -> bool {
    count >= FIRST && (count & (count - 1) == 0 || count.is_multiple_of(STEP))
}

/// How many connects a hint stands for: at least those since the last hint, and those
/// until the next one is due.
#[must_use]
pub const fn told_by(hint: u32) -> u32 {
    if hint < STEP { hint } else { STEP }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many there were in a window, the hints and what is carried on stand for
    /// all of them.
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
