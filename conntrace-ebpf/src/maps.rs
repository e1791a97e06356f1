//! Maps and the types of their values, with the reason for each limit.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::generated::bpf_map_lookup_elem,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use conntrace_common::{
    answers::{self, AnswerBucket},
    calls::{self, CALL_SIZE, REGISTERS_MAX, REGISTERS_SIZE},
    connects,
    counters::{COUNTERS, Counter, PER_CPU_WORDS},
    filter::{self, COMMS_MAX, IDS_MAX, NETWORKS_MAX, PORT_WORDS},
    hash::HashSecret,
    host_key,
    record::{COMM_LEN, RawOpening},
    shares,
    table::{ENTRY_SIZE, SLOT_SIZE, SLOTS, SPILLED_MAX, SPILLED_SIZE},
};

use crate::kernel::{self, Icmp6Error, Passed};

/// Entry of an attempt under way: only facts that its socket does not have at the end. They never
/// are written anywhere as they are, because one is an address.
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
    pub netns: u16,
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
    /// Entry that is filled before it is inserted into the map; it does not fit on the stack.
    pub spare: SpilledEntry,
    /// The same, for attempts found under way at the start.
    pub found: SpilledEntry,
}

const _: () = assert!(size_of::<PerCpu>() == PER_CPU_WORDS * size_of::<u64>());

/// Counters of one program per CPU. A softirq can interrupt a program between load and store, and
/// this target has no atomic addition in stable Rust. No two programs write the same counter, so
/// that no count is lost. A program cannot interrupt itself, because the kernel skips it then.
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

/// Attempts under way, by a hash of the socket's address; 2.4 MiB. The agent maps it to count
/// them.
#[map]
static TABLE: Array<TableSlot> = Array::with_max_entries(SLOTS, BPF_F_MMAPABLE);

/// Attempts whose slot is occupied, by socket address; 13 MiB. Preallocated, so that a softirq
/// never allocates, and not an LRU map, whose evictions would go unnoticed. The limit is
/// independent of the table, because the addresses decide how many attempts the table can hold.
#[map]
pub static ATTEMPTS: HashMap<u64, SpilledEntry> = HashMap::with_max_entries(SPILLED_MAX, 0);

/// Numbers of attempts in that map, by owner and in total (`conntrace_common::shares`).
#[map]
static HELD: Array<u32> = Array::with_max_entries(shares::COUNTS, 0);

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

/// Registers of calls under way, by thread id; 256 KiB. A call takes microseconds, so that
/// hardly ever two threads use the same place at once.
#[map]
static REGISTERS: Array<CallRegisters> = Array::with_max_entries(REGISTERS_MAX, 0);

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

/// System calls connect and bind under way on closed TCP sockets, by thread. A call takes
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

/// Completed handshakes that the agent was told, by a hash of the destination; 128 KiB.
#[map]
static ANSWERS: Array<AnswerBucket> = Array::with_max_entries(answers::BUCKETS, 0);

/// Last time at which the agent was not told an answer, by a hash of the host or private network;
/// 32 KiB. In nanoseconds of `CLOCK_BOOTTIME`. The agent maps it.
#[map]
static MISSED_ANSWERS: Array<u64> = Array::with_max_entries(host_key::SETS, BPF_F_MMAPABLE);

/// Ways to detect failed calls (`conntrace_common::calls`), known once the hooks are attached.
#[map]
static SEEN_CALLS: Array<u32> = Array::with_max_entries(1, 0);

/// Queue of records for the agent, the only one: 8 MiB hold 34,952 records.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(RING_SIZE, 0);

/// 1 while the agent sleeps and nothing has woken it, else 0. The agent sets it, in memory that it
/// maps.
#[map]
static READER_SLEEPS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Returns true if the agent sleeps, and makes the caller the one who wakes it. Asked once a record
/// is reserved.
///
/// The agent says that it sleeps, and then looks for a reserved record before it does. The first
/// record after that look may miss the mark: it is the only unread one, and the kernel itself wakes
/// the agent for it. Every later one is reserved under the same lock, and sees the mark, or whoever
/// took it away and is about to wake the agent.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn is_to_be_woken() -> bool {
    let Some(sleeps) = at(&READER_SLEEPS, 0) else {
        return false;
    };
    // SAFETY: the value lives as long as the program.
    unsafe {
        let is_asleep = sleeps.read_volatile() != 0;
        if is_asleep {
            sleeps.write_volatile(0);
        }
        is_asleep
    }
}

