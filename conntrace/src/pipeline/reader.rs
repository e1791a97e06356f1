//! Reads the ring and passes its records to the worker. It waits for records, for the next line
//! that is due, and for the stop; never for the output.

use std::{
    io,
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Worker, control::Control};
use crate::{
    capture::Source,
    output::{
        event::{COMM_JSON_MAX, Start, TableLoss, TopHolder, Totals},
        message,
    },
    record::{Counters, Holding, WireRecord, clock, history::DropRecord, sanitize, top_holding},
    recording::{Purpose, Snapshot},
};

/// Maximum number of records per round; their lines are handed over together.
const RECORDS_MAX: usize = 256;

/// Pause after a round that found records. The ring wakes its reader for the first record after it
/// was empty, and each wake-up costs the connecting process several microseconds. The ring holds
/// forty times the records of a pause.
const NAP: Duration = Duration::from_millis(4);

/// Time before the end of a pause at which executables are looked for, ahead of its records.
const AHEAD: Duration = Duration::from_millis(1);

/// Time limit for records that are reserved and not complete when the programs are detached, and
/// for the lines that wait for their cause then.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Time between two checks for losses while records flow.
const LOSS_CHECK: Duration = Duration::from_secs(1);

/// Time without records after which memory is given back. Cached causes have expired then.
const TIDY_AFTER: Duration = Duration::from_secs(5);

/// Time between two status messages to the service manager.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Minimum time between two looks at who holds the table of attempts.
const TABLE_EVERY: Duration = Duration::from_mins(1);

/// State of the reading thread.
pub(super) struct RingReader<S> {
    pub(super) source: S,
    pub(super) worker: Worker,
    pub(super) control: Arc<Control>,
    /// Time between two summaries; `None` for none.
    pub(super) summary_every: Option<Duration>,
    /// Maximum time between two rounds; `None` for no limit.
    pub(super) round_every: Option<Duration>,
    /// True if a service manager wants status messages.
    pub(super) reports_status: bool,
    /// Time until the output has held-back lines to write.
    pub(super) held: Option<Duration>,
}

/// Times of the next periodic lines and checks.
struct Due {
    summary: Option<Instant>,
    loss: Option<Instant>,
    /// Time to give memory back, unless records come before.
    tidy: Option<Instant>,
    status: Option<Instant>,
}

/// Counts at the time of the last report.
#[derive(Default)]
struct ReportedCounts {
    /// Losses in the kernel, malformed records and undelivered lines.
    lost: (u64, u64, u64),
    /// Attempts that had found no place in the table, and the time at which its holder was named.
    table: (u64, Option<Instant>),
    /// Time, attempts and failures at the last status message.
    status: Option<(Instant, u64, u64)>,
}

impl ReportedCounts {
    /// Returns the number of attempts that found no place in the table since its holder was named,
    /// if it is to be named now.
    fn without_place(&self, counters: &Counters, is_last: bool) -> Option<u64> {
        let (before, named) = self.table;
        let more = counters.not_admitted.saturating_sub(before);
        let is_due = is_last || named.is_none_or(|named| named.elapsed() >= TABLE_EVERY);
        (more > 0 && is_due).then_some(more)
    }
}

impl<S: Source> RingReader<S> {
    /// Reads until told to stop.
    ///
    /// # Errors
    /// Fails when the source fails.
    pub(super) fn run(mut self, start: Start) -> io::Result<Totals> {
        let now = Instant::now();
        let mut due = Due {
            summary: self.summary_every.map(|every| now + every),
            loss: None,
            tidy: None,
            status: self.reports_status.then_some(now),
        };
        let (mut reported, mut malformed) = (ReportedCounts::default(), 0);
        let tier = start.tier.clone();
        self.worker
            .follow(self.source.missed_answers(), self.source.missed_drops());
        self.worker
            .start(start, Timestamp::now(), clock::boot_ns())?;
        let mut is_readable = false;
        loop {
            let taken = self.round(&mut malformed)?;
            self.control.count_round();
            if let Some(reason) = self.control.reason() {
                return self.finish(reason, reported, malformed);
            }
            let now = Instant::now();
            if taken > 0 {
                due.loss.get_or_insert(now + LOSS_CHECK);
                due.tidy = Some(now + TIDY_AFTER);
            }
            if due.tidy.is_some_and(|due| due <= now) {
                due.tidy = (!self.worker.tidy()).then_some(now + TIDY_AFTER);
            }
            if due.loss.is_some_and(|due| due <= now) {
                due.loss = self
                    .write_loss(&mut reported, malformed)?
                    .then_some(now + LOSS_CHECK);
            }
            if due.summary.is_some_and(|due| due <= now) {
                due.summary = self.summary_every.map(|every| now + every);
                self.write_totals(Purpose::Summary, &mut reported, malformed)?;
            }
            if due.status.is_some_and(|due| due <= now) {
                due.status = Some(now + STATUS_EVERY);
                self.report_status(&tier, &mut reported, now)?;
            }
            is_readable = match taken {
                // The ring may hold more records.
                RECORDS_MAX => {
                    self.worker.look_ahead(now);
                    false
                }
                0 if !is_readable => self.wait_for_work(&due, now)?,
                // The first record is not complete yet, or more will come.
                _ => {
                    self.nap()?;
                    false
                }
            };
        }
    }

