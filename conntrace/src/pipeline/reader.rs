//! Reads the ring and has lines made of its records. It waits for records, for the time of
//! the next line of its own, and for the end; never for the output.

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
    output::event::{Start, Totals},
    record::{Counters, WireRecord, clock},
    recording::{Purpose, Snapshot},
};

/// Records between two looks at the clocks: their lines are handed over together.
const TURN_MAX: usize = 256;

/// After a turn that found something, the ring is left alone this long: it wakes its reader
/// for the first record after each time it was emptied, and every wake costs the connecting
/// process several microseconds. The ring holds what comes meanwhile fortyfold.
const NAP: Duration = Duration::from_millis(4);

/// Time between two checks for losses while records flow.
const LOSS_CHECK: Duration = Duration::from_secs(1);

/// Time between two status messages to the service manager.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The reading thread's work.
pub(super) struct RingReader<S> {
    pub(super) source: S,
    pub(super) worker: Worker,
    pub(super) control: Arc<Control>,
    /// Between two summaries; `None` for none.
    pub(super) summary_every: Option<Duration>,
    /// Between two turns at most; `None` if nobody minds.
    pub(super) turn_every: Option<Duration>,
    /// Makes status messages for the service manager.
    pub(super) tells_status: bool,
    /// Time until the output has something to show that it holds back.
    pub(super) held: Option<Duration>,
}

/// Moments of the next lines and checks that no record asks for.
struct Due {
    summary: Option<Instant>,
    loss: Option<Instant>,
    status: Option<Instant>,
}

/// Numbers that were told last.
#[derive(Default)]
struct ReportedCounts {
    /// Losses in the kernel, malformed records and undelivered lines.
    lost: (u64, u64, u64),
    /// Attempts and failures at the last status.
    status: Option<(Instant, u64, u64)>,
}

impl<S: Source> RingReader<S> {
    /// Reads until told to stop.
    ///
    /// # Errors
    /// When the source fails.
    pub(super) fn run(mut self, start: Start) -> io::Result<Totals> {
        let now = Instant::now();
        let mut due = Due {
            summary: self.summary_every.map(|every| now + every),
            loss: None,
            status: self.tells_status.then_some(now),
        };
        let (mut said, mut malformed) = (ReportedCounts::default(), 0);
        let tier = start.tier.clone();
        self.worker.heed(self.source.backlog());
        self.worker
            .start(start, Timestamp::now(), clock::boot_ns())?;
        loop {
            let taken = self.turn(&mut malformed)?;
            self.control.turned();
            if let Some(reason) = self.control.reason() {
                return self.finish(reason, malformed);
            }
            let now = Instant::now();
            if taken > 0 {
                due.loss.get_or_insert(now + LOSS_CHECK);
            }
            if due.loss.is_some_and(|due| due <= now) {
                due.loss = self
                    .tell_loss(&mut said, malformed)?
                    .then_some(now + LOSS_CHECK);
            }
            if due.summary.is_some_and(|due| due <= now) {
                due.summary = self.summary_every.map(|every| now + every);
                self.tell_totals(Purpose::Summary, &mut said, malformed)?;
            }
            if due.status.is_some_and(|due| due <= now) {
                due.status = Some(now + STATUS_EVERY);
                self.tell_status(&tier, &mut said, now)?;
            }
            match taken {
                // There is more.
                TURN_MAX => {}
                0 => self.rest(&due, now)?,
                _ => self.wait(Some(NAP), false)?,
            }
        }
    }

    /// Makes lines of what is in the ring. Returns how many records there were.
    fn turn(&mut self, malformed: &mut u64) -> io::Result<usize> {
        let now = Instant::now();
        let (worker, mut done) = (&mut self.worker, Ok(()));
        let mut is_first = true;
        let taken = self.source.drain(TURN_MAX, |bytes| {
            if std::mem::take(&mut is_first) {
                worker.follow_clock();
            }
            let result = match WireRecord::try_from(bytes) {
                Ok(record) => worker.record(&record, now),
                Err(_) => {
                    *malformed += 1;
                    Ok(())
                }
            };
            if done.is_ok() {
                done = result;
            }
        });
        done?;
        self.worker.tell_pressure();
        self.held = self.worker.idle();
        self.worker.hand_over()?;
        Ok(taken)
    }

