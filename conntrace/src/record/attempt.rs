//! Attempts as the kernel side reports them.

use std::net::{IpAddr, SocketAddr};

use conntrace_common::record::COMM_LEN;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Errno, Limits};

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
    /// True for a connection that was established after SYNs had crossed (simultaneous open).
    pub syns_crossed: bool,
    /// True if TCP Fast Open holds the SYN back until the first write.
    pub deferred: bool,
    /// Newest ICMP error received for this attempt.
    pub icmp: Option<IcmpError>,
    /// Packets of the attempt that this host dropped.
    pub drops: Option<Drops>,
    /// Packets of the attempt that were dropped on this machine after they had lost their socket. An
    /// error says that one may not have been reported.
    pub way_drop: Result<Option<WayDrop>, DropUnknown>,
    /// Limits after which the kernel gave up; `None` unless it did.
    pub limits: Option<Limits>,
    /// Cached facts about the remote host. Its silence includes this attempt; its answers do not.
    pub remembered: HostTimes,
}

impl Attempt {
    /// Returns true for a connection that is established and has the same address and port at both
    /// ends: the socket is connected to itself.
    #[must_use]
    pub fn is_to_itself(&self) -> bool {
        let ends = (self.local_addr, self.local_port);
        let remote = self
            .remote
            .map(|Remote { addr, port }| (Some(addr), Some(port)));
        // Behind a translation a server may answer from another address.
        self.moment == RecordKind::Established && self.syns_crossed && remote == Some(ends)
    }

    /// Returns true for a bind to a port that was taken. Most are a server's.
    #[must_use]
    pub fn found_its_port_taken(&self) -> bool {
        self.moment == RecordKind::BindFailed(Errno::EADDRINUSE) && self.port_bound
    }
}

/// Extent to which an attempt was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// The attempt was observed from its beginning.
    Whole,
    /// The attempt was under way when tracing began.
    JoinedLate,
    /// No program saw the ending. It was found when the socket was destroyed, with its error still
    /// set.
    EndingRecovered,
    /// The attempt began while the table of attempts was full, so only its ending was observed.
    Untracked,
}

impl Seen {
    /// Returns true if the attempt was observed from its beginning.
    #[must_use]
    pub fn from_beginning(self) -> bool {
        match self {
            Self::Whole | Self::EndingRecovered => true,
            Self::JoinedLate | Self::Untracked => false,
        }
    }
}

/// Dropped packets of an attempt: SYNs, or answers to them, dropped by this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drops {
    /// Number of packets, at most 255.
    pub count: u8,
    /// Drop reason of the last packet: a value of the recorded kernel's `enum skb_drop_reason`.
    pub reason: u16,
}

impl Attempt {
    /// Returns the address and port of the client, if both are known.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.local_addr?, self.local_port?))
    }

    /// Returns the destination to which that of the attempt was translated on its way, as a dropped packet
    /// of it shows; `None` if that is unknown, or the same.
    #[must_use]
    pub fn translated_to(&self) -> Option<Remote> {
        let (drop, remote) = (self.way_drop.ok()??, self.remote?);
        // The source of an answer is translated back on its way.
        let is_known = drop.packet == WayPacket::Syn || drop.asked == Some(remote);
        (is_known && drop.server != remote).then_some(drop.server)
    }
}

/// Packets of an attempt that were dropped anywhere on this machine after they had lost their socket,
/// as they do on loopback and behind a veth. All were dropped in the same place, for the same
/// reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayDrop {
    /// Kind of the packets.
    pub packet: WayPacket,
    /// Number of packets, at most 255.
    pub count: u8,
    /// Reason of the drop: a value of the recorded kernel's `enum skb_drop_reason`.
    pub reason: u16,
    /// Inode number of the network namespace that dropped them.
    pub netns: u32,
    /// Index of the packet's interface in that namespace, if it had one.
    pub device: Option<u32>,
    /// Other end, as the dropped packet has it: after the translations before the drop.
    pub server: Remote,
    /// Destination before its translation in that namespace, if connection tracking knows it.
    pub asked: Option<Remote>,
    /// Time of the last drop, in nanoseconds of `CLOCK_BOOTTIME`.
    pub last_ns: u64,
}

/// Packet of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WayPacket {
    /// SYN of the attempt.
    Syn,
    /// SYN-ACK, the answer to it.
    SynAck,
}

/// A drop of the attempt may not have been reported, or was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DropUnknown;

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
    /// Time since which the host has been tried in vain, if it has answered nothing since. `None` is no
    /// evidence: the host may have answered, or may not be cached.
    pub silent_since_ns: Option<u64>,
    /// Time since which hosts of its private network have been tried in vain, if none of them has
    /// answered since.
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
    /// Creates a name from the kernel's bytes, of which those after the first zero are leftovers
    /// of a longer name.
    #[must_use]
    pub fn of(mut bytes: [u8; COMM_LEN]) -> Self {
        let len = bytes.iter().position(|&byte| byte == 0);
        let rest = bytes.get_mut(len.unwrap_or(COMM_LEN)..);
        rest.unwrap_or_default().fill(0);
        Self(bytes)
    }

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
