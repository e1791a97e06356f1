//! What the worker does for `port_pressure`: hints go to the watch, answers to looks
//! become lines.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Instant,
};

use jiff::Timestamp;

use super::{Item, Worker};
use crate::{
    event::{self, Event, PortUse},
    wire::Attempt,
};

impl Worker {
    /// The next item. While a destination is of interest its lines are told in
    /// between, and so is what the sink held back.
    pub(super) fn next(&mut self, items: &Receiver<Item>) -> io::Result<Option<Item>> {
        loop {
            let pressure = self.pressure.as_ref();
            let pressure = pressure.and_then(|pressure| pressure.wait(Instant::now()));
            let next = match pressure.into_iter().chain(self.held).min() {
                Some(wait) => items.recv_timeout(wait),
                None => items.recv().map_err(RecvTimeoutError::from),
            };
            match next {
                Ok(item) => return Ok(Some(item)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.rest()?,
            }
        }
    }

    /// An attempt is one of so many to its destination. The hint is not recorded: what
    /// is found because of it is.
    pub(super) fn hint(&mut self, attempt: &Attempt, count: u32, now: Instant) {
        if let Some(pressure) = &mut self.pressure {
            pressure.hint(attempt, count, now);
        }
    }

    /// Writes the lines that are due.
    pub(super) fn tell_pressure(&mut self) -> io::Result<()> {
        let Some(pressure) = &mut self.pressure else {
            return Ok(());
        };
        for (level, found) in pressure.turn(Instant::now()) {
            let now = Timestamp::now();
            if let Some(recorder) = &mut self.recorder {
                recorder.port_pressure(now, level, found);
            }
            self.port_pressure(level, found, now)?;
        }
        Ok(())
    }

    /// Writes the line. It is diagnosis: without that there is none in a replay either.
    pub(super) fn port_pressure(
        &mut self,
        level: u8,
        found: PortUse,
        time: Timestamp,
    ) -> io::Result<()> {
        if !self.labelling.causes {
            return Ok(());
        }
        let line = event::port_pressure(level, &found);
        self.write(Event::PortPressure(Box::new(line)), time)
    }
}
