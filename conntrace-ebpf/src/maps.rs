//! Maps and the types of their values, with the reason for each limit.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use conntrace_common::{
    calls::{self, CALL_SIZE},
    connects,
    counters::{COUNTERS, Counter, PER_CPU_WORDS},
    filter::{self, COMMS_MAX, IDS_MAX, NETWORKS_MAX, PORT_WORDS},
    hosts::{self, HostScratch},
    record::{COMM_LEN, ENTRY_SIZE, IN_MAP_MAX, RawAttempt, SLOT_SIZE, SLOTS},
};

use crate::{
    host_history::HostSet,
    kernel::{Icmp6Error, Passed},
};

/// Entry of an attempt under way. The `*_before` fields hold values that the socket has from
/// earlier attempts. They never leave the kernel, because one is an address.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AttemptEntry {
    pub attempt: RawAttempt,
    /// Address of the newest error queue entry when the attempt began (`sk_error_queue.prev`).
    pub error_queue_before: u64,
    /// Value of `tcp_sock.segs_out` when the attempt began.
    pub segs_out_before: u32,
    /// Value of `tcp_sock.total_retrans` when the attempt began.
    pub total_retrans_before: u32,
    /// Value of `tcp_sock.segs_in` when the attempt began.
    pub segs_in_before: u32,
    /// Value of `sk_err` when the attempt began. An errno fits into 16 bits.
    pub error_before: u16,
    /// Value of `sk_err_soft` when the attempt began.
    pub soft_error_before: u16,
    /// Drop reason of the last packet that this host dropped; 0 if none. It must not be adjacent to
    /// other fields that start as 0: the compiler would clear six such bytes with memset.
    pub drop_reason: u16,
    /// Value of `inet_sport` when the attempt began, in network order.
    pub sport_before: u16,
    /// Number of packets that this host dropped, at most 255.
    pub drops: u8,
    /// 1 once the stall was reported, else 0.
    pub stalled: u8,
    /// Flags for the record: `FLAG_JOINED_LATE` or `FLAG_UNTRACKED`, 0 for an attempt that was
    /// observed from its beginning.
    pub seen: u8,
    /// 1 once an ICMPv6 error was received, which is in a map of its own; else 0.
    pub icmp6: u8,
}

const _: () = assert!(size_of::<AttemptEntry>() == ENTRY_SIZE);

impl AttemptEntry {
    /// Copies an entry by volatile accesses to whole words. A plain copy would become a call of
    /// memmove, which copies single bytes on this target.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a struct is copied as words")]
    pub fn copy_from(&mut self, other: &Self) {
        let to = core::ptr::from_mut(self).cast::<u64>();
        let from = core::ptr::from_ref(other).cast::<u64>();
        for word in 0..ENTRY_SIZE / size_of::<u64>() {
            // SAFETY: both entries are that many words, aligned and without padding.
            unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
        }
    }
}

/// Slot of the attempt table (`attempt_table`).
#[repr(C)]
pub struct TableSlot {
    /// Address of the socket that owns it; 0 if it is free.
    pub sock: u64,
    /// Number of claims: that of the owner, and for a moment those of others.
    pub claims: u32,
    /// 1 once the entry of a socket that hashes here went into the map, else 0.
    pub spilled: u32,
    pub entry: AttemptEntry,
}

const _: () = assert!(size_of::<TableSlot>() == SLOT_SIZE);

/// Per-CPU memory: counters, the mark of the first attachment, and scratch memory.
#[repr(C)]
pub struct PerCpu {
    /// Counters of the first attachment to `inet_sock_set_state`.
    pub first: Counts,
    /// Counters of the other programs, each of which uses different ones.
    pub others: Counts,
    /// Last transition that the first attachment handled.
    pub handled: Transition,
    /// Entry that the first attachment fills before it is inserted; it does not fit on the stack.
    pub first_entry: AttemptEntry,
    /// Entry that the second attachment fills before it is inserted.
    pub second_entry: AttemptEntry,
    /// Scratch memory for the host table, one for each program that uses it.
    pub first_work: HostScratch,
    pub second_work: HostScratch,
    pub stall_work: HostScratch,
}

const _: () = assert!(size_of::<PerCpu>() == PER_CPU_WORDS * size_of::<u64>());

/// Counters of one program per CPU. A softirq can interrupt a program between load and store, and
/// this target has no atomic addition in stable Rust. No two programs write the same counter, so
/// that no count is lost. A program cannot interrupt itself, because the kernel skips it then.
#[repr(C)]
pub struct Counts([u64; COUNTERS]);

/// State change of a socket, used as a mark.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub sock: u64,
    pub new_state: u64,
}

impl Transition {
    /// Clears the mark. Only the address is set to 0: the compiler would clear both words with
    /// memset.
    #[inline(always)]
    pub fn forget(&mut self) {
        self.sock = 0;
    }
}

impl Counts {
    /// Adds one to a counter.
    #[inline(always)]
    pub fn count(&mut self, counter: Counter) {
        if let Some(slot) = self.0.get_mut(counter as usize) {
            *slot += 1;
        }
    }
}

/// Attempts under way, by a hash of the socket's address; 640 KiB.
#[map]
static TABLE: Array<TableSlot> = Array::with_max_entries(SLOTS, 0);

