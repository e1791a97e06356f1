//! Additions, the only atomic operations on this target, for `conntrace_common::claim`.
#![expect(
    unsafe_code,
    reason = "an addition that is an intrinsic on this target"
)]

use core::intrinsics::{AtomicOrdering, atomic_xadd};

pub use conntrace_common::shared::{load, store};

/// Adds to a word atomically, wrapping.
#[inline(always)]
pub fn add(place: &mut u32, count: u32) {
    // SAFETY: a reference is valid and aligned.
    unsafe {
        atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(core::ptr::from_mut(place), count)
    };
}

/// Adds to a 64-bit word atomically, wrapping.
#[inline(always)]
pub fn add_word(place: &mut u64, count: u64) {
    // SAFETY: a reference is valid and aligned.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(core::ptr::from_mut(place), count)
    };
}
