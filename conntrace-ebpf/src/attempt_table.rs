//! Entries of the attempts under way: a table of slots, and a map for collisions.
//!
//! Inserting into the map and removing again takes about 350 ns, mostly for locks. A slot takes
//! two atomic additions. The hash of the socket's address selects the slot. If another attempt
//! occupies it, the entry goes into the map, if the shares of its owner allow it. While a slot has
//! such entries, a lookup that misses in it also searches the map.
//!
//! Entries are inserted, released and written under the lock of their socket. Only the claim of a
//! free slot by two sockets at once needs care (`conntrace_common::claim`). `attempt::dropped`,
//! `attempt::icmp6_came` and `attempt::found` may run without the lock: a note can then count for
//! the next attempt in the slot.
//!
//! A released slot keeps its entry until another attempt needs the place: it tells who owns an
//! established connection.
#![expect(unsafe_code, reason = "map values are handed out as pointers")]

use aya_ebpf::bindings::BPF_NOEXIST;
use conntrace_common::{
    claim::{AttemptSlot, Claimable, claim, holder, release, seal_offset},
    shares::{self, Held},
    table::SLOTS,
};

use crate::{
    kernel,
    maps::{ATTEMPTS, AttemptEntry, SpilledEntry, TableSlot, hash_secret, held, slot},
    sync::{add, add_word, load, store},
};

/// 2^32 divided by the golden ratio: odd, and without a pattern.
const SPREAD: u32 = 0x9e37_79b9;

impl Claimable for TableSlot {
    #[inline(always)]
    fn claims(&self) -> u64 {
        load(&self.claims)
    }

    #[inline(always)]
    fn add_claims(&mut self, count: u64) {
        add_word(&mut self.claims, count);
    }
}

impl AttemptSlot for TableSlot {
    #[inline(always)]
    fn seal(&self) -> u64 {
        load(&self.seal)
    }
}

impl TableSlot {
    #[inline(always)]
    fn is_held_by(&self, sock: u64) -> bool {
        holder(self) == sock
    }

    /// Writes the seal. The verifier forbids arithmetic on an address, but not on a number that is
    /// loaded from a map.
    #[inline(always)]
    fn sign(&mut self, sock: u64, epoch: u32) {
        store(&mut self.seal, sock);
        let sock = load(&self.seal);
        store(&mut self.seal, sock.wrapping_add(seal_offset(epoch)));
    }
}

/// Slot that was claimed for an attempt.
pub struct Claimed {
    slot: &'static mut TableSlot,
    epoch: u32,
}

impl Claimed {
    /// Returns the entry to fill.
    #[inline(always)]
    pub fn entry(&mut self) -> &mut AttemptEntry {
        &mut self.slot.entry
    }

    /// Makes the entry that of this socket.
    #[inline(always)]
    pub fn sign(self, sock: u64) {
        self.slot.sign(sock, self.epoch);
    }
}

