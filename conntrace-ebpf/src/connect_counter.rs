//! Counts connects by destination, as a cheap hint at one that uses up the local ports. One of
//! eight is counted (`conntrace_common::connects`).
//!
//! The agent confirms a hint by listing the sockets: frequent connects may be closed as fast, and
//! several destinations may share a bucket. An attempt with a bound port counts too, because its
//! connection also holds that port.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, programs::BtfTracePointContext};
use conntrace_common::{
    connects::{self, FIRST, SAMPLED, WINDOW_BITS, bucket_of, is_hint},
    hash,
    record::RawOpening,
};

use crate::{
    kernel::{self, KernelSock},
    maps, report,
    sync::{load, store},
};

/// Counts an attempt that opens, if it is one of the sample.
#[inline(always)]
pub fn count(
    ctx: &BtfTracePointContext,
    sock: KernelSock,
    opening: &RawOpening,
    until_sample: &mut u64,
) {
    let left = load(until_sample).wrapping_sub(1);
    store(until_sample, left);
    // Of the first connect of a CPU nothing is left either.
    if left as i64 <= 0 {
        let started_ns = load(&opening.started_ns);
        store(until_sample, connects::until_sample(started_ns));
        count_sampled(ctx, sock, opening);
    }
}

/// Counts an attempt that opens, and reports a hint if one is due.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
fn count_sampled(ctx: &BtfTracePointContext, sock: KernelSock, opening: &RawOpening) -> Option<()> {
    let to = sock.remote_words_mapped();
    let net = kernel::lower_half(sock.net());
    let hash = hash::of_destination(maps::hash_secret(), net, to, sock.remote_port());
    let bucket = maps::connects(bucket_of(hash))?;
    // SAFETY: the map is preallocated, so the memory is never freed. The access is volatile
    // because other CPUs write it too; concurrent counts may be lost.
    let counted = unsafe { bucket.read_volatile() };
    let window = load(&opening.started_ns) >> WINDOW_BITS;
    let mut count = counted as u32;
    if counted >> u32::BITS != window {
        count %= FIRST;
    }
    count = count.wrapping_add(SAMPLED);
    // SAFETY: the same bucket as in the read above.
    unsafe { bucket.write_volatile(window << u32::BITS | u64::from(count)) };
    if is_hint(count) {
        hint(ctx.as_ptr(), opening, count);
    }
    Some(())
}

/// Reports a hint. Not inlined, because it is rare.
#[inline(never)]
fn hint(ctx: *mut c_void, opening: &RawOpening, count: u32) {
    if let Some(sock) = KernelSock::from_arg(&BtfTracePointContext::new(ctx)) {
        report::report_connects(opening, sock, count);
    }
}
