//! How calls of connect and bind are seen that fail before there is an attempt:
//! what the agent tells the programs once it knows what attaches.

/// Not at all. The others can come together, each a bit.
pub const UNSEEN: u32 = 0;

/// From their entry, at which they are kept, to their return: by probes or by the
/// tracepoints of the system calls. One whose attempt opens is let go.
pub const KEPT: u32 = 1;

/// By their return alone (fexit), where their arguments are still at hand. An
/// attempt that opened and ended within the call leaves a mark for it.
pub const AT_RETURN: u32 = 2;

/// By their return twice, because a kernel that preempts skips the first program for
/// all others while one of them is preempted within it.
pub const TWICE: u32 = 4;

/// Bytes of what is kept of a call; the first eight say when it began, in nanoseconds of
/// `CLOCK_BOOTTIME`.
pub const CALL_SIZE: usize = 56;
