//! What a rule may look at of an attempt.

use std::net::{IpAddr, SocketAddr};

use super::ask::Process;
use crate::{
    errno::Errno,
    label::{Label, Verdict},
    reply::{ReplyKind, reply},
    wire::{Attempt, Icmp, Moment, Remote, Seen},
};

/// What a rule may look at of an attempt. Nothing in it is of this one attempt
/// alone, such as a time or the port that the kernel chose: cases that are equal
/// have the same cause, and one in a storm costs no more than a look into a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Case {
    /// How it ended.
    pub label: Label,
    /// What the application was told.
    pub errno: Option<Errno>,
    /// The call that failed, if it never came to a SYN.
    pub call: Option<Call>,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Who called connect.
    pub process: Option<Process>,
    /// Id of the caller's cgroup.
    pub cgroup: Option<u64>,
    /// Where to.
    pub remote: Option<Remote>,
    /// From where.
    pub local_addr: Option<IpAddr>,
    /// The local port that was bound before.
    pub bound_port: Option<u16>,
    /// What answered.
    pub reply: ReplyKind,
    /// With which ICMP error.
    pub icmp: Option<Icmp>,
    /// Why this host dropped its packets, if it did: a number of this kernel's.
    pub drop_reason: Option<u16>,
}

/// A call that fails before there is an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// connect.
    Connect,
    /// bind.
    Bind,
}

impl Case {
    /// Of an attempt that ended so.
    #[must_use]
    pub fn new(attempt: &Attempt, verdict: &Verdict) -> Self {
        let caller = attempt.caller.as_ref();
        let bound = attempt.port_bound && attempt.seen == Seen::Whole;
        Self {
            label: verdict.label,
            errno: verdict.errno,
            call: match attempt.moment {
                Moment::ConnectFailed(_) => Some(Call::Connect),
                Moment::BindFailed(_) => Some(Call::Bind),
                Moment::Stalled | Moment::Established | Moment::Closed => None,
            },
            netns: attempt.netns,
            process: caller.map(|caller| Process {
                pid: caller.pid,
                started_ns: caller.started_ns,
            }),
            cgroup: caller.and_then(|caller| caller.cgroup_id),
            remote: attempt.remote,
            local_addr: attempt.local_addr,
            bound_port: attempt.local_port.filter(|_| bound),
            reply: reply(attempt).kind,
            icmp: attempt.icmp,
            drop_reason: attempt.drops.map(|drops| drops.reason),
        }
    }

    /// The other side as a socket address.
    #[must_use]
    pub fn remote_socket(&self) -> Option<SocketAddr> {
        self.remote
            .map(|remote| SocketAddr::new(remote.addr, remote.port))
    }
}
