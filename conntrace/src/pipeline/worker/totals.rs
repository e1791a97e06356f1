//! Losses and totals, from the counts of the kernel side and the worker.

use std::{collections::BTreeMap, io};

use jiff::Timestamp;

use crate::{
    output::event::{Event, Loss, Lost, TableLoss, Totals, Undelivered},
    pipeline::Worker,
    record::Label,
    recording::{Recorder, Snapshot},
};

impl Worker {
    /// Returns the number of failed attempts: those whose label is printed by default.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let failed = self.outcomes.iter().filter(|(label, _)| !label.is_hidden());
        failed.map(|(_, count)| count).sum()
    }

    pub(super) fn lost(&self, snapshot: &Snapshot) -> (Lost, Undelivered) {
        let counters = &snapshot.counters;
        let lost = Lost {
            ring_full: counters.ring_full,
            untracked: counters.untracked,
            ending_missed: counters.ending_missed,
            malformed: self.malformed.saturating_add(snapshot.malformed),
        };
        let undelivered = Undelivered {
            output: snapshot.undelivered,
            stalls: counters.stall_ring_full,
            disconnects: 0,
        };
        (lost, undelivered)
    }

    /// Writes a loss line if losses were added since the last one, or attempts found no place in
    /// the table.
    pub(super) fn write_loss(
        &mut self,
        (lost, undelivered): (Lost, Undelivered),
        table: Option<TableLoss>,
        now: Timestamp,
    ) -> io::Result<()> {
        let (reported_lost, reported_undelivered) = &self.reported;
        let reported = (reported_lost, reported_undelivered);
        let Some(new) = Loss::since((&lost, &undelivered), reported, table) else {
            return Ok(());
        };
        self.reported = (lost, undelivered);
        self.write_own(Event::Loss(new), now)
    }

    pub(super) fn totals(
        &self,
        snapshot: &Snapshot,
        (lost, undelivered): (Lost, Undelivered),
    ) -> Totals {
        let Snapshot {
            counters, in_map, ..
        } = snapshot;
        let labelled: u64 = self.outcomes.values().sum();
        // Counts of a live run cannot overflow; those of a recording can.
        let handled = [self.malformed, snapshot.malformed]
            .into_iter()
            .fold(labelled, u64::saturating_add);
        let mut outcomes = self.outcomes.clone();
        let established = outcomes.entry(Label::Established).or_default();
        *established = established.saturating_add(counters.established);
        Totals {
            attempts: counters.attempts,
            outcomes,
            in_flight: in_map.saturating_add(counters.endings.saturating_sub(handled)),
            lost,
            undelivered,
            unrecorded: self.recorder.as_ref().map_or(0, Recorder::unrecorded),
            missed_hooks: counters.missed_hooks,
            suppressed: self.limit.suppressed(),
            undiagnosed: self.undiagnosed.clone(),
            disconnects: BTreeMap::new(),
            inspectors_abandoned: snapshot.inspectors_abandoned,
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
