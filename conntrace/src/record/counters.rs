//! The kernel side's counters.

use serde::{Deserialize, Serialize};

/// What the kernel side counted, since the start and over all CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counters {
    /// Attempts that opened, and calls that failed before.
    pub attempts: u64,
    /// Endings handed over as records, those of such calls among them.
    pub endings: u64,
    /// Completed handshakes that were only counted.
    pub established: u64,
    /// Endings lost to a full ring.
    pub ring_full: u64,
    /// Attempts lost to a full attempt map.
    pub untracked: u64,
    /// Attempts whose ending no program saw.
    pub ending_missed: u64,
    /// Stall records lost to a full ring.
    pub stall_ring_full: u64,
    /// State changes the second attachment took over from the first.
    pub second_attachment: u64,
    /// Runs of our programs that the kernel skipped, and calls left without their return
    /// being seen.
    pub missed_hooks: u64,
}
