//! The attempts under way, each with its entry: a table of slots, and a map behind it.
//!
//! To insert into the map and to remove from it again takes some 350 ns, most of it for
//! locks. A slot takes two additions. An attempt's slot is the one that the hash of its
//! socket's address says; where that is another's, the entry goes into the map, and from
//! then on whoever does not find a socket in that slot asks the map as well.
//!
//! Whatever inserts, takes or writes an attempt's entry runs under its socket's lock
//! (`dropped`, which only notes a reason, and `found` say why they may do without), so that
//! only the claim of a free slot by two sockets at once needs care.
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
    /// x86-64 keeps stores in their order.
    #[inline(always)]
    fn name(&mut self, sock: u64) {
        sync::store(&mut self.sock, sock);
    }
}

/// Keeps the entry of an attempt that has none; `false` where there is no room.
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

/// Keeps the entry of an attempt that was found, outside of its socket's lock: the map lets
/// only one of two in. That a hook takes the slot at this very moment can only be when the
/// socket connects anew while tracing starts; its entry is found first, then, and this one
/// goes with the socket.
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

/// The entry of this socket's attempt.
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
    // SAFETY: the map is preallocated, so the memory stays.
    Some(unsafe { &mut *entry })
}

/// Moves the entry of this socket's attempt to `entry`; `false` if it has none. Who takes it
/// has the right to report the attempt.
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
    // SAFETY: the map is preallocated, so the memory stays. Its place is another's only
    // once it is removed.
    entry.copy_from(unsafe { &*kept });
    ATTEMPTS.remove(sock).is_ok()
}

/// Start of an attempt whose entry is removed.
pub struct StartedAttempt {
    pub at_ns: u64,
    /// It was seen to begin then, and not found under way.
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

/// Removes the entry of this socket's attempt, and tells when that began; `None` if it has
/// none.
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
    // Nearly always there is none, and looking takes no lock.
    let kept = ATTEMPTS.get_ptr(sock)?;
    // SAFETY: the map is preallocated, so the memory stays.
    let began = StartedAttempt::of(unsafe { &*kept });
    ATTEMPTS.remove(sock).is_ok().then_some(began)
}

/// The slot of this socket, whoever has it.
#[inline(always)]
fn slot_of(sock: u64) -> Option<&'static mut TableSlot> {
    // The upper half is the same for nearly all.
    let hash = kernel::lower_half(sock).wrapping_mul(SPREAD);
    slot(hash >> (u32::BITS - SLOTS.ilog2()))
}
