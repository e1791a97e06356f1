//! Endings that wait for an answer that may still come: a SYN-ACK that met no socket any more shows
//! that the application gave up too early.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use super::Worker;
use crate::record::{
    CompleteRecord,
    history::{Client, DropRecord, client_of, may_be_answered_late},
};

/// Maximum number of endings that wait. Others are not held back.
const HELD_MAX: usize = 1024;
/// Maximum time for which an ending waits.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Duration of an attempt beyond which its answer is no longer expected, in nanoseconds.
const LASTED_MAX_NS: u64 = 3_000_000_000;

impl Worker {
    /// Takes a dropped packet that had lost its socket. An ending that waited for it becomes its line.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn take_drop(&mut self, record: &DropRecord, now: Instant) -> io::Result<()> {
        let Some(client) = self.drops.note(record) else {
            log::warn!("a dropped packet that the kernel side reports is malformed");
            return Ok(());
        };
        match self.late_answers.take(client) {
            Some(held) => self.release(held, now),
            None => Ok(()),
        }
    }

    /// Writes the endings that have waited long enough for an answer.
    pub(super) fn release_due(&mut self, now: Instant) -> io::Result<()> {
        while let Some(held) = self.late_answers.take_due(now, self.timeout) {
            self.release(held, now)?;
        }
        Ok(())
    }

    /// Writes the line of an ending that has waited for an answer.
    pub(super) fn release(&mut self, mut held: HeldEnding, now: Instant) -> io::Result<()> {
        self.drops.complete(&mut held.record, |client| {
            self.missed_drops.latest_ns(client)
        });
        self.line_of(&held.record, held.since, now);
        self.hand_over_if_due()
    }
}

/// Endings that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct LateAnswers {
    held: VecDeque<HeldEnding>,
}

/// Ending that waits for its answer.
#[derive(Debug)]
pub(super) struct HeldEnding {
    client: Client,
    pub(super) record: Box<CompleteRecord>,
    /// Time at which it was read.
    pub(super) since: Instant,
}

impl LateAnswers {
    /// Holds back an ending whose answer may still come. Returns false for others, and without a
    /// place.
    pub(super) fn hold(
        &mut self,
        record: &CompleteRecord,
        patience_ms: u64,
        since: Instant,
    ) -> bool {
        let waited = patience_ms.saturating_mul(1_000_000)..=LASTED_MAX_NS;
        let Some(client) = client_of(record) else {
            return false;
        };
        if self.held.len() >= HELD_MAX || !may_be_answered_late(record, &waited) {
            return false;
        }
        self.held.push_back(HeldEnding {
            client,
            record: Box::new(*record),
            since,
        });
        true
    }

    /// Takes the ending of the client's attempt, if it waits.
    pub(super) fn take(&mut self, client: Client) -> Option<HeldEnding> {
        let at = self.held.iter().position(|held| held.client == client)?;
        self.held.remove(at)
    }

    /// Takes the first ending, if it has waited long enough.
    pub(super) fn take_due(&mut self, now: Instant, timeout: Duration) -> Option<HeldEnding> {
        let first = self.held.front()?;
        (first.since + wait(timeout) <= now)
            .then(|| self.held.pop_front())
            .flatten()
    }

    /// Takes the first ending.
    pub(super) fn take_first(&mut self) -> Option<HeldEnding> {
        self.held.pop_front()
    }

    /// Returns the time at which the first ending is due; `None` if none waits.
    pub(super) fn due_at(&self, timeout: Duration) -> Option<Instant> {
        self.held.front().map(|first| first.since + wait(timeout))
    }
}

/// Returns the time for which an ending waits: its diagnosis needs the rest of the time that its line
/// has.
fn wait(timeout: Duration) -> Duration {
    WAIT_MAX.min(timeout / 2)
}
