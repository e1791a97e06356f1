//! Types of the values in maps, with the layouts that the agent knows.

use core::mem::offset_of;

use conntrace_common::{
    calls::{CALL_SIZE, REGISTERS_SIZE},
    counters::{COUNTERS, Counter, PER_CPU_WORDS},
    record::RawOpening,
    table::{ENTRY_SIZE, SLOT_SIZE, SPILLED_SIZE},
};

use crate::kernel::Passed;

/// Entry of an attempt under way: only facts that its socket does not have at the end. It is never
/// copied out whole: it holds an address of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AttemptEntry {
    pub opening: RawOpening,
    pub before: Before,
    pub notes: Notes,
}

/// Values that the socket had when the attempt began, from earlier attempts.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Before {
    /// Address of the newest error queue entry (`sk_error_queue.prev`); 0 if the queue was empty.
    pub error_queue: u64,
    /// Value of `tcp_sock.segs_out`.
    pub segs_out: u32,
    /// Value of `tcp_sock.total_retrans`.
    pub total_retrans: u32,
    /// Value of `tcp_sock.segs_in`.
    pub segs_in: u32,
    /// Value of `inet_sport`, network order.
    pub sport: u16,
    /// Bound port (`inet_num`), host order; 0 if none.
    pub bound_port: u16,
    /// Value of `sk_err`. An errno fits into 16 bits.
    pub error: u16,
    /// Value of `sk_err_soft`.
    pub soft_error: u16,
    /// Hash of the connection (`skc_hash`) once it is established, so that a later socket at the
    /// same address is not taken for it; before that 0.
    pub connection: u32,
}

impl Before {
    /// Values of a socket that made no attempt before.
    pub const NOTHING: Self = Self {
        error_queue: 0,
        segs_out: 0,
        total_retrans: 0,
        segs_in: 0,
        sport: 0,
        bound_port: 0,
        error: 0,
        soft_error: 0,
        connection: 0,
    };
}

/// Events of the attempt until now. Some are written without the socket's lock.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Notes {
    /// Drop reason of the last packet that this host dropped; 0 if none.
    pub drop_reason: u16,
    /// Number of packets that this host dropped, at most 255.
    pub drops: u8,
    /// 1 once the stall was reported, else 0.
    pub stalled: u8,
    /// 1 once an ICMPv6 error was received, which is in a map of its own; else 0.
    pub icmp6: u8,
    /// Flags for the record: `FLAG_JOINED_LATE`, or 0 for an attempt that was observed from its
    /// beginning.
    pub seen: u8,
    /// Padding, always zero.
    pub reserved: u16,
}

impl Notes {
    /// Nothing noted.
    pub const NOTHING: Self = Self {
        drop_reason: 0,
        drops: 0,
        stalled: 0,
        icmp6: 0,
        seen: 0,
        reserved: 0,
    };
}

const _: () = assert!(size_of::<AttemptEntry>() == ENTRY_SIZE);

/// Slot of the attempt table (`attempt_table`).
#[repr(C)]
pub struct TableSlot {
    /// Claims and epoch (`conntrace_common::claim`).
    pub claims: u64,
    /// Address of the socket that holds the slot, mixed with the epoch.
    pub seal: u64,
    /// Number of entries in the map whose socket hashes here.
    pub spilled: u32,
    pub reserved: u32,
    pub entry: AttemptEntry,
}

const _: () = assert!(size_of::<TableSlot>() == SLOT_SIZE);

/// Entry in the map, and the counts of its owners (`conntrace_common::shares`).
#[repr(C)]
pub struct SpilledEntry {
    pub entry: AttemptEntry,
    /// Index in `HELD` of the number of its network namespace.
    pub netns: u16,
    /// Index in `HELD` of the number of its user.
    pub user: u16,
    pub reserved: u32,
}

const _: () = assert!(size_of::<SpilledEntry>() == SPILLED_SIZE);

/// Per-CPU memory: counters and scratch memory.
#[repr(C)]
pub struct PerCpu {
    /// Counters of the program at `inet_sock_set_state`.
    pub states: Counts,
    /// Counters of the other programs, each of which uses different ones.
    pub others: Counts,
    /// 1 while the program at `inet_sock_set_state` uses the memory below, else 0.
    pub follows: u64,
    /// Number of connects until the next one that is counted (`conntrace_common::connects`).
    pub until_sample: u64,
    /// Window in the upper half, and the number of dropped packets that were reported in it in the
    /// lower (`conntrace_common::drops`).
    pub drops: u64,
    /// Entry that is filled before it is inserted into the map; it does not fit on the stack.
    pub spare: SpilledEntry,
    /// The same, for attempts found under way at the start.
    pub found: SpilledEntry,
}

const _: () = assert!(size_of::<PerCpu>() == PER_CPU_WORDS * size_of::<u64>());

/// Counters of one program per CPU. A softirq can interrupt a program between load and store, and
/// this target has no atomic addition in stable Rust. No two programs write the same counter, so
/// that no count is lost. A program does not count in the midst of itself: the kernel skips it then, or
/// it counts as one of the others (`Counter::Nested`).
#[repr(C)]
pub struct Counts([u64; COUNTERS]);

impl Counts {
    /// Adds one to a counter.
    #[inline(always)]
    pub fn count(&mut self, counter: Counter) {
        if let Some(slot) = self.0.get_mut(counter as usize) {
            *slot += 1;
        }
    }
}

/// Arguments of a call under way, as registers had them at its entry (kprobe).
#[repr(C)]
pub struct CallRegisters {
    /// Process and thread id of the caller; 0 if it has no call under way.
    pub thread: u64,
    /// First argument: `struct sock` or `struct socket`.
    pub first: u64,
    /// Second argument: the address that was passed.
    pub addr: u64,
    /// Third argument: its length in bytes.
    pub addr_len: u32,
    /// Checksum of the others.
    pub check: u32,
}

const _: () = assert!(size_of::<CallRegisters>() == REGISTERS_SIZE);

/// Call of connect or bind under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingCall {
    /// Start of the call, in nanoseconds of `CLOCK_BOOTTIME`.
    pub started_ns: u64,
    /// Address argument of the call.
    pub passed: Passed,
    /// Address of the socket.
    pub sock: u64,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Local address of the socket, in the layout of `RawAttempt::local_addr`.
    pub local_addr: [u8; 16],
    /// Local port bound before the call, host order; 0 if none.
    pub bound_port: u16,
    /// Address family of the socket: `AF_INET` or `AF_INET6`.
    pub family: u16,
}

// The agent reads the start from the first word.
const _: () =
    assert!(size_of::<PendingCall>() == CALL_SIZE && offset_of!(PendingCall, started_ns) == 0);
