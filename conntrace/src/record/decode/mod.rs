//! Decodes bytes from the kernel, or from a recording, into an [`Attempt`].
//!
//! Any input yields either an attempt or an error that names the wrong field.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use conntrace_common::drops::{DROPPED_SYN, DROPPED_SYN_ACK};
use conntrace_common::record::{
    AF_INET, AF_INET6, FLAG_DEFERRED, FLAG_HEARD, FLAG_ICMP, FLAG_JOINED_LATE, FLAG_RECOVERED,
    FLAG_UNTRACKED, KIND_BIND_FAILED, KIND_CONNECT_FAILED, KIND_CONNECTS, KIND_ENDING, KIND_STALL,
    NO_LINEAR_TIMEOUTS, ORIGIN_ICMP, ORIGIN_ICMP6, RECORD_VERSION, RawRecord, STATE_CLOSE,
    STATE_ESTABLISHED, STATE_SYN_RECV, STATE_SYN_SENT, SYN_RETRIES_OF_SOCKET,
};

use super::{
    Attempt, Caller, Comm, DropUnknown, Drops, Errno, ExeId, HostTimes, IcmpError, IcmpVersion,
    Limits, RecordKind, Remote, Seen, WayDrop, WayPacket,
};
use super::{
    fields::Fields,
    history::{COMPLETE_SIZE, RawComplete, packed_ns, packed_port},
};

impl RecordKind {
    fn of(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let kind = fields.u8(offset_of!(RawRecord, kind));
        let state = fields.u8(offset_of!(RawRecord, state));
        match (kind, state) {
            (KIND_STALL, STATE_SYN_SENT) => Ok(Self::Stalled),
            (KIND_CONNECTS, STATE_SYN_SENT) => Ok(Self::Connects(
                fields.u32(offset_of!(RawRecord, syns_or_connects)),
            )),
            (KIND_ENDING, STATE_ESTABLISHED) => Ok(Self::Established),
            (KIND_ENDING, STATE_CLOSE) => Ok(Self::Closed),
            (KIND_CONNECT_FAILED, STATE_CLOSE) => returned(fields).map(Self::ConnectFailed),
            (KIND_BIND_FAILED, STATE_CLOSE) => returned(fields).map(Self::BindFailed),
            (
                KIND_STALL | KIND_CONNECTS | KIND_ENDING | KIND_CONNECT_FAILED | KIND_BIND_FAILED,
                _,
            ) => Err(malformed("state", state)),
            (_, _) => Err(malformed("kind", kind)),
        }
    }
}

/// Reads the errno of a failed call, which must not be 0.
fn returned(fields: &Fields<'_>) -> Result<Errno, Malformed> {
    let errno = fields.errno("error", offset_of!(RawRecord, error))?;
    errno.ok_or(malformed("error", 0u32))
}

/// Error of bytes that are not a valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Length that differs from [`COMPLETE_SIZE`].
    #[error("a record has {COMPLETE_SIZE} bytes, not {0}")]
    Length(usize),
    /// Field with a value that the kernel side never writes.
    #[error("{field} cannot be {value}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Value of the field.
        value: u64,
    },
}

