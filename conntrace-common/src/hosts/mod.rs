//! Host table: caches the last answers of each remote host, or since when it has been silent.
//!
//! The table consists of sets with a few slots each. The hash of a key selects the set; hosts
//! and private networks have one slot each. A full set evicts hosts and records the time. A fact
//! that may have been evicted is unknown, and never reported as absent.
//!
//! This module works within one set, which the programs claim before they write. A checksum
//! guards each slot: a reader detects a concurrent write on any architecture, without ordered
//! accesses.
//!
//! Values are loaded from memory ([`HostScratch`]) wherever they are needed. The verifier tracks
//! values in registers, and would check the following code again for each different value.

mod key;
mod known;
mod work;

pub use key::HostKey;
pub use known::{HostFact, HostFacts, HostUpdate};
pub use work::HostScratch;

use crate::{
    record::RawHistory,
    shared::{load, store},
};

/// Number of sets in the table, a power of two.
pub const SETS: u32 = 4096;
/// Number of slots in a set.
pub const WAYS: usize = 4;
/// Maximum number of slots in a set that one network namespace may hold.
pub const WAYS_OF_ONE: u64 = 3;
/// Number of ports cached for a host.
pub const PORTS: usize = 4;
/// Time in nanoseconds for which an answer counts as evidence. The eviction of a younger one is
/// recorded.
pub const LATELY_NS: u64 = 600 * 1_000_000_000;
/// Minimum time in nanoseconds between two writes of the same fact.
pub const FRESH_NS: u64 = 1_000_000_000;

/// Slot of one host or one network.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HostSlot {
    /// Checksum of all other words; differs from it during a write.
    check: u64,
    known: HostFacts,
}

impl HostSlot {
    /// Copies the facts to `work`. Returns false on a checksum mismatch.
    #[inline(always)]
    fn read(&self, work: &mut HostScratch) -> bool {
        store(&mut work.check, load(&self.check));
        load(&work.check) == work.known.copy(&self.known)
    }

    #[inline(always)]
    fn write(&mut self, known: &HostFacts) {
        let check = self.known.copy(known);
        store(&mut self.check, check);
    }
}

/// Set of slots for the keys that share a hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HostBucket {
    /// Last time at which a fact was dropped because another CPU was writing the set.
    missed_ns: u64,
    /// Last time at which a host or network was not cached because the set was full.
    turned_away_ns: u64,
    ways: [HostSlot; WAYS],
}

impl HostBucket {
    /// Returns the last time at which a fact was dropped.
    #[inline(always)]
    #[must_use]
    pub fn missed_ns(&self) -> u64 {
        load(&self.missed_ns)
    }

    /// Records that a fact is dropped.
    #[inline(always)]
    pub fn miss(&mut self, now_ns: u64) {
        store(&mut self.missed_ns, now_ns);
    }

    /// Returns true if a handshake with a host on this port was stored lately, so that another one
    /// is no news.
    #[inline(always)]
    #[must_use]
    pub fn knows_handshake(&self, key: &HostKey, port: u16, now_ns: u64) -> bool {
        for place in &self.ways {
            if place.known.is_of(key) {
                return place.known.has_fresh_handshake(port, now_ns);
            }
        }
        false
    }

    /// Writes the facts about a host that has answered before into a record, if the fact of this
    /// attempt is no news. Returns false if it is, or if the host must be looked up with a scratch
    /// memory for another reason.
    #[inline(always)]
    pub fn recall(&self, key: &HostKey, fact: &HostUpdate, told: &mut RawHistory) -> bool {
        for place in &self.ways {
            if place.known.is_of(key) {
                let check = load(&place.check);
                let missed_ns = load(&self.missed_ns);
                return place.known.recall(key, check, fact, missed_ns, told);
            }
        }
        false
    }

    /// Looks up a host. For a host without a slot, the result has only the time of the last
    /// possible eviction. A slot with a checksum mismatch counts as evicted now.
    #[inline(always)]
    pub fn look(&self, key: &HostKey, now_ns: u64, work: &mut HostScratch) {
        self.find(key, work);
        match self.ways.get(work.index()) {
            Some(place) if place.read(work) => {}
            Some(_) => work.known.begin(key, now_ns),
            None => self.look_beside(key, work),
        }
    }