    /// Waits for records, or until something is due.
    fn rest(&self, due: &Due, now: Instant) -> io::Result<()> {
        let until = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let waits = [
            until(due.summary),
            until(due.loss),
            until(due.status),
            self.worker.pressure_wait(now),
            self.held,
            self.turn_every,
        ];
        self.wait(waits.into_iter().flatten().min(), true)
    }

    /// Waits this long, or until told to stop, or, where they count, for records.
    fn wait(&self, at_most: Option<Duration>, for_records: bool) -> io::Result<()> {
        let ring = self.source.descriptors().into_iter().flatten();
        let ring = ring.filter(|_| for_records);
        let mut polled: Vec<_> = std::iter::once(self.control.as_fd())
            .chain(ring)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // Rounded up to milliseconds: a wait that ends too early would be followed by others.
        let at_most = at_most.map_or(PollTimeout::NONE, |at_most| {
            let at_most = at_most.as_nanos().div_ceil(1_000_000);
            PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut polled, at_most) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the programs off their hooks and reads what there is to the end.
    fn finish(mut self, reason: &'static str, mut malformed: u64) -> io::Result<Totals> {
        self.source.detach();
        // A program that another CPU was running may still hand over its record.
        std::thread::sleep(NAP);
        while self.turn(&mut malformed)? > 0 {
            self.control.turned();
        }
        let stop = Purpose::Stop(reason.into());
        let totals = self.tell_totals(stop, &mut ReportedCounts::default(), malformed)?;
        self.worker.finish()?;
        Ok(totals)
    }

    /// Writes the line of the totals.
    fn tell_totals(
        &mut self,
        purpose: Purpose,
        said: &mut ReportedCounts,
        malformed: u64,
    ) -> io::Result<Totals> {
        let snapshot = self.snapshot(purpose, malformed)?;
        said.lost = lost(&snapshot);
        self.worker.snapshot(&snapshot, Timestamp::now())
    }

    /// Closes are read before opens: an attempt that opens in between is then counted as
    /// begun, and never one as ended that did not begin.
    fn snapshot(&mut self, purpose: Purpose, malformed: u64) -> io::Result<Snapshot> {
        let closes = self.source.counters()?;
        let in_map = self.source.in_map();
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
        })
    }

    /// Writes what was lost since it was last told, if anything was. Returns whether to look
    /// again soon, because the output has no room for the line.
    fn tell_loss(&mut self, said: &mut ReportedCounts, malformed: u64) -> io::Result<bool> {
        if !self.worker.has_room() {
            return Ok(true);
        }
        let now = (
            lost_in_kernel(&self.source.counters()?),
            malformed,
            self.worker.undelivered(),
        );
        if said.lost != now {
            self.tell_totals(Purpose::Loss, said, malformed)?;
        }
        Ok(false)
    }

    /// Tells how many attempts and failures there were, and how many a second since the last
    /// time.
    fn tell_status(
        &mut self,
        tier: &str,
        said: &mut ReportedCounts,
        now: Instant,
    ) -> io::Result<()> {
        let counters = self.source.counters()?;
        let (attempts, failures) = (counters.attempts, self.worker.failures());
        let mut status = format!(
            "tier {tier}, {attempts} attempts, {failures} failures, {} lost, {} undelivered",
            attempts_lost(&counters),
            self.worker.undelivered(),
        );
        if let Some((before, attempts_before, failures_before)) = said.status {
            let seconds = now.saturating_duration_since(before).as_secs_f64();
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            status.push_str(&format!(
                "; now {:.1} attempts/s, {:.1} failures/s",
                rate(attempts, attempts_before),
                rate(failures, failures_before),
            ));
        }
        said.status = Some((now, attempts, failures));
        self.control.tell_status(status);
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

/// Number of attempts whose outcome the kernel side lost.
fn attempts_lost(counters: &Counters) -> u64 {
    counters.ring_full + counters.untracked + counters.ending_missed
}