/// Decodes one complete record.
///
/// # Errors
/// When the length or a field is not one that the kernel side writes.
pub fn decode(bytes: &[u8]) -> Result<Attempt, Malformed> {
    if bytes.len() != COMPLETE_SIZE {
        return Err(Malformed::Length(bytes.len()));
    }
    let fields = Fields(bytes);
    let version = fields.u8(offset_of!(RawRecord, version));
    if version != RECORD_VERSION {
        return Err(malformed("version", version));
    }
    let moment = RecordKind::of(&fields)?;
    let flags = fields.u8(offset_of!(RawRecord, flags));
    let seen = seen(flags)?;
    let family = AddressFamily::of(fields.u16(offset_of!(RawRecord, attempt.family)))?;
    let since_ns = fields.u64(offset_of!(RawRecord, attempt.opening.started_ns));
    let at_ns = fields.u64(offset_of!(RawRecord, at_ns));
    if at_ns < since_ns {
        return Err(malformed("at_ns", at_ns));
    }
    let local_port = u16::from_be(fields.u16(offset_of!(RawRecord, local_port)));
    Ok(Attempt {
        moment,
        seen,
        since_ns,
        serial: fields.u32(offset_of!(RawRecord, attempt.opening.tid_or_cpu)),
        at_ns,
        caller: caller(&fields, seen),
        netns: fields.u32(offset_of!(RawRecord, attempt.netns)),
        netns_mix: fields.u16(offset_of!(RawRecord, attempt.netns_mix)),
        bound_device: fields.nonzero_u32(offset_of!(RawRecord, attempt.opening.bound_device)),
        mark: fields.u32(offset_of!(RawRecord, attempt.opening.mark)),
        socket_uid: (seen != Seen::Untracked)
            .then(|| fields.u32(offset_of!(RawRecord, attempt.socket_uid))),
        remote: match moment {
            RecordKind::BindFailed(_) => None,
            RecordKind::Stalled
            | RecordKind::Connects(_)
            | RecordKind::Established
            | RecordKind::Closed
            | RecordKind::ConnectFailed(_) => Some(remote(&fields, family)),
        },
        local_addr: specified(family.addr(&fields, offset_of!(RawRecord, attempt.local_addr))),
        local_port: (local_port != 0).then_some(local_port),
        port_bound: fields.u16(offset_of!(RawRecord, attempt.bound_port)) != 0,
        error: match moment {
            RecordKind::ConnectFailed(_) | RecordKind::BindFailed(_) => None,
            RecordKind::Stalled
            | RecordKind::Connects(_)
            | RecordKind::Established
            | RecordKind::Closed => fields.errno("error", offset_of!(RawRecord, error))?,
        },
        soft_error: fields.errno("soft_error", offset_of!(RawRecord, soft_error))?,
        syn_sent: fields.u32(offset_of!(RawRecord, syns_or_connects)),
        syn_retransmitted: fields.u32(offset_of!(RawRecord, syn_retransmitted)),
        rto_count: fields.u8(offset_of!(RawRecord, rto_count)),
        heard: flags & FLAG_HEARD != 0,
        syns_crossed: moment == RecordKind::Established
            && fields.u8(offset_of!(RawRecord, old_state)) == STATE_SYN_RECV,
        deferred: flags & FLAG_DEFERRED != 0,
        icmp: match flags & FLAG_ICMP {
            0 => None,
            _ => Some(icmp(&fields)?),
        },
        drops: drops(&fields),
        way_drop: way_drop(&fields)?,
        limits: limits(&fields),
        remembered: remembered(&fields),
    })
}

fn seen(flags: u8) -> Result<Seen, Malformed> {
    const OF_ATTEMPT: u8 = FLAG_HEARD | FLAG_ICMP | FLAG_DEFERRED;
    match flags & !OF_ATTEMPT {
        0 => Ok(Seen::Whole),
        FLAG_JOINED_LATE => Ok(Seen::JoinedLate),
        FLAG_UNTRACKED => Ok(Seen::Untracked),
        FLAG_RECOVERED => Ok(Seen::EndingRecovered),
        _ => Err(malformed("flags", flags)),
    }
}

/// Decodes the caller. For an attempt that was not observed whole, it may be unknown, or only
/// the process may be known.
fn caller(fields: &Fields<'_>, seen: Seen) -> Option<Caller> {
    let whole = seen.from_beginning();
    let pid = fields.u32(offset_of!(RawRecord, attempt.opening.pid));
    (whole || pid != 0).then(|| Caller {
        pid,
        tid: whole.then(|| fields.u32(offset_of!(RawRecord, attempt.opening.tid_or_cpu))),
        uid: fields.u32(offset_of!(RawRecord, attempt.opening.uid)),
        cgroup_id: whole.then(|| fields.u64(offset_of!(RawRecord, attempt.opening.cgroup_id))),
        started_ns: fields.u64(offset_of!(RawRecord, attempt.opening.process_started_ns)),
        exe: exe(fields),
        comm: Comm::of(fields.array(offset_of!(RawRecord, attempt.opening.comm))),
        leader_comm: Comm::of(fields.array(offset_of!(RawRecord, attempt.opening.leader_comm))),
    })
}

fn exe(fields: &Fields<'_>) -> Option<ExeId> {
    Some(ExeId {
        inode: fields.nonzero_u64(offset_of!(RawRecord, attempt.opening.exe_inode))?,
        device: fields.u32(offset_of!(RawRecord, attempt.opening.exe_device)),
    })
}

fn remote(fields: &Fields<'_>, family: AddressFamily) -> Remote {
    Remote {
        addr: family.addr(fields, offset_of!(RawRecord, attempt.remote_addr)),
        port: u16::from_be(fields.u16(offset_of!(RawRecord, attempt.remote_port))),
    }
}

fn drops(fields: &Fields<'_>) -> Option<Drops> {
    let count = fields.u8(offset_of!(RawRecord, drops));
    (count != 0).then(|| Drops {
        count,
        reason: fields.u16(offset_of!(RawRecord, drop_reason)),
    })
}

