//! Facts of an attempt that the rules look at.

use std::net::{IpAddr, SocketAddr};

use super::{Undiagnosed, question::ProcessKey, way::Flow, way_drop::CaseWayDrop};
use crate::record::{
    Attempt, DropUnknown, Errno, IcmpError, Label, RecordKind, Remote, ReplyKind, Seen, Verdict,
    own_failure, reply,
};

/// Seconds for which an answer of a host counts. After a few minutes it is still the same host,
/// with the same firewall and servers.
const LATELY_S: u64 = 10 * 60;

/// Facts of an attempt that the rules look at.
///
/// It leaves out the facts of a single attempt, such as a time or the port that the kernel chose.
/// Equal cases have the same cause, so that one in a storm costs no more than a table lookup.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Case {
    /// Label of the attempt.
    pub label: Label,
    /// The errno that the application was told.
    pub errno: Option<Errno>,
    /// The call that failed, if it never came to a SYN.
    pub call: Option<FailedCall>,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Random bits of the namespace, for inode numbers are used again.
    pub netns_mix: u16,
    /// The process that called connect.
    pub process: Option<ProcessKey>,
    /// Id of the caller's cgroup.
    pub cgroup: Option<u64>,
    /// The destination.
    pub remote: Option<Remote>,
    /// The connection is established, and both of its ends are the same.
    pub is_to_itself: bool,
    /// Destination that the program asked for, where `remote` is the place to which that was
    /// translated.
    pub asked: Option<Remote>,
    /// Client of this very attempt, where equal ones may be led elsewhere; port 0 if that is not looked
    /// for.
    pub client: Option<SocketAddr>,
    /// The source address.
    pub local_addr: Option<IpAddr>,
    /// The local port that was bound before.
    pub bound_port: Option<u16>,
    /// Index of the interface that the socket is bound to.
    pub bound_device: Option<u32>,
    /// The socket's mark (`SO_MARK`).
    pub mark: u32,
    /// The socket's user.
    pub socket_uid: Option<u32>,
    /// The answer.
    pub reply: ReplyKind,
    /// The ICMP error of the answer.
    pub icmp: Option<IcmpError>,
    /// The errno with which this host's own sending failed meanwhile (`sk_err_soft`).
    pub own_failure: Option<Errno>,
    /// The packets of it that this host dropped.
    pub drops: Option<CaseDrops>,
    /// The packets of it that this machine dropped after they had lost their socket.
    pub way_drop: Result<Option<CaseWayDrop>, DropUnknown>,
    /// The destination, as other attempts have found it.
    pub heard: HostHistory,
}

/// Packets that this host dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaseDrops {
    /// The reason of the last one: a number of this kernel's `enum skb_drop_reason`.
    pub reason: u16,
    /// All SYNs were dropped here, so that none can have been lost elsewhere.
    pub all: bool,
}

/// Answers of a host to other traced attempts.
///
/// Times are in whole seconds, so that cases of the same second stay equal. It is filled only for
/// labels whose rules ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct HostHistory {
    /// The last handshake that completed, on whatever port.
    pub handshake: Option<Handshake>,
    /// Seconds since a handshake completed on this very port.
    pub on_this_port_ago_s: Option<u64>,
    /// The last RST, with the port that it refused.
    pub reset: Option<Handshake>,
    /// Seconds for which the host has been tried and nothing was heard of it.
    pub silent_s: Option<u64>,
    /// Seconds for which no host of the destination's private network has answered.
    pub network_silent_s: Option<u64>,
    /// Answers of the last minutes may be evicted, so that a missing one is unknown.
    pub may_be_forgotten: bool,
    /// Two SYNs at least were lost, over longer than the host's handshakes take.
    pub outwaited: bool,
}

/// An answer of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handshake {
    /// The port.
    pub port: u16,
    /// Seconds since then.
    pub ago_s: u64,
}

impl Handshake {
    fn is_late(&self) -> bool {
        self.ago_s > LATELY_S
    }
}

