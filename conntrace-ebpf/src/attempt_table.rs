//! Entries of the attempts under way: a table of slots, and a map for collisions.
//!
//! Inserting into the map and removing again takes about 350 ns, mostly for locks. A slot takes
//! two atomic additions. The hash of the socket's address selects the slot. If another socket
//! occupies it, the entry goes into the map. From then on, a lookup that misses in this slot also
//! searches the map.
//!
//! Entries are inserted, taken and written under the lock of their socket. Only the claim of
//! a free slot by two sockets at once needs care. `attempt::dropped` and `attempt::found` run
//! without the lock, and say why they may.
#![expect(unsafe_code, reason = "map values are handed out as pointers")]

use aya_ebpf::bindings::BPF_NOEXIST;
use conntrace_common::{
    claim::{AttemptSlot, Claimable, claim, give_back},
    record::SLOTS,
};

use crate::{
    kernel,
    maps::{ATTEMPTS, AttemptEntry, TableSlot, slot},
    sync,
};

/// 2^32 divided by the golden ratio: odd, and without a pattern.
const SPREAD: u32 = 0x9e37_79b9;

impl TableSlot {
    #[inline(always)]
    fn is_of(&self, sock: u64) -> bool {
        self.sock == sock
    }
}

impl Claimable for TableSlot {
    #[inline(always)]
    fn claims(&self) -> u32 {
        sync::load(&self.claims)
    }

    #[inline(always)]
    fn add_claims(&mut self, count: u32) {
        sync::add(&mut self.claims, count);
    }
}

impl AttemptSlot for TableSlot {
    /// Stores the owner. x86-64 does not reorder stores.
    #[inline(always)]
    fn name(&mut self, sock: u64) {
        sync::store(&mut self.sock, sock);
    }
}

/// Inserts the entry of an attempt that has none. Returns false if the map is full.
#[inline(always)]
pub fn insert(sock: u64, entry: &AttemptEntry) -> bool {
    let Some(slot) = slot_of(sock) else {
        return false;
    };
    if claim(slot) {
        slot.entry = *entry;
        slot.name(sock);
        return true;
    }
    slot.spilled = 1;
    insert_in_map(sock, entry)
}

/// Inserts the entry of an attempt that was found under way, without the lock of its socket. The
/// map accepts only one of two concurrent inserts.
///
/// A hook can take the slot meanwhile only if the socket connects again while tracing starts.
/// Lookups then find the slot first, and this entry is removed with the socket.
#[inline(always)]
pub fn insert_found(sock: u64, entry: &AttemptEntry) -> bool {
    let Some(slot) = slot_of(sock) else {
        return false;
    };
    slot.spilled = 1;
    !slot.is_of(sock) && insert_in_map(sock, entry)
}

#[inline(always)]
fn insert_in_map(sock: u64, entry: &AttemptEntry) -> bool {
    ATTEMPTS.insert(sock, entry, u64::from(BPF_NOEXIST)).is_ok()
}

/// Returns the entry of this socket's attempt.
#[inline(always)]
pub fn find(sock: u64) -> Option<&'static mut AttemptEntry> {
    let slot = slot_of(sock)?;
    if slot.is_of(sock) {
        return Some(&mut slot.entry);
    }
    if slot.spilled == 0 {
        return None;
    }
    let entry = ATTEMPTS.get_ptr_mut(sock)?;
    // SAFETY: the map is preallocated, so the memory is never freed.
    Some(unsafe { &mut *entry })
}

/// Moves the entry of this socket's attempt to `entry`, and returns false if it has none. Only
/// the program that takes the entry may report the attempt.
#[inline(always)]
pub fn take(sock: u64, entry: &mut AttemptEntry) -> bool {
    let Some(slot) = slot_of(sock) else {
        return false;
    };
    if slot.is_of(sock) {
        entry.copy_from(&slot.entry);
        give_back(slot);
        return true;
    }
    if slot.spilled == 0 {
        return false;
    }
    let Some(kept) = ATTEMPTS.get_ptr(sock) else {
        return false;
    };
    // SAFETY: the map is preallocated, so the memory is never freed. Another entry reuses it only
    // after the removal.
    entry.copy_from(unsafe { &*kept });
    ATTEMPTS.remove(sock).is_ok()
}

/// Start of an attempt whose entry was removed.
pub struct StartedAttempt {
    pub at_ns: u64,
    /// True if a hook saw it begin; false if it was found under way.
    pub is_seen: bool,
}

impl StartedAttempt {
    #[inline(always)]
    fn of(entry: &AttemptEntry) -> Self {
        Self {
            at_ns: entry.attempt.started_ns,
            is_seen: entry.seen == 0,
        }
    }
}

/// Removes the entry of this socket's attempt and returns its start; `None` if it has none.
#[inline(always)]
pub fn forget(sock: u64) -> Option<StartedAttempt> {
    let slot = slot_of(sock)?;
    if slot.is_of(sock) {
        let began = StartedAttempt::of(&slot.entry);
        give_back(slot);
        return Some(began);
    }
    if slot.spilled == 0 {
        return None;
    }
    // There is hardly ever an entry, and a lookup takes no lock.
    let kept = ATTEMPTS.get_ptr(sock)?;
    // SAFETY: the map is preallocated, so the memory is never freed.
    let began = StartedAttempt::of(unsafe { &*kept });
    ATTEMPTS.remove(sock).is_ok().then_some(began)
}

/// Returns the slot that this socket hashes to, whoever owns it.
#[inline(always)]
fn slot_of(sock: u64) -> Option<&'static mut TableSlot> {
    // The upper half is the same for nearly all sockets.
    let hash = kernel::lower_half(sock).wrapping_mul(SPREAD);
    slot(hash >> (u32::BITS - SLOTS.ilog2()))
}
