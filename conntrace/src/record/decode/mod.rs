//! Bytes from the kernel (or a recording) to an [`Attempt`].
//!
//! Total: any bytes give an attempt or say what is wrong with them.

mod fields;

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use conntrace_common::{
    record as raw,
    record::{
        AF_INET, AF_INET6, COMM_LEN, FLAG_DEFERRED, FLAG_HEARD, FLAG_ICMP, FLAG_JOINED_LATE,
        FLAG_UNTRACKED, KIND_BIND_FAILED, KIND_CONNECT_FAILED, KIND_CONNECTS, KIND_ENDING,
        KIND_STALL, ORIGIN_ICMP, ORIGIN_ICMP6, RECORD_SIZE, RawRecord, STATE_CLOSE,
        STATE_ESTABLISHED, STATE_SYN_SENT,
    },
};
use schemars::JsonSchema;
use serde::Serialize;

use self::fields::Fields;
use super::Errno;

/// An attempt as it stood at one moment: when it ended, or first stalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What this moment is.
    pub moment: RecordKind,
    /// How much of the attempt was seen.
    pub seen: Seen,
    /// Since when it was seen, `CLOCK_BOOTTIME` nanoseconds: its beginning, if it
    /// was seen whole.
    pub since_ns: u64,
    /// Sets it apart from others that were seen since the same moment.
    pub serial: u32,
    /// When the kernel saw this moment, `CLOCK_BOOTTIME` nanoseconds.
    pub at_ns: u64,
    /// Who called connect; `None` of an attempt nothing was kept of.
    pub caller: Option<Caller>,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Random bits of it, by which it is told from the next one with that number; 0 of a
    /// call that failed.
    pub netns_mix: u16,
    /// Index of the interface that the socket is bound to.
    pub bound_device: Option<u32>,
    /// `SO_MARK`; 0 if it has none.
    pub mark: u32,
    /// Owner of the socket, by whom routes can be chosen; `None` of an attempt nothing was
    /// kept of.
    pub socket_uid: Option<u32>,
    /// Where to; `None` when there was no connect.
    pub remote: Option<Remote>,
    /// From where; `None` while unspecified.
    pub local_addr: Option<IpAddr>,
    /// The local port, if one was assigned for this attempt or bound before it.
    pub local_port: Option<u16>,
    /// The local port was bound before connect was called.
    pub port_bound: bool,
    /// `sk_err`: what ended it. A call that failed has its errno in `moment`.
    pub error: Option<Errno>,
    /// `sk_err_soft`, if set during this attempt.
    pub soft_error: Option<Errno>,
    /// SYNs handed to the IP layer.
    pub syn_sent: u32,
    /// SYN retransmissions that left TCP.
    pub syn_retransmitted: u32,
    /// Runs of the retransmission timer, also those that could not send.
    pub rto_count: u8,
    /// A segment came for the socket; ICMP errors are none.
    pub heard: bool,
    /// TCP fast open holds the SYN back until the first write.
    pub deferred: bool,
    /// The newest ICMP error that came for this attempt.
    pub icmp: Option<IcmpError>,
    /// The packets of it that this host dropped.
    pub drops: Option<Drops>,
    /// What was heard of the remote before, and for how long it has answered nothing, this
    /// attempt included.
    pub remembered: HostTimes,
}

/// How much of an attempt was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// From its beginning.
    Whole,
    /// It was under way when tracing began.
    JoinedLate,
    /// The attempt map was full when it began.
    Untracked,
}

/// Packets of an attempt that this host dropped: SYNs, or answers to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drops {
    /// How many, up to 255.
    pub count: u8,
    /// Why the last one: the recorded kernel's `enum skb_drop_reason`.
    pub reason: u16,
}

