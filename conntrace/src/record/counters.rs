//! Counters of the kernel side.

use serde::{Deserialize, Serialize};

/// Counters of the kernel side since the start, summed over all CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counters {
    /// Attempts that opened, and calls that failed before an attempt opened.
    pub attempts: u64,
    /// Endings reported as records, including those of failed calls.
    pub endings: u64,
    /// Completed handshakes that were only counted.
    pub established: u64,
    /// Endings lost to a full ring.
    pub ring_full: u64,
    /// Attempts lost to a full table, because filters of the caller could not be checked later.
    pub untracked: u64,
    /// Attempts that found no place in the table.
    pub not_admitted: u64,
    /// Attempts whose ending no program saw.
    pub ending_missed: u64,
    /// Stall records lost to a ring that was half full.
    pub stall_ring_full: u64,
    /// Program runs that the kernel skipped, and calls whose return no program saw.
    pub missed_hooks: u64,
}
