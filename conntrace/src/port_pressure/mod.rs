//! Port pressure: connections to one destination use up the ephemeral ports. Hints from the kernel
//! side start scans of the sockets, and the scans' results become lines.
//!
//! The worker does not wait for a scan: it requests one and takes the result when it is ready.

mod schedule;

use std::time::{Duration, Instant};

use schedule::ScanSchedule;

use crate::{
    host::{AttemptRef, Inspectors, PortScan, PortScanResult},
    output::event::PortUse,
    record::Attempt,
};

/// Time limit of a scan; one that has no result then counts as failed.
const SCAN_MAX: Duration = Duration::from_secs(5);

/// Monitor of destinations to which this host connects often.
pub(crate) struct Pressure {
    schedule: ScanSchedule,
    /// Scan under way, and the time at which it counts as failed.
    scanning: Option<(PortScan, Instant)>,
}

impl Pressure {
    /// Creates a monitor without any hints.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            schedule: ScanSchedule::new(Instant::now()),
            scanning: None,
        }
    }

    /// Adds a hint: the attempt, and the count of attempts to its destination.
    pub(crate) fn hint(&mut self, attempt: &Attempt, count: u32, now: Instant) {
        let Some(remote) = attempt.remote else {
            return;
        };
        let port = (attempt.netns, remote.port);
        self.schedule
            .hint(port, AttemptRef::of(attempt), count, now);
    }

    /// Returns the time until the next [`turn`](Self::turn) that has work even without a result;
    /// `None` while no destination is monitored.
    #[must_use]
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let next = match &self.scanning {
            Some((_, until)) => *until,
            None => self.schedule.next_scan()?,
        };
        Some(next.saturating_duration_since(now))
    }

    /// Takes the result of a scan, and returns the lines to write: level and port usage.
    pub(crate) fn scanned(&mut self, result: &PortScanResult, now: Instant) -> Vec<(u8, PortUse)> {
        // The result of one that failed meanwhile is nobody's.
        match self.scanning.take_if(|(scan, _)| *scan == result.scan) {
            Some(_) => self.schedule.finish_scan(result, now),
            None => Vec::new(),
        }
    }

    /// Requests the next scan, where due.
    pub(crate) fn turn(&mut self, now: Instant, inspectors: Option<&mut Inspectors>) {
        if let Some((scan, _)) = self.scanning.take_if(|(_, until)| *until <= now) {
            self.fail(scan, now);
        }
        let Some(scan) = self.schedule.start_scan(now) else {
            return;
        };
        let until = now + SCAN_MAX;
        let is_asked = inspectors.is_some_and(|them| them.scan_ports(scan.clone(), until));
        if is_asked {
            self.scanning = Some((scan, until));
        } else {
            self.fail(scan, now);
        }
    }

    fn fail(&mut self, scan: PortScan, now: Instant) {
        let result = PortScanResult {
            scan,
            took: SCAN_MAX,
            found: None,
        };
        self.schedule.finish_scan(&result, now);
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self::new()
    }
}
