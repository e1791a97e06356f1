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
            bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task_btf,
            bpf_get_current_uid_gid, bpf_ktime_get_boot_ns, bpf_skc_to_tcp_sock,
        },
    },
    programs::BtfTracePointContext,
};
use conntrace_common::{
    offsets::Offsets,
    record::{AF_INET, COMM_LEN, ORIGIN_ICMP, ORIGIN_ICMP6, Record},
};

/// Filled in by the agent before the programs are loaded.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::POISONED;

/// Which bit of the byte at `OFFSETS.defer_connect` is `DEFER_CONNECT`.
#[unsafe(no_mangle)]
static DEFER_CONNECT_MASK: u8 = 0;

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
pub struct Sock(Typed);

impl Sock {
    /// The tracepoint's socket; `None` for any protocol but TCP (an MPTCP
    /// parent goes through the same tracepoints) and for request and TIME_WAIT
    /// sockets (`bpf_skc_to_tcp_sock`).
    #[inline(always)]
    pub fn from_arg(ctx: &BtfTracePointContext) -> Option<Self> {
        let sock: *mut c_void = ctx.arg(0);
        // SAFETY: the helper checks what it is given.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sock) };
        if tcp.is_null() {
            return None;
        }
        Some(Self(Typed(tcp.cast_const().cast())))
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        self.0.load(global!(OFFSETS.state))
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        self.0.load(global!(OFFSETS.family))
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
            v4_in_16(self.0.load(v4))
        } else {
            self.0.load16(v6)
        }
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        self.0.load(global!(OFFSETS.dport))
    }

    /// `inet_num`: the bound port in host order, 0 if none.
    #[inline(always)]
    pub fn bound_port(self) -> u16 {
        self.0.load(global!(OFFSETS.num))
    }

    /// `inet_sport`, network order.
    #[inline(always)]
    pub fn sport(self) -> u16 {
        self.0.load(global!(OFFSETS.sport))
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        let net = self.0.follow(global!(OFFSETS.net));
        net.load(global!(OFFSETS.net_inum))
    }

    #[inline(always)]
    pub fn error(self) -> u32 {
        self.0.load(global!(OFFSETS.err))
    }

    #[inline(always)]
    pub fn soft_error(self) -> u32 {
        self.0.load(global!(OFFSETS.err_soft))
    }

    #[inline(always)]
    pub fn segs_out(self) -> u32 {
        self.0.load(global!(OFFSETS.segs_out))
    }

    #[inline(always)]
    pub fn total_retrans(self) -> u32 {
        self.0.load(global!(OFFSETS.total_retrans))
    }

    #[inline(always)]
    pub fn rto_count(self) -> u8 {
        self.0.load(global!(OFFSETS.rto_count))
    }

    /// TCP fast open holds the SYN back (`tcp_fastopen_defer_connect`).
    #[inline(always)]
    pub fn deferred(self) -> bool {
        let byte: u8 = self.0.load(global!(OFFSETS.defer_connect));
        byte & global!(DEFER_CONNECT_MASK) != 0
    }

    /// Address of the newest error queue entry, 0 when the queue is empty.
    #[inline(always)]
    pub fn newest_error(self) -> u64 {
        let len: u32 = self.0.load(global!(OFFSETS.error_queue_len));
        if len == 0 {
            return 0;
        }
        self.0.load(global!(OFFSETS.error_queue_prev))
    }

    /// Describes the newest error queue entry in `record`, if it came after
    /// `before` and is of ICMP origin (`ip_icmp_error`, `ipv6_icmp_error`):
    /// transmit timestamps and zero-copy notices lie in the same queue.
    #[inline(always)]
    pub fn describe_icmp_since(self, before: u64, record: &mut Record) -> bool {
        let newest = self.newest_error();
        if newest == 0 || newest == before {
            return false;
        }
        let packet = self.0.follow(global!(OFFSETS.error_queue_prev));
        let block = global!(OFFSETS.skb_cb);
        let origin: u8 = packet.load(block + global!(OFFSETS.ee_origin));
        if origin != ORIGIN_ICMP && origin != ORIGIN_ICMP6 {
            return false;
        }
        record.icmp_origin = origin;
        record.icmp_errno = packet.load(block + global!(OFFSETS.ee_errno));
        record.icmp_type = packet.load(block + global!(OFFSETS.ee_type));
        record.icmp_code = packet.load(block + global!(OFFSETS.ee_code));
        record.icmp_from = offender(packet, origin);
        true
    }
}

/// Source address of the ICMP packet, where `IP_RECVERR` takes it from
/// (`ip_recv_error`, `ipv6_recv_error`). All zero when it cannot be read.
#[inline(always)]
fn offender(packet: Typed, origin: u8) -> [u8; 16] {
    let head: u64 = packet.load(global!(OFFSETS.skb_head));
    let outer: u16 = packet.load(global!(OFFSETS.skb_network_header));
    let header = head + u64::from(outer);
    let v4 = header + u64::from(global!(OFFSETS.iphdr_saddr));
    let v6 = header + u64::from(global!(OFFSETS.ipv6hdr_saddr));
    // SAFETY: the helper reads any address, and fails where there is nothing.
    let read = unsafe {
        if origin == ORIGIN_ICMP {
            bpf_probe_read_kernel::<u32>(v4 as *const _).map(v4_in_16)
        } else {
            bpf_probe_read_kernel::<[u8; 16]>(v6 as *const _)
        }
    };
    read.unwrap_or([0; 16])
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
