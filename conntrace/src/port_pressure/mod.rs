//! Whether connections to one destination use up the local ports: from the kernel
//! side's hints, made sure of by looks at the sockets, to the lines that say so.
//!
//! Nobody waits for a look: the worker asks for one, goes on, and takes the answer when
//! it has come.

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

/// How often the answer to a look is waited for.
const POLL: Duration = Duration::from_millis(10);

/// Watches the destinations that this host connects to often.
pub(crate) struct Pressure {
    watch: ScanSchedule,
    /// Looks at the sockets; started by the first hint.
    scout: Option<PortScanner>,
    /// There are no further looks.
    blind: bool,
}

impl Pressure {
    /// Knows nothing yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            watch: ScanSchedule::new(Instant::now()),
            scout: None,
            blind: false,
        }
    }

    /// Takes a hint: this attempt is one of so many.
    pub(crate) fn hint(&mut self, attempt: &Attempt, count: u32, now: Instant) {
        let Some(remote) = attempt.remote else {
            return;
        };
        if !self.blind {
            let port = (attempt.netns, remote.port);
            self.watch.hint(port, AttemptRef::of(attempt), count, now);
        }
    }

    /// How long the worker may wait before the next [`turn`](Self::turn); for ever
    /// where no destination is of interest.
    #[must_use]
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        if self.watch.is_looking() {
            return Some(POLL);
        }
        let next = self.watch.next_look()?;
        Some(next.saturating_duration_since(now))
    }

    /// Takes an answer and asks for the next look, where there are. Returns the lines
    /// that are due: level and what was found.
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
                Err(error) => log::warn!("no port_pressure: cannot start its thread: {error}"),
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
