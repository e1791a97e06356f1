//! Every map, its limit, and why.

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

/// What is kept of an attempt while it is under way. The `*_before` fields are
/// what the socket brought along from earlier attempts; they never leave the
/// kernel (one is an address).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AttemptEntry {
    pub attempt: RawAttempt,
    /// Newest error queue entry when the attempt began (`sk_error_queue.prev`).
    pub error_queue_before: u64,
    /// `tcp_sock.segs_out` when the attempt began.
    pub segs_out_before: u32,
    /// `tcp_sock.total_retrans` when the attempt began.
    pub total_retrans_before: u32,
    /// `tcp_sock.segs_in` when the attempt began.
    pub segs_in_before: u32,
    /// `sk_err` when the attempt began. An errno fits 16 bits.
    pub error_before: u16,
    /// `sk_err_soft` when the attempt began.
    pub soft_error_before: u16,
    /// Why this host dropped a packet of the attempt the last time; 0 if never. Not next
    /// to what else begins as 0: of six such bytes the compiler makes a call of memset.
    pub drop_reason: u16,
    /// `inet_sport` when the attempt began, network order.
    pub sport_before: u16,
    /// How often this host dropped one; stays at 255.
    pub drops: u8,
    /// The stall record was sent.
    pub stalled: u8,
    /// `FLAG_JOINED_LATE` or `FLAG_UNTRACKED`, 0 for an attempt seen from its
    /// beginning: goes into the record's flags.
    pub seen: u8,
    /// An ICMPv6 error came, which is in its own map.
    pub icmp6: u8,
}

const _: () = assert!(size_of::<AttemptEntry>() == ENTRY_SIZE);

impl AttemptEntry {
    /// Word by word, and volatile: the compiler makes a call of memmove of a plain copy,
    /// which goes byte by byte on this target.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a struct is copied as words")]
    pub fn copy_from(&mut self, other: &Self) {
        let to = core::ptr::from_mut(self).cast::<u64>();
        let from = core::ptr::from_ref(other).cast::<u64>();
        for word in 0..ENTRY_SIZE / size_of::<u64>() {
            // SAFETY: both are that many words, aligned, and have no padding.
            unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
        }
    }
}

/// A place in the table of attempts (`table`).
#[repr(C)]
pub struct TableSlot {
    /// Address of the socket whose attempt has it; 0 if none has.
    pub sock: u64,
    /// How many have claimed it: the one that has it, and others for a moment.
    pub claims: u32,
    /// Not zero once a socket that hashes here had to go into the map.
    pub spilled: u32,
    pub entry: AttemptEntry,
}

const _: () = assert!(size_of::<TableSlot>() == SLOT_SIZE);

/// One CPU's counters, and the mark that its first attachment leaves.
#[repr(C)]
pub struct PerCpu {
    /// What the first attachment to `inet_sock_set_state` counts.
    pub first: Counts,
    /// What the other programs count, each of them other counters.
    pub others: Counts,
    /// The transition that the first attachment handled last.
    pub handled: Transition,
    /// Where the first attachment writes an entry before it goes into its map: the
    /// stack has no room for one.
    pub first_entry: AttemptEntry,
    /// Likewise the second.
    pub second_entry: AttemptEntry,
    /// Scratch memory of each program that looks into the memory of hosts.
    pub first_work: HostScratch,
    pub second_work: HostScratch,
    pub stall_work: HostScratch,
}

const _: () = assert!(size_of::<PerCpu>() == PER_CPU_WORDS * size_of::<u64>());

/// A slot for each counter. A softirq can interrupt a program between load and
/// store, and this target has no atomic addition in stable Rust: so that no count
/// is lost, no two programs write the same slot. A program does not interrupt
/// itself, the kernel skips it then.
#[repr(C)]
pub struct Counts([u64; COUNTERS]);

/// A state change of a socket, as a mark.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub sock: u64,
    pub new_state: u64,
}

impl Transition {
    /// Makes it none: no socket has this address. The state stays, for of two zeroes the
    /// compiler makes a call of memset.
    #[inline(always)]
    pub fn forget(&mut self) {
        self.sock = 0;
    }
}

impl Counts {
    /// Adds one.
    #[inline(always)]
    pub fn count(&mut self, counter: Counter) {
        if let Some(slot) = self.0.get_mut(counter as usize) {
            *slot += 1;
        }
    }
}

/// Attempts under way, by a hash of the socket's address: 640 KiB.
#[map]
static TABLE: Array<TableSlot> = Array::with_max_entries(SLOTS, 0);

/// Those whose slot is another's, by socket address. Preallocated (no allocation in a
/// softirq) and no LRU (an eviction would be silent). As many as may be in `SYN_SENT` at
/// once whatever the table takes, for how many that is depends on their addresses: 10 MiB.
#[map]
pub static ATTEMPTS: HashMap<u64, AttemptEntry> = HashMap::with_max_entries(IN_MAP_MAX, 0);

