//! The memory of hosts: which answered, when and on which port, or how long one has answered
//! nothing.
//!
//! A table of sets, each of a few places. A host has one place, in the set that the hash of
//! its key says; a private network has one as well. A set is small and forgets, so it notes
//! when it does: what may have been forgotten is unknown, and never told as absent.
//!
//! Here is what happens within a set; the programs claim one before they write it. A place
//! carries a checksum of its words: a reader that meets a writer finds it torn, on any
//! architecture and without an order of the accesses.
//!
//! Every value is read from memory where it is needed ([`HostScratch`]): the verifier follows the
//! values that it finds in registers, and would go through all that comes behind anew for
//! each that differs.

mod key;
mod known;
mod work;

pub use key::HostKey;
pub use known::{HostFact, HostFacts, HostUpdate};
pub use work::HostScratch;

use crate::shared::{load, store};

/// Sets in the table, a power of two.
pub const SETS: u32 = 4096;
/// Places in a set.
pub const WAYS: usize = 4;
/// Most places of a set that one network namespace holds: the rest is for others.
pub const WAYS_OF_ONE: u64 = 3;
/// Ports that are remembered of a host.
pub const PORTS: usize = 4;
/// An answer counts as evidence for so long. A younger one is not forgotten without a note.
pub const LATELY_NS: u64 = 600 * 1_000_000_000;
/// The same fact is not noted again for so long.
pub const FRESH_NS: u64 = 1_000_000_000;

/// One host, or one network.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HostSlot {
    /// Of all other words; anything else while they are written.
    check: u64,
    known: HostFacts,
}

impl HostSlot {
    /// Copies what it holds. `false` where the checksum does not match.
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

/// Places of the hosts that share a hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HostBucket {
    /// Time at which a fact was last dropped, because another CPU was writing the set.
    missed_ns: u64,
    /// Time at which a host or a network was last given no place.
    turned_away_ns: u64,
    ways: [HostSlot; WAYS],
}

impl HostBucket {
    /// Time at which a fact was last not noted in it.
    #[inline(always)]
    #[must_use]
    pub fn missed_ns(&self) -> u64 {
        load(&self.missed_ns)
    }

    /// Notes that something is not noted.
    #[inline(always)]
    pub fn miss(&mut self, now_ns: u64) {
        store(&mut self.missed_ns, now_ns);
    }

    /// Finds out what is known of a host. Of one that has no place, that is when it may have
    /// been forgotten; of one whose place is torn, that it is forgotten now.
    #[inline(always)]
    pub fn look(&self, key: &HostKey, now_ns: u64, work: &mut HostScratch) {
        self.find(key, work);
        match self.ways.get(work.index()) {
            Some(place) if place.read(work) => {}
            Some(_) => work.known.begin(key, now_ns),
            None => self.look_beside(key, work),
        }
    }

    /// Notes the work's fact about a host that it has looked for, and finds out what is known
    /// of it then. The caller has claimed the set. A place that was written since the look is
    /// left as it is.
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

    /// Finds the place of a host; [`WAYS`] if it has none.
    #[inline(always)]
    fn find(&self, key: &HostKey, work: &mut HostScratch) {
        store(&mut work.index, WAYS as u64);
        for (index, place) in self.ways.iter().enumerate() {
            if place.known.is_of(key) {
                store(&mut work.index, index as u64);
            }
        }
    }

    /// Counts the places of a host's namespace. All that is known of one that has no place
    /// is when something about it may last have been forgotten.
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

    /// Chooses the place that a new host gets: a free one, else a stale one, else of its own
    /// namespace's the one that was never heard, else the one that was not heard for longest.
    /// Never another namespace's that still counts.
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

/// Rank of a place, the least is the best: a stale or free one as it is, of others the
/// class before the age.
const OWN_UNHEARD: u64 = 1 << 62;
const OWN_HEARD: u64 = 2 << 62;
const TAKEN: u64 = 3 << 62;

/// Rank of a place for a new host, whose namespace has `own` of the set.
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
