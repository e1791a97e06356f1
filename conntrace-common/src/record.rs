//! Wire format: one fixed-size [`RawRecord`] per ending, per first stall, per hint that a
//! destination uses up local ports, and per answer of a host that is news.
//!
//! Numbers are in the host's byte order. Ports and addresses stay in network order, as in the
//! kernel. Enums travel as plain integers, which the agent parses and never transmutes.

/// Size of a task's name in bytes (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// `RawRecord::kind`: the attempt has ended, and its entry is released.
pub const KIND_ENDING: u8 = 1;
/// `RawRecord::kind`: first SYN retransmission; the attempt goes on.
pub const KIND_STALL: u8 = 2;

/// `RawRecord::kind`: connect returned an error before the socket reached `TCP_SYN_SENT`;
/// `error` is its errno, and no SYN was sent.
pub const KIND_CONNECT_FAILED: u8 = 3;
/// `RawRecord::kind`: bind returned an error, and there was no connect. `error` is the errno of
/// bind, `local_addr` and `bound_port` are its arguments, and the remote fields are all zero.
pub const KIND_BIND_FAILED: u8 = 4;
/// `RawRecord::kind`: hint at the beginning of an attempt. `syns_or_connects` is the number of
/// recent connects to its destination ([`crate::connects`]). The attempt goes on.
pub const KIND_CONNECTS: u8 = 5;
/// `RawRecord::kind`: a handshake completed that is only counted. The record says that the host
/// answers; there is at most about one a second for a host and port ([`crate::answers`]).
pub const KIND_ANSWER: u8 = 6;

/// `RawRecord::state`: the socket is still in `TCP_SYN_SENT`.
pub const STATE_SYN_SENT: u8 = 2;
/// `RawRecord::old_state`: SYNs had crossed (`TCP_SYN_RECV`).
pub const STATE_SYN_RECV: u8 = 3;
/// `RawRecord::state`: the handshake completed (`TCP_ESTABLISHED`).
pub const STATE_ESTABLISHED: u8 = 1;
/// `RawRecord::state`: the socket went to `TCP_CLOSE`.
pub const STATE_CLOSE: u8 = 7;

/// `RawRecord::flags`: the socket received a TCP segment since the attempt began
/// (`tcp_sock.segs_in`). ICMP errors do not count.
pub const FLAG_HEARD: u8 = 1 << 0;
/// `RawRecord::flags`: an ICMP error for this attempt is in the error queue; the `icmp_*`
/// fields describe it.
pub const FLAG_ICMP: u8 = 1 << 1;
/// `RawRecord::flags`: TCP Fast Open holds the SYN back until the first write
/// (`DEFER_CONNECT`).
pub const FLAG_DEFERRED: u8 = 1 << 2;

/// `RawRecord::flags`: the attempt was under way when tracing began. `started_ns` is the time
/// at which it was found. The caller is the process that held the socket then; its thread is
/// unknown. The counts may include earlier attempts of the socket.
pub const FLAG_JOINED_LATE: u8 = 1 << 3;
/// `RawRecord::flags`: no entry was kept of the attempt, which found no place in the table when
/// it began. `started_ns` is the time of its ending. The caller is all zero, except that
/// `tid_or_cpu` is the CPU number, which makes the id unique. The counts may include earlier
/// attempts of the socket.
pub const FLAG_UNTRACKED: u8 = 1 << 4;
/// `RawRecord::flags`: no program saw the ending. `at_ns` is the time at which
/// the socket was destroyed, with its error still set (`tcp_destroy_sock`).
pub const FLAG_RECOVERED: u8 = 1 << 5;

/// `RawRecord::icmp_origin` of an ICMPv4 error (`SO_EE_ORIGIN_ICMP`).
pub const ORIGIN_ICMP: u8 = 2;
/// `RawRecord::icmp_origin` of an ICMPv6 error (`SO_EE_ORIGIN_ICMP6`).
pub const ORIGIN_ICMP6: u8 = 3;

/// `RawAttempt::family` of IPv4.
pub const AF_INET: u16 = 2;
/// `RawAttempt::family` of IPv6, whose addresses may be v4-mapped.
pub const AF_INET6: u16 = 10;

