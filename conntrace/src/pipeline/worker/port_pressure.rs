//! What the worker does for `port_pressure`: hints go to the watch, answers to looks
//! become lines.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::{
    output::{
        event,
        event::{Event, PortUse},
    },
    pipeline::Worker,
    record::Attempt,
};

impl Worker {
    /// Time until [`tell_pressure`](Self::tell_pressure) has something to do; `None` while no
    /// destination is of interest.
    #[must_use]
    pub fn pressure_wait(&self, now: Instant) -> Option<Duration> {
        self.pressure.as_ref()?.wait(now)
    }

    /// An attempt is one of so many to its destination. The hint is not recorded: what
    /// is found because of it is.
    pub(super) fn hint(&mut self, attempt: &Attempt, count: u32, now: Instant) {
        if let Some(pressure) = &mut self.pressure {
            pressure.hint(attempt, count, now);
        }
    }

    /// Writes the lines that are due.
    pub fn tell_pressure(&mut self) {
        let Some(pressure) = &mut self.pressure else {
            return;
        };
        for (level, found) in pressure.turn(Instant::now()) {
            let now = Timestamp::now();
            if let Some(recorder) = &mut self.recorder {
                recorder.port_pressure(now, level, found);
            }
            self.port_pressure(level, &found, now);
        }
    }

    /// Writes the line. It is diagnosis: without that there is none in a replay either.
    pub(super) fn port_pressure(&mut self, level: u8, found: &PortUse, time: Timestamp) {
        if self.labelling.causes {
            let line = event::port_pressure(level, found);
            self.write(Event::PortPressure(Box::new(line)), time);
        }
    }
}
