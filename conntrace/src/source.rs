//! Where records come from.

use std::{io, os::fd::BorrowedFd, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::sys::RingPositions;

/// Bytes in the ring from which on nobody may be waited for: a quarter of it. The rest holds
/// 24,576 records, those of a tenth of a second, which a look at the host may take, at 245,000
/// endings a second.
const LARGE: usize = 2 << 20;

/// A source of wire records: the live kernel, or a test's.
pub trait Source {
    /// Hands over the records that are there now, at most `max` of them; returns how many.
    fn drain(&mut self, max: usize, each: impl FnMut(&[u8])) -> usize;

    /// Descriptors that can be read from when there may be more.
    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2];

    /// Returns a view of how much there is to read.
    fn backlog(&self) -> Backlog;

    /// Reads the kernel side's counters.
    ///
    /// # Errors
    /// When a map or /proc cannot be read.
    fn counters(&mut self) -> io::Result<Counters>;

    /// Counts the attempts under way: the entries of the attempt map.
    fn in_map(&self) -> u64;

    /// Stops the flow: after it, what is there can be drained to the end and
    /// the counters stand still.
    fn detach(&mut self);
}

/// View of the records that wait in the ring; without one none wait.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Option<Arc<RingPositions>>);

impl Backlog {
    /// Of the ring with these positions.
    pub(crate) fn of(positions: RingPositions) -> Self {
        Self(Some(Arc::new(positions)))
    }

    /// Returns true if so many records wait that their reader may wait for nobody.
    #[must_use]
    pub fn is_large(&self) -> bool {
        let waiting = self.0.as_ref().map(|positions| positions.waiting());
        waiting.is_some_and(|waiting| waiting >= LARGE)
    }
}

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
