//! The only file that reads kernel memory.
//!
//! Pointers typed by BTF are loaded from directly: the offsets are constants to
//! the verifier (`.rodata` is frozen), which checks each against the type. The
//! verifier follows such pointers only through inlined code.
#![expect(unsafe_code, reason = "reading kernel memory is what this file is for")]

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_probe_read_kernel,
        generated::{
            bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id,
            bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_current_uid_gid,
            bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_skc_to_tcp_sock,
            bpf_sock_from_file,
        },
    },
    programs::BtfTracePointContext,
};
use conntrace_common::{
    offsets::{DROP_REASON_WORDS, Offsets},
    record::{AF_INET, COMM_LEN, ORIGIN_ICMP, ORIGIN_ICMP6},
};

/// Filled in by the agent before the programs are loaded.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::POISONED;

/// Which bit of the byte at `OFFSETS.defer_connect` is `DEFER_CONNECT`.
#[unsafe(no_mangle)]
static DEFER_CONNECT_MASK: u8 = 0;

/// Which drops are noted: a bit for each `enum skb_drop_reason`.
#[unsafe(no_mangle)]
static DROP_REASONS: [u64; DROP_REASON_WORDS] = [0; DROP_REASON_WORDS];

/// Reads a global the agent may have replaced; volatile, or the compiler would
/// use the value it sees here.
macro_rules! global {
    ($place:expr) => {
        // SAFETY: the global is initialised and never written.
        unsafe { core::ptr::read_volatile(&raw const $place) }
    };
}

/// A kernel struct the verifier knows the type of.
#[derive(Clone, Copy)]
struct Typed(*const u8);

impl Typed {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the verifier proves that the offset is a member of the type,
        // and the kernel handles a fault in such a load (it reads as 0).
        unsafe { self.0.add(offset as usize).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Self {
        Self(self.load(offset))
    }

    /// 16 bytes as two loads.
    #[inline(always)]
    fn load16(self, offset: u32) -> [u8; 16] {
        let words: [u64; 2] = [self.load(offset), self.load(offset + 8)];
        // SAFETY: both are 16 plain bytes.
        unsafe { core::mem::transmute(words) }
    }
}

/// A TCP socket, handed to a tracepoint as its first argument.
#[derive(Clone, Copy)]
pub struct Sock {
    /// As the tracepoint's argument: newer verifiers trust it, and loads through
    /// it need no fault handling.
    sock: Typed,
    /// The same address as its whole type.
    tcp: Typed,
}

impl Sock {
    /// The tracepoint's socket; `None` for any protocol but TCP (an MPTCP
    /// parent goes through the same tracepoints) and for request and TIME_WAIT
    /// sockets (`bpf_skc_to_tcp_sock`).
    #[inline(always)]
    pub fn from_arg(ctx: &BtfTracePointContext) -> Option<Self> {
        Self::from_typed(ctx.arg(0))
    }

    #[inline(always)]
    fn from_typed(sock: *mut c_void) -> Option<Self> {
        // SAFETY: the helper checks what it is given.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sock) };
        if tcp.is_null() {
            return None;
        }
        Some(Self {
            sock: Typed(sock.cast_const().cast()),
            tcp: Typed(tcp.cast_const().cast()),
        })
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        self.sock.load(global!(OFFSETS.state))
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        self.sock.load(global!(OFFSETS.family))
    }

    #[inline(always)]
    pub fn remote_addr(self, family: u16) -> [u8; 16] {
        self.addr(family, global!(OFFSETS.daddr), global!(OFFSETS.v6_daddr))
    }

    #[inline(always)]
    pub fn local_addr(self, family: u16) -> [u8; 16] {
        self.addr(
            family,
            global!(OFFSETS.rcv_saddr),
            global!(OFFSETS.v6_rcv_saddr),
        )
    }

    #[inline(always)]
    fn addr(self, family: u16, v4: u32, v6: u32) -> [u8; 16] {
        if family == AF_INET {
            v4_in_16(self.sock.load(v4))
        } else {
            self.sock.load16(v6)
        }
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        self.sock.load(global!(OFFSETS.dport))
    }

    /// `inet_num`: the bound port in host order, 0 if none.
    #[inline(always)]
    pub fn bound_port(self) -> u16 {
        self.sock.load(global!(OFFSETS.num))
    }

    /// `inet_sport`, network order.
    #[inline(always)]
    pub fn sport(self) -> u16 {
        self.tcp.load(global!(OFFSETS.sport))
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        let net = self.sock.follow(global!(OFFSETS.net));
        net.load(global!(OFFSETS.net_inum))
    }

    #[inline(always)]
    pub fn error(self) -> u32 {
        self.sock.load(global!(OFFSETS.err))
    }