    /// Processes the records in the ring and returns their number.
    fn round(&mut self, malformed: &mut u64) -> io::Result<usize> {
        let now = Instant::now();
        let (worker, mut done) = (&mut self.worker, Ok(()));
        let mut is_first = true;
        let taken = self.source.drain(RECORDS_MAX, |bytes| {
            if std::mem::take(&mut is_first) {
                worker.follow_clock();
            }
            let result = if let Ok(record) = WireRecord::try_from(bytes) {
                worker.take(&record, now)
            } else if let Ok(record) = DropRecord::try_from(bytes) {
                worker.take_drop(&record, now)
            } else {
                *malformed += 1;
                Ok(())
            };
            if done.is_ok() {
                done = result;
            }
        });
        done?;
        let now = Instant::now();
        self.worker.settle(now)?;
        self.worker.watch_ports(now);
        self.held = self.worker.idle();
        self.worker.hand_over()?;
        Ok(taken)
    }

    /// Lets records gather for a while, and writes the lines whose answers come meanwhile. Near the
    /// end it looks ahead.
    fn nap(&mut self) -> io::Result<()> {
        let ahead_at = Instant::now() + NAP - AHEAD;
        let until = ahead_at + AHEAD;
        let (mut looked_ahead, mut has_looks) = (false, false);
        loop {
            let now = Instant::now();
            if !looked_ahead && now >= ahead_at {
                looked_ahead = true;
                self.worker.look_ahead(now);
                has_looks = self.worker.is_looking_ahead();
            }
            let is_over = now >= until || (has_looks && !self.worker.is_looking_ahead());
            if is_over || self.control.reason().is_some() {
                return Ok(());
            }
            let next = if looked_ahead { until } else { ahead_at };
            self.wait(Some(next.saturating_duration_since(now)), false)?;
            self.worker.settle(Instant::now())?;
            self.held = self.worker.idle();
            self.worker.hand_over()?;
        }
    }

    /// Waits for records, or until something is due. Returns true if there is a record.
    fn wait_for_work(&self, due: &Due, now: Instant) -> io::Result<bool> {
        let until = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let waits = [
            until(due.summary),
            until(due.loss),
            until(due.tidy),
            until(due.status),
            self.worker.pressure_wait(now),
            until(self.worker.settle_at()),
            self.held,
            self.round_every,
        ];
        self.wait(waits.into_iter().flatten().min(), true)
    }

