//! The lines that count: loss, summary and stop.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::JsonSchema;
use serde::Serialize;

use super::Endpoint;
use crate::{diagnosis::Undiagnosed, record::Label};

/// Losses since the last such line, reasons without any left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Loss {
    /// Number of attempts without an outcome, by reason (see `Lost`).
    pub lost: BTreeMap<&'static str, u64>,
    /// Number of lines that were not written, by sink or kind (see `Undelivered`).
    pub undelivered: BTreeMap<&'static str, u64>,
}

impl Loss {
    /// Losses on top of earlier ones, `None` if there are none.
    #[must_use]
    pub fn since(
        (lost, undelivered): (&Lost, &Undelivered),
        earlier: (&Lost, &Undelivered),
    ) -> Option<Self> {
        let loss = Self {
            lost: more(lost.by_reason(), earlier.0.by_reason()),
            undelivered: more(undelivered.by_kind(), earlier.1.by_kind()),
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

/// Number of attempts without an outcome, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lost {
    /// Endings for which the ring buffer of the kernel side had no room.
    pub ring_full: u64,
    /// Attempts for which the table of attempts had no room.
    pub untracked: u64,
    /// Endings that no BPF program saw.
    pub ending_missed: u64,
    /// Records that could not be decoded.
    pub malformed: u64,
}

impl Lost {
    /// Each number with its reason.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 4] {
        [
            ("ring_full", self.ring_full),
            ("untracked", self.untracked),
            ("ending_missed", self.ending_missed),
            ("malformed", self.malformed),
        ]
    }

    /// All of them.
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
    /// Lines for which the output had no room: it was blocked, too slow or full.
    pub output: u64,
    /// Stalls lost on the way from the kernel to the worker.
    pub stalls: u64,
    /// Disconnects lost on the way from the kernel to the worker.
    pub disconnects: u64,
}

impl Undelivered {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let counts = self.by_kind();
        counts
            .into_iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Each number with the kind of line.
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
    /// Number of attempts that opened: the sum of `outcomes`, `in_flight` and `lost`.
    pub attempts: u64,
    /// Number of outcomes by label, those not printed included.
    pub outcomes: BTreeMap<Label, u64>,
    /// Number of attempts under way or not yet labelled.
    pub in_flight: u64,
    /// Number of attempts without an outcome, by reason.
    pub lost: Lost,
    /// Number of lines that were not written, by sink or kind.
    pub undelivered: Undelivered,
    /// Number of records that `--record` could not keep.
    pub unrecorded: u64,
    /// Number of runs of the BPF programs that the kernel skipped.
    pub missed_hooks: u64,
    /// Number of state changes that the second attachment took over from the first.
    pub second_attachment: u64,
    /// Number of lines that `--limit` left out.
    pub suppressed: u64,
    /// Number of printed outcomes by the reason in their `undiagnosed`.
    pub undiagnosed: BTreeMap<Undiagnosed, u64>,
    /// Number of disconnects by label.
    pub disconnects: BTreeMap<&'static str, u64>,
    /// Number of inspector threads that were given up because a look at the host hung.
    pub inspectors_abandoned: u64,
    /// Most frequent failures since the last summary, at most 10.
    pub top: Vec<Top>,
}

/// Number of like failures.
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

/// Tracing has ended: the last line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stop {
    /// Reason for the end, such as the name of a signal.
    pub reason: Cow<'static, str>,
    /// Final totals, which are exact.
    #[serde(flatten)]
    pub totals: Totals,
}
