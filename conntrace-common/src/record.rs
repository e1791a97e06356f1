//! The wire format: one fixed-size [`RawRecord`] per ending and per first stall, and per
//! hint that a destination uses up local ports.
//!
//! All numbers are in the host's byte order but ports and addresses, which stay
//! in network order as the kernel keeps them. Enums travel as plain integers:
//! the agent parses them, it never transmutes.

/// Bytes of a task's name, `TASK_COMM_LEN` in the kernel.
pub const COMM_LEN: usize = 16;

/// `Record::kind`: the attempt has ended, its entry is gone from the map.
pub const KIND_ENDING: u8 = 1;
/// `Record::kind`: the attempt's first SYN retransmission, it goes on.
pub const KIND_STALL: u8 = 2;

/// `Record::kind`: connect returned an error before the socket reached
/// `TCP_SYN_SENT`; `error` is its errno, and there was no SYN to count.
pub const KIND_CONNECT_FAILED: u8 = 3;
/// `Record::kind`: bind returned an error, so that there was no connect; `error` is
/// its errno. `local_addr` and `bound_port` are what was asked for, the remote side
/// is all zero.
pub const KIND_BIND_FAILED: u8 = 4;
/// `Record::kind`: the attempt begins, and `syn_sent` is how many to its destination
/// did lately ([`crate::connects`]). A hint, which says nothing of the attempt's ending.
pub const KIND_CONNECTS: u8 = 5;

/// `Record::state`: the socket is still in `TCP_SYN_SENT`.
pub const STATE_SYN_SENT: u8 = 2;
/// `Record::state`: the handshake completed (`TCP_ESTABLISHED`).
pub const STATE_ESTABLISHED: u8 = 1;
/// `Record::state`: the socket went to `TCP_CLOSE`.
pub const STATE_CLOSE: u8 = 7;

/// `Record::flags`: a segment came for the socket since the attempt began
/// (`tcp_sock.segs_in`). ICMP errors are none.
pub const FLAG_HEARD: u8 = 1 << 0;
/// `Record::flags`: an ICMP error for this attempt lies in the error queue;
/// the `icmp_*` fields describe it.
pub const FLAG_ICMP: u8 = 1 << 1;
/// `Record::flags`: TCP fast open holds the SYN back until the first write
/// (`DEFER_CONNECT`).
pub const FLAG_DEFERRED: u8 = 1 << 2;

/// `Record::flags`: the attempt was under way when tracing began. `started_ns` is
/// when it was found, the caller is the process that held the socket then (its
/// thread is unknown), and the counts may include what the socket did before.
pub const FLAG_JOINED_LATE: u8 = 1 << 3;
/// `Record::flags`: nothing was kept of the attempt, because the attempt map was
/// full when it began. `started_ns` is when it ended, the caller is all zero but
/// for `tid`, which is the CPU's number and makes the id unique, and the counts
/// may include what the socket did before.
pub const FLAG_UNTRACKED: u8 = 1 << 4;

/// `sock_extended_err.ee_origin` of an ICMPv4 error (`SO_EE_ORIGIN_ICMP`).
pub const ORIGIN_ICMP: u8 = 2;
/// `sock_extended_err.ee_origin` of an ICMPv6 error (`SO_EE_ORIGIN_ICMP6`).
pub const ORIGIN_ICMP6: u8 = 3;

/// `Attempt::family` of IPv4.
pub const AF_INET: u16 = 2;
/// `Attempt::family` of IPv6, which may hold a v4-mapped address.
pub const AF_INET6: u16 = 10;

/// What the call to connect told us, recorded in the caller's own context at
/// `TCP_CLOSE` -> `TCP_SYN_SENT` (`tcp_v4_connect`, `tcp_v6_connect`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAttempt {
    /// When it began, `CLOCK_BOOTTIME` nanoseconds.
    pub started_ns: u64,
    /// `task_struct.start_boottime` of the thread group's leader, nanoseconds:
    /// tells the process from a later one with the same pid.
    pub process_started_ns: u64,
    /// Id of the caller's cgroup (v2), its kernfs inode number.
    pub cgroup_id: u64,
    /// Inode number of the caller's executable (`mm_struct.exe_file`); 0 of a kernel
    /// thread, which has none.
    pub exe_inode: u64,
    /// Device of that inode (`super_block.s_dev`), encoded as the kernel does: the major
    /// number above 20 bits of the minor one.
    pub exe_device: u32,
    /// Thread group id in the root pid namespace.
    pub pid: u32,
    /// Thread id in the root pid namespace.
    pub tid_or_cpu: u32,
    /// Real user id in the root user namespace.
    pub uid: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Interface that the socket is bound to (`sock_common.skc_bound_dev_if`); 0 if none.
    pub bound_device: u32,
    /// `SO_MARK` (`sock.sk_mark`).
    pub mark: u32,
    /// Owner of the socket (`sock.sk_uid`) in the root user namespace: routes are looked up
    /// with it.
    pub socket_uid: u32,
    /// Destination address; the first four bytes when `family` is `AF_INET`.
    pub remote_addr: [u8; 16],
    /// Local address, laid out like `remote_addr`.
    pub local_addr: [u8; 16],
    /// Destination port, network order.
    pub remote_port: u16,
    /// Local port bound before connect was called (`inet_num`), host order; 0 if none.
    pub bound_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Random bits of the network namespace (`net.hash_mix`, the lower 16), by which it is
    /// told from the next one with that inode number; 0 of a call that failed.
    pub netns_mix: u16,
    /// Name of the calling thread.
    pub comm: [u8; COMM_LEN],
    /// Name of the thread group's leader.
    pub leader_comm: [u8; COMM_LEN],
}