/// What is kept of a call to connect or bind while it runs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingCall {
    /// When it began, `CLOCK_BOOTTIME` nanoseconds.
    pub started_ns: u64,
    /// The address it was passed.
    pub passed: Passed,
    /// Address of the socket.
    pub sock: u64,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// The socket's local address, laid out like `Attempt::local_addr`.
    pub local_addr: [u8; 16],
    /// Local port bound before, host order; 0 if none.
    pub bound_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
}

// The agent reads when it began.
const _: () =
    assert!(size_of::<PendingCall>() == CALL_SIZE && offset_of!(PendingCall, started_ns) == 0);

/// Calls of connect or bind under way on TCP sockets that are in no state yet, by
/// thread. They take microseconds: as many threads as this are not in them at once.
#[map]
pub static CALLS: HashMap<u64, PendingCall> = HashMap::with_max_entries(4096, 0);

/// The last ICMPv6 error of attempts to which one came, by socket address: apart,
/// because it is rare and the stack has no room for it. LRU: what so many attempts
/// that stay under way push out has null in its line.
#[map]
pub static ICMP6_ERRORS: LruHashMap<u64, Icmp6Error> = LruHashMap::with_max_entries(1024, 0);

/// Sockets whose attempt ended within the call that opened it, by thread, until that
/// call returns a moment later. LRU: should a return be missed, its mark gives way.
#[map]
pub static ENDED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// The memory of hosts and private networks, by a hash: 1.75 MiB for 16,384 of them, four in
/// a set.
#[map]
static HOSTS: Array<HostSet> = Array::with_max_entries(hosts::SETS, 0);

/// How failed calls are seen (`calls`): only known once it was tried what attaches.
#[map]
static SEEN_CALLS: Array<u32> = Array::with_max_entries(1, 0);

/// Records on their way to the agent, the only queue of them: 8 MiB hold 32,768.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Not zero once the attempt map has been full. An ending without an entry is then
/// of an attempt that was not kept, before that of one older than the tracing.
#[map]
static MAP_WAS_FULL: Array<u64> = Array::with_max_entries(1, 0);

/// What the filters of the kinds pid, uid, cgroup and netns let pass. Only the
/// agent writes the maps of the filters, so that they need no memory in advance.
#[map]
pub static FILTER_IDS: HashMap<filter::Id, u8> =
    HashMap::with_max_entries(IDS_MAX, BPF_F_NO_PREALLOC);

/// Names of threads or processes that pass.
#[map]
pub static FILTER_COMMS: HashMap<[u8; COMM_LEN], u8> =
    HashMap::with_max_entries(COMMS_MAX, BPF_F_NO_PREALLOC);

/// Destination networks that pass; IPv4 ones as v4-mapped.
#[map]
pub static FILTER_NETWORKS: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(NETWORKS_MAX, 0);

/// Destination ports that pass, a bit each.
#[map]
pub static FILTER_PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// Connects by destination: the window in the upper half, their number in the lower.
/// Destinations that share one cost the agent a look too many, or one a little late.
#[map]
static CONNECTS: Array<u64> = Array::with_max_entries(connects::BUCKETS, 0);

/// Set by the agent: connects are counted by destination.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static COUNT_CONNECTS: aya_ebpf::Global<u8> = aya_ebpf::Global::new(0);

/// Set by the agent, another at each start: keys the hash of addresses.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static HASH_SECRET: aya_ebpf::Global<u64> = aya_ebpf::Global::new(0);

/// Key of the hash of addresses.
#[inline(always)]
pub fn hash_secret() -> u64 {
    HASH_SECRET.load()
}

#[map]
static PER_CPU: PerCpuArray<PerCpu> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's slot.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn per_cpu() -> Option<&'static mut PerCpu> {
    let slot = PER_CPU.get_ptr_mut(0)?;
    // SAFETY: the value lives as long as the program, and no other CPU has it.
    Some(unsafe { &mut *slot })
}

/// This slot of the table. Other CPUs use it too: `table` says how.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn slot(index: u32) -> Option<&'static mut TableSlot> {
    let slot = TABLE.get_ptr_mut(index)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *slot })
}

/// The bucket of this number, if connects are counted. Other CPUs write it too.
#[inline(always)]
pub fn connects(bucket: u32) -> Option<*mut u64> {
    if COUNT_CONNECTS.load() == 0 {
        return None;
    }
    CONNECTS.get_ptr_mut(bucket)
}

/// How failed calls are seen.
#[inline(always)]
pub fn seen_calls() -> u32 {
    SEEN_CALLS.get(0).map_or(calls::UNSEEN, |&seen| seen)
}

/// This set of the memory of hosts. Other CPUs use it too: `hosts` says how.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn host_set(index: u32) -> Option<&'static mut HostSet> {
    let set = HOSTS.get_ptr_mut(index)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *set })
}

/// Notes that the attempt map was full.
#[inline(always)]
pub fn map_is_full() {
    // Cannot fail: the array has that place.
    let _ = MAP_WAS_FULL.set(0, 1u64, 0);
}

/// Whether the attempt map has ever been full.
#[inline(always)]
pub fn map_was_full() -> bool {
    MAP_WAS_FULL.get(0).is_some_and(|&full| full != 0)
}