    #[inline(always)]
    pub fn soft_error(self) -> u32 {
        self.sock.load(global!(OFFSETS.err_soft))
    }

    #[inline(always)]
    pub fn segs_out(self) -> u32 {
        self.tcp.load(global!(OFFSETS.segs_out))
    }

    /// Segments that came for this socket (`tcp_segs_in`), also those that TCP
    /// did not accept.
    #[inline(always)]
    pub fn segs_in(self) -> u32 {
        self.tcp.load(global!(OFFSETS.segs_in))
    }

    #[inline(always)]
    pub fn total_retrans(self) -> u32 {
        self.tcp.load(global!(OFFSETS.total_retrans))
    }

    #[inline(always)]
    pub fn rto_count(self) -> u8 {
        self.tcp.load(global!(OFFSETS.rto_count))
    }

    /// TCP fast open holds the SYN back (`tcp_fastopen_defer_connect`).
    #[inline(always)]
    pub fn deferred(self) -> bool {
        let byte: u8 = self.tcp.load(global!(OFFSETS.defer_connect));
        byte & global!(DEFER_CONNECT_MASK) != 0
    }

    /// Address of the newest error queue entry, 0 when the queue is empty.
    #[inline(always)]
    pub fn newest_error(self) -> u64 {
        let len: u32 = self.sock.load(global!(OFFSETS.error_queue_len));
        if len == 0 {
            return 0;
        }
        self.sock.load(global!(OFFSETS.error_queue_prev))
    }

    /// The newest error queue entry, if it came after `before` and is of ICMP
    /// origin (`ip_icmp_error`, `ipv6_icmp_error`): transmit timestamps and
    /// zero-copy notices lie in the same queue.
    #[inline(always)]
    pub fn icmp_since(self, before: u64) -> Option<Icmp> {
        let newest = self.newest_error();
        if newest == 0 || newest == before {
            return None;
        }
        let packet = self.sock.follow(global!(OFFSETS.error_queue_prev));
        let origin = packet.load(global!(OFFSETS.skb_cb) + global!(OFFSETS.ee_origin));
        if origin != ORIGIN_ICMP && origin != ORIGIN_ICMP6 {
            return None;
        }
        Some(Icmp { packet, origin })
    }
}

/// Whether drops for this reason are noted.
#[inline(always)]
pub fn is_noted_drop(reason: u32) -> bool {
    let word = (reason / u64::BITS) as usize;
    word < DROP_REASON_WORDS && global!(DROP_REASONS[word]) >> (reason % u64::BITS) & 1 != 0
}

/// Address of the socket that a packet belongs to, if that socket is in this
/// state: the key of its attempt. What is no whole socket (a request, TIME_WAIT)
/// has its state in the same place.
#[inline(always)]
pub fn sock_of_packet_in(ctx: &BtfTracePointContext, state: u8) -> Option<u64> {
    let packet: *mut u8 = ctx.arg(0);
    let sock = Typed(packet).follow(global!(OFFSETS.skb_sk));
    if sock.0.is_null() || sock.load::<u8>(global!(OFFSETS.state)) != state {
        return None;
    }
    Some(sock.0 as u64)
}

/// An open file of a task, as `bpf_iter__task_file` hands it over
/// (`task_file_seq_show`).
pub struct OpenFile {
    task: Typed,
    pub sock: Sock,
    /// Address of the socket: the key of its attempt.
    pub key: u64,
}

impl OpenFile {
    /// `None` unless the file is a TCP socket. The last call of an iteration has
    /// neither task nor file.
    ///
    /// # Safety
    /// `ctx` is the context of an iterator over `task_file`.
    #[inline(always)]
    pub unsafe fn of(ctx: *mut c_void) -> Option<Self> {
        // SAFETY: meta, task, fd and file, eight bytes each.
        let (task, file) = unsafe {
            let fields = ctx.cast::<*mut u8>();
            (fields.add(1).read(), fields.add(3).read())
        };
        if task.is_null() || file.is_null() {
            return None;
        }
        // SAFETY: the helper takes any file.
        let socket = unsafe { bpf_sock_from_file(file.cast()) };
        if socket.is_null() {
            return None;
        }
        let sock = Typed(socket.cast_const().cast()).follow(global!(OFFSETS.socket_sk));
        if sock.0.is_null() {
            return None;
        }
        Some(Self {
            task: Typed(task),
            key: sock.0 as u64,
            sock: Sock::from_typed(sock.0.cast_mut().cast())?,
        })
    }