/// One attempt at one moment: its ending or its first stall.
///
/// Counts are of this attempt alone: the kernel side subtracts what a reused
/// socket brought along.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// Who called, where to.
    pub attempt: RawAttempt,
    /// When the kernel saw this moment, `CLOCK_BOOTTIME` nanoseconds.
    pub at_ns: u64,
    /// `sk->sk_err` if it was set since the attempt began, else 0; of a call that
    /// failed, the errno it returned.
    pub error: u32,
    /// `sk->sk_err_soft` if it was set since the attempt began, else 0.
    pub soft_error: u32,
    /// SYNs handed to the IP layer (`tcp_sock.segs_out`).
    pub syns_or_connects: u32,
    /// SYN retransmissions that left TCP (`tcp_sock.total_retrans`).
    pub syn_retransmitted: u32,
    /// Who sent the ICMP error (the outer source address); laid out like
    /// `Attempt::remote_addr`, all zero if unknown.
    pub icmp_from: [u8; 16],
    /// errno the kernel made of the ICMP error (`ee_errno`).
    pub icmp_errno: u32,
    /// Local port assigned for this attempt, network order; 0 if none was.
    pub local_port: u16,
    /// Retransmission timer runs since the handshake began
    /// (`icsk_retransmits`); those whose SYN is still stuck below TCP count
    /// here and not in `syn_retransmitted`.
    pub rto_count: u8,
    /// `KIND_*`.
    pub kind: u8,
    /// `STATE_*` the socket is in now.
    pub state: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// `ee_origin` of the ICMP error, `ORIGIN_*`.
    pub icmp_origin: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// How many packets of the attempt this host dropped, its own or answers to
    /// them (`kfree_skb`); stays at 255.
    pub drops: u8,
    /// Why the last of them was dropped: the running kernel's
    /// `enum skb_drop_reason`; 0 if none was.
    pub drop_reason: u16,
    /// What was remembered of the remote. The silence of this attempt is noted before, its
    /// answers are afterwards: an answer is no evidence about the attempt itself.
    pub remembered: RawHistory,
}

/// What was heard of a host, in the attempt's network namespace, from attempts that
/// were traced. Times are `CLOCK_BOOTTIME` nanoseconds, 0 where there is none; with a port
/// they share a word ([`pack`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawHistory {
    /// The newest handshake that completed with it, and its port.
    pub handshake: u64,
    /// When a handshake on the attempt's own port last completed.
    pub port_handshake_ns: u64,
    /// The newest RST that it sent, and the port that it came from.
    pub reset: u64,
    /// When the first attempt began that it did not answer, if it never answered any since.
    pub silent_since_ns: u64,
    /// Likewise of the whole private network that it is in; 0 where it is in none.
    pub network_silent_since_ns: u64,
    /// When something that was heard of it may last have been forgotten.
    pub forgotten_ns: u64,
    /// How long the newest handshake took from connect to `TCP_ESTABLISHED`, in
    /// microseconds; 0 if that is not known.
    pub handshake_took_us: u32,
    /// Padding, always zero.
    pub reserved: u32,
}

impl RawHistory {
    /// Nothing was heard.
    pub const NOTHING: Self = Self {
        handshake: 0,
        port_handshake_ns: 0,
        reset: 0,
        silent_since_ns: 0,
        network_silent_since_ns: 0,
        forgotten_ns: 0,
        handshake_took_us: 0,
        reserved: 0,
    };
}

/// The bits of a packed word that hold the port.
const PORT_BITS: u64 = u16::MAX as u64;

/// A time and a port in one word, which is read and written at once. The time loses 66 us.
#[inline(always)]
#[must_use]
pub const fn pack(at_ns: u64, port: u16) -> u64 {
    at_ns & !PORT_BITS | port as u64
}

/// The time of a packed word.
#[inline(always)]
#[must_use]
pub const fn packed_ns(word: u64) -> u64 {
    word & !PORT_BITS
}

/// The port of a packed word, in the byte order that it was packed in.
#[inline(always)]
#[must_use]
pub const fn packed_port(word: u64) -> u16 {
    (word & PORT_BITS) as u16
}

/// Size of an [`RawAttempt`] in bytes.
pub const ATTEMPT_SIZE: usize = 136;
/// Size of a [`RawRecord`] in bytes, also on the wire and in a recording.
pub const RECORD_SIZE: usize = 248;

/// Size in bytes of what the kernel side keeps of an attempt under way: the
/// value of its map.
pub const ENTRY_SIZE: usize = 168;

/// Slots of the table that the kernel side keeps attempts under way in, its map apart: a
/// power of two.
pub const SLOTS: u32 = 4096;
/// Most attempts that its map holds: those whose slot is another's, which may be all.
pub const IN_MAP_MAX: u32 = 65_536;
/// Size in bytes of a slot: the socket's address, 0 while the slot is free, then what the
/// agent need not know.
pub const SLOT_SIZE: usize = 16 + ENTRY_SIZE;

const _: () = assert!(size_of::<RawAttempt>() == ATTEMPT_SIZE);
const _: () = assert!(size_of::<RawRecord>() == RECORD_SIZE);
