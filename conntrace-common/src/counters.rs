//! What the kernel side counts, per CPU: a slot for each [`Counter`].

use crate::{hosts::HostScratch, record::ENTRY_SIZE};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A slot of the per-CPU counters. They only ever rise.
        #[repr(usize)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $($(#[$doc])* $name,)+
        }

        /// How many counters there are.
        pub const COUNTERS: usize = [$(Counter::$name),+].len();
    };
}

counters! {
    /// Attempts that opened (`TCP_CLOSE` -> `TCP_SYN_SENT`).
    Attempts,
    /// Endings handed over as a record.
    Endings,
    /// Handshakes that completed and were only counted.
    Established,
    /// Endings lost because the ring was full.
    RingFull,
    /// Stall records lost because the ring was full; the attempt goes on.
    StallRingFull,
    /// Attempts found under way when tracing began.
    JoinedLate,
    /// Attempts lost because the attempt map was full: with process filters set
    /// an ending alone does not tell whether it passes them.
    MapFull,
    /// Attempts whose ending no program saw: found when their socket began
    /// the next attempt or was destroyed.
    EndingMissed,
    /// Calls of connect or bind that failed before `TCP_SYN_SENT`, handed over as a
    /// record.
    CallFailed,
    /// Likewise, lost because the ring was full.
    CallRingFull,
    /// Calls that were not followed because too many were under way.
    CallMissed,
    /// State changes that the second attachment handled because the first was
    /// skipped.
    SecondAttachment,
}

/// Words of what each CPU has: two sets of counters, the first attachment's mark, an entry
/// for each attachment to write, and for these and the other programs memory to work in.
pub const PER_CPU_WORDS: usize =
    2 * COUNTERS + 2 + (2 * ENTRY_SIZE + 3 * size_of::<HostScratch>()) / size_of::<u64>();