    /// The process that has the file open, as the caller: its thread and cgroup
    /// are not known.
    #[inline(always)]
    pub fn holder(&self) -> Caller {
        let leader = self.task.follow(global!(OFFSETS.group_leader));
        Caller {
            pid: self.task.load(global!(OFFSETS.tgid)),
            tid: 0,
            uid: self.sock.sock.load(global!(OFFSETS.uid)),
            cgroup_id: 0,
            process_started_ns: leader.load(global!(OFFSETS.start_boottime)),
            comm: self.task.load16(global!(OFFSETS.comm)),
            leader_comm: leader.load16(global!(OFFSETS.comm)),
        }
    }
}

/// An ICMP error in a socket's error queue (`struct sock_exterr_skb`).
#[derive(Clone, Copy)]
pub struct Icmp {
    packet: Typed,
    pub origin: u8,
}

impl Icmp {
    #[inline(always)]
    fn load<T: Copy>(self, member: u32) -> T {
        self.packet.load(global!(OFFSETS.skb_cb) + member)
    }

    #[inline(always)]
    pub fn errno(self) -> u32 {
        self.load(global!(OFFSETS.ee_errno))
    }

    #[inline(always)]
    pub fn icmp_type(self) -> u8 {
        self.load(global!(OFFSETS.ee_type))
    }

    #[inline(always)]
    pub fn code(self) -> u8 {
        self.load(global!(OFFSETS.ee_code))
    }

    /// Source address of the ICMP packet, where `IP_RECVERR` takes it from
    /// (`ip_recv_error`, `ipv6_recv_error`). All zero when it cannot be read.
    #[inline(always)]
    pub fn from(self) -> [u8; 16] {
        let head: u64 = self.packet.load(global!(OFFSETS.skb_head));
        let outer: u16 = self.packet.load(global!(OFFSETS.skb_network_header));
        let header = head + u64::from(outer);
        let v4 = header + u64::from(global!(OFFSETS.iphdr_saddr));
        let v6 = header + u64::from(global!(OFFSETS.ipv6hdr_saddr));
        // SAFETY: the helper reads any address, and fails where there is nothing.
        let read = unsafe {
            if self.origin == ORIGIN_ICMP {
                bpf_probe_read_kernel::<u32>(v4 as *const _).map(v4_in_16)
            } else {
                bpf_probe_read_kernel::<[u8; 16]>(v6 as *const _)
            }
        };
        read.unwrap_or([0; 16])
    }
}

#[inline(always)]
fn v4_in_16(addr: u32) -> [u8; 16] {
    let [a, b, c, d] = addr.to_ne_bytes();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Who runs right now. Only meaningful where the hook runs in the caller's
/// context.
pub struct Caller {
    pub pid: u32,
    pub tid: u32,
    pub uid: u32,
    pub cgroup_id: u64,
    pub process_started_ns: u64,
    pub comm: [u8; COMM_LEN],
    pub leader_comm: [u8; COMM_LEN],
}

impl Caller {
    /// Nobody: of an attempt that was not kept. The thread is the CPU's number,
    /// which sets two such attempts of the same moment apart.
    #[inline(always)]
    pub fn unknown() -> Self {
        Self {
            pid: 0,
            // SAFETY: no preconditions.
            tid: unsafe { bpf_get_smp_processor_id() },
            uid: 0,
            cgroup_id: 0,
            process_started_ns: 0,
            comm: [0; COMM_LEN],
            leader_comm: [0; COMM_LEN],
        }
    }

    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: these helpers have no preconditions; the task they return is
        // the running one, which cannot go away under us.
        let (pid_tgid, uid_gid, cgroup_id, task) = unsafe {
            (
                bpf_get_current_pid_tgid(),
                bpf_get_current_uid_gid(),
                bpf_get_current_cgroup_id(),
                bpf_get_current_task_btf(),
            )
        };
        let task = Typed(task.cast_const().cast());
        let leader = task.follow(global!(OFFSETS.group_leader));
        Self {
            pid: (pid_tgid >> 32) as u32,
            tid: pid_tgid as u32,
            uid: uid_gid as u32,
            cgroup_id,
            process_started_ns: leader.load(global!(OFFSETS.start_boottime)),
            comm: task.load16(global!(OFFSETS.comm)),
            leader_comm: leader.load16(global!(OFFSETS.comm)),
        }
    }
}

/// Id of the running task's cgroup at this depth, the root's being 0; 0 below its own.
#[inline(always)]
pub fn ancestor_cgroup_id(level: i32) -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_ancestor_cgroup_id(level) }
}

/// Nanoseconds of `CLOCK_BOOTTIME`: goes on through suspend, so that its
/// distance to wall time only changes when the wall clock is set.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Address of the tracepoint's socket: the attempt's key. Only compared, never
/// followed.
#[inline(always)]
pub fn sock_key(ctx: &BtfTracePointContext) -> u64 {
    // SAFETY: the context of a BTF tracepoint is an array of 8-byte arguments.
    unsafe { ctx.as_ptr().cast::<u64>().read() }
}
