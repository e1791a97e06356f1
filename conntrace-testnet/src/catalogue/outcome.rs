//! The outcome lines that scenarios lead to, in the words of the lines.

use std::net::IpAddr;

/// Code and certainty of a cause.
pub type ExpectedCause = (&'static str, &'static str);

/// Fields of an outcome line that its scenario determines.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedOutcome {
    /// `label`.
    pub label: &'static str,
    /// `errno`.
    pub errno: Option<&'static str>,
    /// `timeout_by`.
    pub timeout_by: Option<&'static str>,
    /// `reply.kind`.
    pub reply: &'static str,
    /// `reply.icmp_type` and `reply.icmp_code`. The kernel may not keep those of `ICMPv6`.
    pub icmp: Option<(u8, u8)>,
    /// `syn.sent`.
    pub syn_sent: u32,
    /// `syn.retransmitted`.
    pub syn_retransmitted: u32,
    /// `local`.
    pub local: LocalEnd,
    /// `remote.port`, where it is not the port of the scenario.
    pub port: Option<u16>,
}

/// Local end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalEnd {
    /// Source address of the route, and an ephemeral port.
    Ephemeral,
    /// Source address of the route, and this port.
    Port(u16),
    /// Source address of the route, if there is a route, and no port.
    NoPort,
    /// This address, and an ephemeral port.
    Address(IpAddr),
    /// Address that bind was called with, without a port; there is no remote end.
    BindOnly,
}

// Certainties of a cause.
pub(super) const CERTAIN: &str = "certain";
pub(super) const LIKELY: &str = "likely";
pub(super) const POSSIBLE: &str = "possible";

pub(super) const ESTABLISHED: ExpectedOutcome = outcome("established", None, "syn_ack");
pub(super) const CANCELLED: ExpectedOutcome = outcome("cancelled", None, "none");
pub(super) const ABORTED: ExpectedOutcome = outcome("aborted", Some("ECONNABORTED"), "none");
pub(super) const REFUSED: ExpectedOutcome = outcome("refused", Some("ECONNREFUSED"), "rst");
pub(super) const REJECTED_HERE: ExpectedOutcome = outcome("refused", Some("ECONNREFUSED"), "local");
pub(super) const NO_NEIGHBOUR: ExpectedOutcome =
    outcome("unreachable", Some("EHOSTUNREACH"), "local");
pub(super) const BY_KERNEL: ExpectedOutcome = ExpectedOutcome {
    timeout_by: Some("kernel"),
    ..outcome("timed_out", Some("ETIMEDOUT"), "none")
}
.again();
pub(super) const BY_APPLICATION: ExpectedOutcome = ExpectedOutcome {
    timeout_by: Some("application"),
    ..outcome("timed_out", None, "none")
};
pub(super) const DROPPED_HERE: ExpectedOutcome = ExpectedOutcome {
    reply: "local",
    ..BY_APPLICATION
};
pub(super) const PORT_EXHAUSTED: ExpectedOutcome = unsent("port_exhausted", "EADDRNOTAVAIL");
pub(super) const ADDRESS_UNAVAILABLE: ExpectedOutcome =
    unsent("address_unavailable", "EADDRNOTAVAIL");

/// One SYN left, from an ephemeral port.
pub(super) const fn outcome(
    label: &'static str,
    errno: Option<&'static str>,
    reply: &'static str,
) -> ExpectedOutcome {
    ExpectedOutcome {
        label,
        errno,
        timeout_by: None,
        reply,
        icmp: None,
        syn_sent: 1,
        syn_retransmitted: 0,
        local: LocalEnd::Ephemeral,
        port: None,
    }
}

/// No SYN left, and no port was assigned.
pub(super) const fn unsent(label: &'static str, errno: &'static str) -> ExpectedOutcome {
    ExpectedOutcome {
        syn_sent: 0,
        ..outcome(label, Some(errno), "none")
    }
    .from(LocalEnd::NoPort)
}

/// A router could not deliver the packet.
pub(super) const fn unreachable(
    errno: &'static str,
    icmp_type: u8,
    icmp_code: u8,
) -> ExpectedOutcome {
    outcome("unreachable", Some(errno), "icmp").icmp(icmp_type, icmp_code)
}

/// A host or firewall on the way has closed the port.
pub(super) const fn port_unreachable(icmp_type: u8, icmp_code: u8) -> ExpectedOutcome {
    outcome("refused", Some("ECONNREFUSED"), "icmp").icmp(icmp_type, icmp_code)
}

impl ExpectedOutcome {
    pub(super) const fn icmp(self, icmp_type: u8, icmp_code: u8) -> Self {
        Self {
            icmp: Some((icmp_type, icmp_code)),
            ..self
        }
    }

    /// The SYN was sent a second time.
    pub(super) const fn again(self) -> Self {
        Self {
            syn_sent: self.syn_sent + 1,
            syn_retransmitted: 1,
            ..self
        }
    }

    /// The SYN-ACK that answers a crossing SYN is counted with the SYNs.
    pub(super) const fn crossed(self) -> Self {
        Self {
            syn_sent: self.syn_sent + 1,
            ..self
        }
    }

    pub(super) const fn from(self, local: LocalEnd) -> Self {
        Self { local, ..self }
    }

    pub(super) const fn to_port(self, port: u16) -> Self {
        Self {
            port: Some(port),
            ..self
        }
    }
}
