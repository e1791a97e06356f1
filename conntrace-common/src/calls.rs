//! Ways to detect calls of connect and bind that fail before an attempt opens. The agent sets
//! them in the map `SEEN_CALLS` once it knows which hooks attach.

/// Failed calls are not detected. The other constants are bits that can be combined.
pub const UNSEEN: u32 = 0;

/// Calls are kept at their entry and reported at their return, by tracepoints of system calls. A
/// call whose attempt opens is removed.
pub const KEPT: u32 = 1;

/// Calls are detected at the return of a kernel function (fexit, kretprobe). An attempt that opens
/// and ends within the call leaves a mark for this hook.
pub const AT_RETURN: u32 = 2;

/// Two programs are attached to the return. On a preemptible kernel the first is skipped for
/// every other thread on a CPU while one thread is preempted within it.
pub const TWICE: u32 = 4;

/// Size of a kept call in bytes. The first eight are its start in nanoseconds of
/// `CLOCK_BOOTTIME`.
pub const CALL_SIZE: usize = 56;

/// Number of places for the registers of calls under way (kprobe), two for each thread: functions
/// of IPv6 call those of IPv4. A power of two.
pub const REGISTERS_MAX: u32 = 8192;
/// Size in bytes of the registers of a call. The first eight are the thread; 0 if it has none.
pub const REGISTERS_SIZE: usize = 32;
