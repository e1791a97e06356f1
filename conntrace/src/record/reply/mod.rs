//! Derives the answer to an attempt.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Attempt, Errno, RecordKind};

/// Kind of answer to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplyKind {
    /// No answer arrived.
    None,
    /// A SYN-ACK arrived.
    SynAck,
    /// A RST arrived, and TCP accepted it.
    Rst,
    /// An ICMP error from another host arrived.
    Icmp,
    /// Only this host responded: it dropped or rejected the packets, could not send them, or a
    /// neighbour did not answer.
    Local,
}

/// Answer to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub struct Reply {
    /// Kind of answer.
    pub kind: ReplyKind,
    /// ICMP type, null if the answer is not an ICMP error or the kernel kept none.
    pub icmp_type: Option<u8>,
    /// ICMP code, null if the answer is not an ICMP error or the kernel kept none.
    pub icmp_code: Option<u8>,
    /// Sender of the ICMP error, null if unknown.
    pub from: Option<IpAddr>,
}

impl Reply {
    fn without_icmp(kind: ReplyKind) -> Self {
        Self {
            kind,
            icmp_type: None,
            icmp_code: None,
            from: None,
        }
    }
}

/// Derives the answer from the state of the socket.
#[must_use]
pub fn reply(attempt: &Attempt) -> Reply {
    if attempt.moment == RecordKind::Established {
        // A socket in repair mode connects without a packet (`tcp_connect`).
        return Reply::without_icmp(if attempt.heard {
            ReplyKind::SynAck
        } else {
            ReplyKind::None
        });
    }
    if is_reset(attempt) {
        // A REJECT rule of this host drops the SYN and sends the RST.
        let is_local = all_dropped(attempt);
        return Reply::without_icmp(if is_local {
            ReplyKind::Local
        } else {
            ReplyKind::Rst
        });
    }
    if let Some(icmp) = attempt.icmp {
        let is_local = icmp
            .from
            .is_some_and(|from| from.is_loopback() || Some(from) == attempt.local_addr);
        return Reply {
            kind: if is_local {
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
    // Without another answer, a drop by this host is the answer.
    Reply::without_icmp(match attempt.drops {
        Some(_) if kind == ReplyKind::None => ReplyKind::Local,
        Some(_) | None => kind,
    })
}

/// Returns true if this host dropped at least as many packets of the attempt as it sent SYNs.
fn all_dropped(attempt: &Attempt) -> bool {
    attempt
        .drops
        .is_some_and(|drops| u32::from(drops.count) >= attempt.syn_sent)
}

/// Returns true if a RST ended the attempt. `tcp_reset` sets `ECONNREFUSED` in `SYN_SENT`,
/// which an ICMP error can set as well. In `SYN_RECV`, after a simultaneous open, it sets
/// `ECONNRESET`, which no ICMP error does.
fn is_reset(attempt: &Attempt) -> bool {
    let refused = Some(Errno::ECONNREFUSED);
    let by_icmp = attempt.icmp.and_then(|icmp| icmp.errno) == refused;
    match attempt.error {
        Some(Errno::ECONNREFUSED) => attempt.heard && !by_icmp,
        Some(Errno::ECONNRESET) => attempt.heard,
        Some(_) | None => false,
    }
}

/// Derives the answer from the errno alone.
///
/// Without `IPV6_RECVERR` the kernel queues no ICMPv6 error (`ipv6_icmp_error`), and the
/// application may have read an ICMPv4 error from the socket's error queue. An attempt to this
/// host, or one whose packets were all dropped here, can only be answered by this host.
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

/// Returns the errno of a local send failure during the attempt: the link, address or route
/// disappeared (`inet_sk_rebuild_header`, `inet6_sk_rebuild_header`), or an IPv6 neighbour
/// did not answer.
///
/// The kernel stores it in `sk_err_soft`, like the errno of an ICMP error. It is told apart by
/// two signs: more runs of the retransmission timer than SYNs sent again, and no known ICMP
/// error.
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
