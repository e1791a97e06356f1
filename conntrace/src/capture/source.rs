//! Where records come from.

use std::{io, os::fd::BorrowedFd};

use crate::{record::Counters, sys::Backlog};

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
