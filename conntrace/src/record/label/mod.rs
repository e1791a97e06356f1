//! Labels an attempt by an ordered list of rules.
//!
//! A label depends only on the record and the patience. The first rule that matches decides.
//! The rules are numbered as in docs/diagnosis.md.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Attempt, Errno, IcmpError, IcmpVersion, RecordKind, own_failure};

/// Outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// The handshake completed.
    Established,
    /// No free local port was found.
    PortExhausted,
    /// The chosen local address or 4-tuple was unavailable.
    AddressUnavailable,
    /// The peer, or a firewall on its behalf, rejected the connection.
    Refused,
    /// No answer arrived in time.
    TimedOut,
    /// There was no route, or the network reported an error.
    Unreachable,
    /// A policy of this host denied the connection.
    Denied,
    /// The socket was destroyed from outside the application, for example by `ss -K`.
    Aborted,
    /// The application closed the socket before an answer was due.
    Cancelled,
    /// The attempt failed for another reason, given by the errno.
    Failed,
}

impl Label {
    /// Every label, in the order the documentation lists them.
    pub const ALL: [Self; 10] = [
        Self::Established,
        Self::PortExhausted,
        Self::AddressUnavailable,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Denied,
        Self::Aborted,
        Self::Cancelled,
        Self::Failed,
    ];

    /// Returns the name used in event lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::PortExhausted => "port_exhausted",
            Self::AddressUnavailable => "address_unavailable",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Aborted => "aborted",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Returns true if it is printed only with `--all` or `--label`.
    #[must_use]
    pub fn is_hidden(self) -> bool {
        match self {
            Self::Established | Self::Cancelled => true,
            Self::PortExhausted
            | Self::AddressUnavailable
            | Self::Refused
            | Self::TimedOut
            | Self::Unreachable
            | Self::Denied
            | Self::Aborted
            | Self::Failed => false,
        }
    }
}

/// Party that gave up waiting for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeoutBy {
    /// The kernel gave up after its last retry (`tcp_write_timeout`).
    Kernel,
    /// The application closed the socket.
    Application,
}

/// Result of the rules for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Outcome of the attempt.
    pub label: Label,
    /// Errno that the application received or would have received.
    pub errno: Option<Errno>,
    /// Party that gave up, if the label is [`Label::TimedOut`].
    pub timeout_by: Option<TimeoutBy>,
}

impl Verdict {
    fn new(label: Label, errno: Option<Errno>) -> Self {
        Self {
            label,
            errno,
            timeout_by: None,
        }
    }

    fn timed_out(by: TimeoutBy, errno: Option<Errno>) -> Self {
        Self {
            label: Label::TimedOut,
            errno,
            timeout_by: Some(by),
        }
    }
}

/// Labels an ending; `None` for a stall or a hint, which are not endings.
#[must_use]
pub fn label(attempt: &Attempt, patience_ms: u64) -> Option<Verdict> {
    match attempt.moment {
        RecordKind::Stalled | RecordKind::Connects(_) => None,
        RecordKind::Established => Some(Verdict::new(Label::Established, None)),
        RecordKind::Closed => Some(label_closed(attempt, patience_ms)),
        RecordKind::ConnectFailed(errno) => Some(Verdict::new(label_connect(errno), Some(errno))),
        RecordKind::BindFailed(errno) => {
            Some(Verdict::new(label_bind(attempt, errno), Some(errno)))
        }
    }
}

/// Applies rules 2 to 6 to a closed socket.
fn label_closed(attempt: &Attempt, patience_ms: u64) -> Verdict {
    if attempt.syn_sent == 0 && !attempt.deferred {
        return label_unsent(attempt);
    }
    if let Some(error) = attempt.error {
        return label_error(error);
    }
    if let Some(errno) = early_icmp(attempt) {
        return Verdict::new(label_icmp(attempt.icmp.as_ref(), errno), Some(errno));
    }
    // A lower bound. For an attempt that was not observed whole, the start and the segments
    // sent earlier are unknown, but the number of timer runs is known.
    let lasted_ms = (attempt.at_ns - attempt.since_ns) / 1_000_000;
    let retransmitted = if attempt.seen.from_beginning() {
        attempt.syn_retransmitted > 0
    } else {
        attempt.rto_count > 0
    };
    if retransmitted || lasted_ms >= patience_ms {
        return Verdict::timed_out(TimeoutBy::Application, None);
    }
    Verdict::new(Label::Cancelled, None)
}

