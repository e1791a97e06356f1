//! Scratch memory for work on a set.

use super::{HostFacts, HostKey, HostUpdate};
use crate::{
    record::RawHistory,
    shared::{load, store},
};

/// Scratch memory of a program that reads and writes sets. A program that interrupts it has its
/// own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostScratch {
    /// Key of the host or network.
    pub key: HostKey,
    /// Fact to store.
    pub fact: HostUpdate,
    /// Copy of the facts that were found.
    pub known: HostFacts,
    /// Facts to report in the record.
    pub told: RawHistory,
    /// Last time at which the set dropped a fact.
    pub missed_ns: u64,
    /// Time of the host's last answer before this fact; 0 if none.
    pub heard_ns: u64,
    /// 1 if the fact was new, else 0.
    pub is_news: u64,
    /// Index of the slot; [`WAYS`](super::WAYS) if there is none.
    pub(super) index: u64,
    /// Number of slots in the set that the namespace holds.
    pub(super) own: u64,
    /// Cost of evicting the chosen slot.
    pub(super) cost: u64,
    /// Checksum of the slot at the lookup.
    pub(super) check: u64,
}

impl HostScratch {
    /// Returns the index of the slot that was found or chosen.
    #[inline(always)]
    pub(super) fn index(&self) -> usize {
        load(&self.index) as usize
    }

    /// Sets facts as of a host that was evicted now.
    #[inline(always)]
    pub fn find_nothing(&mut self) {
        let key = self.key;
        let now_ns = load(&self.fact.at_ns);
        self.known.begin(&key, now_ns);
        store(&mut self.missed_ns, now_ns);
        store(&mut self.heard_ns, 0);
    }

    /// Prepares the report of the facts that were found. `missed_ns` is the set's.
    #[inline(always)]
    pub fn tell(&mut self, missed_ns: u64) {
        tell(
            &self.known,
            load(&self.fact.port),
            missed_ns,
            &mut self.told,
        );
    }

    /// Writes the facts that were found into a record, without those about the network. They must
    /// not include the fact to store.
    #[inline(always)]
    pub fn tell_found(&self, told: &mut RawHistory) {
        let missed_ns = load(&self.missed_ns);
        tell(&self.known, load(&self.fact.port), missed_ns, told);
    }

    /// Copies the prepared report into a record, without the facts about the network.
    #[inline(always)]
    pub fn tell_to(&self, told: &mut RawHistory) {
        let own = &self.told;
        store(&mut told.handshake, load(&own.handshake));
        store(&mut told.port_handshake_ns, load(&own.port_handshake_ns));
        store(&mut told.reset, load(&own.reset));
        store(&mut told.silent_since_ns, load(&own.silent_since_ns));
        store(&mut told.forgotten_ns, load(&own.forgotten_ns));
        store(&mut told.handshake_took_us, load(&own.handshake_took_us));
    }
}

#[inline(always)]
fn tell(known: &HostFacts, port: u16, missed_ns: u64, told: &mut RawHistory) {
    store(&mut told.handshake, load(&known.ports[0]));
    store(&mut told.port_handshake_ns, known.on_port_ns(port));
    store(&mut told.reset, load(&known.reset));
    store(&mut told.silent_since_ns, load(&known.silent_since_ns));
    store(
        &mut told.forgotten_ns,
        load(&known.forgot_ns).max(missed_ns),
    );
    store(
        &mut told.handshake_took_us,
        load(&known.handshake_took_us) as u32,
    );
}
