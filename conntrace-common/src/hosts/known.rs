//! Facts about one host, and their updates.

use super::{FRESH_NS, HostKey, LATELY_NS, PORTS};
use crate::{
    record::{RawHistory, pack, packed_ns, packed_port},
    shared::{load, store},
};

/// Factor of checksums: odd, so that no bit is lost, and small enough for the constant of an
/// instruction.
const SUM_FACTOR: u64 = 0x1e37_79b1;
/// Checksum of no words.
const SUM_START: u64 = SUM_FACTOR;

/// Adds a word to a checksum. The weight of a word is its place, so that words that changed places
/// show.
#[inline(always)]
const fn add_to_sum(sum: u64, word: u64) -> u64 {
    sum.wrapping_mul(SUM_FACTOR).wrapping_add(word)
}

/// Facts about one host. For a network, ports and RST are unused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Key of the host or network; all zero if the slot is free.
    pub(super) host: [u64; 3],
    /// Start of the first unanswered attempt; 0 once the host has answered.
    pub silent_since_ns: u64,
    /// Time of the last segment from the host.
    pub heard_ns: u64,
    /// Time and port of the last RST, packed.
    pub reset: u64,
    /// Time and port of the last handshake on each port, packed, newest first.
    pub ports: [u64; PORTS],
    /// Duration of the last handshake in microseconds; 0 if unknown.
    pub handshake_took_us: u64,
    /// Last time at which a fact about the host may have been evicted.
    pub forgot_ns: u64,
}

/// Fact about a host that an attempt reveals.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostFact {
    /// No fact.
    #[default]
    None,
    /// The host did not answer.
    Silence,
    /// A segment arrived from the host.
    Heard,
    /// A RST arrived from the host.
    Reset,
    /// A handshake with the host completed.
    Handshake,
}

/// Update of a host's facts by one attempt.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostUpdate {
    /// Time of the fact, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Start of the attempt, in nanoseconds of `CLOCK_BOOTTIME`.
    pub started_ns: u64,
    /// Kind of fact.
    pub news: HostFact,
    /// Port of the host.
    pub port: u16,
    /// 1 if the attempt was observed from its beginning, so that its duration is known; else 0.
    pub is_whole: u16,
}

impl HostUpdate {
    /// Returns the duration of a handshake in microseconds, at least 1; 0 if unknown.
    #[inline(always)]
    fn took_us(&self) -> u64 {
        if load(&self.is_whole) == 0 {
            return 0;
        }
        let took_ns = load(&self.at_ns).saturating_sub(load(&self.started_ns));
        (took_ns / 1000).clamp(1, u64::from(u32::MAX))
    }
}

impl HostFacts {
    /// Clears all facts and sets the key and the time of the last eviction.
    #[inline(always)]
    pub(super) fn begin(&mut self, key: &HostKey, forgot_ns: u64) {
        for (word, of_key) in self.host.iter_mut().zip(key.0) {
            store(word, of_key);
        }
        for word in &mut self.ports {
            store(word, 0);
        }
        store(&mut self.silent_since_ns, 0);
        store(&mut self.heard_ns, 0);
        store(&mut self.reset, 0);
        store(&mut self.handshake_took_us, 0);
        store(&mut self.forgot_ns, forgot_ns);
    }

    #[inline(always)]
    pub(super) fn is_of(&self, key: &HostKey) -> bool {
        let differing = self.host.iter().zip(&key.0);
        differing.fold(0, |other, (at, own)| other | (load(at) ^ own)) == 0
    }

    /// Returns true if it belongs to the same namespace. A free slot belongs to none.
    #[inline(always)]
    pub(super) fn is_beside(&self, key: &HostKey) -> bool {
        key.is_in(load(&self.host[0]))
    }

    /// Copies all words, one at a time because one side is shared, and returns a checksum of them.
    #[inline(always)]
    pub(super) fn copy(&mut self, from: &Self) -> u64 {
        let mut sum = SUM_START;
        let mut copy = |to: &mut u64, from: &u64| {
            let word = load(from);
            store(to, word);
            sum = add_to_sum(sum, word);
        };
        for (to, from) in self.host.iter_mut().zip(&from.host) {
            copy(to, from);
        }
        for (to, from) in self.ports.iter_mut().zip(&from.ports) {
            copy(to, from);
        }
        copy(&mut self.silent_since_ns, &from.silent_since_ns);
        copy(&mut self.heard_ns, &from.heard_ns);
        copy(&mut self.reset, &from.reset);
        copy(&mut self.handshake_took_us, &from.handshake_took_us);
        copy(&mut self.forgot_ns, &from.forgot_ns);
        sum
    }

    /// Returns true if the host has answered, or is known to be silent.
    #[inline(always)]
    fn is_noted(&self) -> bool {
        load(&self.silent_since_ns) | load(&self.heard_ns) != 0
    }