/// What the kernel side remembers of a host, in the attempt's network namespace and from
/// traced attempts alone. Times are `CLOCK_BOOTTIME` nanoseconds. What is missing may have
/// been forgotten: see `forgotten_ns`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostTimes {
    /// When a handshake with it last completed, and on which port.
    pub handshake: Option<(u64, u16)>,
    /// When a handshake on the attempt's own port last completed.
    pub on_this_port_ns: Option<u64>,
    /// When it last sent a RST, and from which port.
    pub reset: Option<(u64, u16)>,
    /// When the first attempt began that it did not answer, if it has answered none since.
    /// `None` says nothing: it may have answered, or have no record.
    pub silent_since_ns: Option<u64>,
    /// The same of the private network that it is in, all hosts of it together.
    pub network_silent_since_ns: Option<u64>,
    /// When something that was heard of it, or of its network, may last have been forgotten.
    pub forgotten_ns: Option<u64>,
    /// How long the newest handshake took, from connect to `ESTABLISHED`.
    pub handshake_took_us: Option<u32>,
}

/// What happened to the attempt at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Its first SYN retransmission; it goes on.
    Stalled,
    /// It begins, and is one of so many to its destination lately: a hint, which says
    /// nothing of its ending.
    Connects(u32),
    /// The handshake completed.
    Established,
    /// The socket was closed, by whomever.
    Closed,
    /// Connect returned this before the socket reached `TCP_SYN_SENT`.
    ConnectFailed(Errno),
    /// Bind returned this, and there was no connect.
    BindFailed(Errno),
}

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

/// The errno of a call that failed.
fn returned(fields: &Fields<'_>) -> Result<Errno, Malformed> {
    let errno = fields.errno("error", offset_of!(RawRecord, error))?;
    errno.ok_or(malformed("error", 0u32))
}

/// Who called connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Process (thread group) id in the root pid namespace.
    pub pid: u32,
    /// Thread id in the root pid namespace; `None` when only the process is known.
    pub tid: Option<u32>,
    /// Real user id.
    pub uid: u32,
    /// Id of the cgroup (v2); `None` when only the process is known.
    pub cgroup_id: Option<u64>,
    /// When the process started, `CLOCK_BOOTTIME` nanoseconds.
    pub started_ns: u64,
    /// The program that it ran; `None` of a kernel thread.
    pub exe: Option<ExeId>,
    /// The thread's name: any bytes, without the terminating zeros.
    pub comm: Comm,
    /// The process's name.
    pub leader_comm: Comm,
}

/// The file of an executable (`mm_struct.exe_file`), by which it is told from another with the
/// same path. `/proc/PID/maps` shows the same pair; `stat` can show another device (btrfs,
/// overlayfs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExeId {
    /// Device of its file system, encoded as the kernel does: major << 20 | minor.
    pub device: u32,
    /// Its inode number.
    pub inode: u64,
}

/// A task's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; COMM_LEN]);

impl Comm {
    /// The bytes before the first zero.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

/// Address and port of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Its address; v4-mapped ones are IPv4 here.
    pub addr: IpAddr,
    /// Its port.
    pub port: u16,
}

/// An ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IcmpError {
    /// ICMPv4 or ICMPv6.
    pub version: IcmpVersion,
    /// Its type.
    pub icmp_type: u8,
    /// Its code.
    pub code: u8,
    /// What the kernel made of it (`icmp_err_convert`, `icmpv6_err_convert`).
    pub errno: Option<Errno>,
    /// Who sent it.
    pub from: Option<IpAddr>,
}

/// Which ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IcmpVersion {
    /// ICMP for IPv4.
    V4,
    /// ICMP for IPv6.
    V6,
}

/// Bytes that are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not [`RECORD_SIZE`] bytes.
    #[error("a record has {RECORD_SIZE} bytes, not {0}")]
    Length(usize),
    /// A field has a value no kernel side writes.
    #[error("{field} cannot be {value}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

