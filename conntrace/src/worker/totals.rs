//! What was lost, and the totals: the sums of what the kernel, the drain and the worker
//! counted.

use std::{collections::BTreeMap, io};

use jiff::Timestamp;

use super::{Snapshot, Worker};
use crate::{
    diagnosis::Diagnosis,
    event::{Event, Loss, Totals},
    label::Label,
    recording::Recorder,
};

impl Worker {
    pub(super) fn lost(&self, snapshot: &Snapshot) -> Loss {
        let Snapshot {
            counters, dropped, ..
        } = snapshot;
        Loss {
            lost: BTreeMap::from([
                ("ring_full", counters.ring_full),
                ("untracked", counters.untracked),
                ("ending_missed", counters.ending_missed),
                ("output", dropped.endings),
                (
                    "malformed",
                    self.malformed.saturating_add(dropped.malformed),
                ),
            ]),
            stalls_lost: counters.stall_ring_full.saturating_add(dropped.stalls),
        }
    }

    /// Writes what was lost since the last time, if anything was.
    pub(super) fn tell_loss(&mut self, lost: &Loss, now: Timestamp) -> io::Result<()> {
        let new = lost.since(&self.told);
        if new == Loss::default() {
            return Ok(());
        }
        self.told = lost.clone();
        self.write(Event::Loss(new), now)
    }

    pub(super) fn totals(&self, snapshot: &Snapshot, lost: Loss) -> Totals {
        let Snapshot {
            counters,
            in_map,
            dropped,
            ..
        } = snapshot;
        let labelled: u64 = self.outcomes.values().sum();
        // No count of this host's overflows; one of a recording may.
        let handled = [self.malformed, dropped.malformed, dropped.endings]
            .into_iter()
            .fold(labelled, u64::saturating_add);
        let mut outcomes = self.outcomes.clone();
        let established = outcomes.entry(Label::Established).or_default();
        *established = established.saturating_add(counters.established);
        Totals {
            attempts: counters.attempts,
            outcomes,
            in_flight: in_map.saturating_add(counters.endings.saturating_sub(handled)),
            lost: lost.lost,
            stalls_lost: lost.stalls_lost,
            missed_hooks: counters.missed_hooks,
            second_attachment: counters.second_attachment,
            suppressed: self.limit.suppressed(),
            undiagnosed: self.diagnosis.as_ref().map_or(0, Diagnosis::undiagnosed),
            unrecorded: self.recorder.as_ref().map_or(0, Recorder::unrecorded),
            top: Vec::new(),
        }
    }

    pub(super) fn with_top(&self, totals: &Totals) -> Totals {
        Totals {
            top: self.top.most(),
            ..totals.clone()
        }
    }
}