/// Size of the ring in bytes, a power of two.
pub const RING_SIZE: u32 = 8 << 20;

/// Last time at which a fact about the whole host became true, by [`HostFlag`].
#[map]
static FLAGS: Array<u64> = Array::with_max_entries(2, 0);

/// Fact about the whole host that never becomes false again.
#[derive(Clone, Copy)]
pub enum HostFlag {
    /// An attempt found no place in the table. An ending without an entry then belongs to such an
    /// attempt, otherwise to one that began before tracing.
    TableWasFull,
    /// Two sockets opened a connection to each other at once, or one to itself (`TCP_SYN_SENT` ->
    /// `TCP_SYN_RECV`). Until then every socket in `TCP_SYN_RECV` is an accepted one.
    SynsCrossed,
}

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
static HASH_SECRET: aya_ebpf::Global<HashSecret> = aya_ebpf::Global::new(HashSecret::new([0; 3]));

/// Returns the key of the hash of addresses.
#[inline(always)]
pub fn hash_secret() -> HashSecret {
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

/// Returns an element of an array. Its key fills a whole word of the stack. After a write of half a
/// word the verifier takes the word before it for one that may still be read, and verifies the same
/// code again for each value that it had.
#[inline(always)]
#[expect(unsafe_code, reason = "a helper is called with a key of eight bytes")]
fn at<T>(array: &'static Array<T>, index: u32) -> Option<*mut T> {
    let key = u64::from(index);
    // SAFETY: the map's definition is all that `Array` has. The helper reads the first four bytes
    // of the key, which are the index: the target is little-endian.
    let found = unsafe {
        bpf_map_lookup_elem(
            core::ptr::from_ref(array).cast_mut().cast(),
            (&raw const key).cast(),
        )
    };
    (!found.is_null()).then_some(found.cast())
}

/// Returns a slot of the attempt table. Other CPUs use it too, as `attempt_table` describes.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn slot(index: u32) -> Option<&'static mut TableSlot> {
    let slot = at(&TABLE, index)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *slot })
}

/// Returns a bucket if connects are counted. Other CPUs write it too.
#[inline(always)]
pub fn connects(bucket: u32) -> Option<*mut u64> {
    if COUNT_CONNECTS.load() == 0 {
        return None;
    }
    at(&CONNECTS, bucket)
}

/// Returns the ways to detect failed calls.
#[inline(always)]
pub fn seen_calls() -> u32 {
    SEEN_CALLS.get(0).map_or(calls::UNSEEN, |&seen| seen)
}

/// Returns a bucket of the handshakes that the agent was told. Other CPUs use it too, as
/// `conntrace_common::answers` describes.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn answer_bucket(index: u32) -> Option<&'static mut AnswerBucket> {
    let bucket = at(&ANSWERS, index)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *bucket })
}

/// Returns the last time at which the agent was not told an answer of the hosts with this index.
/// Other CPUs write it too.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn missed_answers(index: u32) -> Option<&'static mut u64> {
    let missed_ns = at(&MISSED_ANSWERS, index)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *missed_ns })
}

/// Returns the number of attempts in the map that an owner holds (`conntrace_common::shares`).
/// Other CPUs use it too, by atomic additions.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn held(index: u32) -> Option<&'static mut u32> {
    let count = at(&HELD, index)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *count })
}

/// Returns the place for the registers of a thread's call.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn registers(index: u32) -> Option<&'static mut CallRegisters> {
    let place = at(&REGISTERS, index)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *place })
}

impl HostFlag {
    #[inline(always)]
    pub fn set(self) {
        // Cannot fail: the array has an index for each flag.
        let _ = FLAGS.set(self as u32, kernel::now_ns(), 0);
    }

    /// Returns the time at which it was last set, in nanoseconds of `CLOCK_BOOTTIME`; 0 if never.
    #[inline(always)]
    pub fn value(self) -> u64 {
        FLAGS.get(self as u32).copied().unwrap_or(0)
    }

    #[inline(always)]
    pub fn is_set(self) -> bool {
        self.value() != 0
    }
}