    /// Writes the facts into a record, as `HostBucket::recall` does for the slot of this host. Each
    /// word is loaded once, because another CPU may write it.
    #[inline(always)]
    pub(super) fn recall(
        &self,
        key: &HostKey,
        check: u64,
        fact: &HostUpdate,
        missed_ns: u64,
        told: &mut RawHistory,
    ) -> bool {
        let mut sum = SUM_START;
        for word in key.0 {
            sum = add_to_sum(sum, word);
        }
        let (at_ns, port) = (load(&fact.at_ns), load(&fact.port));
        let mut newest = 0;
        let mut port_handshake_ns = 0;
        for (at, word) in self.ports.iter().enumerate() {
            let word = load(word);
            sum = add_to_sum(sum, word);
            if at == 0 {
                newest = word;
            }
            if packed_port(word) == port {
                port_handshake_ns = packed_ns(word);
            }
        }
        let silent_since_ns = load(&self.silent_since_ns);
        let heard_ns = load(&self.heard_ns);
        let reset = load(&self.reset);
        let took_us = load(&self.handshake_took_us);
        let forgot_ns = load(&self.forgot_ns);
        for word in [silent_since_ns, heard_ns, reset, took_us, forgot_ns] {
            sum = add_to_sum(sum, word);
        }
        let noted_ns = match load(&fact.news) {
            HostFact::None => at_ns,
            HostFact::Reset => packed_ns(reset),
            HostFact::Heard => heard_ns,
            HostFact::Handshake => port_handshake_ns,
            // Known of a host that has answered: see below.
            HostFact::Silence => at_ns,
        };
        let is_stale = at_ns.saturating_sub(noted_ns) >= FRESH_NS;
        if sum != check || heard_ns == 0 || silent_since_ns != 0 || is_stale {
            return false;
        }
        store(&mut told.handshake, newest);
        store(&mut told.port_handshake_ns, port_handshake_ns);
        store(&mut told.reset, reset);
        store(&mut told.silent_since_ns, 0);
        store(&mut told.network_silent_since_ns, 0);
        store(&mut told.forgotten_ns, forgot_ns.max(missed_ns));
        store(&mut told.handshake_took_us, took_us as u32);
        store(&mut told.reserved, 0);
        true
    }

    /// Returns true if a handshake on this port was stored within [`FRESH_NS`] before `now_ns`, and
    /// no silence since. The facts may be half overwritten by those of another host. Then this one
    /// was evicted just now, which the set records, so that nothing is taken for absent.
    #[inline(always)]
    pub(super) fn has_fresh_handshake(&self, port: u16, now_ns: u64) -> bool {
        let noted_ns = self.on_port_ns(port);
        now_ns.saturating_sub(noted_ns) < FRESH_NS && load(&self.silent_since_ns) == 0
    }

    /// Returns true if the fact is new. A fact without a time is as old as its attempt.
    #[inline(always)]
    #[must_use]
    pub fn lacks(&self, fact: &HostUpdate) -> bool {
        let news = load(&fact.news);
        if news == HostFact::None {
            return false;
        }
        if news == HostFact::Silence {
            return !self.is_noted();
        }
        let noted_ns = match news {
            HostFact::Handshake => self.on_port_ns(load(&fact.port)),
            HostFact::Reset => packed_ns(load(&self.reset)),
            HostFact::Heard | HostFact::Silence | HostFact::None => load(&self.heard_ns),
        };
        let now_ns = load(&fact.at_ns).max(load(&fact.started_ns));
        now_ns.saturating_sub(noted_ns) >= FRESH_NS || load(&self.silent_since_ns) != 0
    }

    /// Returns the time of the last handshake on this port; 0 if unknown.
    #[inline(always)]
    pub(super) fn on_port_ns(&self, port: u16) -> u64 {
        let mut newest_ns = 0;
        for word in &self.ports {
            let word = load(word);
            if packed_port(word) == port {
                newest_ns = packed_ns(word);
            }
        }
        newest_ns
    }

    #[inline(always)]
    pub(super) fn note(&mut self, fact: &HostUpdate) {
        let at_ns = load(&fact.at_ns);
        let news = load(&fact.news);
        if news == HostFact::Silence {
            if !self.is_noted() {
                // Answers older than `LATELY_NS` may have been evicted without a trace.
                let kept_ns = at_ns.saturating_sub(LATELY_NS);
                store(
                    &mut self.silent_since_ns,
                    kept_ns.max(load(&fact.started_ns)),
                );
            }
            return;
        }
        if news == HostFact::Reset {
            store(&mut self.reset, pack(at_ns, load(&fact.port)));
        }
        if news == HostFact::Handshake {
            store(&mut self.handshake_took_us, fact.took_us());
            self.note_port(at_ns, load(&fact.port));
        }
        store(&mut self.heard_ns, at_ns);
        store(&mut self.silent_since_ns, 0);
    }

    /// Moves a port to the front, or inserts it and evicts the last one.
    #[inline(always)]
    fn note_port(&mut self, at_ns: u64, port: u16) {
        let mut moved = pack(at_ns, port);
        for word in &mut self.ports {
            let before = load(word);
            store(word, moved);
            if packed_port(before) == port {
                return;
            }
            moved = before;
        }
        if moved != 0 && at_ns.saturating_sub(packed_ns(moved)) < LATELY_NS {
            store(&mut self.forgot_ns, at_ns);
        }
    }
}
