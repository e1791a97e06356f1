//! Per-CPU counters of the kernel side, one slot for each [`Counter`].

use crate::table::SPILLED_SIZE;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Slot of the per-CPU counters, which never decrease.
        #[repr(usize)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $($(#[$doc])* $name,)+
        }

        /// Number of counters.
        pub const COUNTERS: usize = [$(Counter::$name),+].len();
    };
}

counters! {
    /// Attempts that opened (`TCP_CLOSE` -> `TCP_SYN_SENT`).
    Attempts,
    /// Endings reported as a record.
    Endings,
    /// Handshakes that completed and were only counted.
    Established,
    /// Endings lost because the ring was full.
    RingFull,
    /// Stall records not written because half of the ring was in use; the attempt goes on.
    StallRingFull,
    /// Attempts found under way when tracing began.
    JoinedLate,
    /// Attempts lost because they got no entry while filters of the caller were set. Their ending alone
    /// does not show whether they match the filters.
    MapFull,
    /// Attempts whose ending no program saw, found when their socket began another attempt or was
    /// destroyed, without an error that tells it.
    EndingMissed,
    /// Attempts that got no entry: another namespace or user needed its share of the map, or the map
    /// was full.
    NotAdmitted,
    /// Calls of connect or bind that failed before `TCP_SYN_SENT`, reported as a record.
    CallFailed,
    /// Failed calls lost because the ring was full.
    CallRingFull,
    /// Calls that were not followed: their place was taken by another one, or a return was missed.
    CallMissed,
    /// State changes that met the program already running on their CPU, on a kernel that does not
    /// skip it then (before Linux 6.1).
    Nested,
}

/// Size of the per-CPU memory in 64-bit words: two sets of counters, a mark, the count of connects
/// until the next sample, the count of dropped packets, and two entries for the map.
pub const PER_CPU_WORDS: usize = 2 * COUNTERS + 3 + 2 * SPILLED_SIZE / size_of::<u64>();
