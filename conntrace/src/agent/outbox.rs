//! What waits for the worker. It knows no clock and no thread, so that a test can
//! try every order in which things happen.

use std::mem::{self, offset_of};

use conntrace_common::record::{KIND_CONNECTS, KIND_STALL, Record};

use super::Dropped;
use crate::worker::{Batch, Snapshot, WireRecord};

/// The way to the worker.
pub(super) trait Queue {
    /// Takes the batch, or gives it back for want of room.
    fn hand_over(&mut self, batch: Batch) -> Result<(), Batch>;
}

/// What the drain waits for before it looks into the ring again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rest {
    /// That a nap is over.
    Nap,
    /// That the ring wakes it.
    UntilWoken,
}

/// Records and totals that the worker has not taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Outbox {
    records_max: usize,
    pending: Batch,
    dropped: Dropped,
}

impl Outbox {
    /// In which so many records may wait.
    pub(super) fn new(records_max: usize) -> Self {
        Self {
            records_max,
            pending: Batch::default(),
            dropped: Dropped::default(),
        }
    }

    /// Takes a record, or counts it where it has no room.
    pub(super) fn take(&mut self, record: &[u8], queue: &mut impl Queue) {
        match WireRecord::try_from(record) {
            Err(_) => self.dropped.malformed += 1,
            Ok(record) if self.has_room(queue) => self.pending.records.push(record),
            Ok(record) if is(&record, KIND_STALL) => self.dropped.stalls += 1,
            // A hint, no attempt's ending: the next one comes soon.
            Ok(record) if is(&record, KIND_CONNECTS) => {}
            Ok(_) => self.dropped.endings += 1,
        }
    }

    /// Whether another record may wait, once the worker was offered those that do.
    fn has_room(&mut self, queue: &mut impl Queue) -> bool {
        if self.pending.records.len() >= self.records_max {
            self.offer(queue);
        }
        self.pending.records.len() < self.records_max
    }

    /// Puts totals behind the records that led to them. They wait together with these:
    /// sent on their own, they found the queue taken by the records just sent before
    /// them. Newer totals replace those that still wait, and say more.
    pub(super) fn put(&mut self, totals: Snapshot) {
        self.pending.snapshot = Some((self.pending.records.len(), Box::new(totals)));
    }

    /// Offers the worker what waits for it; what it has no room for waits on.
    pub(super) fn offer(&mut self, queue: &mut impl Queue) {
        if self.waits() {
            let batch = mem::take(&mut self.pending);
            if let Err(back) = queue.hand_over(batch) {
                self.pending = back;
            }
        }
    }

    /// Whether anything waits.
    pub(super) fn waits(&self) -> bool {
        self.pending.waits()
    }

    /// Whether totals do.
    pub(super) fn has_totals(&self) -> bool {
        self.pending.snapshot.is_some()
    }

    /// How many records do.
    #[cfg(test)]
    pub(super) fn records(&self) -> usize {
        self.pending.records.len()
    }

    /// What never reached the worker.
    pub(super) fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// How to rest after a drain that moved so many records. The ring does not wake
    /// anybody for what waits here.
    pub(super) fn rest_after(&self, moved: usize) -> Rest {
        if moved > 0 || self.waits() {
            Rest::Nap
        } else {
            Rest::UntilWoken
        }
    }
}

fn is(record: &WireRecord, kind: u8) -> bool {
    record.get(offset_of!(Record, kind)) == Some(&kind)
}
