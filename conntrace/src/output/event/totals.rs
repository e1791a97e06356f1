//! Lines with counts: loss, summary and stop.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Endpoint;
use crate::{diagnosis::Undiagnosed, record::Label};

/// Losses since the last loss line; reasons without losses are omitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Loss {
    /// Number of attempts without an outcome, by reason (see `Lost`).
    pub lost: BTreeMap<&'static str, u64>,
    /// Number of lines that were not written, by output or kind (see `Undelivered`).
    pub undelivered: BTreeMap<&'static str, u64>,
    /// Attempts that found no place in the table of attempts, and who holds it; null if there are
    /// none, or if a line named the holder less than a minute ago.
    pub table: Option<TableLoss>,
}

impl Loss {
    /// Returns the losses on top of earlier ones; `None` if there are none.
    #[must_use]
    pub fn since(
        (lost, undelivered): (&Lost, &Undelivered),
        earlier: (&Lost, &Undelivered),
        table: Option<TableLoss>,
    ) -> Option<Self> {
        let loss = Self {
            lost: more(lost.by_reason(), earlier.0.by_reason()),
            undelivered: more(undelivered.by_kind(), earlier.1.by_kind()),
            table,
        };
        (loss != Self::default()).then_some(loss)
    }
}

fn more<const N: usize>(
    now: [(&'static str, u64); N],
    earlier: [(&'static str, u64); N],
) -> BTreeMap<&'static str, u64> {
    now.into_iter()
        .zip(earlier)
        .filter(|((_, now), (_, before))| now > before)
        .map(|((name, now), (_, before))| (name, now - before))
        .collect()
}

/// Attempts that found no place in the table of attempts. Without a filter of the caller each has
/// its outcome (`seen` is `untracked`); with one it is lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct TableLoss {
    /// Number of attempts under way that have a place.
    pub held: u64,
    /// Number of attempts that found none since the last line with a `table`.
    pub not_admitted: u64,
    /// Holder of the most places; null if none are held any more.
    pub top: Option<TopHolder>,
}

/// User that holds the most places of the table of attempts, and the process of theirs that holds
/// the most. Root counts by cgroup, because it owns the processes of most containers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct TopHolder {
    /// Real user id.
    pub uid: u32,
    /// Process id of the process.
    pub pid: u32,
    /// Name of the process.
    pub comm: String,
    /// Path of the process's cgroup; null if unknown.
    pub cgroup: Option<Arc<str>>,
    /// Number of attempts under way of the user, or of root in the cgroup.
    pub attempts: u64,
    /// Number of attempts under way of the process.
    pub of_process: u64,
}

/// Number of attempts without an outcome, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lost {
    /// Endings lost because the kernel side's ring buffer was full.
    pub ring_full: u64,
    /// Attempts not traced because the table of attempts was full.
    pub untracked: u64,
    /// Endings that no BPF program saw.
    pub ending_missed: u64,
    /// Records that could not be decoded.
    pub malformed: u64,
}

impl Lost {
    /// Returns each number with its reason.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 4] {
        [
            ("ring_full", self.ring_full),
            ("untracked", self.untracked),
            ("ending_missed", self.ending_missed),
            ("malformed", self.malformed),
        ]
    }

    /// Returns the number of attempts without an outcome.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let counts = self.by_reason();
        counts
            .into_iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(count))
    }
}

/// Number of lines that were not written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Undelivered {
    /// Lines dropped because the output was blocked, too slow or full.
    pub output: u64,
    /// Stalls lost between the kernel and the worker.
    pub stalls: u64,
    /// Disconnects lost between the kernel and the worker; always 0 so far.
    pub disconnects: u64,
}

impl Undelivered {
    /// Returns the number of lines that were not written.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let counts = self.by_kind();
        counts
            .into_iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Returns each number with the kind of line.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u64); 3] {
        [
            ("output", self.output),
            ("stalls", self.stalls),
            ("disconnects", self.disconnects),
        ]
    }
}

/// Totals since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Totals {
    /// Number of attempts that began: the sum of `outcomes`, `in_flight` and `lost`.
    pub attempts: u64,
    /// Number of outcomes by label, including those not printed.
    pub outcomes: BTreeMap<Label, u64>,
    /// Number of attempts in progress or not yet labelled.
    pub in_flight: u64,
    /// Number of attempts without an outcome, by reason.
    pub lost: Lost,
    /// Number of lines that were not written, by output or kind.
    pub undelivered: Undelivered,
    /// Number of records that `--record` failed to write.
    pub unrecorded: u64,
    /// Number of runs of BPF programs that the kernel skipped.
    pub missed_hooks: u64,
    /// Number of lines that `--limit` suppressed.
    pub suppressed: u64,
    /// Number of printed outcomes by the reason in their `undiagnosed`.
    pub undiagnosed: BTreeMap<Undiagnosed, u64>,
    /// Number of disconnects by label; always empty so far.
    pub disconnects: BTreeMap<&'static str, u64>,
    /// Number of inspector threads abandoned because a look at the host hung.
    pub inspectors_abandoned: u64,
    /// Most frequent failures since the last summary, at most 10.
    pub top: Vec<Top>,
}

/// Number of similar failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Top {
    /// Name of the calling thread.
    pub comm: Option<String>,
    /// Destination of the attempts.
    pub remote: Endpoint,
    /// Label of the outcomes.
    pub label: Label,
    /// Number of outcomes.
    pub count: u64,
}

/// End of tracing; the last line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stop {
    /// Reason for the end, such as the name of a signal.
    pub reason: Cow<'static, str>,
    /// Final totals, which are exact.
    #[serde(flatten)]
    pub totals: Totals,
}