    /// Stores the fact in `work` about a host that was looked up, and updates the facts there. The
    /// caller must have claimed the set. A slot written since the lookup is left unchanged, and the
    /// fact is dropped.
    #[inline(always)]
    pub fn note(&mut self, key: &HostKey, work: &mut HostScratch) {
        let now_ns = load(&work.fact.at_ns);
        if let Some(place) = self.ways.get(work.index()) {
            if load(&place.check) != load(&work.check) {
                return self.miss(now_ns);
            }
        } else {
            self.find(key, work);
            if work.index() < WAYS {
                return self.miss(now_ns);
            }
            self.look_beside(key, work);
            self.choose(key, now_ns, work);
        }
        if let Some(place) = self.ways.get_mut(work.index()) {
            work.known.note(&work.fact);
            place.write(&work.known);
        } else {
            store(&mut self.turned_away_ns, now_ns);
            store(&mut work.known.forgot_ns, now_ns);
        }
    }

    /// Finds the slot of a host; the index is [`WAYS`] if it has none.
    #[inline(always)]
    fn find(&self, key: &HostKey, work: &mut HostScratch) {
        store(&mut work.index, WAYS as u64);
        for (index, place) in self.ways.iter().enumerate() {
            if place.known.is_of(key) {
                store(&mut work.index, index as u64);
                return;
            }
        }
    }

    /// Counts the slots of a host's namespace, and resets the facts to the last time at which
    /// one of that namespace may have been evicted.
    #[inline(always)]
    fn look_beside(&self, key: &HostKey, work: &mut HostScratch) {
        store(&mut work.own, 0);
        work.known.begin(key, load(&self.turned_away_ns));
        for place in &self.ways {
            if place.known.is_beside(key) {
                let own = load(&work.own) + 1;
                store(&mut work.own, own);
                let forgot_ns = load(&place.known.forgot_ns);
                if load(&work.known.forgot_ns) < forgot_ns {
                    store(&mut work.known.forgot_ns, forgot_ns);
                }
            }
        }
    }

    /// Chooses the slot for a new host, in this order: a free one, the oldest stale one, one of the
    /// same namespace that never answered, and the one of the same namespace with the oldest
    /// answer. A fresh slot of another namespace is never evicted.
    #[inline(always)]
    fn choose(&self, key: &HostKey, now_ns: u64, work: &mut HostScratch) {
        store(&mut work.cost, TAKEN);
        for (index, place) in self.ways.iter().enumerate() {
            let cost = cost(&place.known, key, now_ns, load(&work.own));
            if cost < load(&work.cost) {
                store(&mut work.cost, cost);
                store(&mut work.index, index as u64);
            }
        }
        let cost = load(&work.cost);
        if (OWN_HEARD..TAKEN).contains(&cost) {
            store(&mut work.known.forgot_ns, now_ns);
        }
    }
}

/// Cost classes of slots, the lowest is evicted first. The class is in the upper bits, the time
/// below; free and stale slots have only the time.
const OWN_UNHEARD: u64 = 1 << 62;
const OWN_HEARD: u64 = 2 << 62;
const TAKEN: u64 = 3 << 62;

/// Returns the cost of evicting a slot for a new host whose namespace holds `own` slots.
#[inline(always)]
fn cost(known: &HostFacts, key: &HostKey, now_ns: u64, own: u64) -> u64 {
    let is_own = known.is_beside(key);
    if own >= WAYS_OF_ONE && !is_own {
        return TAKEN;
    }
    let mut class = OWN_HEARD;
    let mut newest_ns = load(&known.heard_ns);
    if newest_ns == 0 {
        class = OWN_UNHEARD;
        newest_ns = load(&known.silent_since_ns).max(load(&known.forgot_ns));
    }
    if newest_ns == 0 || now_ns.saturating_sub(newest_ns) >= LATELY_NS {
        newest_ns
    } else if is_own {
        class | newest_ns
    } else {
        TAKEN
    }
}

#[cfg(test)]
mod tests;
