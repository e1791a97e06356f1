//! Cases to ask the rules about, by their ending.

use super::script::{CONTAINER, FAR, NETNS, OWN, PORT, PROCESS, ip};
use crate::{
    diagnosis::{
        Case, CaseWayDrop, FailedCall,
        case::{CaseDrops, Handshake, HostHistory},
    },
    record::{DropUnknown, Errno, IcmpError, IcmpVersion, Label, Remote, ReplyKind, WayPacket},
};

pub(super) fn case(label: Label, reply: ReplyKind) -> Case {
    Case {
        label,
        errno: None,
        call: None,
        netns: NETNS,
        netns_mix: 0,
        process: Some(PROCESS),
        cgroup: Some(77),
        remote: Some(to(FAR)),
        is_to_itself: false,
        asked: None,
        client: None,
        local_addr: Some(ip(OWN)),
        bound_port: None,
        bound_device: None,
        mark: 0,
        socket_uid: None,
        reply,
        icmp: None,
        own_failure: None,
        drops: None,
        way_drop: Ok(None),
        heard: HostHistory {
            outwaited: label == Label::TimedOut,
            ..HostHistory::default()
        },
    }
}

/// A case of which every SYN was dropped in a container's namespace, where the destination is this.
pub(super) fn dropped_there(server: Remote, mut case: Case) -> Case {
    case.way_drop = Ok(Some(CaseWayDrop {
        packet: WayPacket::Syn,
        reason: 8,
        netns: CONTAINER,
        device: Some(3),
        server,
        asked: None,
        all: true,
        is_late: false,
    }));
    case
}

/// An unanswered case whose SYN-ACK came from this address and met no socket, after the close or
/// before.
pub(super) fn answered_in_vain(from: &str, is_late: bool) -> Case {
    let mut case = dropped_there(to(from), silence());
    if let Ok(Some(drop)) = &mut case.way_drop {
        drop.packet = WayPacket::SynAck;
        drop.netns = NETNS;
        drop.is_late = is_late;
    }
    case
}

/// A case of which a drop may not have been reported.
pub(super) fn unreported(mut case: Case) -> Case {
    case.way_drop = Err(DropUnknown);
    case
}

/// A case whose destination completed a handshake on this port, so many seconds ago.
pub(super) fn works(port: u16, ago_s: u64, mut case: Case) -> Case {
    case.heard.handshake = Some(Handshake { port, ago_s });
    if case.remote.is_some_and(|remote| remote.port == port) {
        case.heard.on_this_port_ago_s = Some(ago_s);
    }
    case
}

/// Unanswered, from a host that sent a RST so many seconds ago.
pub(super) fn reset_before(ago_s: u64) -> Case {
    let mut case = silence();
    case.heard.reset = Some(Handshake { port: 22, ago_s });
    case
}

/// Unanswered, from a host that was tried for so many seconds and not heard of, nor was
/// any of its network.
pub(super) fn silent(silent_s: u64) -> Case {
    let mut case = silence();
    case.heard.silent_s = Some(silent_s);
    case.heard.network_silent_s = Some(silent_s);
    case
}

/// The same, but an answer may have been forgotten.
pub(super) fn forgetful(mut case: Case) -> Case {
    case.heard.may_be_forgotten = true;
    case
}

/// The same, but the application gave up after one SYN.
pub(super) fn hasty(mut case: Case) -> Case {
    case.heard.outwaited = false;
    case
}

/// Given up while this host's own sending failed.
pub(super) fn cut_off(errno: Errno) -> Case {
    Case {
        own_failure: Some(errno),
        ..case(Label::TimedOut, ReplyKind::Local)
    }
}

pub(super) fn to(addr: &str) -> Remote {
    Remote {
        addr: ip(addr),
        port: PORT,
    }
}

pub(super) fn reset(addr: &str) -> Case {
    Case {
        errno: Some(Errno::ECONNREFUSED),
        remote: Some(to(addr)),
        ..case(Label::Refused, ReplyKind::Rst)
    }
}

pub(super) fn silence() -> Case {
    case(Label::TimedOut, ReplyKind::None)
}

pub(super) fn icmp(label: Label, icmp_type: u8, code: u8) -> Case {
    let from = ip("10.9.9.9");
    Case {
        icmp: Some(IcmpError {
            version: IcmpVersion::V4,
            icmp_type,
            code,
            errno: None,
            from: Some(from),
        }),
        ..case(label, ReplyKind::Icmp)
    }
}

pub(super) fn no_neighbour() -> Case {
    let errno = Some(Errno::EHOSTUNREACH);
    Case {
        errno,
        ..case(Label::Unreachable, ReplyKind::Local)
    }
}

pub(super) fn failed_call(label: Label, errno: Errno) -> Case {
    Case {
        errno: Some(errno),
        call: Some(FailedCall::Connect),
        ..case(label, ReplyKind::None)
    }
}

pub(in crate::diagnosis) fn exhausted() -> Case {
    Case {
        errno: Some(Errno::EADDRNOTAVAIL),
        ..case(Label::PortExhausted, ReplyKind::None)
    }
}

pub(super) fn tuple_taken() -> Case {
    Case {
        errno: Some(Errno::EADDRNOTAVAIL),
        bound_port: Some(40_000),
        ..case(Label::AddressUnavailable, ReplyKind::None)
    }
}

/// A bind to a port of this address, or of all, which is taken.
pub(super) fn port_taken(addr: Option<&str>) -> Case {
    Case {
        call: Some(FailedCall::Bind),
        local_addr: addr.map(ip),
        bound_port: Some(40_000),
        remote: None,
        ..failed_call(Label::AddressUnavailable, Errno::EADDRINUSE)
    }
}

pub(super) fn not_local() -> Case {
    failed_call(Label::AddressUnavailable, Errno::EADDRNOTAVAIL)
}

pub(super) fn dropped() -> Case {
    Case {
        drops: Some(CaseDrops {
            reason: 8,
            all: true,
        }),
        ..case(Label::TimedOut, ReplyKind::Local)
    }
}

/// A port of the ephemeral range.
pub(super) const SELF_PORT: u16 = 40_000;

/// A connection whose ends are the same.
pub(super) fn to_itself() -> Case {
    Case {
        is_to_itself: true,
        remote: Some(Remote {
            addr: ip(OWN),
            port: SELF_PORT,
        }),
        ..case(Label::Established, ReplyKind::SynAck)
    }
}
