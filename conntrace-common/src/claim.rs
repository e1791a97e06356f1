//! What CPUs share of the kernel side's own tables, without a lock: who gets a place, and
//! who may read it meanwhile.
//!
//! Apart from the programs, because a test of the agent tries every order of the steps.

/// A place that one at a time may write.
pub trait Claims {
    /// How many have claimed it: the one that has it, and others for a moment.
    fn claims(&self) -> u32;

    /// Adds to the claims, atomically, wrapping, and as a barrier. The result is not used:
    /// the instruction that has none is all that Linux 5.10 knows.
    fn add_claims(&mut self, count: u32);
}

/// A slot of the table of attempts: each socket is locked for itself, so that only two that
/// want the same slot at once need care.
pub trait Named: Claims {
    /// Says whose it is, by the address of the socket; 0 for nobody's. Not before what was
    /// done before.
    fn name(&mut self, sock: u64);
}

/// A place of which readers see the whole of what one writer wrote, or nothing.
pub trait Versioned: Claims {
    /// How often it was written. Not read before what was read before.
    fn version(&self) -> u32;

    /// Not before what was done before.
    fn set_version(&mut self, version: u32);
}

/// Of several that claim it at once, one gets it or none: who finds itself alone after it
/// has added itself is seen by all who come later.
#[inline(always)]
pub fn claim(place: &mut impl Claims) -> bool {
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
pub fn give_back(slot: &mut impl Named) {
    slot.name(0);
    slot.add_claims(u32::MAX);
}

/// Writes a place, or leaves it where another writes it right now.
#[inline(always)]
pub fn write<P: Versioned>(place: &mut P, change: impl FnOnce(&mut P)) {
    if claim(place) {
        change(place);
        place.set_version(place.version().wrapping_add(1));
        place.add_claims(u32::MAX);
    }
}

/// What `look` sees in a place; `None` where it was written meanwhile. One that began to
/// write before and is not done still has its claim; one that is done has left another
/// version.
#[inline(always)]
pub fn read<P: Versioned, T>(place: &P, look: impl FnOnce(&P) -> T) -> Option<T> {
    let version = place.version();
    let seen = look(place);
    (place.claims() == 0 && place.version() == version).then_some(seen)
}
