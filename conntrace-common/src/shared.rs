//! Memory that other CPUs use at the same time: words that are read and written whole.
//!
//! Volatile accesses, for this target has no atomic ones. They keep the compiler from
//! reading twice or not at all; x86-64 keeps loads in their order, and stores.
#![expect(unsafe_code, reason = "volatile accesses")]

/// Loads what is there now.
#[inline(always)]
#[must_use]
pub fn load<T: Copy>(place: &T) -> T {
    // SAFETY: a reference is valid for reads; only integers are shared.
    unsafe { core::ptr::from_ref(place).read_volatile() }
}

/// Stores it there.
#[inline(always)]
pub fn store<T: Copy>(place: &mut T, value: T) {
    // SAFETY: a reference is valid for writes; only integers are shared.
    unsafe { core::ptr::from_mut(place).write_volatile(value) };
}