/// Decodes one record.
///
/// # Errors
/// When the bytes are not a record that the kernel side could have written.
pub fn decode(bytes: &[u8]) -> Result<Attempt, Malformed> {
    let bytes: &[u8; RECORD_SIZE] = bytes
        .try_into()
        .map_err(|_| Malformed::Length(bytes.len()))?;
    let fields = Fields(bytes);
    let moment = RecordKind::of(&fields)?;
    let flags = fields.u8(offset_of!(RawRecord, flags));
    let seen = seen(flags)?;
    let family = AddressFamily::of(fields.u16(offset_of!(RawRecord, attempt.family)))?;
    let since_ns = fields.u64(offset_of!(RawRecord, attempt.started_ns));
    let at_ns = fields.u64(offset_of!(RawRecord, at_ns));
    if at_ns < since_ns {
        return Err(malformed("at_ns", at_ns));
    }
    let local_port = u16::from_be(fields.u16(offset_of!(RawRecord, local_port)));
    Ok(Attempt {
        moment,
        seen,
        since_ns,
        serial: fields.u32(offset_of!(RawRecord, attempt.tid_or_cpu)),
        at_ns,
        caller: caller(&fields, seen),
        netns: fields.u32(offset_of!(RawRecord, attempt.netns)),
        netns_mix: fields.u16(offset_of!(RawRecord, attempt.netns_mix)),
        bound_device: fields.some_u32(offset_of!(RawRecord, attempt.bound_device)),
        mark: fields.u32(offset_of!(RawRecord, attempt.mark)),
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
        deferred: flags & FLAG_DEFERRED != 0,
        icmp: match flags & FLAG_ICMP {
            0 => None,
            _ => Some(icmp(&fields)?),
        },
        drops: drops(&fields),
        remembered: remembered(&fields),
    })
}

fn seen(flags: u8) -> Result<Seen, Malformed> {
    let known = FLAG_HEARD | FLAG_ICMP | FLAG_DEFERRED | FLAG_JOINED_LATE | FLAG_UNTRACKED;
    match (
        flags & !known,
        flags & FLAG_JOINED_LATE != 0,
        flags & FLAG_UNTRACKED != 0,
    ) {
        (0, false, false) => Ok(Seen::Whole),
        (0, true, false) => Ok(Seen::JoinedLate),
        (0, false, true) => Ok(Seen::Untracked),
        _ => Err(malformed("flags", flags)),
    }
}

/// Of an attempt that was not seen whole the caller may be unknown, or only its
/// process known.
fn caller(fields: &Fields<'_>, seen: Seen) -> Option<Caller> {
    let whole = seen == Seen::Whole;
    let pid = fields.u32(offset_of!(RawRecord, attempt.pid));
    (whole || pid != 0).then(|| Caller {
        pid,
        tid: whole.then(|| fields.u32(offset_of!(RawRecord, attempt.tid_or_cpu))),
        uid: fields.u32(offset_of!(RawRecord, attempt.uid)),
        cgroup_id: whole.then(|| fields.u64(offset_of!(RawRecord, attempt.cgroup_id))),
        started_ns: fields.u64(offset_of!(RawRecord, attempt.process_started_ns)),
        exe: exe(fields),
        comm: Comm(fields.array(offset_of!(RawRecord, attempt.comm))),
        leader_comm: Comm(fields.array(offset_of!(RawRecord, attempt.leader_comm))),
    })
}

fn exe(fields: &Fields<'_>) -> Option<ExeId> {
    Some(ExeId {
        inode: fields.some_u64(offset_of!(RawRecord, attempt.exe_inode))?,
        device: fields.u32(offset_of!(RawRecord, attempt.exe_device)),
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

fn remembered(fields: &Fields<'_>) -> HostTimes {
    let with_port = |at: usize| {
        let word = fields.some_u64(at)?;
        Some((raw::packed_ns(word), u16::from_be(raw::packed_port(word))))
    };
    let time = |at: usize| fields.some_u64(at);
    HostTimes {
        handshake: with_port(offset_of!(RawRecord, remembered.handshake)),
        on_this_port_ns: time(offset_of!(RawRecord, remembered.port_handshake_ns)),
        reset: with_port(offset_of!(RawRecord, remembered.reset)),
        silent_since_ns: time(offset_of!(RawRecord, remembered.silent_since_ns)),
        network_silent_since_ns: time(offset_of!(RawRecord, remembered.network_silent_since_ns)),
        forgotten_ns: time(offset_of!(RawRecord, remembered.forgotten_ns)),
        handshake_took_us: fields.some_u32(offset_of!(RawRecord, remembered.handshake_took_us)),
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
        errno: fields.errno("icmp_errno", offset_of!(RawRecord, icmp_errno))?,
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

fn malformed(field: &'static str, value: impl Into<u64>) -> Malformed {
    Malformed::Field {
        field,
        value: value.into(),
    }
}

const _: () = assert!(size_of::<raw::RawRecord>() == RECORD_SIZE);

#[cfg(test)]
pub(crate) mod tests;
