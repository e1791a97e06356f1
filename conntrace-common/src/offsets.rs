//! Offsets of kernel fields, resolved at start from the running kernel's BTF and passed to the
//! programs as read-only globals.

/// Unresolved offset. The verifier rejects a load through it, so that a forgotten member is an
/// error and never a wrong value.
pub const POISON: u32 = u32::MAX;

/// Member of a kernel struct.
#[derive(Clone, Copy, Debug)]
pub struct KernelMember {
    /// Path `struct.member`, without anonymous structs and unions.
    pub path: &'static str,
    /// Size in bytes that the programs expect; any other size is an error.
    pub size: u32,
}

/// Pseudo-path of a single bit, which is a flag in `inet_sock.inet_flags` (from Linux 6.6) or a
/// bitfield of its own.
pub const DEFER_CONNECT: &str = "inet_sock.DEFER_CONNECT";

/// Path of the sysctl `net.ipv4.tcp_syn_retries`. Before Linux 5.13 the member has four bytes, of
/// which the first is the value.
pub const SYN_RETRIES: &str = "net.ipv4.sysctl_tcp_syn_retries";

/// Path of the sysctl `net.ipv4.tcp_syn_linear_timeouts`. Kernels before Linux 6.5 lack it, of which
/// the agent tells the programs.
pub const LINEAR_TIMEOUTS: &str = "net.ipv4.sysctl_tcp_syn_linear_timeouts";

/// Size of the set of `enum skb_drop_reason` values in 64-bit words, a bit for each value.
pub const DROP_REASON_WORDS: usize = 4;

/// Byte offsets of the first three arguments and the result in a system call's tracepoints
/// (`struct syscall_tp_t`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallOffsets {
    /// Offsets of the arguments.
    pub args: [u32; 3],
    /// Offset of the result.
    pub ret: u32,
}

impl CallOffsets {
    /// Unresolved offsets, as in the object file.
    pub const POISONED: Self = Self {
        args: [POISON; 3],
        ret: POISON,
    };
}

/// Places of what connection tracking knows of a packet. A kernel without it has none of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackOffsets {
    /// Offset of the entry's address and state in a packet (`sk_buff._nfct`).
    pub entry: u32,
    /// Offset of the status bits in an entry (`nf_conn.status`).
    pub status: u32,
    /// Offset of the tuple of the original direction in an entry (`nf_conn.tuplehash`).
    pub original: u32,
}

impl ConntrackOffsets {
    /// Offsets of a kernel without connection tracking, as in the object file.
    pub const POISONED: Self = Self {
        entry: POISON,
        status: POISON,
        original: POISON,
    };
}

macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident: $path:literal, $size:literal;)+) => {
        /// Byte offsets into the kernel's structs, in the order of [`MEMBERS`].
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub struct Offsets {
            $($(#[$doc])* pub $field: u32,)+
        }

        /// Kernel member of each field of [`Offsets`].
        pub const MEMBERS: &[KernelMember] = &[$(KernelMember { path: $path, size: $size }),+];

        impl Offsets {
            /// Unresolved offsets, as in the object file.
            pub const POISONED: Self = Self { $($field: POISON,)+ };
        }
    };
}

offsets! {
    /// Address family.
    family: "sock_common.skc_family", 2;
    /// IPv4 destination.
    daddr: "sock_common.skc_daddr", 4;
    /// IPv4 local address.
    rcv_saddr: "sock_common.skc_rcv_saddr", 4;
    /// IPv6 destination.
    v6_daddr: "sock_common.skc_v6_daddr", 16;
    /// IPv6 local address.
    v6_rcv_saddr: "sock_common.skc_v6_rcv_saddr", 16;
    /// Destination port, network order.
    dport: "sock_common.skc_dport", 2;
    /// Bound local port, host order; the kernel's `inet_num`.
    num: "sock_common.skc_num", 2;
    /// Socket state.
    state: "sock_common.skc_state", 1;
    /// Index of the interface that the socket is bound to.
    bound_device: "sock_common.skc_bound_dev_if", 4;
    /// Network namespace of the socket.
    net: "sock_common.skc_net.net", 8;
    /// Inode number of a network namespace.
    net_inum: "net.ns.inum", 4;
    /// Random bits of a network namespace (`setup_net`), which tell it from a later one with the
    /// same inode number.
    hash_mix: "net.hash_mix", 4;
    /// Mark of the socket (`SO_MARK`).
    mark: "sock.sk_mark", 4;
    /// Pending error.
    err: "sock.sk_err", 4;
    /// Soft error, which is not fatal yet.
    err_soft: "sock.sk_err_soft", 4;
    /// Newest entry of the error queue.
    error_queue_prev: "sock.sk_error_queue.prev", 8;
    /// Number of entries in the error queue.
    error_queue_len: "sock.sk_error_queue.qlen", 4;
    /// Local port, network order; stale on a reused socket.
    sport: "inet_sock.inet_sport", 2;
    /// Byte that holds the `DEFER_CONNECT` bit.
    defer_connect: "inet_sock.DEFER_CONNECT", 1;
    /// Number of retransmission timer runs.
    rto_count: "inet_connection_sock.icsk_retransmits", 1;
    /// Time after which the kernel gives up (`TCP_USER_TIMEOUT`), in milliseconds.
    user_timeout: "inet_connection_sock.icsk_user_timeout", 4;
    /// Number of SYN retransmissions that the socket allows (`TCP_SYNCNT`).
    syn_retries: "inet_connection_sock.icsk_syn_retries", 1;
    /// Number of SYN retransmissions that a network namespace allows.
    netns_syn_retries: "net.ipv4.sysctl_tcp_syn_retries", 1;
    /// Number of further ones that it sends without a longer wait.
    linear_timeouts: "net.ipv4.sysctl_tcp_syn_linear_timeouts", 1;
    /// Number of segments sent.
    segs_out: "tcp_sock.segs_out", 4;
    /// Number of segments received.
    segs_in: "tcp_sock.segs_in", 4;
    /// Number of segments retransmitted.
    total_retrans: "tcp_sock.total_retrans", 4;
    /// Number of segments with data sent.
    data_segs_out: "tcp_sock.data_segs_out", 4;
    /// Number of segments with data received.
    data_segs_in: "tcp_sock.data_segs_in", 4;
    /// Number of bytes acknowledged by the peer.
    bytes_acked: "tcp_sock.bytes_acked", 8;
    /// Number of bytes received in order.
    bytes_received: "tcp_sock.bytes_received", 8;
    /// Sequence number after the last byte written.
    write_seq: "tcp_sock.write_seq", 4;
    /// Sequence number of the first byte that is not acknowledged.
    snd_una: "tcp_sock.snd_una", 4;
    /// Sequence number of the next byte to receive.
    rcv_nxt: "tcp_sock.rcv_nxt", 4;
    /// Sequence number of the next byte to read.
    copied_seq: "tcp_sock.copied_seq", 4;
    /// Time at which data was last sent, in jiffies.
    sent_jiffies: "tcp_sock.lsndtime", 4;
    /// Time at which data was last received, in jiffies.
    received_jiffies: "inet_connection_sock.icsk_ack.lrcvtime", 4;
    /// Hash of a connected socket's addresses and ports.
    connection_hash: "sock_common.skc_hash", 4;
    /// Control block of an error queue entry.
    skb_cb: "sk_buff.cb", 48;
    /// Socket that a packet belongs to.
    skb_sk: "sk_buff.sk", 8;
    /// Network device of a packet.
    skb_dev: "sk_buff.dev", 8;
    /// Protocol of a packet (`ETH_P_*`), network order.
    skb_protocol: "sk_buff.protocol", 2;
    /// Index of a network device.
    dev_ifindex: "net_device.ifindex", 4;
    /// Network namespace of a device.
    dev_net: "net_device.nd_net.net", 8;
    /// Start of a packet's buffer.
    skb_head: "sk_buff.head", 8;
    /// Offset of the outer IP header from `head`.
    skb_network_header: "sk_buff.network_header", 2;
    /// Offset of the ICMP header of an ICMP packet from `head`.
    skb_transport_header: "sk_buff.transport_header", 2;
    /// Errno of the error, within the control block.
    ee_errno: "sock_exterr_skb.ee.ee_errno", 4;
    /// Origin of the error (`SO_EE_ORIGIN_*`), within the control block.
    ee_origin: "sock_exterr_skb.ee.ee_origin", 1;
    /// ICMP type of the error, within the control block.
    ee_type: "sock_exterr_skb.ee.ee_type", 1;
    /// ICMP code of the error, within the control block.
    ee_code: "sock_exterr_skb.ee.ee_code", 1;
    /// Source address of an IPv4 packet.
    iphdr_saddr: "iphdr.saddr", 4;
    /// Source address of an IPv6 packet.
    ipv6hdr_saddr: "ipv6hdr.saddr", 16;
    /// Protocol socket of a `struct socket`.
    socket_sk: "socket.sk", 8;
    /// Connection state of a `struct socket` (`socket_state`).
    socket_state: "socket.state", 4;
    /// Type of a `struct socket`, such as `SOCK_STREAM`.
    socket_type: "socket.type", 2;
    /// Protocol of a socket, such as TCP or MPTCP.
    protocol: "sock.sk_protocol", 2;
    /// Open files of a task.
    files: "task_struct.files", 8;
    /// Descriptor table of the open files.
    fdt: "files_struct.fdt", 8;
    /// Length of the descriptor table.
    max_fds: "fdtable.max_fds", 4;
    /// Files of the descriptor table, by descriptor.
    fd_array: "fdtable.fd", 8;
    /// Private data of a file; the `struct socket` of a socket file.
    private_data: "file.private_data", 8;
    /// Inode of a file.
    inode: "file.f_inode", 8;
    /// Mode of an inode, which tells a socket from other files.
    mode: "inode.i_mode", 2;
    /// Inode number.
    inode_number: "inode.i_ino", 8;
    /// File system of an inode.
    superblock: "inode.i_sb", 8;
    /// Device number of a file system.
    device: "super_block.s_dev", 4;
    /// User id of the socket's owner.
    uid: "sock.sk_uid", 4;
    /// Process id (thread group id) in the root pid namespace.
    tgid: "task_struct.tgid", 4;
    /// Thread id in the root pid namespace.
    pid: "task_struct.pid", 4;
    /// Credentials of a task.
    cred: "task_struct.cred", 8;
    /// Real user id, in the root user namespace.
    cred_uid: "cred.uid", 4;
    /// Memory of a task.
    mm: "task_struct.mm", 8;
    /// Executable file of a process.
    exe_file: "mm_struct.exe_file", 8;
    /// Thread group leader of a task.
    group_leader: "task_struct.group_leader", 8;
    /// Start time of a task, in nanoseconds of `CLOCK_BOOTTIME`.
    start_boottime: "task_struct.start_boottime", 8;
    /// Name of a task.
    comm: "task_struct.comm", 16;
}

/// Lowest offset that marks a load to patch. No load of the programs' own reaches that far.
const MARKED: i16 = 0x4000;
/// Distance of the marks of second words from those of first ones.
const MARKED_SECOND: i16 = 0x1000;

/// Returns the offset of an instruction that loads a member, until the agent replaces it. The
/// verifier rejects a load with such an offset, so that a forgotten one is an error. `second` is 1
/// for the second word of a member of 16 bytes, else 0.
#[must_use]
pub const fn mark(index: usize, second: u16) -> i16 {
    MARKED + MARKED_SECOND * second as i16 + index as i16
}

/// Returns the distance in bytes from a member's start, and the index of the member, that an
/// offset stands for; `None` if it is no mark.
#[must_use]
pub const fn marked(offset: i16) -> Option<(u32, usize)> {
    if offset < MARKED {
        return None;
    }
    let index = (offset - MARKED) as usize;
    let second = MARKED_SECOND as usize;
    if index < second {
        Some((0, index))
    } else {
        Some((8, index - second))
    }
}

const _: () = assert!(MEMBERS.len() < MARKED_SECOND as usize);
const _: () = assert!(size_of::<Offsets>() == MEMBERS.len() * size_of::<u32>());
