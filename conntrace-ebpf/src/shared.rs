//! Memory that other CPUs use at the same time, as `conntrace_common::claim` does.
//!
//! x86-64 keeps loads in their order, and stores; volatile keeps the compiler from
//! changing it.
#![expect(
    unsafe_code,
    reason = "volatile accesses, and an addition that is an intrinsic on this target"
)]

use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// What is there now.
#[inline(always)]
pub fn load<T: Copy>(place: &T) -> T {
    // SAFETY: a reference is valid for reads; only integers are shared.
    unsafe { core::ptr::from_ref(place).read_volatile() }
}

/// Puts it there.
#[inline(always)]
pub fn store<T: Copy>(place: &mut T, value: T) {
    // SAFETY: a reference is valid for writes; only integers are shared.
    unsafe { core::ptr::from_mut(place).write_volatile(value) };
}

/// Adds to it, atomically, wrapping, and as a barrier.
#[inline(always)]
pub fn add(place: &mut u32, count: u32) {
    // SAFETY: a reference is valid, and aligned.
    unsafe {
        atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(core::ptr::from_mut(place), count)
    };
}