fn way_drop(fields: &Fields<'_>) -> Result<Result<Option<WayDrop>, DropUnknown>, Malformed> {
    let packet = match fields.u8(offset_of!(RawComplete, way_drop.packet)) {
        0 if fields.u8(offset_of!(RawComplete, way_drop.is_unknown)) != 0 => {
            return Ok(Err(DropUnknown));
        }
        0 => return Ok(Ok(None)),
        DROPPED_SYN => WayPacket::Syn,
        DROPPED_SYN_ACK => WayPacket::SynAck,
        other => return Err(malformed("way_drop.packet", other)),
    };
    let end = |addr: usize, port: usize| Remote {
        addr: AddressFamily::V6.addr(fields, addr),
        port: u16::from_be(fields.u16(port)),
    };
    let asked = end(
        offset_of!(RawComplete, way_drop.asked),
        offset_of!(RawComplete, way_drop.asked_port),
    );
    Ok(Ok(Some(WayDrop {
        packet,
        count: fields.u8(offset_of!(RawComplete, way_drop.count)),
        reason: fields.u16(offset_of!(RawComplete, way_drop.reason)),
        netns: fields.u32(offset_of!(RawComplete, way_drop.netns)),
        device: fields.nonzero_u32(offset_of!(RawComplete, way_drop.device)),
        server: end(
            offset_of!(RawComplete, way_drop.server),
            offset_of!(RawComplete, way_drop.server_port),
        ),
        asked: (!asked.addr.is_unspecified()).then_some(asked),
        last_ns: fields.u64(offset_of!(RawComplete, way_drop.last_ns)),
    })))
}

fn limits(fields: &Fields<'_>) -> Option<Limits> {
    let retries = fields.u8(offset_of!(RawRecord, syn_retries));
    let linear = fields.u8(offset_of!(RawRecord, linear_timeouts));
    (retries != 0).then(|| Limits {
        user_timeout_ms: fields.nonzero_u32(offset_of!(RawRecord, user_timeout_ms)),
        syn_retries: retries & !SYN_RETRIES_OF_SOCKET,
        is_of_socket: retries & SYN_RETRIES_OF_SOCKET != 0,
        linear_timeouts: (linear != NO_LINEAR_TIMEOUTS).then_some(linear),
    })
}

fn remembered(fields: &Fields<'_>) -> HostTimes {
    let with_port = |at: usize| {
        let word = fields.nonzero_u64(at)?;
        Some((packed_ns(word), u16::from_be(packed_port(word))))
    };
    let time = |at: usize| fields.nonzero_u64(at);
    HostTimes {
        handshake: with_port(offset_of!(RawComplete, remembered.handshake)),
        on_this_port_ns: time(offset_of!(RawComplete, remembered.port_handshake_ns)),
        reset: with_port(offset_of!(RawComplete, remembered.reset)),
        silent_since_ns: time(offset_of!(RawComplete, remembered.silent_since_ns)),
        network_silent_since_ns: time(offset_of!(RawComplete, remembered.network_silent_since_ns)),
        forgotten_ns: time(offset_of!(RawComplete, remembered.forgotten_ns)),
        handshake_took_us: fields
            .nonzero_u32(offset_of!(RawComplete, remembered.handshake_took_us)),
    }
}

fn icmp(fields: &Fields<'_>) -> Result<IcmpError, Malformed> {
    let origin = fields.u8(offset_of!(RawRecord, icmp_origin));
    let (version, family) = match origin {
        ORIGIN_ICMP => (IcmpVersion::V4, AddressFamily::V4),
        ORIGIN_ICMP6 => (IcmpVersion::V6, AddressFamily::V6),
        _ => return Err(malformed("icmp_origin", origin)),
    };
    Ok(IcmpError {
        version,
        icmp_type: fields.u8(offset_of!(RawRecord, icmp_type)),
        code: fields.u8(offset_of!(RawRecord, icmp_code)),
        errno: fields.errno16("icmp_errno", offset_of!(RawRecord, icmp_errno))?,
        from: specified(family.addr(fields, offset_of!(RawRecord, icmp_from))),
    })
}

#[derive(Clone, Copy)]
enum AddressFamily {
    V4,
    V6,
}

impl AddressFamily {
    fn of(raw: u16) -> Result<Self, Malformed> {
        match raw {
            AF_INET => Ok(Self::V4),
            AF_INET6 => Ok(Self::V6),
            _ => Err(malformed("family", raw)),
        }
    }

    fn addr(self, fields: &Fields<'_>, at: usize) -> IpAddr {
        let bytes: [u8; 16] = fields.array(at);
        let [a, b, c, d, ..] = bytes;
        match self {
            Self::V4 => Ipv4Addr::new(a, b, c, d).into(),
            Self::V6 => Ipv6Addr::from(bytes).to_canonical(),
        }
    }
}

fn specified(addr: IpAddr) -> Option<IpAddr> {
    (!addr.is_unspecified()).then_some(addr)
}

pub(super) fn malformed(field: &'static str, value: impl Into<u64>) -> Malformed {
    Malformed::Field {
        field,
        value: value.into(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
