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
    watch: ScanSchedule,
    /// Scanner thread; started by the first hint.
    scout: Option<PortScanner>,
    /// True once scans have failed for good.
    blind: bool,
}

impl Pressure {
    /// Creates a monitor without any hints.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            watch: ScanSchedule::new(Instant::now()),
            scout: None,
            blind: false,
        }
    }

    /// Adds a hint: the attempt, and the count of attempts to its destination.
    pub(crate) fn hint(&mut self, attempt: &Attempt, count: u32, now: Instant) {
        let Some(remote) = attempt.remote else {
            return;
        };
        if !self.blind {
            let port = (attempt.netns, remote.port);
            self.watch.hint(port, AttemptRef::of(attempt), count, now);
        }
    }

    /// Returns the time until the next [`turn`](Self::turn); `None` while no destination is
    /// monitored.
    #[must_use]
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        if self.watch.is_looking() {
            return Some(POLL);
        }
        let next = self.watch.next_look()?;
        Some(next.saturating_duration_since(now))
    }

    /// Takes the result of a scan and requests the next one, where due. Returns the lines to write:
    /// level and port usage.
    pub(crate) fn turn(&mut self, now: Instant) -> Vec<(u8, PortUse)> {
        let answer = match &self.scout {
            Some(scout) if self.watch.is_looking() => scout.answer(),
            Some(_) | None => Err(TryRecvError::Empty),
        };
        let lines = match answer {
            Ok(looked) => self.watch.looked(&looked, now),
            Err(TryRecvError::Empty) => Vec::new(),
            Err(TryRecvError::Disconnected) => {
                self.go_blind(now);
                Vec::new()
            }
        };
        self.ask(now);
        lines
    }

    fn ask(&mut self, now: Instant) {
        let Some(look) = self.watch.look(now) else {
            return;
        };
        if self.scout.is_none() {
            match PortScanner::start() {
                Ok(scout) => self.scout = Some(scout),
                Err(error) => {
                    log::warn!("no port_pressure: cannot start the scanner thread: {error}");
                }
            }
        }
        if !self.scout.as_ref().is_some_and(|scout| scout.ask(look)) {
            self.go_blind(now);
        }
    }

    fn go_blind(&mut self, now: Instant) {
        self.blind = true;
        self.watch = ScanSchedule::new(now);
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self::new()
    }
}
