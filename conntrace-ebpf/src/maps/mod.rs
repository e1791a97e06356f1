//! Maps, with the reason for each limit.

mod values;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::generated::bpf_map_lookup_elem,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use conntrace_common::{
    answers::{self, AnswerBucket},
    calls::{self, REGISTERS_MAX},
    connects, drops,
    filter::{self, COMMS_MAX, IDS_MAX, NETWORKS_MAX, PORT_WORDS},
    hash::HashSecret,
    host_key,
    record::COMM_LEN,
    shares,
    table::{SLOTS, SPILLED_MAX},
};

pub use self::values::{
    AttemptEntry, Before, CallRegisters, Counts, Notes, PendingCall, PerCpu, SpilledEntry,
    TableSlot,
};
use crate::kernel::{self, Icmp6Error};

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

/// Registers of calls under way, by thread id; 256 KiB. A call takes microseconds, so that
/// hardly ever two threads use the same place at once.
#[map]
static REGISTERS: Array<CallRegisters> = Array::with_max_entries(REGISTERS_MAX, 0);

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

/// Client addresses of attempts under way, and client ports that wait for an answer, each with the time
/// at which one was last seen (`conntrace_common::drops`); 48 KiB.
#[map]
static CLIENT_ADDRS: Array<u32> = Array::with_max_entries(drops::ADDRS, 0);
#[map]
static CLIENT_PORTS: Array<u32> = Array::with_max_entries(drops::PORTS, 0);

/// Last time at which a dropped packet of an attempt may not have been reported, by the hash of its
/// client address; 32 KiB. In nanoseconds of `CLOCK_BOOTTIME`. The agent maps it.
#[map]
static MISSED_DROPS: Array<u64> = Array::with_max_entries(drops::ADDRS, BPF_F_MMAPABLE);

/// Ways to detect failed calls (`conntrace_common::calls`), known once the hooks are attached.
#[map]
static SEEN_CALLS: Array<u32> = Array::with_max_entries(1, 0);

/// Queue of records for the agent, the only one: 8 MiB hold 33,825 records.
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

/// Returns the stamp of the client addresses with this hash. Other CPUs write it too.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn client_addr(hash: u32) -> Option<&'static mut u32> {
    let stamp = at(&CLIENT_ADDRS, hash)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *stamp })
}

/// Returns the stamp of the client ports with this hash. Other CPUs write it too.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn client_port(hash: u32) -> Option<&'static mut u32> {
    let stamp = at(&CLIENT_PORTS, hash)?;
    // SAFETY: the value lives as long as the program.
    Some(unsafe { &mut *stamp })
}

/// Returns the last time at which a dropped packet of the client addresses with this hash was not
/// reported. Other CPUs write it too.
#[inline(always)]
#[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
pub fn missed_drops(hash: u32) -> Option<&'static mut u64> {
    let missed_ns = at(&MISSED_DROPS, hash)?;
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
