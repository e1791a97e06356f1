//! Accesses to words in memory that other CPUs read and write at the same time.
//!
//! The accesses are volatile, because the BPF target has no atomic ones. Volatile keeps the
//! compiler from repeating or omitting them. They have no order for other CPUs: see
//! [`claim`](crate::claim).
#![expect(unsafe_code, reason = "volatile accesses")]

/// Loads the current value.
#[inline(always)]
#[must_use]
pub fn load<T: Copy>(place: &T) -> T {
    // SAFETY: a reference is valid for reads; only integers are shared.
    unsafe { core::ptr::from_ref(place).read_volatile() }
}

/// Stores a value.
#[inline(always)]
pub fn store<T: Copy>(place: &mut T, value: T) {
    // SAFETY: a reference is valid for writes; only integers are shared.
    unsafe { core::ptr::from_mut(place).write_volatile(value) };
}
