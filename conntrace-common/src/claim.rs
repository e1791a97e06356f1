//! Claims to entries of the kernel side's own tables, which CPUs share without a lock.
//!
//! The code is separate from the programs so that a test can try every order of its steps.

/// Table entry that only one CPU may write at a time.
pub trait Claimable {
    /// Returns the number of claims: that of the owner, and for a moment those of others.
    fn claims(&self) -> u32;

    /// Adds to the claims, atomically, wrapping, and as a barrier. It returns nothing, because
    /// Linux 5.10 has only the atomic addition without a result.
    fn add_claims(&mut self, count: u32);
}

/// Slot of the attempt table. The kernel locks each socket, so that conflicts arise only
/// between two sockets that claim the same slot.
pub trait AttemptSlot: Claimable {
    /// Sets the owner, the address of its socket, or 0 for a free slot. The store must not move
    /// before earlier accesses.
    fn name(&mut self, sock: u64);
}

/// Claims a place, and returns true on success. Of several concurrent claims at most one
/// succeeds: the one that finds the count at 1 after its own addition, which all later ones see.
#[inline(always)]
pub fn claim(place: &mut impl Claimable) -> bool {
    if place.claims() != 0 {
        return false;
    }
    place.add_claims(1);
    if place.claims() == 1 {
        return true;
    }
    place.add_claims(u32::MAX);
    false
}

/// Releases a slot. The owner is cleared first, so that the next claim never finds an owner.
#[inline(always)]
pub fn give_back(slot: &mut impl AttemptSlot) {
    slot.name(0);
    slot.add_claims(u32::MAX);
}