/// Applies rule 2 to a failed connect, whose errno is known. The kernel searches for a port
/// only after `SYN_SENT`. `EADDRNOTAVAIL` therefore means a missing source address
/// (`ip6_dst_lookup_flow`), never a missing port.
fn label_connect(errno: Errno) -> Label {
    match errno {
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => Label::Unreachable,
        Errno::EPERM | Errno::EACCES => Label::Denied,
        Errno::EADDRNOTAVAIL => Label::AddressUnavailable,
        _ => Label::Failed,
    }
}

/// Applies rule 2 to a failed bind. With port 0, `EADDRINUSE` means that no port was left
/// (`inet_csk_get_port`). With another port, that one is taken.
fn label_bind(attempt: &Attempt, errno: Errno) -> Label {
    match errno {
        Errno::EADDRINUSE if attempt.found_its_port_taken() => Label::AddressUnavailable,
        Errno::EADDRINUSE => Label::PortExhausted,
        Errno::EADDRNOTAVAIL => Label::AddressUnavailable,
        _ => Label::Failed,
    }
}

/// Applies rule 2 to a connect that failed before its SYN. No hook sees its errno, but
/// `inet_hash_connect` returns only `EADDRNOTAVAIL` when it finds no port.
fn label_unsent(attempt: &Attempt) -> Verdict {
    let label = if attempt.port_bound {
        Label::AddressUnavailable
    } else if attempt.local_port.is_none() {
        Label::PortExhausted
    } else {
        return Verdict::new(Label::Failed, None);
    };
    Verdict::new(label, Some(Errno::EADDRNOTAVAIL))
}

/// Applies rule 3 to an attempt that set `sk_err`.
fn label_error(error: Errno) -> Verdict {
    match error {
        Errno::ETIMEDOUT => Verdict::timed_out(TimeoutBy::Kernel, Some(error)),
        Errno::ECONNABORTED => Verdict::new(Label::Aborted, Some(error)),
        // A RST is ECONNRESET after a simultaneous open (`tcp_reset` in SYN_RECV).
        Errno::ECONNREFUSED | Errno::ECONNRESET => Verdict::new(Label::Refused, Some(error)),
        _ => Verdict::new(Label::Unreachable, Some(error)),
    }
}

/// Returns the errno for rule 4: an ICMP error arrived while the socket was locked, poll woke
/// the application, and it closed the socket before another one ended the attempt.
///
/// `EMSGSIZE` is path MTU discovery (`tcp_v4_mtu_reduced`), not a rejection. A soft error of
/// this host's own sending is not an ICMP error.
fn early_icmp(attempt: &Attempt) -> Option<Errno> {
    let soft_error = || {
        let of_network = |_: &Errno| own_failure(attempt).is_none();
        attempt.soft_error.filter(of_network)
    };
    attempt
        .icmp
        .and_then(|icmp| icmp.errno)
        .or_else(soft_error)
        .filter(|&errno| errno != Errno::EMSGSIZE)
}

fn label_icmp(icmp: Option<&IcmpError>, errno: Errno) -> Label {
    let port_unreachable = match icmp {
        Some(icmp) => match icmp.version {
            IcmpVersion::V4 => (icmp.icmp_type, icmp.code) == (3, 3),
            IcmpVersion::V6 => (icmp.icmp_type, icmp.code) == (1, 4),
        },
        None => errno == Errno::ECONNREFUSED,
    };
    if port_unreachable {
        Label::Refused
    } else {
        Label::Unreachable
    }
}

#[cfg(test)]
pub(crate) mod tests;
