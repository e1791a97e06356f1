//! Counts connects by destination: a cheap hint at one that uses up the local ports.
//!
//! Only the agent can tell, by a look at the sockets: who connects this often may close
//! as often, and a bucket can be of several destinations. An attempt with a port of its
//! own counts like any other, for its connection holds that port as well.

use conntrace_common::{
    connects::{FIRST, WINDOW_BITS, bucket_of, is_hint},
    record::RawAttempt,
};

use crate::{maps, report};

/// Counts an attempt that opens, and tells if it is one of many.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn count(attempt: &RawAttempt) -> Option<()> {
    let (netns, port) = (attempt.netns, attempt.remote_port);
    let bucket = bucket_of(maps::hash_secret(), netns, attempt.remote_addr, port);
    let bucket = maps::connects(bucket)?;
    // SAFETY: the map is preallocated, so the memory stays; volatile, for other CPUs
    // write it too. What one of them counts at the same time may be lost.
    let counted = unsafe { bucket.read_volatile() };
    let window = attempt.started_ns >> WINDOW_BITS;
    let mut count = counted as u32;
    if counted >> u32::BITS != window {
        count %= FIRST;
    }
    count = count.wrapping_add(1);
    // SAFETY: as above.
    unsafe { bucket.write_volatile(window << u32::BITS | u64::from(count)) };
    if is_hint(count) {
        report::report_connects(attempt, count);
    }
    Some(())
}
