//! Decodes bytes from the kernel, or from a recording, into an [`Attempt`].
//!
//! Any input yields either an attempt or an error that names the wrong field.

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

/// State of an attempt at one event: its ending, its first stall, or a hint at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Event that the record reports.
    pub moment: RecordKind,
    /// Extent to which the attempt was observed.
    pub seen: Seen,
    /// Time since which it was observed, in nanoseconds of `CLOCK_BOOTTIME`. This is its
    /// beginning if it was observed whole.
    pub since_ns: u64,
    /// Thread id or CPU number that tells apart attempts with the same `since_ns`.
    pub serial: u32,
    /// Time of the event, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Caller of connect or bind; `None` if no entry was kept of the attempt.
    pub caller: Option<Caller>,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Random bits of the network namespace (`net.hash_mix`), which tell it from a later one with
    /// the same inode number; 0 for a failed call.
    pub netns_mix: u16,
    /// Index of the interface that the socket is bound to (`SO_BINDTODEVICE`).
    pub bound_device: Option<u32>,
    /// Mark of the socket (`SO_MARK`); 0 if it has none.
    pub mark: u32,
    /// User id of the socket's owner, which routing rules can match; `None` if no entry was kept
    /// of the attempt.
    pub socket_uid: Option<u32>,
    /// Destination; `None` for a failed bind.
    pub remote: Option<Remote>,
    /// Local address; `None` while unspecified.
    pub local_addr: Option<IpAddr>,
    /// Local port, if one was assigned for this attempt or bound before it.
    pub local_port: Option<u16>,
    /// True if the local port was bound before connect was called.
    pub port_bound: bool,
    /// Errno that ended the attempt (`sk_err`). A failed call has its errno in `moment`.
    pub error: Option<Errno>,
    /// Errno of a soft error during this attempt (`sk_err_soft`).
    pub soft_error: Option<Errno>,
    /// Number of SYNs handed to the IP layer (`segs_out`).
    pub syn_sent: u32,
    /// Number of SYN retransmissions that left TCP (`total_retrans`).
    pub syn_retransmitted: u32,
    /// Number of retransmission timer runs (`icsk_retransmits`), including those that could not
    /// send.
    pub rto_count: u8,
    /// True if the socket received a TCP segment.
    pub heard: bool,
    /// True if TCP Fast Open holds the SYN back until the first write.
    pub deferred: bool,
    /// Newest ICMP error received for this attempt.
    pub icmp: Option<IcmpError>,
    /// Packets of the attempt that this host dropped.
    pub drops: Option<Drops>,
    /// Cached facts about the remote host. Its silence includes this attempt; its answers do not.
    pub remembered: HostTimes,
}

/// Extent to which an attempt was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// The attempt was observed from its beginning.
    Whole,
    /// The attempt was under way when tracing began.
    JoinedLate,
    /// The attempt began while the attempt map was full, so only its ending was observed.
    Untracked,
}

/// Dropped packets of an attempt: SYNs, or answers to them, dropped by this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drops {
    /// Number of packets, at most 255.
    pub count: u8,
    /// Drop reason of the last packet: a value of the recorded kernel's `enum skb_drop_reason`.
    pub reason: u16,
}

/// Cached facts about a host, from traced attempts in the same network namespace. Times are
/// nanoseconds of `CLOCK_BOOTTIME`. A missing fact may have been evicted: see `forgotten_ns`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostTimes {
    /// Time and port of the last completed handshake.
    pub handshake: Option<(u64, u16)>,
    /// Time of the last completed handshake on the attempt's own port.
    pub on_this_port_ns: Option<u64>,
    /// Time and source port of the last RST.
    pub reset: Option<(u64, u16)>,
    /// Start of the first unanswered attempt, if the host has answered none since. `None` is no
    /// evidence: the host may have answered, or may not be cached.
    pub silent_since_ns: Option<u64>,
    /// Start of the first unanswered attempt to the host's private network, if no host of that
    /// network has answered since.
    pub network_silent_since_ns: Option<u64>,
    /// Last time at which a fact about the host or its network may have been evicted.
    pub forgotten_ns: Option<u64>,
    /// Duration of the last handshake in microseconds, from connect to `TCP_ESTABLISHED`.
    pub handshake_took_us: Option<u32>,
}

