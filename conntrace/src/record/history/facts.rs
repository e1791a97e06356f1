//! Facts about one host, and their updates.

use conntrace_common::host_key::HostKey;

use super::{
    RawHistory,
    raw::{pack, packed_ns, packed_port},
};

/// Number of ports that are remembered of a host.
const PORTS: usize = 4;
/// Time in nanoseconds for which an answer counts as evidence. The eviction of a younger one is
/// recorded.
pub(super) const LATELY_NS: u64 = 600 * 1_000_000_000;

/// Facts about one host, or about a private network, of which ports and RST are unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// Key of the host or network.
    pub(super) host: HostKey,
    /// Time since which the host has been tried in vain; 0 once it has answered.
    pub(super) silent_since_ns: u64,
    /// Time of the last segment from the host; 0 if there was none.
    pub(super) heard_ns: u64,
    /// Time and port of the last RST, packed.
    reset: u64,
    /// Time and port of the last handshake on each port, packed, newest first.
    ports: [u64; PORTS],
    /// Duration of the last handshake in microseconds; 0 if unknown.
    handshake_took_us: u32,
    /// Last time at which a fact about the host may have been evicted.
    pub(super) forgotten_ns: u64,
}

/// Fact that an attempt reveals about its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostFact {
    /// The host did not answer.
    Silence,
    /// A packet arrived from the host, or may have.
    Heard,
    /// A RST arrived from the host.
    Reset,
    /// A handshake with the host completed.
    Handshake,
}

/// Update of a host's facts by one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostUpdate {
    pub(super) fact: HostFact,
    /// Time of the fact, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(super) at_ns: u64,
    /// Start of the attempt, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(super) started_ns: u64,
    /// Port of the host, network order.
    pub(super) port: u16,
    /// True if the attempt was observed from its beginning, so that its duration is known.
    pub(super) is_whole: bool,
}

impl HostUpdate {
    /// Returns the duration of a handshake in microseconds, at least 1; 0 if unknown.
    fn took_us(&self) -> u32 {
        if !self.is_whole {
            return 0;
        }
        let took_us = self.at_ns.saturating_sub(self.started_ns) / 1000;
        u32::try_from(took_us).unwrap_or(u32::MAX).max(1)
    }
}

impl HostFacts {
    /// Nothing is known of the host, and a fact may have been evicted at this time.
    pub(super) fn nothing(host: HostKey, forgotten_ns: u64) -> Self {
        Self {
            host,
            silent_since_ns: 0,
            heard_ns: 0,
            reset: 0,
            ports: [0; PORTS],
            handshake_took_us: 0,
            forgotten_ns,
        }
    }

    /// Takes into account that a fact may have been forgotten at this time. Silence before it is none:
    /// the host may have answered.
    pub(super) fn forget(&mut self, at_ns: u64) {
        self.forgotten_ns = self.forgotten_ns.max(at_ns);
        if self.silent_since_ns < self.forgotten_ns {
            self.silent_since_ns = 0;
        }
    }

    /// Returns the facts for the record of an attempt to this port, without those about the
    /// network.
    pub(super) fn tell(&self, port: u16) -> RawHistory {
        let [handshake, ..] = self.ports;
        let on_port = self.ports.iter().find(|&&word| packed_port(word) == port);
        RawHistory {
            handshake,
            port_handshake_ns: on_port.map_or(0, |&word| packed_ns(word)),
            reset: self.reset,
            silent_since_ns: self.silent_since_ns,
            network_silent_since_ns: 0,
            forgotten_ns: self.forgotten_ns,
            handshake_took_us: self.handshake_took_us,
            reserved: 0,
        }
    }

    /// Returns the time of the newest evidence: of the last answer, else of the silence.
    pub(super) fn newest_ns(&self) -> u64 {
        if self.heard_ns == 0 {
            self.silent_since_ns.max(self.forgotten_ns)
        } else {
            self.heard_ns
        }
    }

    pub(super) fn note(&mut self, update: &HostUpdate) {
        let at_ns = update.at_ns;
        match update.fact {
            HostFact::Silence => {
                if self.silent_since_ns == 0 && self.heard_ns == 0 {
                    // Answers older than `LATELY_NS` may have been evicted without a trace.
                    let kept_ns = at_ns.saturating_sub(LATELY_NS);
                    let known_ns = kept_ns.max(self.forgotten_ns);
                    self.silent_since_ns = known_ns.max(update.started_ns);
                }
                return;
            }
            HostFact::Heard => {}
            HostFact::Reset => self.reset = pack(at_ns, update.port),
            HostFact::Handshake => {
                self.handshake_took_us = update.took_us();
                self.note_port(at_ns, update.port);
            }
        }
        self.heard_ns = at_ns;
        self.silent_since_ns = 0;
    }

    /// Moves a port to the front, or inserts it and evicts the last one.
    fn note_port(&mut self, at_ns: u64, port: u16) {
        let mut moved = pack(at_ns, port);
        for word in &mut self.ports {
            let before = std::mem::replace(word, moved);
            if packed_port(before) == port {
                return;
            }
            moved = before;
        }
        if moved != 0 && at_ns.saturating_sub(packed_ns(moved)) < LATELY_NS {
            self.forget(super::forgotten_at(at_ns));
        }
    }
}
