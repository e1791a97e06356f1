//! Interface between the reader and the source of its records.

use std::{io, os::fd::BorrowedFd};

use crate::{
    record::{Counters, Holding},
    sys::{Backlog, MissedAnswers, MissedDrops},
};

/// Source of wire records: the live kernel, or a fake one in tests.
pub trait Source {
    /// Passes at most `max` of the waiting records to `each`, and returns their number.
    fn drain(&mut self, max: usize, each: impl FnMut(&[u8])) -> usize;

    /// Returns descriptors that become readable when more records may be waiting.
    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2];

    /// Returns a view of the amount of unread data.
    fn backlog(&self) -> Backlog;

    /// Returns a view of the times at which answers were missed.
    fn missed_answers(&self) -> MissedAnswers;

    /// Returns a view of the last time at which a dropped packet was not reported.
    fn missed_drops(&self) -> MissedDrops;

    /// Tells the kernel side if the reader sleeps until a record wakes it.
    fn set_sleeping(&self, sleeps: bool);

    /// Reads the kernel side's counters.
    ///
    /// # Errors
    /// When a map or /proc cannot be read.
    fn counters(&mut self) -> io::Result<Counters>;

    /// Counts the attempts under way: the entries of the table and of the map.
    ///
    /// # Errors
    /// When the table cannot be mapped.
    fn in_map(&self) -> io::Result<u64>;

    /// Returns the holder of each attempt under way.
    ///
    /// # Errors
    /// When the table cannot be mapped.
    fn holders(&self) -> io::Result<Vec<Holding>>;

    /// Stops tracing. Afterwards the waiting records can be drained to the end, and the counters
    /// no longer change.
    fn detach(&mut self);
}
