//! Where the kernel's fields are, resolved at start from the running kernel's
//! BTF and handed to the programs as read-only globals.

/// An offset that was not resolved. A load through it fails verification, so
/// a forgotten member is a loud error and never a wrong value.
pub const POISON: u32 = u32::MAX;

/// A member of a kernel struct.
#[derive(Clone, Copy, Debug)]
pub struct KernelMember {
    /// `struct.member`, anonymous structs and unions left out.
    pub path: &'static str,
    /// Bytes the programs take it to have; another size is another kernel's
    /// member, and refused.
    pub size: u32,
}

/// Stands for a single bit, wherever the kernel keeps it: a flag of
/// `inet_sock.inet_flags` (from 6.6) or a bitfield of its own.
pub const DEFER_CONNECT: &str = "inet_sock.DEFER_CONNECT";

/// Words of the set of `enum skb_drop_reason` values, a bit each.
pub const DROP_REASON_WORDS: usize = 4;

/// Where a system call's tracepoints (`struct syscall_tp_t`) keep its first three
/// arguments and its result, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallOffsets {
    /// The arguments.
    pub args: [u32; 3],
    /// What it returned.
    pub ret: u32,
}

impl CallOffsets {
    /// Nothing resolved: what the object file contains.
    pub const POISONED: Self = Self {
        args: [POISON; 3],
        ret: POISON,
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

        /// What each field of [`Offsets`] stands for.
        pub const MEMBERS: &[KernelMember] = &[$(KernelMember { path: $path, size: $size }),+];

        impl Offsets {
            /// Nothing resolved: what the object file contains.
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
    /// Bound local port, host order; `inet_num` to the rest of the kernel.
    num: "sock_common.skc_num", 2;
    /// Socket state.
    state: "sock_common.skc_state", 1;
    /// Interface that it is bound to.
    bound_device: "sock_common.skc_bound_dev_if", 4;
    /// Network namespace.
    net: "sock_common.skc_net.net", 8;
    /// Its inode number.
    net_inum: "net.ns.inum", 4;
    /// Random bits of it (`setup_net`), by which the next one with that number is another.
    hash_mix: "net.hash_mix", 4;
    /// `SO_MARK`.
    mark: "sock.sk_mark", 4;
    /// Pending error.
    err: "sock.sk_err", 4;
    /// Error remembered but not (yet) fatal.
    err_soft: "sock.sk_err_soft", 4;
    /// Newest entry of the error queue.
    error_queue_prev: "sock.sk_error_queue.prev", 8;
    /// Entries in the error queue.
    error_queue_len: "sock.sk_error_queue.qlen", 4;
    /// Source port, network order; stale on a reused socket.
    sport: "inet_sock.inet_sport", 2;
    /// Byte that holds the `DEFER_CONNECT` bit.
    defer_connect: "inet_sock.DEFER_CONNECT", 1;
    /// Retransmission timer runs.
    rto_count: "inet_connection_sock.icsk_retransmits", 1;
    /// Segments sent.
    segs_out: "tcp_sock.segs_out", 4;
    /// Segments received.
    segs_in: "tcp_sock.segs_in", 4;
    /// Segments sent again.
    total_retrans: "tcp_sock.total_retrans", 4;
    /// The error queue entry's control block.
    skb_cb: "sk_buff.cb", 48;
    /// The socket a packet belongs to.
    skb_sk: "sk_buff.sk", 8;
    /// The interface that a packet is at.
    skb_dev: "sk_buff.dev", 8;
    /// Its network namespace.
    dev_net: "net_device.nd_net.net", 8;
    /// Start of the packet's buffer.
    skb_head: "sk_buff.head", 8;
    /// Outer IP header, from `head`.
    skb_network_header: "sk_buff.network_header", 2;
    /// ICMP header of an ICMP packet, from `head`.
    skb_transport_header: "sk_buff.transport_header", 2;
    /// Within the control block: what happened.
    ee_errno: "sock_exterr_skb.ee.ee_errno", 4;
    /// Within the control block: who says so.
    ee_origin: "sock_exterr_skb.ee.ee_origin", 1;
    /// Within the control block: ICMP type.
    ee_type: "sock_exterr_skb.ee.ee_type", 1;
    /// Within the control block: ICMP code.
    ee_code: "sock_exterr_skb.ee.ee_code", 1;
    /// Source of an IPv4 packet.
    iphdr_saddr: "iphdr.saddr", 4;
    /// Source of an IPv6 packet.
    ipv6hdr_saddr: "ipv6hdr.saddr", 16;
    /// The protocol's side of a socket file.
    socket_sk: "socket.sk", 8;
    /// Whether a socket file is connected (`socket_state`).
    socket_state: "socket.state", 4;
    /// `SOCK_STREAM` or another.
    socket_type: "socket.type", 2;
    /// TCP, MPTCP or another.
    protocol: "sock.sk_protocol", 2;
    /// What a task has open.
    files: "task_struct.files", 8;
    /// The table of it.
    fdt: "files_struct.fdt", 8;
    /// How long the table is.
    max_fds: "fdtable.max_fds", 4;
    /// The table's files, by descriptor.
    fd_array: "fdtable.fd", 8;
    /// A socket file's socket.
    private_data: "file.private_data", 8;
    /// Which says whether it is a socket file.
    inode: "file.f_inode", 8;
    /// By this.
    mode: "inode.i_mode", 2;
    /// Number of an inode.
    inode_number: "inode.i_ino", 8;
    /// File system of an inode.
    superblock: "inode.i_sb", 8;
    /// Device of a file system.
    device: "super_block.s_dev", 4;
    /// Who made the socket.
    uid: "sock.sk_uid", 4;
    /// Process (thread group) id.
    tgid: "task_struct.tgid", 4;
    /// Thread id, in the root pid namespace like all here.
    pid: "task_struct.pid", 4;
    /// What a task may do, and whose it is.
    cred: "task_struct.cred", 8;
    /// Real user id, in the root user namespace.
    cred_uid: "cred.uid", 4;
    /// Where a task is among the cgroups.
    cgroups: "task_struct.cgroups", 8;
    /// Its cgroup of version 2.
    dfl_cgrp: "css_set.dfl_cgrp", 8;
    /// That cgroup's directory.
    cgroup_kn: "cgroup.kn", 8;
    /// That directory's inode number, the cgroup's id.
    kn_id: "kernfs_node.id", 8;
    /// A task's memory.
    mm: "task_struct.mm", 8;
    /// The executable that it is of.
    exe_file: "mm_struct.exe_file", 8;
    /// The process's first thread.
    group_leader: "task_struct.group_leader", 8;
    /// When a task started, `CLOCK_BOOTTIME` nanoseconds.
    start_boottime: "task_struct.start_boottime", 8;
    /// A task's name.
    comm: "task_struct.comm", 16;
}

const _: () = assert!(size_of::<Offsets>() == MEMBERS.len() * size_of::<u32>());