impl HostHistory {
    fn new(attempt: &Attempt, label: Label) -> Self {
        let heard = &attempt.remembered;
        let ago_s = |then_ns| attempt.at_ns.saturating_sub(then_ns) / 1_000_000_000;
        let answer = |(then_ns, port)| Handshake {
            port,
            ago_s: ago_s(then_ns),
        };
        let handshake = heard.handshake.map(answer);
        let lasted_us = attempt.at_ns.saturating_sub(attempt.since_ns) / 1000;
        let took_us = heard.handshake_took_us.map_or(0, u64::from);
        match label {
            Label::TimedOut | Label::Unreachable => Self {
                handshake,
                on_this_port_ago_s: heard.on_this_port_ns.map(ago_s),
                reset: heard.reset.map(answer),
                silent_s: heard.silent_since_ns.map(ago_s),
                network_silent_s: heard.network_silent_since_ns.map(ago_s),
                may_be_forgotten: heard.forgotten_ns.map(ago_s).is_some_and(|s| s <= LATELY_S),
                // The duration of an attempt whose ending was recovered is unknown.
                outwaited: attempt.syn_retransmitted > 0
                    && attempt.seen != Seen::EndingRecovered
                    && lasted_us > took_us,
            },
            Label::Refused => Self {
                handshake,
                on_this_port_ago_s: heard.on_this_port_ns.map(ago_s),
                ..Self::default()
            },
            Label::Established
            | Label::PortExhausted
            | Label::AddressUnavailable
            | Label::Denied
            | Label::Aborted
            | Label::Cancelled
            | Label::Failed => Self::default(),
        }
    }

    /// The last handshake, if it is not too long ago to count.
    #[must_use]
    pub fn handshake_lately(&self) -> Option<Handshake> {
        self.handshake.filter(|handshake| !handshake.is_late())
    }

    /// The last RST, if it is not too long ago to count.
    #[must_use]
    pub fn reset_lately(&self) -> Option<Handshake> {
        self.reset.filter(|reset| !reset.is_late())
    }

    /// Seconds since a handshake on this very port, if it is not too long ago to count.
    ///
    /// # Errors
    /// When it is not known, and may have been forgotten.
    pub fn on_this_port_lately(&self) -> Result<Option<u64>, Undiagnosed> {
        match self.on_this_port_ago_s.filter(|&ago_s| ago_s <= LATELY_S) {
            None if self.may_be_forgotten => Err(Undiagnosed::Incomplete),
            found => Ok(found),
        }
    }

    /// Seconds for which the host has been tried and not heard of; `None` if it was heard,
    /// or was not listened to.
    ///
    /// # Errors
    /// When an answer may have been forgotten.
    pub fn silent(&self) -> Result<Option<u64>, Undiagnosed> {
        match self.silent_s {
            Some(_) if self.may_be_forgotten => Err(Undiagnosed::Incomplete),
            found => Ok(found),
        }
    }

    /// Likewise, of the private network that the address belongs to.
    ///
    /// # Errors
    /// When an answer may have been forgotten.
    pub fn network_silent(&self) -> Result<Option<u64>, Undiagnosed> {
        match self.network_silent_s {
            Some(_) if self.may_be_forgotten => Err(Undiagnosed::Incomplete),
            found => Ok(found),
        }
    }

    /// Any answer of the host is remembered, however long ago.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.handshake.is_some() || self.reset.is_some()
    }
}

