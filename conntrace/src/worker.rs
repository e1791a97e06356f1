//! The worker: decodes, labels and writes, in the order the kernel saw.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    sync::{Arc, mpsc::Receiver},
    time::Instant,
};

use conntrace_common::record::RECORD_SIZE;
use jiff::Timestamp;

use crate::{
    agent::Dropped,
    clock::WallClock,
    event::{self, Event, Line, Loss, RemoteEndpoint, Start, Stop, Top, Totals},
    evidence::Owners,
    label::{Label, Verdict, label},
    sink::Sink,
    source::Counters,
    text,
    wire::{self, Attempt, Comm, Remote},
};

/// How many different failures are told apart between two summaries.
const TOP_KEYS_MAX: usize = 4096;
/// How many of them a summary names.
const TOP_LEN: usize = 10;
/// Records between two looks at the wall clock, within a batch.
const CLOCK_EVERY: usize = 256;

/// How attempts become lines.
#[derive(Debug, Clone)]
pub struct Labelling {
    /// Closed unanswered after this many milliseconds is a timeout.
    pub patience_ms: u64,
    /// Lines for outcomes with these labels; the others are only counted.
    pub labels: Vec<Label>,
    /// Lines for stalls.
    pub stalls: bool,
}

/// A record's bytes.
pub type WireRecord = [u8; RECORD_SIZE];

/// What the drain hands to the worker.
#[derive(Debug)]
pub enum Item {
    /// Tracing is live.
    Start(Box<Start>),
    /// Wire records, in the order they came.
    Records(Vec<WireRecord>),
    /// The totals, behind the records that led to them.
    Snapshot(Box<Snapshot>),
}

/// What the drain and the kernel counted at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Which line to make of it.
    pub purpose: Purpose,
    /// The kernel side's counters.
    pub counters: Counters,
    /// Entries of the attempt map.
    pub in_map: u64,
    /// Records that never reached the worker.
    pub dropped: Dropped,
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A summary is due.
    Summary,
    /// Something was lost.
    Loss,
    /// The end, and its reason.
    Stop(&'static str),
}

/// The worker's state.
pub struct Worker {
    sink: Box<dyn Sink + Send>,
    labelling: Labelling,
    owners: Owners,
    host: Arc<str>,
    clock: WallClock,
    outcomes: BTreeMap<Label, u64>,
    malformed: u64,
    top: HashMap<(Comm, Remote, Label), u64>,
    /// What loss lines have said so far.
    told: Loss,
}

impl Worker {
    /// Writes to `sink`.
    #[must_use]
    pub fn new(sink: Box<dyn Sink + Send>, labelling: Labelling) -> Self {
        Self {
            sink,
            labelling,
            owners: Owners::new(),
            host: host_name(),
            clock: WallClock::default(),
            outcomes: BTreeMap::new(),
            malformed: 0,
            top: HashMap::new(),
            told: Loss::default(),
        }
    }

