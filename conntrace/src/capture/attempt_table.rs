//! Reads the kernel side's entries of the attempts under way.

use std::{io, os::fd::AsFd as _};

use aya::maps::{HashMap, MapData};
use conntrace_common::table::{ENTRY_SIZE, SLOT_SIZE, SLOTS, SPILLED_MAX, SPILLED_SIZE, SlotWords};

use crate::{
    record::{Holding, OPENING_WORDS},
    sys::SharedPages,
};

/// Number of words of a slot, and of those before its entry.
const SLOT_WORDS: usize = SLOT_SIZE / size_of::<u64>();
const HEAD_WORDS: usize = (SLOT_SIZE - ENTRY_SIZE) / size_of::<u64>();

/// Map of the attempts whose slot is occupied.
pub(super) type SpilledMap = HashMap<MapData, u64, [u64; SPILLED_SIZE / 8]>;

/// Table of slots, which is only mapped, and the map behind it.
pub(super) struct AttemptTable {
    pub(super) slots: MapData,
    pub(super) spilled: SpilledMap,
}

impl AttemptTable {
    /// Counts the entries.
    ///
    /// # Errors
    /// When the table cannot be mapped.
    pub(super) fn count(&self) -> io::Result<u64> {
        let pages = self.pages()?;
        let in_slots = held_slots(&pages).count();
        // The kernel restarts the walk when the current key is removed meanwhile.
        let spilled = self.spilled.keys().take(SPILLED_MAX as usize).count();
        Ok((in_slots + spilled) as u64)
    }

    /// Returns the holder of each entry.
    ///
    /// # Errors
    /// When the table cannot be mapped.
    pub(super) fn holders(&self) -> io::Result<Vec<Holding>> {
        let pages = self.pages()?;
        let in_slots = held_slots(&pages).map(|slot| {
            let entry = slot * SLOT_WORDS + HEAD_WORDS;
            let words: [u64; OPENING_WORDS] =
                std::array::from_fn(|at| pages.word(entry + at).unwrap_or_default());
            Holding::of(&words)
        });
        // Its walk can restart, too.
        let spilled = self.spilled.iter().take(SPILLED_MAX as usize);
        let spilled = spilled.filter_map(|found| {
            let (_, value) = found.ok()?;
            value.first_chunk().map(Holding::of)
        });
        Ok(in_slots.chain(spilled).collect())
    }

    /// Maps the table. It is mapped only meanwhile, because mapped pages count as memory of the
    /// agent.
    fn pages(&self) -> io::Result<SharedPages> {
        SharedPages::of(self.slots.fd().as_fd(), SLOTS as usize * SLOT_SIZE)
    }
}

/// Returns the index of each slot that an attempt under way holds.
fn held_slots(pages: &SharedPages) -> impl Iterator<Item = usize> {
    let is_held = |slot: &usize| {
        let at = slot * SLOT_WORDS;
        let (Some(claims), Some(seal)) = (pages.word(at), pages.word(at + 1)) else {
            return false;
        };
        SlotWords { claims, seal }.is_held()
    };
    (0..SLOTS as usize).filter(is_held)
}
