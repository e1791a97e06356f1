//! Equal failures, of which only the first is told in full.

use std::{
    hash::{BuildHasher as _, Hash},
    mem,
};

use foldhash::{HashMap, fast::RandomState};
use jiff::{SignedDuration, Timestamp};

use crate::{
    diagnosis::{Certainty, Code, Undiagnosed},
    output::event::{Container, Details, Endpoint, Outcome, Subject},
    record::Label,
};

/// Cases that are remembered at once. When there are more, all are forgotten.
pub(super) const CASES_MAX: usize = 1024;

/// Longest time for which repeats are held back before their number is told.
pub(super) const HELD_MAX: SignedDuration = SignedDuration::from_secs(1);

/// Time after which a case that goes on is told in full again.
const TOLD_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// Content that equal lines have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FoldKey<'a> {
    /// `None` of a stall.
    label: Option<Label>,
    errno: Option<&'a str>,
    cause: Option<(Code, Certainty)>,
    /// Why there is no cause. Beside one it makes no other case.
    undiagnosed: Option<Undiagnosed>,
    remote: Endpoint,
    comm: Option<&'a str>,
    container: Option<&'a str>,
}

impl<'a> FoldKey<'a> {
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

/// A case, and its repeats that are not told yet.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) label: Option<Label>,
    pub(super) errno: Option<String>,
    pub(super) cause: Option<(Code, Certainty)>,
    undiagnosed: Option<Undiagnosed>,
    pub(super) remote: Endpoint,
    pub(super) comm: Option<String>,
    pub(super) container: Option<Container>,
    /// Process of every repeat, `None` where they are of several.
    pub(super) pid: Option<u32>,
    /// Number of repeats.
    pub(super) count: u64,
    /// Number of lines that `--limit` left out among them.
    pub(super) suppressed: u64,
    /// Moment of the last one.
    pub(super) until: Timestamp,
    /// Moment of the last one that was told in full.
    told: Timestamp,
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
            told: now,
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

    fn add(&mut self, subject: &Subject, details: &Details, now: Timestamp) {
        let pid = subject.process.pid;
        self.pid = if self.count == 0 || self.pid == pid {
            pid
        } else {
            None
        };
        self.count += 1;
        self.suppressed = self.suppressed.saturating_add(details.suppressed);
        self.until = now;
    }
}

/// Way to tell a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineStyle {
    /// In full, and how to mend it.
    First,
    /// In full.
    Again,
    /// Counted; the number is told later.
    Held,
}

/// Cases that were told, and the repeats that are held back.
#[derive(Debug, Default)]
pub(super) struct Folds {
    hasher: RandomState,
    /// By the case's hash.
    cases: HashMap<u64, Folded>,
    /// Cases with repeats, by the first of these.
    held: Vec<u64>,
    /// Moment of the first repeat that is held back.
    since: Option<Timestamp>,
    /// Number of repeats that are held back.
    lines: u64,
}

impl Folds {
    /// Counts a line, and says how it is told. Before that nothing may be
    /// [due](Self::is_due).
    pub(super) fn admit(
        &mut self,
        case: FoldKey<'_>,
        (subject, details): (&Subject, &Details),
        now: Timestamp,
    ) -> LineStyle {
        let hash = self.hasher.hash_one(case);
        let Some(folded) = self.cases.get_mut(&hash) else {
            let folded = Folded::new(case, subject.container.as_ref(), now);
            self.cases.insert(hash, folded);
            return LineStyle::First;
        };
        if folded.case() != case {
            return LineStyle::First;
        }
        if folded.count == 0 && now.duration_since(folded.told) >= TOLD_AGAIN {
            folded.told = now;
            return LineStyle::Again;
        }
        if folded.count == 0 {
            self.held.push(hash);
        }
        folded.add(subject, details, now);
        self.lines += 1;
        self.since.get_or_insert(now);
        LineStyle::Held
    }

    /// Returns true if repeats have been held back for long enough, or there may be no room
    /// for another case.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.cases.len() >= CASES_MAX || self.wait(now).is_some_and(|wait| wait.is_zero())
    }

    /// Time until repeats are due, `None` where none are held back. A clock that was set
    /// back makes them due.
    pub(super) fn wait(&self, now: Timestamp) -> Option<SignedDuration> {
        let held = now.duration_since(self.since?);
        // Lines are a little out of order.
        let goes_on = (-HELD_MAX..HELD_MAX).contains(&held);
        Some(if goes_on {
            HELD_MAX - held
        } else {
            SignedDuration::ZERO
        })
    }

    /// Number of repeats that are held back.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// Tells of every case with repeats, which are then counted anew.
    pub(super) fn release(&mut self, mut tell: impl FnMut(&Folded)) {
        (self.since, self.lines) = (None, 0);
        for hash in mem::take(&mut self.held) {
            if let Some(folded) = self.cases.get_mut(&hash) {
                tell(folded);
                (folded.count, folded.suppressed) = (0, 0);
            }
        }
        if self.cases.len() >= CASES_MAX {
            self.cases.clear();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cases.len()
    }
}
