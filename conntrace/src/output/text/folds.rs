//! Repeated failures, of which only the first is printed in full.

use std::{
    hash::{BuildHasher as _, Hash},
    mem,
};

use foldhash::{HashMap, fast::RandomState};
use jiff::{SignedDuration, Timestamp};

use crate::{
    diagnosis::{Certainty, Code, Undiagnosed},
    output::event::{Container, Details, Endpoint, Event, Line, Outcome, Subject},
    record::Label,
};

/// Maximum number of cases; all are evicted when it is exceeded.
pub(super) const CASES_MAX: usize = 1024;

/// Maximum time before the number of repeats is printed.
pub(super) const HELD_MAX: SignedDuration = SignedDuration::from_secs(1);
/// Age of a line from which the clock must have been set back: the longest `--diagnosis-timeout`,
/// and a second.
const LATE_MAX: SignedDuration = SignedDuration::from_secs(61);

/// Time after which a continuing case is printed in full again.
const PRINTED_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// Properties that repeated lines have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FoldKey<'a> {
    /// Label of an outcome; `None` for a stall.
    label: Option<Label>,
    errno: Option<&'a str>,
    cause: Option<(Code, Certainty)>,
    /// Reason for a missing cause; ignored if there is a cause.
    undiagnosed: Option<Undiagnosed>,
    remote: Endpoint,
    comm: Option<&'a str>,
    container: Option<&'a str>,
}

impl<'a> FoldKey<'a> {
    /// Returns the case of a line; `None` if it is not about an attempt.
    pub(super) fn of_line(line: &'a Line) -> Option<Self> {
        match &line.event {
            Event::Outcome(outcome) => Some(Self::of_outcome(outcome)),
            Event::Stall(stall) => Some(Self::of_stall(&stall.subject)),
            Event::Start(_)
            | Event::PortPressure(_)
            | Event::Loss(_)
            | Event::Summary(_)
            | Event::Stop(_) => None,
        }
    }

    pub(super) fn of_outcome(outcome: &'a Outcome) -> Self {
        let cause = outcome.cause.as_ref();
        Self {
            label: Some(outcome.label),
            errno: outcome.errno.as_deref(),
            cause: cause.map(|cause| (cause.code, cause.certainty)),
            undiagnosed: outcome.undiagnosed.filter(|_| cause.is_none()),
            ..Self::of_stall(&outcome.subject)
        }
    }

    pub(super) fn of_stall(subject: &'a Subject) -> Self {
        let container = subject.container.as_ref();
        Self {
            label: None,
            errno: None,
            cause: None,
            undiagnosed: None,
            remote: subject.remote.endpoint(),
            comm: subject.process.comm.as_deref(),
            container: container.and_then(|container| container.id.as_deref()),
        }
    }
}

/// Case with the repeats not yet printed.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) label: Option<Label>,
    pub(super) errno: Option<String>,
    pub(super) cause: Option<(Code, Certainty)>,
    undiagnosed: Option<Undiagnosed>,
    pub(super) remote: Endpoint,
    pub(super) comm: Option<String>,
    pub(super) container: Option<Container>,
    /// Process id of the repeats; `None` if they differ.
    pub(super) pid: Option<u32>,
    /// Number of repeats.
    pub(super) count: u64,
    /// Number of lines suppressed by `--limit` among the repeats.
    pub(super) suppressed: u64,
    /// Time of the last repeat.
    pub(super) until: Timestamp,
    /// Time of the last row printed in full.
    printed_at: Timestamp,
}

impl Folded {
    fn new(case: FoldKey<'_>, container: Option<&Container>, now: Timestamp) -> Self {
        Self {
            label: case.label,
            errno: case.errno.map(str::to_owned),
            cause: case.cause,
            undiagnosed: case.undiagnosed,
            remote: case.remote,
            comm: case.comm.map(str::to_owned),
            container: container.cloned(),
            pid: None,
            count: 0,
            suppressed: 0,
            until: now,
            printed_at: now,
        }
    }

    fn case(&self) -> FoldKey<'_> {
        let container = self.container.as_ref();
        FoldKey {
            label: self.label,
            errno: self.errno.as_deref(),
            cause: self.cause,
            undiagnosed: self.undiagnosed,
            remote: self.remote,
            comm: self.comm.as_deref(),
            container: container.and_then(|container| container.id.as_deref()),
        }
    }

    /// Returns true if the next repeat is printed in full.
    fn is_printed_again(&self, now: Timestamp) -> bool {
        self.count == 0 && now.duration_since(self.printed_at) >= PRINTED_AGAIN
    }

    fn add(&mut self, Repeat { pid, suppressed }: Repeat, now: Timestamp) {
        self.pid = if self.count == 0 || self.pid == pid {
            pid
        } else {
            None
        };
        self.count += 1;
        self.suppressed = self.suppressed.saturating_add(suppressed);
        self.until = now;
    }
}