/// Facts that only the opening of an attempt knows, recorded in the caller's context when the
/// socket changes from `TCP_CLOSE` to `TCP_SYN_SENT` (`tcp_v4_connect`, `tcp_v6_connect`).
///
/// Names may have leftover bytes after their NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawOpening {
    /// Start of the attempt, in nanoseconds of `CLOCK_BOOTTIME`.
    pub started_ns: u64,
    /// Start time of the process in nanoseconds (`task_struct.start_boottime` of the thread group's
    /// leader). It tells the process from a later one with the same pid.
    pub process_started_ns: u64,
    /// Id of the caller's cgroup (v2), its kernfs inode number.
    pub cgroup_id: u64,
    /// Inode number of the caller's executable (`mm_struct.exe_file`); 0 for a kernel thread, which
    /// has none.
    pub exe_inode: u64,
    /// Device of that inode (`super_block.s_dev`) in the kernel's encoding: the major number above
    /// 20 bits of the minor number.
    pub exe_device: u32,
    /// Thread group id in the root pid namespace.
    pub pid: u32,
    /// Thread id in the root pid namespace; the CPU number if [`FLAG_UNTRACKED`] is set.
    pub tid_or_cpu: u32,
    /// Real user id in the root user namespace.
    pub uid: u32,
    /// Index of the interface that the socket is bound to (`sock_common.skc_bound_dev_if`); 0 if
    /// none.
    pub bound_device: u32,
    /// Mark of the socket (`SO_MARK`, `sock.sk_mark`).
    pub mark: u32,
    /// Name of the calling thread.
    pub comm: [u8; COMM_LEN],
    /// Name of the thread group's leader.
    pub leader_comm: [u8; COMM_LEN],
}

/// Caller and destination of an attempt. Everything but the opening is read from the socket at the
/// event.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAttempt {
    /// Facts recorded at connect.
    pub opening: RawOpening,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Owner of the socket in the root user namespace (`sock.sk_uid`), which route lookups use.
    pub socket_uid: u32,
    /// Destination address; the first four bytes when `family` is `AF_INET`.
    pub remote_addr: [u8; 16],
    /// Local address, in the layout of `remote_addr`.
    pub local_addr: [u8; 16],
    /// Destination port, network order.
    pub remote_port: u16,
    /// Local port bound before connect was called (`inet_num`), host order; 0 if none.
    pub bound_port: u16,
    /// Address family: `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Lower 16 of the network namespace's random bits (`net.hash_mix`), which tell it from a later
    /// one with the same inode number; 0 for a failed call.
    pub netns_mix: u16,
}