/// Attempts whose slot is occupied, by socket address; 10 MiB. Preallocated, so that a softirq
/// never allocates, and not an LRU map, whose evictions would go unnoticed. The limit is
/// independent of the table, because the addresses decide how many attempts the table can hold.
#[map]
pub static ATTEMPTS: HashMap<u64, AttemptEntry> = HashMap::with_max_entries(IN_MAP_MAX, 0);

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

/// Calls of connect or bind under way on closed TCP sockets, by thread. A call takes
/// microseconds, so that hardly more than 4,096 threads are within one at once.
#[map]
pub static CALLS: HashMap<u64, PendingCall> = HashMap::with_max_entries(4096, 0);

/// Last ICMPv6 error of each attempt that received one, by socket address. Separate from the
/// entries, because such errors are rare and do not fit on the stack. If more attempts than this
/// stay under way, the oldest error is evicted, and its line shows null.
#[map]
pub static ICMP6_ERRORS: LruHashMap<u64, Icmp6Error> = LruHashMap::with_max_entries(1024, 0);

/// Sockets whose attempt ended within the call that opened it, by thread, until the call returns.
/// If a return is missed, its mark is evicted later (LRU).
#[map]
pub static ENDED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Host table, by a hash of the key: 16,384 hosts and private networks, four in a set; 1.75 MiB.
#[map]
static HOSTS: Array<HostSet> = Array::with_max_entries(hosts::SETS, 0);

/// Ways to detect failed calls (`conntrace_common::calls`), known once the hooks are attached.
#[map]
static SEEN_CALLS: Array<u32> = Array::with_max_entries(1, 0);

/// Queue of records for the agent, the only one: 8 MiB hold 32,768 records.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// 1 once the attempt map was full. An ending without an entry then belongs to an attempt that
/// found the map full, otherwise to one that began before tracing.
#[map]
static MAP_WAS_FULL: Array<u64> = Array::with_max_entries(1, 0);

/// Accepted processes, users, cgroups and network namespaces. Only the agent writes the filter
/// maps, so that they need no preallocation.
#[map]
pub static FILTER_IDS: HashMap<filter::Id, u8> =
    HashMap::with_max_entries(IDS_MAX, BPF_F_NO_PREALLOC);

/// Accepted names of threads or processes.
#[map]
pub static FILTER_COMMS: HashMap<[u8; COMM_LEN], u8> =
    HashMap::with_max_entries(COMMS_MAX, BPF_F_NO_PREALLOC);

/// Accepted destination networks; IPv4 is v4-mapped.
#[map]
pub static FILTER_NETWORKS: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(NETWORKS_MAX, 0);

/// Accepted destination ports, a bit each.
#[map]
pub static FILTER_PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// Connects by destination: the window in the upper half, the number in the lower. Destinations
/// that share a bucket cause a needless or slightly late scan by the agent.
#[map]
static CONNECTS: Array<u64> = Array::with_max_entries(connects::BUCKETS, 0);

/// Set by the agent to count connects by destination.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static COUNT_CONNECTS: aya_ebpf::Global<u8> = aya_ebpf::Global::new(0);

/// Set by the agent to a new secret at each start, the key of the hash of addresses.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static HASH_SECRET: aya_ebpf::Global<u64> = aya_ebpf::Global::new(0);

/// Returns the key of the hash of addresses.
#[inline(always)]
pub fn hash_secret() -> u64 {
    HASH_SECRET.load()
}

#[map]
static PER_CPU: PerCpuArray<PerCpu> = PerCpuArray::with_max_entries(1, 0);

/// Returns the memory of this CPU.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn per_cpu() -> Option<&'static mut PerCpu> {
    let slot = PER_CPU.get_ptr_mut(0)?;
    // SAFETY: the value lives as long as the program, and no other CPU accesses it.
    Some(unsafe { &mut *slot })
}

/// Returns a slot of the attempt table. Other CPUs use it too, as `attempt_table` describes.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn slot(index: u32) -> Option<&'static mut TableSlot> {
    let slot = TABLE.get_ptr_mut(index)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *slot })
}

/// Returns a bucket if connects are counted. Other CPUs write it too.
#[inline(always)]
pub fn connects(bucket: u32) -> Option<*mut u64> {
    if COUNT_CONNECTS.load() == 0 {
        return None;
    }
    CONNECTS.get_ptr_mut(bucket)
}

/// Returns the ways to detect failed calls.
#[inline(always)]
pub fn seen_calls() -> u32 {
    SEEN_CALLS.get(0).map_or(calls::UNSEEN, |&seen| seen)
}

/// Returns a set of the host table. Other CPUs use it too, as `conntrace_common::hosts`
/// describes.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn host_set(index: u32) -> Option<&'static mut HostSet> {
    let set = HOSTS.get_ptr_mut(index)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *set })
}

/// Records that the attempt map was full.
#[inline(always)]
pub fn map_is_full() {
    // Cannot fail: the array has index 0.
    let _ = MAP_WAS_FULL.set(0, 1u64, 0);
}

/// Returns true if the attempt map was ever full.
#[inline(always)]
pub fn map_was_full() -> bool {
    MAP_WAS_FULL.get(0).is_some_and(|&full| full != 0)
}
