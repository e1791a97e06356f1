//! Memory for the work on a set.

use super::{HostFacts, HostKey, HostUpdate};
use crate::{
    record::RawHistory,
    shared::{load, store},
};

/// Scratch memory of a program that looks into sets: memory of its own, which a program
/// that interrupts it does not have.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostScratch {
    /// The host or network that it is about.
    pub key: HostKey,
    /// The fact to note.
    pub fact: HostUpdate,
    /// The place that was found.
    pub known: HostFacts,
    /// The facts to tell.
    pub told: RawHistory,
    /// Time at which it was last heard before; 0 if never.
    pub heard_ns: u64,
    /// 1 if the fact was news.
    pub is_news: u64,
    /// A place, or [`WAYS`](super::WAYS).
    pub(super) index: u64,
    /// Number of places that the namespace has.
    pub(super) own: u64,
    /// Rank of the place.
    pub(super) cost: u64,
    /// The checksum that the place had.
    pub(super) check: u64,
}

impl HostScratch {
    /// The place that was found or chosen.
    #[inline(always)]
    pub(super) fn index(&self) -> usize {
        load(&self.index) as usize
    }

    /// Makes ready to be told that nothing is known.
    #[inline(always)]
    pub fn tell_nothing(&mut self) {
        let told = &mut self.told;
        store(&mut told.handshake, 0);
        store(&mut told.port_handshake_ns, 0);
        store(&mut told.reset, 0);
        store(&mut told.silent_since_ns, 0);
        store(&mut told.forgotten_ns, load(&self.fact.at_ns));
        store(&mut told.handshake_took_us, 0);
        store(&mut self.is_news, 0);
    }

    /// Makes what was found ready to be told to the fact's attempt. `missed_ns` is the set's.
    #[inline(always)]
    pub fn tell(&mut self, missed_ns: u64) {
        let (known, told) = (&self.known, &mut self.told);
        let port_handshake_ns = known.on_port_ns(load(&self.fact.port));
        store(&mut told.handshake, load(&known.ports[0]));
        store(&mut told.port_handshake_ns, port_handshake_ns);
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

    /// Tells it, but for what is known of the network.
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
