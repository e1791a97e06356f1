//! How attempts end.

use super::script::{FAR, NETNS, OWN, PORT, PROCESS, ip};
use crate::{
    diagnose::{Call, Case},
    errno::Errno,
    label::Label,
    reply::ReplyKind,
    wire::{Icmp, IcmpVersion, Remote},
};

pub(super) fn case(label: Label, reply: ReplyKind) -> Case {
    Case {
        label,
        errno: None,
        call: None,
        netns: NETNS,
        process: Some(PROCESS),
        cgroup: Some(77),
        remote: Some(to(FAR)),
        local_addr: Some(ip(OWN)),
        bound_port: None,
        reply,
        icmp: None,
        drop_reason: None,
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
        icmp: Some(Icmp {
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
        call: Some(Call::Connect),
        ..case(label, ReplyKind::None)
    }
}

pub(super) fn exhausted() -> Case {
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

pub(super) fn not_local() -> Case {
    failed_call(Label::AddressUnavailable, Errno::EADDRNOTAVAIL)
}

pub(super) fn dropped() -> Case {
    Case {
        drop_reason: Some(8),
        ..case(Label::TimedOut, ReplyKind::Local)
    }
}
