//! From an attempt to its label: the one ordered rule list.
//!
//! A pure function of the record and the patience; the first rule that fits
//! decides. The rules are numbered as in the README.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Attempt, Errno, IcmpError, IcmpVersion, RecordKind, Seen, own_failure};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// The handshake completed.
    Established,
    /// No local port was left.
    PortExhausted,
    /// The chosen local address or 4-tuple could not be had.
    AddressUnavailable,
    /// The other side, or a firewall speaking for it, said no.
    Refused,
    /// No answer came.
    TimedOut,
    /// The network said no.
    Unreachable,
    /// This host's policy said no.
    Denied,
    /// Someone else killed the socket.
    Aborted,
    /// The application gave up before an answer was due.
    Cancelled,
    /// Anything else; the errno says what.
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

    /// As it is written in the lines.
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

    /// Whether it is printed only when asked for, with `--all` or `--label`.
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

/// Who gave up waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeoutBy {
    /// The kernel, after its last retry (`tcp_write_timeout`).
    Kernel,
    /// The application closed the socket.
    Application,
}

/// What the rules say of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// How it ended.
    pub label: Label,
    /// What the application was told or would be; `None` if nothing.
    pub errno: Option<Errno>,
    /// Set when the label is [`Label::TimedOut`].
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

/// Labels an ending; `None` for a stall or a hint, which are none.
#[must_use]
pub fn label(attempt: &Attempt, patience_ms: u64) -> Option<Verdict> {
    match attempt.moment {
        RecordKind::Stalled | RecordKind::Connects(_) => None,
        RecordKind::Established => Some(Verdict::new(Label::Established, None)),
        RecordKind::Closed => Some(label_closed(attempt, patience_ms)),
        RecordKind::ConnectFailed(errno) => Some(Verdict::new(label_connect(errno), Some(errno))),
        RecordKind::BindFailed(errno) => Some(Verdict::new(label_bind(errno), Some(errno))),
    }
}

/// Rules 2 to 6.
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
    // At least: of an attempt not seen whole it is not known since when it lasts,
    // nor what its socket had sent before, but how often its timer ran.
    let lasted_ms = (attempt.at_ns - attempt.since_ns) / 1_000_000;
    let retransmitted = match attempt.seen {
        Seen::Whole => attempt.syn_retransmitted > 0,
        Seen::JoinedLate | Seen::Untracked => attempt.rto_count > 0,
    };
    if retransmitted || lasted_ms >= patience_ms {
        return Verdict::timed_out(TimeoutBy::Application, None);
    }
    Verdict::new(Label::Cancelled, None)
}

/// Rule 2, where the errno is known and TCP was not reached. Ports are searched for
/// only after `SYN_SENT`: here `EADDRNOTAVAIL` is a source address that is not there
/// (`ip6_dst_lookup_flow`), and no port could have been missing.
fn label_connect(errno: Errno) -> Label {
    match errno {
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => Label::Unreachable,
        Errno::EPERM | Errno::EACCES => Label::Denied,
        Errno::EADDRNOTAVAIL => Label::AddressUnavailable,
        _ => Label::Failed,
    }
}

/// Rule 2, of a bind: to port 0 `EADDRINUSE` says that none was left
/// (`inet_csk_get_port`); to another it is not reported.
fn label_bind(errno: Errno) -> Label {
    match errno {
        Errno::EADDRINUSE => Label::PortExhausted,
        Errno::EADDRNOTAVAIL => Label::AddressUnavailable,
        _ => Label::Failed,
    }
}

/// Rule 2: connect failed before a SYN was made. Its errno reaches no hook of
/// this tier; `inet_hash_connect` returning without a port has only one.
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

/// Rule 3: the attempt set `sk_err`.
fn label_error(error: Errno) -> Verdict {
    match error {
        Errno::ETIMEDOUT => Verdict::timed_out(TimeoutBy::Kernel, Some(error)),
        Errno::ECONNABORTED => Verdict::new(Label::Aborted, Some(error)),
        // A RST is ECONNRESET after a simultaneous open (`tcp_reset` in SYN_RECV).
        Errno::ECONNREFUSED | Errno::ECONNRESET => Verdict::new(Label::Refused, Some(error)),
        _ => Verdict::new(Label::Unreachable, Some(error)),
    }
}

/// Rule 4: an ICMP error came while the socket was locked, poll woke the
/// application, and it closed before the next one would have ended the attempt.
/// `EMSGSIZE` is path MTU discovery (`tcp_v4_mtu_reduced`), nobody's no. A soft error of
/// this host's own sending is no ICMP error.
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
