//! Claims to entries of the kernel side's own tables, which CPUs share without a lock.
//!
//! The code is separate from the programs so that a test can try every order of its steps. It
//! assumes only what every architecture gives: accesses to one word happen in one order for all
//! CPUs, a store does not become visible before a branch that it depends on, and a socket's lock
//! orders everything done under it.

/// One holder, in the lower half of a claim word.
const HOLDER: u64 = 1;
/// One epoch, in the upper half of a claim word.
const EPOCH: u64 = 1 << u32::BITS;
/// Odd factor by which an epoch changes a seal: 2^64 divided by the golden ratio, so that the seals of
/// few epochs are far apart. Sockets lie within 2^47 bytes of each other; their seals can be equal
/// only if 75,000 epochs lie between them.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Table entry that only one CPU may write at a time.
///
/// The lower half of its claim word counts the holders: the one who may write, and for a moment
/// those who try. The upper half counts the releases: the epoch.
pub trait Claimable {
    /// Returns the claim word.
    fn claims(&self) -> u64;

    /// Adds to the claim word atomically, wrapping. It returns nothing and orders nothing, because
    /// Linux 5.10 has only such an addition.
    fn add_claims(&mut self, count: u64);
}

/// Slot of the attempt table. The kernel locks each socket, so that conflicts arise only between
/// two sockets that claim the same slot.
pub trait AttemptSlot: Claimable {
    /// Returns the seal: the owner's address mixed with the epoch of its claim ([`seal_offset`]); 0 in a
    /// slot that was never used.
    fn seal(&self) -> u64;
}

/// Claims an entry and returns its epoch. Of several concurrent claims at most one succeeds: the
/// one that finds a single holder after its own addition, which all later ones see.
#[inline(always)]
pub fn claim(place: &mut impl Claimable) -> Option<u32> {
    if place.claims() as u32 != 0 {
        return None;
    }
    place.add_claims(HOLDER);
    let claims = place.claims();
    if claims as u32 == 1 {
        return Some(epoch(claims));
    }
    place.add_claims(HOLDER.wrapping_neg());
    None
}

/// Releases a claim and begins the next epoch, in one atomic step, so that no other store has to
/// come before it.
#[inline(always)]
pub fn release(place: &mut impl Claimable) {
    place.add_claims(EPOCH - HOLDER);
}

/// Returns the epoch of a claim word.
#[inline(always)]
#[must_use]
pub const fn epoch(claims: u64) -> u32 {
    (claims >> u32::BITS) as u32
}

/// Returns the number by which an epoch raises a seal above the socket's address.
#[inline(always)]
#[must_use]
pub const fn seal_offset(epoch: u32) -> u64 {
    (epoch as u64).wrapping_mul(SPREAD)
}

/// Returns the socket that sealed the slot in the current epoch, if it still holds the slot. For
/// any other socket the result is an address that is not its own.
///
/// The seal of an earlier holder has an earlier epoch. The socket itself ended that epoch, under
/// the same lock under which it asks now, so that it cannot read a claim word of that time.
#[inline(always)]
pub fn holder(slot: &impl AttemptSlot) -> u64 {
    let offset = seal_offset(epoch(slot.claims()));
    slot.seal().wrapping_sub(offset)
}

/// Returns the socket that held the slot last, if no other has claimed it since. Its entry may be
/// overwritten at any moment: a reader copies it and then asks again, by a load whose address
/// depends on what it copied.
#[inline(always)]
pub fn last_holder(slot: &impl AttemptSlot) -> u64 {
    let offset = seal_offset(epoch(slot.claims()).wrapping_sub(1));
    slot.seal().wrapping_sub(offset)
}
