//! Claims to places of the kernel side's own tables, which CPUs share without a lock.
//!
//! Apart from the programs, because a test of the agent tries every order of the steps.

/// A place that one at a time may write.
pub trait Claimable {
    /// How many have claimed it: the one that has it, and others for a moment.
    fn claims(&self) -> u32;

    /// Adds to the claims, atomically, wrapping, and as a barrier. The result is not used:
    /// the instruction that has none is all that Linux 5.10 knows.
    fn add_claims(&mut self, count: u32);
}

/// A slot of the table of attempts: each socket is locked for itself, so that only two that
/// want the same slot at once need care.
pub trait AttemptSlot: Claimable {
    /// Says whose it is, by the address of the socket; 0 for nobody's. Not before what was
    /// done before.
    fn name(&mut self, sock: u64);
}

/// Of several that claim it at once, one gets it or none: who finds itself alone after it
/// has added itself is seen by all who come later.
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

/// In this order: who claims it next must not find it named.
#[inline(always)]
pub fn give_back(slot: &mut impl AttemptSlot) {
    slot.name(0);
    slot.add_claims(u32::MAX);
}