/// Numbers of a line that may be folded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repeat {
    /// Process id of the caller.
    pub(super) pid: Option<u32>,
    /// Number of similar lines that `--limit` suppressed.
    pub(super) suppressed: u64,
}

/// Place of a case in [`Folds`].
#[derive(Debug, Clone, Copy)]
pub(super) struct FoldId {
    hash: u64,
    /// Number of evictions before.
    evictions: u64,
}

/// Manner in which a line is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineStyle {
    /// In full, with the remedy.
    First,
    /// In full, without the remedy.
    Again,
    /// Counted; the number is printed later.
    Held,
}

/// Cases already printed, and the repeats held back.
#[derive(Debug, Default)]
pub(super) struct Folds {
    hasher: RandomState,
    /// Cases by their hash.
    cases: HashMap<u64, Folded>,
    /// Cases with repeats, by hash, in order of the first repeat.
    held: Vec<u64>,
    /// Time of the first repeat held back.
    since: Option<Timestamp>,
    /// Number of repeats held back.
    lines: u64,
    /// Number of times that all cases were evicted.
    evictions: u64,
}

impl Folds {
    /// Counts a line and decides how it is printed. Repeats that are [due](Self::is_due) must be
    /// released first.
    pub(super) fn admit(
        &mut self,
        case: FoldKey<'_>,
        (subject, details): (&Subject, &Details),
        now: Timestamp,
    ) -> LineStyle {
        let hash = self.hasher.hash_one(case);
        let Some(folded) = self.cases.get(&hash) else {
            let folded = Folded::new(case, subject.container.as_ref(), now);
            self.cases.insert(hash, folded);
            return LineStyle::First;
        };
        if folded.case() != case {
            return LineStyle::First;
        }
        let repeat = Repeat {
            pid: subject.process.pid,
            suppressed: details.suppressed,
        };
        if self.hold(hash, repeat, now) {
            return LineStyle::Held;
        }
        if let Some(folded) = self.cases.get_mut(&hash) {
            folded.printed_at = now;
        }
        LineStyle::Again
    }

    /// Returns the place of a case, if it has one.
    pub(super) fn find(&self, case: FoldKey<'_>) -> Option<FoldId> {
        let hash = self.hasher.hash_one(case);
        let folded = self.cases.get(&hash)?;
        (folded.case() == case).then_some(FoldId {
            hash,
            evictions: self.evictions,
        })
    }

    /// Counts a line of the case at this place. Returns false, and counts nothing, if the line must
    /// be printed or the case was evicted.
    pub(super) fn repeat(&mut self, id: FoldId, repeat: Repeat, now: Timestamp) -> bool {
        id.evictions == self.evictions && self.hold(id.hash, repeat, now)
    }

    /// Counts a repeat. Returns false if it must be printed.
    fn hold(&mut self, hash: u64, repeat: Repeat, now: Timestamp) -> bool {
        let folded = self.cases.get_mut(&hash);
        let Some(folded) = folded.filter(|folded| !folded.is_printed_again(now)) else {
            return false;
        };
        if folded.count == 0 {
            self.held.push(hash);
        }
        folded.add(repeat, now);
        self.lines += 1;
        self.since.get_or_insert(now);
        true
    }

    /// Returns true if repeats have been held back long enough, or the table is full.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.cases.len() >= CASES_MAX || self.wait(now).is_some_and(|wait| wait.is_zero())
    }

    /// Returns the time until repeats are due; `None` if none are held back. A clock that was set
    /// back makes them due.
    pub(super) fn wait(&self, now: Timestamp) -> Option<SignedDuration> {
        let held = now.duration_since(self.since?);
        // A line that waited for its cause is older than others.
        let goes_on = (-LATE_MAX..HELD_MAX).contains(&held);
        Some(if goes_on {
            HELD_MAX - held.max(SignedDuration::ZERO)
        } else {
            SignedDuration::ZERO
        })
    }

    /// Returns the number of repeats held back.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// Passes every case with repeats to `each`, and resets its counts.
    pub(super) fn release(&mut self, mut each: impl FnMut(&Folded)) {
        (self.since, self.lines) = (None, 0);
        for hash in mem::take(&mut self.held) {
            if let Some(folded) = self.cases.get_mut(&hash) {
                each(folded);
                (folded.count, folded.suppressed) = (0, 0);
            }
        }
        if self.cases.len() >= CASES_MAX {
            self.cases.clear();
            self.evictions += 1;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cases.len()
    }
}
