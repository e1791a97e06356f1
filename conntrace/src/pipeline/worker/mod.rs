//! Worker: decodes and labels records and renders lines, in the kernel's order.

mod ahead;
mod late_answers;
mod looks;
mod pending;
mod port_pressure;
mod replayed;
mod top_failures;
mod totals;

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use ahead::Ahead;
use late_answers::LateAnswers;
use pending::{PendingLine, PendingLines};
use top_failures::TopFailures;

use super::{
    diagnosed::{Diagnosed, Diagnosis},
    diagnoser::Diagnoser,
};
use crate::{
    diagnosis::Undiagnosed,
    host::{self, Callers, Inspectors, Owners, RecordedAnswer},
    output::{
        Output,
        event::{self, Event, Line, Lost, Owner, Start, Stop, Totals, Undelivered},
        rate_limit::{self, Limit},
    },
    port_pressure::Pressure,
    record::{
        self, Attempt, CompleteRecord, Label, Malformed, RecordKind, Verdict, WireRecord,
        clock::WallClock,
        history::{DropTable, HostTable},
        label,
    },
    recording::{Purpose, Recorder, Snapshot},
    sys::{MissedAnswers, MissedDrops},
};

/// Labels of attempts, and selection of the lines printed.
#[derive(Debug, Clone)]
pub struct Labelling {
    /// Milliseconds after which an unanswered attempt closed by the application is a timeout.
    pub patience_ms: u64,
    /// Labels whose outcomes are printed; the others are only counted.
    pub labels: Vec<Label>,
    /// Prints stalls if true.
    pub stalls: bool,
    /// Maximum outcome and stall lines per second, cgroup, thread name, remote and label.
    pub limit: Option<NonZeroU64>,
    /// Searches for causes if true.
    pub causes: bool,
    /// Also prints established outcomes that have a cause if true.
    pub explained: bool,
    /// Prints binds to a port that was taken, if their label is printed.
    pub taken_ports: bool,
}

impl Labelling {
    /// Returns true if the outcome is printed, with or without a cause.
    fn is_asked_for(&self, attempt: &Attempt, label: Label) -> bool {
        self.labels.contains(&label) && (self.taken_ports || !attempt.found_its_port_taken())
    }

    /// Returns true if the outcome is printed, or would be with a cause.
    pub(super) fn may_print(&self, attempt: &Attempt, label: Label) -> bool {
        self.is_asked_for(attempt, label)
            || (self.explained && self.causes && attempt.is_to_itself())
    }
}

/// Turns records into lines and counts.
pub struct Worker {
    output: Output,
    labelling: Labelling,
    /// Memory of remote hosts, for live records.
    hosts: HostTable,
    missed_answers: MissedAnswers,
    /// Dropped packets of attempts under way, for live records.
    drops: DropTable,
    missed_drops: MissedDrops,
    /// Endings whose answer may still come; empty in a replay.
    late_answers: LateAnswers,
    /// True if dropped packets are reported.
    sees_drops: bool,
    limit: Limit,
    callers: Callers,
    diagnosis: Option<Diagnoser>,
    /// Threads that look at the host; `None` in a replay.
    inspectors: Option<Inspectors>,
    pending: PendingLines,
    ahead: Ahead,
    /// True if the recording had no room to wait for the next record's cause.
    has_no_time: bool,
    /// Maximum time that a line waits.
    timeout: Duration,
    /// Port usage monitor; `None` in a replay and after the stop.
    pressure: Option<Pressure>,
    recorder: Option<Recorder>,
    /// True if every attempt is examined, printed or not: a replay may print it.
    is_thorough: bool,
    host: Arc<str>,
    clock: WallClock,
    outcomes: BTreeMap<Label, u64>,
    /// Printed outcomes by the reason why their diagnosis is incomplete.
    undiagnosed: BTreeMap<Undiagnosed, u64>,
    malformed: u64,
    top: TopFailures,
    /// Losses reported so far.
    reported: (Lost, Undelivered),
}

impl Worker {
    /// Creates a worker that writes this host's lines to `output`. A line waits for its cause for at
    /// most `timeout`. The recorder, if any, gets everything needed to write the same lines again.
    #[must_use]
    pub fn new(
        output: Output,
        labelling: Labelling,
        timeout: Duration,
        recorder: Option<Recorder>,
    ) -> Self {
        let inspectors = Inspectors::start().inspect_err(|error| {
            log::warn!(
                "no causes, no executables: cannot start the threads that look at the host: {error}"
            );
        });
        Self {
            callers: Callers::Live(Owners::new()),
            diagnosis: labelling
                .causes
                .then(|| Diagnoser::live(timeout, recorder.is_some())),
            inspectors: inspectors.ok(),
            timeout,
            pressure: labelling.causes.then(Pressure::new),
            is_thorough: recorder.is_some(),
            recorder,
            host: host::host_name(),
            ..Self::of_recording(output, labelling)
        }
    }

