//! What a rule may look at of an attempt.

use std::net::{IpAddr, SocketAddr};

use super::ask::Process;
use crate::{
    errno::Errno,
    label::{Label, Verdict},
    reply::{ReplyKind, reply},
    wire::{self, Attempt, Icmp, Moment, Remote, Seen},
};

/// What was heard of a host counts for so long: what answered a few minutes ago is the
/// same host, and its firewall and servers are hardly others.
const LATELY_S: u64 = 10 * 60;

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
    /// What other attempts have told of the destination.
    pub heard: Heard,
}

/// What other attempts have told of a host, those that are traced. In whole seconds, so
/// that cases of the same second stay equal, and only for the labels whose rules ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Heard {
    /// The last handshake that completed.
    pub handshake: Option<Handshake>,
    /// How many seconds ago it last sent a RST.
    pub reset_ago_s: Option<u64>,
    /// For how many seconds it was not heard of at all: since tracing began.
    pub silent_s: Option<u64>,
}

/// A handshake that completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handshake {
    /// On which port.
    pub port: u16,
    /// How many seconds ago.
    pub ago_s: u64,
}

impl Heard {
    fn new(heard: &wire::Heard, label: Label, at_ns: u64, tracing_since_ns: u64) -> Self {
        let ago_s = |then_ns| at_ns.saturating_sub(then_ns) / 1_000_000_000;
        let handshake = heard.handshake.map(|(then_ns, port)| Handshake {
            port,
            ago_s: ago_s(then_ns),
        });
        let is_silent = heard.handshake.is_none() && heard.reset.is_none();
        match label {
            Label::TimedOut => Self {
                handshake,
                reset_ago_s: heard.reset.map(|(then_ns, _)| ago_s(then_ns)),
                silent_s: is_silent.then(|| ago_s(tracing_since_ns)),
            },
            Label::Refused => Self {
                handshake,
                ..Self::default()
            },
            Label::Established
            | Label::PortExhausted
            | Label::AddressUnavailable
            | Label::Unreachable
            | Label::Denied
            | Label::Aborted
            | Label::Cancelled
            | Label::Failed => Self::default(),
        }
    }

    /// The last handshake, if it is not too long ago to count.
    #[must_use]
    pub fn handshake_lately(&self) -> Option<Handshake> {
        self.handshake
            .filter(|handshake| handshake.ago_s <= LATELY_S)
    }

    /// How many seconds ago the last RST came, if that is not too long to count.
    #[must_use]
    pub fn reset_lately(&self) -> Option<u64> {
        self.reset_ago_s.filter(|&ago_s| ago_s <= LATELY_S)
    }
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
    /// Of an attempt that ended so. Tracing began at `tracing_since_ns`, by the clock of
    /// the attempt's times.
    #[must_use]
    pub fn new(attempt: &Attempt, verdict: &Verdict, tracing_since_ns: u64) -> Self {
        let caller = attempt.caller.as_ref();
        let bound = attempt.port_bound && attempt.seen == Seen::Whole;
        Self {
            label: verdict.label,
            errno: verdict.errno,
            call: match attempt.moment {
                Moment::ConnectFailed(_) => Some(Call::Connect),
                Moment::BindFailed(_) => Some(Call::Bind),
                Moment::Stalled | Moment::Connects(_) | Moment::Established | Moment::Closed => {
                    None
                }
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
            heard: Heard::new(
                &attempt.remembered,
                verdict.label,
                attempt.at_ns,
                tracing_since_ns,
            ),
        }
    }

    /// The other side as a socket address.
    #[must_use]
    pub fn remote_socket(&self) -> Option<SocketAddr> {
        self.remote
            .map(|remote| SocketAddr::new(remote.addr, remote.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn heard(label: Label, handshake_ns: Option<u64>, at_ns: u64) -> Heard {
        let heard = wire::Heard {
            handshake: handshake_ns.map(|then_ns| (then_ns, 80)),
            ..wire::Heard::default()
        };
        Heard::new(&heard, label, at_ns, 2 * SECOND_NS)
    }

    #[test]
    fn what_was_heard_is_the_same_for_a_second() {
        let at = |at_ns| heard(Label::TimedOut, Some(5), at_ns);
        assert_eq!(at(5), at(4 + SECOND_NS));
        assert_ne!(at(5), at(5 + SECOND_NS));
        // Noted by another CPU in between.
        assert_eq!(at(4), at(5));
    }

    #[test]
    fn silence_is_since_tracing_began_and_only_where_nothing_was_heard() {
        let at_ns = 65 * SECOND_NS;
        assert_eq!(heard(Label::TimedOut, None, at_ns).silent_s, Some(63));
        assert_eq!(heard(Label::TimedOut, Some(5), at_ns).silent_s, None);
        assert_eq!(heard(Label::Refused, None, at_ns), Heard::default());
        let unknown = Heard::new(&wire::Heard::default(), Label::TimedOut, at_ns, u64::MAX);
        assert_eq!(unknown.silent_s, Some(0));
    }

    #[test]
    fn ten_minutes_are_lately() {
        for (ago_s, is_lately) in [(0, true), (600, true), (601, false)] {
            let heard = Heard {
                handshake: Some(Handshake { port: 80, ago_s }),
                reset_ago_s: Some(ago_s),
                silent_s: None,
            };
            assert_eq!(heard.handshake_lately().is_some(), is_lately);
            assert_eq!(heard.reset_lately().is_some(), is_lately);
        }
    }
}