/// Slot of a socket, whoever holds it.
pub struct Place(&'static mut TableSlot);

impl Place {
    /// Returns false only if the socket has no entry, neither in the slot nor in the map.
    #[inline(always)]
    pub fn may_have_entry(&self) -> bool {
        self.0.claims() as u32 | load(&self.0.spilled) != 0
    }

    /// Claims the slot for a socket whose attempt has no entry. `None` if another attempt holds it:
    /// the entry goes into the map then ([`spill`]).
    #[inline(always)]
    pub fn claim(self) -> Option<Claimed> {
        let epoch = claim(self.0)?;
        Some(Claimed {
            slot: self.0,
            epoch,
        })
    }
}

/// Returns the slot of a socket.
#[inline(always)]
pub fn place(sock: u64) -> Option<Place> {
    slot_of(sock).map(Place)
}

/// Owner of an attempt, who has a share of the map.
#[derive(Clone, Copy)]
pub struct Owner {
    /// Lasting id of the network namespace.
    pub netns: u64,
    /// Real user id of the caller.
    pub uid: u32,
}

/// Inserts an entry into the map. Returns false if the map is full, or if the owner holds more
/// than its share of it. The slot's count of such entries is raised first, so that a lookup never
/// misses one.
#[inline(never)]
pub fn spill(sock: u64, owner: &Owner, spare: &mut SpilledEntry) -> bool {
    let Some(slot) = slot_of(sock) else {
        return false;
    };
    let netns = shares::of_netns(hash_secret(), owner.netns);
    let user = shares::of_user(hash_secret(), owner.uid);
    let (Some(total), Some(of_netns), Some(of_user)) =
        (held(shares::TOTAL), held(netns), held(user))
    else {
        return false;
    };
    let counts = Held {
        total: load(total),
        of_netns: load(of_netns),
        of_user: load(of_user),
    };
    if !counts.admits(owner.uid) {
        return false;
    }
    spare.netns = netns as u16;
    spare.user = user as u16;
    add(&mut slot.spilled, 1);
    if ATTEMPTS
        .insert(sock, &*spare, u64::from(BPF_NOEXIST))
        .is_err()
    {
        add(&mut slot.spilled, u32::MAX);
        return false;
    }
    for count in [total, of_netns, of_user] {
        add(count, 1);
    }
    true
}

/// Removes the entry of a socket from the map. Returns false if it has none.
#[inline(never)]
fn unspill(sock: u64, slot: &mut TableSlot) -> bool {
    let Some(kept) = ATTEMPTS.get_ptr(sock) else {
        return false;
    };
    // SAFETY: the map is preallocated, so the memory is never freed.
    let (netns, user) = unsafe { ((*kept).netns, (*kept).user) };
    if ATTEMPTS.remove(sock).is_err() {
        return false;
    }
    add(&mut slot.spilled, u32::MAX);
    for index in [shares::TOTAL, u32::from(netns), u32::from(user)] {
        if let Some(count) = held(index) {
            add(count, u32::MAX);
        }
    }
    true
}

/// `Notes::seen` of an attempt that has ended and whose entry could not be removed.
const OVER: u8 = u8::MAX;

/// Entry of an attempt under way, and where it is.
pub struct Found {
    pub entry: &'static mut AttemptEntry,
    slot: &'static mut TableSlot,
    in_slot: bool,
}

impl Found {
    /// Returns true for the entry of an attempt that has ended, which the kernel refused to remove.
    #[inline(always)]
    pub fn is_over(&self) -> bool {
        load(&self.entry.notes.seen) == OVER
    }

    /// Ends the attempt. The entry may be overwritten from now on.
    #[inline(always)]
    pub fn release(self, sock: u64) {
        if self.in_slot {
            release(self.slot);
        } else if !unspill(sock, self.slot) {
            // The kernel refused to remove it. It must not be reported or counted again.
            store(&mut self.entry.notes.seen, OVER);
        }
    }
}

/// Returns the entry of this socket's attempt.
#[inline(always)]
pub fn find(sock: u64) -> Option<Found> {
    let slot = slot_of(sock)?;
    // SAFETY: the entry is a part of the slot that nothing else of it aliases.
    let entry = unsafe { &mut *core::ptr::from_mut(&mut slot.entry) };
    if slot.is_held_by(sock) {
        return Some(Found {
            entry,
            slot,
            in_slot: true,
        });
    }
    if load(&slot.spilled) == 0 {
        return None;
    }
    let kept = ATTEMPTS.get_ptr_mut(sock)?;
    // SAFETY: the map is preallocated, so the memory is never freed.
    let entry = unsafe { &mut (*kept).entry };
    Some(Found {
        entry,
        slot,
        in_slot: false,
    })
}

/// Returns true if this socket has an attempt under way.
#[inline(always)]
pub fn is_under_way(sock: u64) -> bool {
    find(sock).is_some()
}

/// Removes the entry of this socket's attempt. Returns false if it has none, or one that has ended.
#[inline(always)]
pub fn forget(sock: u64) -> bool {
    match find(sock) {
        Some(found) => {
            let is_over = found.is_over();
            found.release(sock);
            !is_over
        }
        None => false,
    }
}

/// Returns the slot that this socket hashes to, whoever owns it.
#[inline(always)]
fn slot_of(sock: u64) -> Option<&'static mut TableSlot> {
    // The upper half is the same for nearly all sockets.
    let hash = kernel::lower_half(sock).wrapping_mul(SPREAD);
    slot(hash >> (u32::BITS - SLOTS.ilog2()))
}