/// Event that a record reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// First SYN retransmission; the attempt goes on.
    Stalled,
    /// Beginning of an attempt, with the number of recent connects to its destination. A hint at
    /// port pressure, independent of the attempt's ending.
    Connects(u32),
    /// Completion of the handshake.
    Established,
    /// Close of the socket, by the application or the kernel.
    Closed,
    /// Errno that connect returned before the socket reached `TCP_SYN_SENT`.
    ConnectFailed(Errno),
    /// Errno that bind returned; there was no connect.
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

/// Reads the errno of a failed call, which must not be 0.
fn returned(fields: &Fields<'_>) -> Result<Errno, Malformed> {
    let errno = fields.errno("error", offset_of!(RawRecord, error))?;
    errno.ok_or(malformed("error", 0u32))
}

/// Caller of connect or bind, as recorded at the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Process id (thread group id) in the root pid namespace.
    pub pid: u32,
    /// Thread id in the root pid namespace; `None` if only the process is known.
    pub tid: Option<u32>,
    /// Real user id.
    pub uid: u32,
    /// Id of the cgroup (v2); `None` if only the process is known.
    pub cgroup_id: Option<u64>,
    /// Start time of the process, in nanoseconds of `CLOCK_BOOTTIME`.
    pub started_ns: u64,
    /// Executable of the process; `None` for a kernel thread.
    pub exe: Option<ExeId>,
    /// Name of the thread, arbitrary bytes.
    pub comm: Comm,
    /// Name of the thread group's leader, which is the process's name.
    pub leader_comm: Comm,
}

/// Identity of an executable file (`mm_struct.exe_file`), which tells it from another file
/// with the same path. `/proc/PID/maps` shows the same pair; `stat` can show another device
/// (btrfs, overlayfs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExeId {
    /// Device of the file system in the kernel's encoding: `major << 20 | minor`.
    pub device: u32,
    /// Inode number of the file.
    pub inode: u64,
}

/// Name of a task (`task_struct.comm`), padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; COMM_LEN]);

impl Comm {
    /// Returns the bytes before the first zero.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

/// Address and port of the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Remote {
    /// IP address; v4-mapped addresses are converted to IPv4.
    pub addr: IpAddr,
    /// TCP port.
    pub port: u16,
}

/// ICMP error received for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IcmpError {
    /// Version of ICMP, which defines `icmp_type` and `code`.
    pub version: IcmpVersion,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub code: u8,
    /// Errno that the kernel derived from it (`icmp_err_convert`, `icmpv6_err_convert`).
    pub errno: Option<Errno>,
    /// Address of the sender.
    pub from: Option<IpAddr>,
}

/// Version of ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IcmpVersion {
    /// ICMP for IPv4.
    V4,
    /// ICMP for IPv6.
    V6,
}

/// Error of bytes that are not a valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Length that differs from [`RECORD_SIZE`].
    #[error("a record has {RECORD_SIZE} bytes, not {0}")]
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

/// Decodes one record.
///
/// # Errors
/// When the length or a field is not one that the kernel side writes.
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
        bound_device: fields.nonzero_u32(offset_of!(RawRecord, attempt.bound_device)),
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

/// Decodes the caller. For an attempt that was not observed whole, it may be unknown, or only
/// the process may be known.
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
        inode: fields.nonzero_u64(offset_of!(RawRecord, attempt.exe_inode))?,
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
        let word = fields.nonzero_u64(at)?;
        Some((raw::packed_ns(word), u16::from_be(raw::packed_port(word))))
    };
    let time = |at: usize| fields.nonzero_u64(at);
    HostTimes {
        handshake: with_port(offset_of!(RawRecord, remembered.handshake)),
        on_this_port_ns: time(offset_of!(RawRecord, remembered.port_handshake_ns)),
        reset: with_port(offset_of!(RawRecord, remembered.reset)),
        silent_since_ns: time(offset_of!(RawRecord, remembered.silent_since_ns)),
        network_silent_since_ns: time(offset_of!(RawRecord, remembered.network_silent_since_ns)),
        forgotten_ns: time(offset_of!(RawRecord, remembered.forgotten_ns)),
        handshake_took_us: fields.nonzero_u32(offset_of!(RawRecord, remembered.handshake_took_us)),
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