    /// Creates a worker that writes a recording's lines to `output` (see [`Self::replay`]).
    #[must_use]
    pub fn of_recording(output: Output, labelling: Labelling) -> Self {
        Self {
            output,
            hosts: HostTable::new(MissedAnswers::none().secret()),
            missed_answers: MissedAnswers::none(),
            drops: DropTable::default(),
            missed_drops: MissedDrops::default(),
            late_answers: LateAnswers::default(),
            sees_drops: false,
            limit: Limit::new(labelling.limit),
            callers: Callers::Recorded(Owner::default()),
            diagnosis: labelling.causes.then(Diagnoser::of_recording),
            inspectors: None,
            pending: PendingLines::default(),
            ahead: Ahead::default(),
            has_no_time: false,
            timeout: Duration::ZERO,
            pressure: None,
            labelling,
            recorder: None,
            is_thorough: true,
            host: Arc::default(),
            clock: WallClock::default(),
            outcomes: BTreeMap::new(),
            undiagnosed: BTreeMap::new(),
            malformed: 0,
            top: TopFailures::default(),
            reported: Default::default(),
        }
    }

    /// Renders held-back lines that are due. Returns the time until more are due; `None` if nothing
    /// is held back.
    pub fn idle(&mut self) -> Option<Duration> {
        self.output.idle(Timestamp::now())
    }