    /// Waits for this time, until told to stop, or, with `for_records`, for records. Returns true if
    /// there is a record.
    fn wait(&self, at_most: Option<Duration>, for_records: bool) -> io::Result<bool> {
        let own = [Some(self.control.as_fd()), self.worker.answers()];
        let own = own.into_iter().flatten();
        let before = own.clone().count();
        let ring = self.source.descriptors().into_iter().flatten();
        let ring = ring.filter(|_| for_records);
        let mut polled: Vec<_> = own
            .chain(ring)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // Rounded up to milliseconds: a wait that ended early would be repeated.
        let at_most = at_most.map_or(PollTimeout::NONE, |at_most| {
            let at_most = at_most.as_nanos().div_ceil(1_000_000);
            PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX)
        });
        self.source.set_sleeping(for_records);
        let result = poll(&mut polled, at_most);
        self.source.set_sleeping(false);
        match result {
            Ok(_) => {
                let mut of_records = polled.iter().skip(before);
                Ok(of_records.any(|fd| fd.any().unwrap_or(false)))
            }
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Detaches the programs and drains the ring.
    fn finish(
        mut self,
        reason: &'static str,
        mut reported: ReportedCounts,
        mut malformed: u64,
    ) -> io::Result<Totals> {
        self.source.detach();
        // A program still running on another CPU may submit its record.
        let until = Instant::now() + DRAIN_MAX;
        std::thread::sleep(NAP);
        loop {
            let taken = self.round(&mut malformed)?;
            self.control.count_round();
            if taken == 0 {
                let is_done = self.source.backlog().is_empty() && self.worker.is_settled();
                let now = Instant::now();
                if is_done || now >= until {
                    break;
                }
                self.worker.look_ahead(now);
                std::thread::sleep(NAP);
            }
        }
        let stop = Purpose::Stop(reason.into());
        let totals = self.write_totals(stop, &mut reported, malformed)?;
        self.worker.finish()?;
        Ok(totals)
    }

    /// Writes the totals, in a line for this purpose.
    fn write_totals(
        &mut self,
        purpose: Purpose,
        reported: &mut ReportedCounts,
        malformed: u64,
    ) -> io::Result<Totals> {
        let snapshot = self.snapshot(purpose, reported, malformed)?;
        reported.lost = lost(&snapshot);
        if let Some(table) = &snapshot.table {
            reported.table = (snapshot.counters.not_admitted, Some(Instant::now()));
            log::warn!("{}", sanitize::visible(&message::no_place(table)));
        }
        self.worker.snapshot(&snapshot, Timestamp::now())
    }

    /// Reads the counters of endings before those of attempts. An attempt that begins in between is
    /// then counted as begun; no ending is counted without its attempt.
    fn snapshot(
        &mut self,
        purpose: Purpose,
        reported: &ReportedCounts,
        malformed: u64,
    ) -> io::Result<Snapshot> {
        let closes = self.source.counters()?;
        let is_last = matches!(purpose, Purpose::Stop(_));
        let (in_map, table) = match reported.without_place(&closes, is_last) {
            Some(not_admitted) => {
                let holders = self.source.holders()?;
                let in_map = holders.len() as u64;
                (in_map, Some(self.table_loss(not_admitted, holders)))
            }
            None => (self.source.in_map()?, None),
        };
        let opens = self.source.counters()?;
        Ok(Snapshot {
            purpose,
            counters: Counters {
                attempts: opens.attempts,
                ..closes
            },
            in_map,
            malformed,
            undelivered: self.worker.undelivered(),
            inspectors_abandoned: self.worker.abandoned(),
            table,
        })
    }

    /// Names who holds the table.
    fn table_loss(&mut self, not_admitted: u64, holders: Vec<Holding>) -> TableLoss {
        let held = holders.len() as u64;
        let top = top_holding(holders).map(|top| {
            let process = top.process;
            TopHolder {
                uid: process.uid,
                pid: process.pid,
                comm: sanitize::bounded(process.leader_comm.as_bytes(), COMM_JSON_MAX),
                cgroup: self.worker.cgroup(process.cgroup_id),
                attempts: top.attempts,
                of_process: top.of_process,
            }
        });
        TableLoss {
            held,
            not_admitted,
            top,
        }
    }

    /// Writes the losses since the last report, if any. Returns true if the output has no room for
    /// the line, so that it must be tried again.
    fn write_loss(&mut self, reported: &mut ReportedCounts, malformed: u64) -> io::Result<bool> {
        if !self.worker.has_room() {
            return Ok(true);
        }
        let counters = self.source.counters()?;
        let now = (
            lost_in_kernel(&counters),
            malformed,
            self.worker.undelivered(),
        );
        if reported.lost != now || reported.without_place(&counters, false).is_some() {
            self.write_totals(Purpose::Loss, reported, malformed)?;
        }
        Ok(false)
    }

    /// Reports attempts and failures, and their rates since the last status message.
    fn report_status(
        &mut self,
        tier: &str,
        reported: &mut ReportedCounts,
        now: Instant,
    ) -> io::Result<()> {
        let counters = self.source.counters()?;
        let (attempts, failures) = (counters.attempts, self.worker.failures());
        let mut status = format!(
            "tier {tier}, {attempts} attempts, {failures} failures, {} lost, {} undelivered",
            attempts_lost(&counters),
            self.worker.undelivered(),
        );
        if let Some((before, attempts_before, failures_before)) = reported.status {
            let seconds = now.saturating_duration_since(before).as_secs_f64();
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            status.push_str(&format!(
                "; now {:.1} attempts/s, {:.1} failures/s",
                rate(attempts, attempts_before),
                rate(failures, failures_before),
            ));
        }
        reported.status = Some((now, attempts, failures));
        self.control.set_status(status);
        Ok(())
    }
}

fn lost(snapshot: &Snapshot) -> (u64, u64, u64) {
    let in_kernel = lost_in_kernel(&snapshot.counters);
    (in_kernel, snapshot.malformed, snapshot.undelivered)
}

fn lost_in_kernel(counters: &Counters) -> u64 {
    attempts_lost(counters) + counters.stall_ring_full
}

/// Returns the number of attempts whose outcome was lost in the kernel.
fn attempts_lost(counters: &Counters) -> u64 {
    counters.ring_full + counters.untracked + counters.ending_missed
}
