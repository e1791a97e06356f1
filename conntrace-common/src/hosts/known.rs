//! The words of a place, and how facts change them.

use super::{FRESH_NS, HostKey, LATELY_NS, PORTS};
use crate::{
    record::{pack, packed_ns, packed_port},
    shared::{load, store},
};

/// The facts known of one host. Of a network, whose place is alike, no ports and no RST.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The host or network that it is of; all zero while the place is free.
    pub(super) host: [u64; 3],
    /// Start of the first attempt that was not answered; 0 once anything was heard.
    pub silent_since_ns: u64,
    /// Time of the last segment from it.
    pub heard_ns: u64,
    /// The newest RST and its port, packed.
    pub reset: u64,
    /// The newest handshake on each port, packed: the newest first.
    pub ports: [u64; PORTS],
    /// Duration of the newest handshake; 0 if that is not known.
    pub handshake_took_us: u64,
    /// Time at which something about it may last have been forgotten.
    pub forgot_ns: u64,
}

/// A fact that an attempt tells of a host.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostFact {
    /// Nothing.
    #[default]
    None,
    /// It has not answered.
    Silence,
    /// Something came from it.
    Heard,
    /// A RST did.
    Reset,
    /// A handshake completed.
    Handshake,
}

/// News of a host, from one attempt.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostUpdate {
    /// Time at which it was seen.
    pub at_ns: u64,
    /// Start of the attempt.
    pub started_ns: u64,
    /// The fact.
    pub news: HostFact,
    /// The port of the host.
    pub port: u16,
    /// 1 where the attempt was seen from its beginning, so that it is known how long it took.
    pub is_whole: u16,
}

impl HostUpdate {
    /// Duration of a handshake in microseconds, at least 1; 0 if that is not known.
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
    /// Begins anew: nothing is known but when it may have been forgotten.
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

    /// It is of the same namespace. A free place is of none.
    #[inline(always)]
    pub(super) fn is_beside(&self, key: &HostKey) -> bool {
        key.is_in(load(&self.host[0]))
    }

    /// Copies it, word by word, for one of both is shared, and returns the checksum of what it
    /// copied: another if any word is another.
    #[inline(always)]
    pub(super) fn copy(&mut self, from: &Self) -> u64 {
        // 2^64 divided by the golden ratio: odd, and without a pattern.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut sum = SPREAD;
        let mut copy = |to: &mut u64, from: &u64| {
            let word = load(from);
            store(to, word);
            sum = (sum ^ word).wrapping_mul(SPREAD);
            sum ^= sum >> u32::BITS;
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

    /// Something was heard of it, or it is known to be silent.
    #[inline(always)]
    fn is_noted(&self) -> bool {
        load(&self.silent_since_ns) | load(&self.heard_ns) != 0
    }

    /// A fact says more than what is known. One without a time is as old as its attempt.
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

    /// Time of the last handshake noted on this port; 0 if none is.
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
                // What was heard longer ago has gone without a note, where it was stale.
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

    /// Puts a port before the others; the last gives way if it is another.
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
