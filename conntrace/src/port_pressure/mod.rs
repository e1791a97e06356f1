//! Port pressure: connections to one destination use up the ephemeral ports. Hints from the kernel
//! side start scans of the sockets, and the scans' results become lines.
//!
//! The worker does not wait for a scan: it requests one and takes the result when it is ready.

mod schedule;

use std::{
    sync::mpsc::TryRecvError,
    time::{Duration, Instant},
};

use schedule::ScanSchedule;

use crate::{
    host::{AttemptRef, PortScanner},
    output::event::PortUse,
    record::Attempt,
};

/// Interval at which the result of a scan is polled.
const POLL: Duration = Duration::from_millis(10);

/// Monitor of destinations to which this host connects often.
pub(crate) struct Pressure {
    schedule: ScanSchedule,
    /// Scanner thread; started by the first hint.
    scanner: Option<PortScanner>,
    /// True once scans have failed for good.
    failed: bool,
}

impl Pressure {
    /// Creates a monitor without any hints.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            schedule: ScanSchedule::new(Instant::now()),
            scanner: None,
            failed: false,
        }
    }

    /// Adds a hint: the attempt, and the count of attempts to its destination.
    pub(crate) fn hint(&mut self, attempt: &Attempt, count: u32, now: Instant) {
        let Some(remote) = attempt.remote else {
            return;
        };
        if !self.failed {
            let port = (attempt.netns, remote.port);
            self.schedule
                .hint(port, AttemptRef::of(attempt), count, now);
        }
    }

    /// Returns the time until the next [`turn`](Self::turn); `None` while no destination is
    /// monitored.
    #[must_use]
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        if self.schedule.is_scanning() {
            return Some(POLL);
        }
        let next = self.schedule.next_scan()?;
        Some(next.saturating_duration_since(now))
    }

    /// Takes the result of a scan and requests the next one, where due. Returns the lines to write:
    /// level and port usage.
    pub(crate) fn turn(&mut self, now: Instant) -> Vec<(u8, PortUse)> {
        let result = match &self.scanner {
            Some(scanner) if self.schedule.is_scanning() => scanner.result(),
            Some(_) | None => Err(TryRecvError::Empty),
        };
        let lines = match result {
            Ok(result) => self.schedule.finish_scan(&result, now),
            Err(TryRecvError::Empty) => Vec::new(),
            Err(TryRecvError::Disconnected) => {
                self.fail(now);
                Vec::new()
            }
        };
        self.ask(now);
        lines
    }

    fn ask(&mut self, now: Instant) {
        let Some(scan) = self.schedule.start_scan(now) else {
            return;
        };
        if self.scanner.is_none() {
            match PortScanner::start() {
                Ok(scanner) => self.scanner = Some(scanner),
                Err(error) => {
                    log::warn!("no port_pressure: cannot start the scanner thread: {error}");
                }
            }
        }
        if !self
            .scanner
            .as_ref()
            .is_some_and(|scanner| scanner.ask(scan))
        {
            self.fail(now);
        }
    }

    fn fail(&mut self, now: Instant) {
        self.failed = true;
        self.schedule = ScanSchedule::new(now);
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self::new()
    }
}
