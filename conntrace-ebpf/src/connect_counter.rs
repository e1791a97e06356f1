//! Counts connects by destination, as a cheap hint at one that uses up the local ports.
//!
//! The agent confirms a hint by listing the sockets: frequent connects may be closed as fast, and
//! several destinations may share a bucket. An attempt with a bound port counts too, because its
//! connection also holds that port.

use conntrace_common::{
    connects::{FIRST, WINDOW_BITS, bucket_of, is_hint},
    record::RawAttempt,
};

use crate::{maps, report};

/// Counts an attempt that opens, and reports a hint if one is due.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn count(attempt: &RawAttempt) -> Option<()> {
    let (netns, port) = (attempt.netns, attempt.remote_port);
    let bucket = bucket_of(maps::hash_secret(), netns, attempt.remote_addr, port);
    let bucket = maps::connects(bucket)?;
    // SAFETY: the map is preallocated, so the memory is never freed. The access is volatile
    // because other CPUs write it too; concurrent counts may be lost.
    let counted = unsafe { bucket.read_volatile() };
    let window = attempt.started_ns >> WINDOW_BITS;
    let mut count = counted as u32;
    if counted >> u32::BITS != window {
        count %= FIRST;
    }
    count = count.wrapping_add(1);
    // SAFETY: the same bucket as in the read above.
    unsafe { bucket.write_volatile(window << u32::BITS | u64::from(count)) };
    if is_hint(count) {
        report::report_connects(attempt, count);
    }
    Some(())
}