    /// Works until the stop line is written. A batch's lines are handed to the
    /// reader together.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn run(mut self, items: &Receiver<Item>) -> io::Result<Totals> {
        let mut last = Totals::default();
        for item in items {
            match item {
                Item::Start(start) => self.write(Event::Start(*start), Timestamp::now())?,
                Item::Records(records) => self.records(&records)?,
                Item::Snapshot(snapshot) => last = self.snapshot(&snapshot)?,
            }
            self.sink.flush()?;
        }
        Ok(last)
    }

    fn records(&mut self, records: &[WireRecord]) -> io::Result<()> {
        for piece in records.chunks(CLOCK_EVERY) {
            if let Err(error) = self.clock.follow() {
                log::warn!("cannot read the clock: {error}");
            }
            let now = Instant::now();
            for record in piece {
                self.record(record, now)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &WireRecord, now: Instant) -> io::Result<()> {
        let attempt = match wire::decode(record) {
            Ok(attempt) => attempt,
            Err(error) => {
                // The first says it all; the loss lines count the others.
                if self.malformed == 0 {
                    log::warn!("a record of the kernel side is malformed: {error}");
                }
                self.malformed += 1;
                return Ok(());
            }
        };
        match label(&attempt, self.labelling.patience_ms) {
            None if self.labelling.stalls => self.stall(&attempt, now),
            None => Ok(()),
            Some(verdict) => self.outcome(&attempt, &verdict, now),
        }
    }

    fn stall(&mut self, attempt: &Attempt, now: Instant) -> io::Result<()> {
        let owner = self.owners.of(&attempt.caller, now);
        let started = self.clock.at(attempt.started_ns);
        let stall = event::stall(attempt, started, owner);
        self.write(Event::Stall(Box::new(stall)), self.clock.at(attempt.at_ns))
    }

    fn outcome(&mut self, attempt: &Attempt, verdict: &Verdict, now: Instant) -> io::Result<()> {
        *self.outcomes.entry(verdict.label).or_default() += 1;
        if !verdict.label.is_hidden() {
            self.count_top(attempt, verdict.label);
        }
        if !self.labelling.labels.contains(&verdict.label) {
            return Ok(());
        }
        let owner = self.owners.of(&attempt.caller, now);
        let started = self.clock.at(attempt.started_ns);
        let outcome = event::outcome(attempt, verdict, started, owner);
        self.write(
            Event::Outcome(Box::new(outcome)),
            self.clock.at(attempt.at_ns),
        )
    }

    fn count_top(&mut self, attempt: &Attempt, label: Label) {
        let key = (attempt.caller.comm, attempt.remote, label);
        if let Some(count) = self.top.get_mut(&key) {
            *count += 1;
        } else if self.top.len() < TOP_KEYS_MAX {
            self.top.insert(key, 1);
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> io::Result<Totals> {
        let lost = self.lost(snapshot);
        self.tell_loss(&lost)?;
        let totals = self.totals(snapshot, lost);
        let now = Timestamp::now();
        match snapshot.purpose {
            Purpose::Loss => {}
            Purpose::Summary => self.write(Event::Summary(self.with_top(&totals)), now)?,
            Purpose::Stop(reason) => {
                self.write(Event::Summary(self.with_top(&totals)), now)?;
                let totals = totals.clone();
                self.write(Event::Stop(Stop { reason, totals }), now)?;
            }
        }
        if snapshot.purpose != Purpose::Loss {
            self.top.clear();
        }
        Ok(totals)
    }

    fn lost(&self, snapshot: &Snapshot) -> Loss {
        let Snapshot {
            counters, dropped, ..
        } = snapshot;
        Loss {
            lost: BTreeMap::from([
                ("ring_full", counters.ring_full),
                ("untracked", counters.untracked),
                ("ending_missed", counters.ending_missed),
                ("output", dropped.endings),
                ("malformed", self.malformed + dropped.malformed),
            ]),
            stalls_lost: counters.stall_ring_full + dropped.stalls,
        }
    }

    /// Writes what was lost since the last time, if anything was.
    fn tell_loss(&mut self, lost: &Loss) -> io::Result<()> {
        let new = lost.since(&self.told);
        if new == Loss::default() {
            return Ok(());
        }
        self.told = lost.clone();
        self.write(Event::Loss(new), Timestamp::now())
    }

    fn totals(&self, snapshot: &Snapshot, lost: Loss) -> Totals {
        let Snapshot {
            counters,
            in_map,
            dropped,
            ..
        } = snapshot;
        let labelled: u64 = self.outcomes.values().sum();
        let handled = labelled + self.malformed + dropped.malformed + dropped.endings;
        let mut outcomes = self.outcomes.clone();
        *outcomes.entry(Label::Established).or_default() += counters.established;
        Totals {
            attempts: counters.attempts,
            outcomes,
            in_flight: in_map + counters.endings.saturating_sub(handled),
            lost: lost.lost,
            stalls_lost: lost.stalls_lost,
            missed_hooks: counters.missed_hooks,
            second_attachment: counters.second_attachment,
            suppressed: 0,
            top: Vec::new(),
        }
    }

    fn with_top(&self, totals: &Totals) -> Totals {
        let mut top: Vec<_> = self.top.iter().collect();
        top.sort_by_key(|&(&(comm, remote, label), &count)| {
            (
                std::cmp::Reverse(count),
                comm.0,
                remote.addr,
                remote.port,
                label,
            )
        });
        let top = top.into_iter().take(TOP_LEN);
        Totals {
            top: top
                .map(|(&(comm, remote, label), &count)| Top {
                    comm: text::bounded(comm.as_bytes(), event::COMM_JSON_MAX),
                    remote: RemoteEndpoint {
                        addr: remote.addr,
                        port: remote.port,
                    },
                    label,
                    count,
                })
                .collect(),
            ..totals.clone()
        }
    }

    fn write(&mut self, event: Event, time: Timestamp) -> io::Result<()> {
        self.sink.write(&Line::new(event, time, &self.host))
    }
}

/// `uname -n`.
fn host_name() -> Arc<str> {
    let name = fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    text::bounded(name.trim_ascii_end(), event::PATH_JSON_MAX).into()
}
