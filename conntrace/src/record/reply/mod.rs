//! What answered an attempt, if anything did.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Attempt, Errno, RecordKind};

/// What kind of answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplyKind {
    /// None.
    None,
    /// The handshake's second step.
    SynAck,
    /// A RST that TCP accepted.
    Rst,
    /// An ICMP error from another host.
    Icmp,
    /// This host itself: the neighbour did not answer, or a rule rejected.
    Local,
}

/// The answer to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reply {
    /// What kind.
    pub kind: ReplyKind,
    /// ICMP type, null where the kernel keeps none.
    pub icmp_type: Option<u8>,
    /// ICMP code, null where the kernel keeps none.
    pub icmp_code: Option<u8>,
    /// Who sent the ICMP error.
    pub from: Option<IpAddr>,
}

impl Reply {
    fn bare(kind: ReplyKind) -> Self {
        Self {
            kind,
            icmp_type: None,
            icmp_code: None,
            from: None,
        }
    }
}

/// Says what answered.
#[must_use]
pub fn reply(attempt: &Attempt) -> Reply {
    if attempt.moment == RecordKind::Established {
        // A socket under repair is connected without a packet (`tcp_connect`).
        return Reply::bare(if attempt.heard {
            ReplyKind::SynAck
        } else {
            ReplyKind::None
        });
    }
    if is_reset(attempt) {
        // A rule of this host that rejects drops the SYN and answers it.
        let own = all_dropped(attempt);
        return Reply::bare(if own {
            ReplyKind::Local
        } else {
            ReplyKind::Rst
        });
    }
    if let Some(icmp) = attempt.icmp {
        let own = icmp
            .from
            .is_some_and(|from| from.is_loopback() || Some(from) == attempt.local_addr);
        return Reply {
            kind: if own {
                ReplyKind::Local
            } else {
                ReplyKind::Icmp
            },
            icmp_type: Some(icmp.icmp_type),
            icmp_code: Some(icmp.code),
            from: icmp.from,
        };
    }
    let kind = unqueued(attempt);
    // What nobody else answered, this host may have swallowed.
    Reply::bare(match attempt.drops {
        Some(_) if kind == ReplyKind::None => ReplyKind::Local,
        Some(_) | None => kind,
    })
}

/// This host dropped as many packets of the attempt as SYNs were made.
fn all_dropped(attempt: &Attempt) -> bool {
    attempt
        .drops
        .is_some_and(|drops| u32::from(drops.count) >= attempt.syn_sent)
}

/// What came for the socket and ended it was a RST. `tcp_reset` makes
/// ECONNREFUSED of it in `SYN_SENT`, unless an ICMP error said the same, and
/// ECONNRESET in `SYN_RECV`, after a simultaneous open, which no ICMP error does.
fn is_reset(attempt: &Attempt) -> bool {
    let refused = Some(Errno::ECONNREFUSED);
    let by_icmp = attempt.icmp.and_then(|icmp| icmp.errno) == refused;
    match attempt.error {
        Some(Errno::ECONNREFUSED) => attempt.heard && !by_icmp,
        Some(Errno::ECONNRESET) => attempt.heard,
        Some(_) | None => false,
    }
}

/// The answer of which nothing is left but an errno.
///
/// Without `IPV6_RECVERR` the kernel queues no ICMPv6 error (`ipv6_icmp_error`), and the
/// application may have read an ICMPv4 error from the socket's error queue. Only this host
/// answers what it asks itself, or what it dropped all of.
fn unqueued(attempt: &Attempt) -> ReplyKind {
    let to_itself = attempt
        .remote
        .is_some_and(|remote| remote.addr.is_loopback() || attempt.local_addr == Some(remote.addr));
    match attempt.error.or(attempt.soft_error) {
        None | Some(Errno::ETIMEDOUT | Errno::ECONNABORTED | Errno::EMSGSIZE) => ReplyKind::None,
        Some(_) if attempt.syn_sent == 0 => ReplyKind::None,
        Some(_) if to_itself || all_dropped(attempt) => ReplyKind::Local,
        Some(_) if own_failure(attempt).is_some() => ReplyKind::Local,
        Some(_) => ReplyKind::Icmp,
    }
}

/// The errno with which this host's own sending failed while the attempt was under way: its
/// link, address or route went away (`inet_sk_rebuild_header`, `inet6_sk_rebuild_header`),
/// or over IPv6 the neighbour did not answer.
///
/// The kernel keeps it where it keeps the errno of an ICMP error (`sk_err_soft`). Only then
/// has the retransmission timer run more often than SYNs left again, and no ICMP error is
/// known.
#[must_use]
pub fn own_failure(attempt: &Attempt) -> Option<Errno> {
    let stuck = u32::from(attempt.rto_count) > attempt.syn_retransmitted;
    let is_network = |errno: &Errno| {
        !matches!(
            *errno,
            Errno::ETIMEDOUT | Errno::ECONNABORTED | Errno::ECONNREFUSED | Errno::EMSGSIZE
        )
    };
    attempt
        .error
        .filter(|error| *error != Errno::ETIMEDOUT)
        .or(attempt.soft_error)
        .filter(|errno| stuck && attempt.icmp.is_none() && is_network(errno))
}

#[cfg(test)]
mod tests;