/// State of an attempt at one event: its ending, its first stall, a hint at its beginning, or a
/// handshake that is only counted.
///
/// Counts are of this attempt alone: the kernel side subtracts those of earlier attempts on a
/// reused socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// Caller and destination.
    pub attempt: RawAttempt,
    /// Time of the event, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Errno in `sk_err` if it was set since the attempt began, else 0. For a failed call, the
    /// errno that it returned.
    pub error: u32,
    /// Errno in `sk_err_soft` if it was set since the attempt began, else 0.
    pub soft_error: u32,
    /// Number of SYNs handed to the IP layer (`tcp_sock.segs_out`); for [`KIND_CONNECTS`], the
    /// number of recent connects to the destination.
    pub syns_or_connects: u32,
    /// Number of SYN retransmissions that left TCP (`tcp_sock.total_retrans`).
    pub syn_retransmitted: u32,
    /// Sender of the ICMP error (outer source address), in the layout of
    /// `RawAttempt::remote_addr`; all zero if unknown.
    pub icmp_from: [u8; 16],
    /// Errno that the kernel derived from the ICMP error (`ee_errno`).
    pub icmp_errno: u16,
    /// Layout of the record, always [`RECORD_VERSION`].
    pub version: u8,
    /// State of the socket before the event, a constant `STATE_*`; the current one where it did not
    /// change.
    pub old_state: u8,
    /// Local port assigned for this attempt, network order; 0 if none was.
    pub local_port: u16,
    /// Number of retransmission timer runs since the handshake began (`icsk_retransmits`). Runs
    /// whose SYN is still queued below TCP count here and not in `syn_retransmitted`.
    pub rto_count: u8,
    /// Kind of record, a constant `KIND_*`.
    pub kind: u8,
    /// Current state of the socket, a constant `STATE_*`.
    pub state: u8,
    /// Set of the constants `FLAG_*`.
    pub flags: u8,
    /// Origin of the ICMP error (`ee_origin`), a constant `ORIGIN_*`.
    pub icmp_origin: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// Number of packets of the attempt that this host dropped (`kfree_skb`), SYNs or answers to
    /// them; at most 255.
    pub drops: u8,
    /// Drop reason of the last dropped packet (the running kernel's `enum skb_drop_reason`); 0 if
    /// none was dropped.
    pub drop_reason: u16,
    /// Time in milliseconds after which the kernel gives the attempt up (`TCP_USER_TIMEOUT`); 0 if
    /// the socket has none. Like the two limits that follow, as it was at the ending, and 0 unless
    /// the kernel gave up (`error` is `ETIMEDOUT`).
    pub user_timeout_ms: u32,
    /// Number of SYN retransmissions after which it does so: that of the socket (`TCP_SYNCNT`) with
    /// [`SYN_RETRIES_OF_SOCKET`] added, or that of the network namespace
    /// (`net.ipv4.tcp_syn_retries`). Both are at most 127.
    pub syn_retries: u8,
    /// Number of further ones, which come without a longer wait
    /// (`net.ipv4.tcp_syn_linear_timeouts`); [`NO_LINEAR_TIMEOUTS`] before Linux 6.5.
    pub linear_timeouts: u8,
    /// Lower half of the initial sequence number (`tcp_sock.snd_una` until an answer comes).
    pub isn_end: u16,
    /// Data that the connection carried; all zero if it carried none.
    pub traffic: RawTraffic,
}

/// Bit of `RawRecord::syn_retries`: the number is the socket's own.
pub const SYN_RETRIES_OF_SOCKET: u8 = 1 << 7;
/// `RawRecord::linear_timeouts`: the kernel has none. Its sysctl is at most 127.
pub const NO_LINEAR_TIMEOUTS: u8 = u8::MAX;

/// Data that a connection sent and received until the event, as its socket counts them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawTraffic {
    /// Number of bytes that the peer acknowledged, SYN and FIN included (`tcp_sock.bytes_acked`).
    pub bytes_acked: u64,
    /// Number of bytes received in order, FIN included (`tcp_sock.bytes_received`).
    pub bytes_received: u64,
    /// Number of bytes written and not acknowledged (`tcp_sock.write_seq - snd_una`).
    pub unacked: u32,
    /// Number of bytes received and not read (`tcp_sock.rcv_nxt - copied_seq`).
    pub unread: u32,
    /// Number of segments with data that were sent, retransmissions included
    /// (`tcp_sock.data_segs_out`).
    pub data_segs_out: u32,
    /// Number of segments with data that were received (`tcp_sock.data_segs_in`).
    pub data_segs_in: u32,
    /// Time since data was last sent, in jiffies (`tcp_sock.lsndtime`).
    pub sent_ago_jiffies: u32,
    /// Time since data was last received, in jiffies (`icsk_ack.lrcvtime`); 0 if none was.
    pub received_ago_jiffies: u32,
}

/// Size of a [`RawOpening`] in bytes.
pub const OPENING_SIZE: usize = 88;
/// Size of a [`RawRecord`] in bytes.
pub const RECORD_SIZE: usize = 240;
/// `RawRecord::version`: layout of the records. A new layout has a new number.
pub const RECORD_VERSION: u8 = 3;

const _: () = assert!(size_of::<RawOpening>() == OPENING_SIZE);
const _: () = assert!(size_of::<RawAttempt>() == OPENING_SIZE + 48);
const _: () = assert!(size_of::<RawRecord>() == RECORD_SIZE);
