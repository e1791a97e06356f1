//! Port pressure in the worker: passes hints to the monitor and writes its lines.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::{
    host::PortScanResult,
    output::event::{self, Event, PortUse},
    pipeline::Worker,
    record::Attempt,
};

impl Worker {
    /// Returns the time until [`watch_ports`](Self::watch_ports) has work to do;
    /// `None` while no destination is monitored.
    #[must_use]
    pub fn pressure_wait(&self, now: Instant) -> Option<Duration> {
        self.pressure.as_ref()?.wait(now)
    }

    /// Passes on a hint: the count of attempts to this destination. The recording holds the
    /// resulting lines, not the hints.
    pub(super) fn hint(&mut self, attempt: &Attempt, count: u32, now: Instant) {
        if let Some(pressure) = &mut self.pressure {
            pressure.hint(attempt, count, now);
        }
    }

    /// Requests the next scan of port usage, where due.
    pub fn watch_ports(&mut self, now: Instant) {
        if let Some(pressure) = &mut self.pressure {
            pressure.turn(now, self.inspectors.as_mut());
        }
    }

    /// Writes the lines of a scan.
    pub(super) fn ports_scanned(&mut self, result: &PortScanResult, now: Instant) {
        let Some(pressure) = &mut self.pressure else {
            return;
        };
        for (level, found) in pressure.scanned(result, now) {
            let now = Timestamp::now();
            if let Some(recorder) = &mut self.recorder {
                recorder.port_pressure(now, level, found);
            }
            self.port_pressure(level, &found, now);
        }
    }

    /// Writes a line. It is part of diagnosis, so a replay without diagnosis omits it too.
    pub(super) fn port_pressure(&mut self, level: u8, found: &PortUse, time: Timestamp) {
        if self.labelling.causes {
            let line = event::port_pressure(level, found);
            self.write(Event::PortPressure(Box::new(line)), time);
        }
    }
}
