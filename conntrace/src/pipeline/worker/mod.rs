//! Worker: decodes and labels records and renders lines, in the kernel's order.

mod port_pressure;
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

use top_failures::TopFailures;

use super::diagnoser::Diagnoser;
use crate::{
    diagnosis::{self, DiagnosisResult, Undiagnosed},
    host::{self, AttemptStart, Callers, Owners},
    output::{
        Output,
        event::{self, Event, Line, Lost, Owner, Start, Stop, Totals, Undelivered},
        rate_limit::{self, Limit},
    },
    port_pressure::Pressure,
    record::{
        self, Attempt, CompleteRecord, Label, Malformed, RecordKind, Verdict, WireRecord,
        clock::WallClock, history::HostTable, label,
    },
    recording::{Entry, Note, Purpose, Recorder, Snapshot},
    sys::{Backlog, MissedAnswers},
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
}

/// Owner and diagnosis of an attempt.
struct AttemptFindings {
    /// Owner of the caller; `None` if the caller is unknown.
    owner: Option<Owner>,
    diagnosed: DiagnosisResult,
}

/// Turns records into lines and counts.
pub struct Worker {
    output: Output,
    labelling: Labelling,
    /// Memory of remote hosts, for live records.
    hosts: HostTable,
    missed_answers: MissedAnswers,
    limit: Limit,
    callers: Callers,
    diagnosis: Option<Diagnoser>,
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
    /// Creates a worker that writes this host's lines to `output`. The recorder, if any, gets
    /// everything needed to write the same lines again.
    #[must_use]
    pub fn new(output: Output, labelling: Labelling, recorder: Option<Recorder>) -> Self {
        Self {
            callers: Callers::Live(Owners::new()),
            diagnosis: labelling.causes.then(Diagnoser::live),
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
            limit: Limit::new(labelling.limit),
            callers: Callers::Recorded(Owner::default()),
            diagnosis: labelling.causes.then(Diagnoser::of_recording),
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
        self.write_own(Event::Start(start), now)
    }

    /// Sets the views of the kernel side. While the backlog is large no causes are searched for, so
    /// that no records are lost.
    pub fn follow(&mut self, backlog: Backlog, missed_answers: MissedAnswers) {
        self.hosts = HostTable::new(missed_answers.secret());
        self.missed_answers = missed_answers;
        if let Some(diagnosis) = &mut self.diagnosis {
            diagnosis.watch_backlog(backlog);
        }
    }

    /// Updates the distance from `CLOCK_BOOTTIME` to wall time for the records that follow.
    pub fn follow_clock(&mut self) {
        if let Err(error) = self.clock.follow() {
            log::warn!("cannot read the clock: {error}");
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.clock(self.clock.distance());
        }
    }

    /// Processes a record of the kernel side.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn take(&mut self, record: &WireRecord, now: Instant) -> io::Result<()> {
        let missed_ns = |host: &_| self.missed_answers.latest_ns(host);
        match self.hosts.complete(record, missed_ns) {
            Some(record) => self.record(&record, now),
            None => Ok(()),
        }
    }

