//! Layout and limits of the kernel side's table of attempts under way.

use crate::{
    claim::{AttemptSlot, Claimable, holder},
    record::OPENING_SIZE,
};

/// Number of slots, a power of two.
pub const SLOTS: u32 = 16_384;
/// Maximum number of attempts in the map, which holds those whose slot is occupied.
pub const SPILLED_MAX: u32 = 65_536;
/// Size of an entry in bytes. It begins with a [`RawOpening`](crate::record::RawOpening).
pub const ENTRY_SIZE: usize = OPENING_SIZE + 40;
/// Size of an entry in the map in bytes.
pub const SPILLED_SIZE: usize = ENTRY_SIZE + 8;
/// Size of a slot in bytes.
pub const SLOT_SIZE: usize = 24 + ENTRY_SIZE;

/// Words of a slot before its entry, as the agent reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotWords {
    /// Claim word ([`Claimable::claims`]).
    pub claims: u64,
    /// Seal ([`AttemptSlot::seal`]).
    pub seal: u64,
}

impl Claimable for SlotWords {
    fn claims(&self) -> u64 {
        self.claims
    }

    fn add_claims(&mut self, count: u64) {
        self.claims = self.claims.wrapping_add(count);
    }
}

impl AttemptSlot for SlotWords {
    fn seal(&self) -> u64 {
        self.seal
    }
}

impl SlotWords {
    /// Returns true if an attempt under way holds the slot.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.claims as u32 != 0 && holder(self) != 0
    }
}