/// A call that fails before there is an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailedCall {
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
        let bound = attempt.port_bound && attempt.seen.from_beginning();
        Self {
            label: verdict.label,
            errno: verdict.errno,
            call: match attempt.moment {
                RecordKind::ConnectFailed(_) => Some(FailedCall::Connect),
                RecordKind::BindFailed(_) => Some(FailedCall::Bind),
                RecordKind::Stalled
                | RecordKind::Connects(_)
                | RecordKind::Established
                | RecordKind::Closed => None,
            },
            netns: attempt.netns,
            netns_mix: attempt.netns_mix,
            process: caller.map(|caller| ProcessKey {
                pid: caller.pid,
                started_ns: caller.started_ns,
            }),
            cgroup: caller.and_then(|caller| caller.cgroup_id),
            remote: attempt.remote,
            is_to_itself: attempt.is_to_itself(),
            asked: None,
            client: None,
            local_addr: attempt.local_addr,
            bound_port: attempt.local_port.filter(|_| bound),
            bound_device: attempt.bound_device,
            mark: attempt.mark,
            socket_uid: attempt.socket_uid,
            reply: reply(attempt).kind,
            icmp: attempt.icmp,
            own_failure: own_failure(attempt),
            drops: attempt.drops.map(|drops| CaseDrops {
                reason: drops.reason,
                all: u32::from(drops.count) >= attempt.syn_sent,
            }),
            way_drop: match verdict.label {
                Label::TimedOut | Label::Refused | Label::Unreachable => {
                    CaseWayDrop::of(attempt, verdict.label)
                }
                Label::Established
                | Label::PortExhausted
                | Label::AddressUnavailable
                | Label::Denied
                | Label::Aborted
                | Label::Cancelled
                | Label::Failed => Ok(None),
            },
            heard: HostHistory::new(attempt, verdict.label),
        }
    }

    /// Returns true if this machine dropped no packet of the attempt, as far as it can tell.
    ///
    /// # Errors
    /// When a drop may not have been reported.
    pub fn is_free_of_drops(&self) -> Result<bool, Undiagnosed> {
        match self.way_drop {
            Ok(drop) => Ok(drop.is_none()),
            Err(DropUnknown) => Err(Undiagnosed::Incomplete),
        }
    }

    /// The other side as a socket address.
    #[must_use]
    pub fn remote_socket(&self) -> Option<SocketAddr> {
        self.remote
            .map(|remote| SocketAddr::new(remote.addr, remote.port))
    }

    /// Everything of the socket that decides which way its packets take.
    #[must_use]
    pub fn way(&self) -> Option<Flow> {
        let Remote { addr, port } = self.remote?;
        Some(Flow {
            to: addr,
            from: self.local_addr,
            device: self.bound_device,
            mark: self.mark,
            uid: self.socket_uid,
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{self, label::tests::unanswered};

    const SECOND_NS: u64 = 1_000_000_000;

    /// Of an attempt that ended at this time.
    fn heard(label: Label, remembered: record::HostTimes, at_ns: u64) -> HostHistory {
        let attempt = Attempt {
            remembered,
            at_ns,
            since_ns: at_ns.saturating_sub(3 * SECOND_NS),
            syn_retransmitted: 1,
            ..unanswered()
        };
        HostHistory::new(&attempt, label)
    }

    fn answered(then_ns: u64) -> record::HostTimes {
        record::HostTimes {
            handshake: Some((then_ns, 80)),
            on_this_port_ns: Some(then_ns),
            ..record::HostTimes::default()
        }
    }

    #[test]
    fn what_was_heard_is_the_same_for_a_second() {
        let began = 9 * SECOND_NS;
        let at = |at_ns| heard(Label::TimedOut, answered(began), at_ns);
        assert_eq!(at(began), at(began + SECOND_NS - 1));
        assert_ne!(at(began), at(began + SECOND_NS));
        // Noted by another CPU in between.
        assert_eq!(at(began - 1), at(began));
        assert_eq!(
            heard(Label::Denied, answered(began), began),
            HostHistory::default()
        );
    }

    #[test]
    fn ten_minutes_are_lately() {
        for (ago_s, is_lately) in [(0, true), (600, true), (601, false)] {
            let heard = heard(Label::TimedOut, answered(1), 1 + ago_s * SECOND_NS);
            assert_eq!(heard.handshake_lately().is_some(), is_lately);
            assert_eq!(heard.on_this_port_lately().unwrap().is_some(), is_lately);
            assert!(heard.answered());
        }
    }

    #[test]
    fn what_may_be_forgotten_is_unknown() {
        let at_ns = 900 * SECOND_NS;
        for (forgotten_s, is_known) in [(299, true), (300, false), (900, false)] {
            let remembered = record::HostTimes {
                silent_since_ns: Some(at_ns - 2 * SECOND_NS),
                network_silent_since_ns: Some(at_ns - 2 * SECOND_NS),
                forgotten_ns: Some(forgotten_s * SECOND_NS),
                ..record::HostTimes::default()
            };
            let heard = heard(Label::TimedOut, remembered, at_ns);
            let two = if is_known {
                Ok(Some(2))
            } else {
                Err(Undiagnosed::Incomplete)
            };
            assert_eq!((heard.silent(), heard.network_silent()), (two, two));
            assert_eq!(heard.on_this_port_lately().is_ok(), is_known);
        }
    }

    #[test]
    fn a_handshake_may_take_longer_than_was_waited() {
        for (took_us, outwaited) in [(2_999_999, true), (3_000_000, false)] {
            let remembered = record::HostTimes {
                handshake_took_us: Some(took_us),
                ..record::HostTimes::default()
            };
            let heard = heard(Label::TimedOut, remembered, 9 * SECOND_NS);
            assert_eq!(heard.outwaited, outwaited, "{took_us}");
        }
    }
}