    /// Renders a record as a line, or counts it.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn record(&mut self, record: &CompleteRecord, now: Instant) -> io::Result<()> {
        self.line_of(record, now);
        if self.output.is_due() {
            self.hand_over()?;
        }
        Ok(())
    }

    fn line_of(&mut self, record: &CompleteRecord, now: Instant) {
        let attempt = match record::decode(record) {
            Ok(attempt) => attempt,
            Err(error) => return self.malformed(record, &error),
        };
        if let RecordKind::Connects(count) = attempt.moment {
            return self.hint(&attempt, count, now);
        }
        let verdict = label(&attempt, self.labelling.patience_ms);
        // Asked once: a second answer could differ.
        let found = self
            .is_thorough
            .then(|| self.examine(&attempt, verdict.as_ref(), now));
        let owner = found.as_ref().and_then(|found| found.owner.as_ref());
        self.note(record, owner);
        match verdict {
            None if self.labelling.stalls => self.stall(&attempt, found, now),
            None => {}
            Some(verdict) => self.outcome(&attempt, &verdict, found, now),
        }
    }

    fn malformed(&mut self, record: &CompleteRecord, error: &Malformed) {
        self.note(record, None);
        // The log names the first error; loss lines count the others.
        if self.malformed == 0 {
            log::warn!("a record of the kernel side is malformed: {error}");
        }
        self.malformed += 1;
    }

    /// Adds a record to the recording, with the answers and the owner its line needs.
    fn note(&mut self, record: &CompleteRecord, owner: Option<&Owner>) {
        if let Some(recorder) = &mut self.recorder {
            let answers = self.diagnosis.as_mut().map(Diagnoser::take_answers);
            answers
                .into_iter()
                .flatten()
                .for_each(|answer| recorder.answer(answer));
            recorder.record(record, owner);
        }
    }

    /// Finds the owner and the cause of an attempt, from the host or the recording.
    fn examine(
        &mut self,
        attempt: &Attempt,
        verdict: Option<&Verdict>,
        now: Instant,
    ) -> AttemptFindings {
        let callers = &mut self.callers;
        let caller = attempt.caller.as_ref();
        let began = AttemptStart::new(attempt.since_ns, &self.clock);
        AttemptFindings {
            owner: caller.map(|caller| callers.owner(caller, began, now)),
            diagnosed: verdict.map_or_else(DiagnosisResult::default, |verdict| {
                self.diagnosed(attempt, verdict)
            }),
        }
    }

    fn diagnosed(&mut self, attempt: &Attempt, verdict: &Verdict) -> DiagnosisResult {
        match &mut self.diagnosis {
            Some(diagnosis) => diagnosis.cause(attempt, verdict),
            None => DiagnosisResult {
                cause: None,
                undiagnosed: diagnosis::has_causes(verdict.label).then_some(Undiagnosed::Off),
            },
        }
    }

    fn stall(&mut self, attempt: &Attempt, found: Option<AttemptFindings>, now: Instant) {
        let alike = rate_limit::LimitKey::new(attempt, None);
        let Some(suppressed) = self.limit.admit(alike, attempt.at_ns) else {
            return;
        };
        let found = found.unwrap_or_else(|| self.examine(attempt, None, now));
        let started = self.clock.at(attempt.since_ns);
        let mut stall = event::stall(attempt, started, found.owner.unwrap_or_default());
        stall.details.suppressed = suppressed;
        self.write(Event::Stall(Box::new(stall)), self.clock.at(attempt.at_ns));
    }

    fn outcome(
        &mut self,
        attempt: &Attempt,
        verdict: &Verdict,
        found: Option<AttemptFindings>,
        now: Instant,
    ) {
        *self.outcomes.entry(verdict.label).or_default() += 1;
        if !verdict.label.is_hidden() {
            self.top.count(attempt, verdict.label);
        }
        if !self.labelling.labels.contains(&verdict.label) {
            return;
        }
        let alike = rate_limit::LimitKey::new(attempt, Some(verdict.label));
        let Some(suppressed) = self.limit.admit(alike, attempt.at_ns) else {
            return;
        };
        let found = found.unwrap_or_else(|| self.examine(attempt, Some(verdict), now));
        let started = self.clock.at(attempt.since_ns);
        let owner = found.owner.unwrap_or_default();
        let mut outcome = event::outcome(attempt, verdict, started, owner, found.diagnosed);
        outcome.details.suppressed = suppressed;
        if let Some(reason) = outcome.undiagnosed {
            *self.undiagnosed.entry(reason).or_default() += 1;
        }
        self.write(
            Event::Outcome(Box::new(outcome)),
            self.clock.at(attempt.at_ns),
        );
    }

    /// Writes the losses and the line for these totals, and returns the totals.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn snapshot(&mut self, snapshot: &Snapshot, now: Timestamp) -> io::Result<Totals> {
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