    /// Writes everything, held-back lines included; no line may follow.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        self.output.finish();
        self.hand_over()
    }

    /// Flushes the recording, then hands the rendered lines to the output.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn hand_over(&mut self) -> io::Result<()> {
        // The recording first: a kill in between loses a line, but not its record.
        if let Some(recorder) = &mut self.recorder {
            recorder.flush();
        }
        self.output.hand_over()
    }

    /// Returns true if the output has room for a line of any length.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.output.has_room()
    }

    /// Returns the number of lines that were rendered but will not be written.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.output.undelivered()
    }

    /// Returns the path of a cgroup of this host.
    pub(super) fn cgroup(&mut self, id: u64) -> Option<Arc<str>> {
        self.callers.cgroup(id, Instant::now())
    }

    /// Writes the start line: tracing is live.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn start(&mut self, start: Start, now: Timestamp, boot_ns: u64) -> io::Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.start(&self.host, (now, boot_ns), &start);
        }
        self.sees_drops = start.coverage.drops_elsewhere;
        self.write_own(Event::Start(start), now)
    }

    /// Sets the views of what the kernel side could not tell.
    pub fn follow(&mut self, missed_answers: MissedAnswers, missed_drops: MissedDrops) {
        self.hosts = HostTable::new(missed_answers.secret());
        self.missed_answers = missed_answers;
        self.missed_drops = missed_drops;
    }

    /// Updates the distance from `CLOCK_BOOTTIME` to wall time for the records that follow.
    pub fn follow_clock(&mut self) {
        if let Err(error) = self.clock.follow() {
            log::warn!("cannot read the clock: {error}");
        }
    }

    /// Processes a record of the kernel side.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn take(&mut self, record: &WireRecord, now: Instant) -> io::Result<()> {
        let missed_ns = |host: &_| self.missed_answers.latest_ns(host);
        let Some(mut record) = self.hosts.complete(record, missed_ns) else {
            return Ok(());
        };
        self.drops
            .complete(&mut record, |client| self.missed_drops.latest_ns(client));
        let may_hold = self.sees_drops && self.labelling.causes;
        let patience_ms = self.labelling.patience_ms;
        if may_hold && self.late_answers.hold(&record, patience_ms, now) {
            return Ok(());
        }
        self.record(&record, now)
    }

    /// Renders a record as a line, or counts it.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn record(&mut self, record: &CompleteRecord, now: Instant) -> io::Result<()> {
        self.line_of(record, now, now);
        self.hand_over_if_due()
    }

    /// Renders a record that was read at a time before.
    fn line_of(&mut self, record: &CompleteRecord, since: Instant, now: Instant) {
        let attempt = match record::decode(record) {
            Ok(attempt) => attempt,
            Err(error) => return self.malformed(record, &error),
        };
        if let RecordKind::Connects(count) = attempt.moment {
            return self.hint(&attempt, count, now);
        }
        let verdict = label(&attempt, self.labelling.patience_ms);
        let (owner, exe) = self.owner(&attempt, verdict.as_ref(), now);
        let diagnosis = match &verdict {
            Some(verdict) => self.diagnosis(&attempt, verdict, now),
            None => Diagnosis::Known(Diagnosed::default()),
        };
        let line = PendingLine {
            record: None,
            attempt,
            clock: self.clock,
            verdict,
            owner,
            exe,
            diagnosis,
            until: since + self.timeout,
        };
        if line.is_ready() {
            return self.write_line(Some(record), line);
        }
        self.wait(record, line, now);
    }

    fn malformed(&mut self, record: &CompleteRecord, error: &Malformed) {
        self.note(Some(record), self.clock, None, &[]);
        // The log names the first error; loss lines count the others.
        if self.malformed == 0 {
            log::warn!("a record of the kernel side is malformed: {error}");
        }
        self.malformed += 1;
    }

    /// Adds a record to the recording, with the clock, the answers and the owner its line needs.
    fn note(
        &mut self,
        record: Option<&CompleteRecord>,
        clock: WallClock,
        owner: Option<&Owner>,
        answers: &[RecordedAnswer],
    ) {
        if let (Some(recorder), Some(record)) = (&mut self.recorder, record) {
            recorder.clock(clock.distance());
            for answer in answers {
                recorder.answer(answer.clone());
            }
            recorder.record(record, owner);
        }
    }

    fn stall(&mut self, attempt: &Attempt, clock: WallClock, owner: Option<Owner>) {
        if !self.labelling.stalls {
            return;
        }
        let alike = rate_limit::LimitKey::new(attempt, None);
        let Some(suppressed) = self.limit.admit(alike, attempt.at_ns) else {
            return;
        };
        let owner = owner.unwrap_or_default();
        let mut line = event::stall(attempt, times(attempt, clock), owner, &self.host);
        line.numbers.suppressed = suppressed;
        self.output.write_attempt(&line);
    }

    /// Counts an outcome, and writes its line. Counted here, so that a replay counts it at the same
    /// place.
    fn ended(
        &mut self,
        attempt: &Attempt,
        clock: WallClock,
        verdict: &Verdict,
        owner: Option<Owner>,
        diagnosed: Diagnosed,
    ) {
        *self.outcomes.entry(verdict.label).or_default() += 1;
        if !verdict.label.is_hidden() && !attempt.found_its_port_taken() {
            self.top.count(attempt, verdict.label);
        }
        let is_asked_for = self.labelling.is_asked_for(attempt, verdict.label);
        let is_explained =
            diagnosed.result.cause.is_some() && self.labelling.may_print(attempt, verdict.label);
        if !is_asked_for && !is_explained {
            return;
        }
        let alike = rate_limit::LimitKey::new(attempt, Some(verdict.label));
        let Some(suppressed) = self.limit.admit(alike, attempt.at_ns) else {
            return;
        };
        if let Some(reason) = diagnosed.result.undiagnosed {
            *self.undiagnosed.entry(reason).or_default() += 1;
        }
        let (times, owner) = (times(attempt, clock), owner.unwrap_or_default());
        let result = diagnosed.result;
        let mut line = event::outcome(attempt, verdict, times, owner, result, &self.host);
        line.numbers.suppressed = suppressed;
        self.output.write_attempt(&line);
    }

    /// Writes the losses and the line for these totals, and returns the totals.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn snapshot(&mut self, snapshot: &Snapshot, now: Timestamp) -> io::Result<Totals> {
        if matches!(snapshot.purpose, Purpose::Stop(_)) {
            self.give_up(Instant::now())?;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.snapshot(now, snapshot);
        }
        let lost = self.lost(snapshot);
        self.write_loss(lost, snapshot.table.clone(), now)?;
        let totals = self.totals(snapshot, lost);
        match &snapshot.purpose {
            Purpose::Loss => {}
            Purpose::Summary => self.write_own(Event::Summary(self.with_top(&totals)), now)?,
            Purpose::Stop(reason) => {
                self.write_own(Event::Summary(self.with_top(&totals)), now)?;
                let stop = Stop {
                    reason: reason.clone(),
                    totals: totals.clone(),
                };
                self.write_own(Event::Stop(stop), now)?;
                // No line follows the stop line.
                self.pressure = None;
            }
        }
        if snapshot.purpose != Purpose::Loss {
            self.top.clear();
        }
        Ok(totals)
    }

    fn write(&mut self, event: Event, time: Timestamp) {
        self.output.write(&Line::new(event, time, &self.host));
    }

    /// Writes a line about tracing itself, after all lines before it.
    fn write_own(&mut self, event: Event, time: Timestamp) -> io::Result<()> {
        self.hand_over()?;
        self.output.write_own(&Line::new(event, time, &self.host))
    }
}

/// Returns the times of an attempt's beginning and of its event.
fn times(attempt: &Attempt, clock: WallClock) -> (Timestamp, Timestamp) {
    (clock.at(attempt.since_ns), clock.at(attempt.at_ns))
}
