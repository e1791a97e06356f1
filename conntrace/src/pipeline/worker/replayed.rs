//! Entries of a recording as the input of a worker.

use std::{io, time::Instant};

use super::Worker;
use crate::{
    host::Callers,
    recording::{Entry, Note},
};

impl Worker {
    /// Processes the next entry of a recording.
    ///
    /// # Errors
    /// Fails when the output cannot be written.
    pub fn replay(&mut self, entry: Entry) -> io::Result<()> {
        match entry {
            Entry::Record(record) => self.record(&record, Instant::now()),
            Entry::Note(Note::Owner(owner)) => {
                self.callers = Callers::Recorded(owner);
                Ok(())
            }
            Entry::Note(Note::Told(answer)) => {
                if let Some(diagnosis) = &mut self.diagnosis {
                    diagnosis.add_answer(answer);
                }
                Ok(())
            }
            Entry::Note(Note::NoTime) => {
                self.has_no_time = true;
                Ok(())
            }
            Entry::Note(Note::Clock { boot_to_wall }) => {
                self.clock.set(boot_to_wall);
                Ok(())
            }
            Entry::Note(Note::Start {
                host,
                time,
                boot_ns,
                start,
            }) => {
                self.host = host;
                self.start(start, time, boot_ns)
            }
            Entry::Note(Note::PortPressure { time, level, found }) => {
                self.port_pressure(level, &found, time);
                Ok(())
            }
            Entry::Note(Note::Snapshot { time, snapshot }) => {
                self.snapshot(&snapshot, time).map(drop)
            }
        }
    }
}
