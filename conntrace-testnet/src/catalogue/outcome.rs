//! Expected outcome lines of scenarios, in the terms of the lines.

use std::net::IpAddr;

/// Code and certainty of an expected cause.
pub type ExpectedCause = (&'static str, &'static str);

/// Fields of an outcome line that its scenario determines.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedOutcome {
    /// Value of `label`, such as `refused`.
    pub label: &'static str,
    /// Name of the errno, such as `ECONNREFUSED`.
    pub errno: Option<&'static str>,
    /// Value of `timeout_by`: `kernel` or `application`.
    pub timeout_by: Option<&'static str>,
    /// Value of `reply.kind`, such as `rst`.
    pub reply: &'static str,
    /// ICMP type and code of the reply. The kernel may not keep those of `ICMPv6`.
    pub icmp: Option<(u8, u8)>,
    /// Number of SYNs that left the socket.
    pub syn_sent: u32,
    /// Number of SYNs that the kernel sent again.
    pub syn_retransmitted: u32,
    /// Local end of the attempt in the line.
    pub local: LocalEnd,
    /// Destination port of this attempt, where it is not the port of the scenario.
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
    /// Given address with an ephemeral port.
    Address(IpAddr),
    /// Address and port that bind was called with; there is no remote end.
    BindOnly,
}

// The certainties of a cause, as lines write them.
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
    pub(super) const fn icmp(mut self, icmp_type: u8, icmp_code: u8) -> Self {
        self.icmp = Some((icmp_type, icmp_code));
        self
    }

    /// The SYN was sent a second time.
    pub(super) const fn again(mut self) -> Self {
        self.syn_sent += 1;
        self.syn_retransmitted += 1;
        self
    }

    /// The SYN-ACK that answers a crossing SYN is counted with the SYNs.
    pub(super) const fn crossed(mut self) -> Self {
        self.syn_sent += 1;
        self
    }

    pub(super) const fn from(mut self, local: LocalEnd) -> Self {
        self.local = local;
        self
    }

    pub(super) const fn to_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
}
