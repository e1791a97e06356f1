//! The lines that count: loss, summary and stop.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::JsonSchema;
use serde::Serialize;

use super::Endpoint;
use crate::label::Label;

/// What could not be delivered since the last such line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Loss {
    /// Attempts, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    /// Stall lines.
    pub stalls_lost: u64,
}

impl Loss {
    /// What came on top of `earlier`, reasons without any left out.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let new = self.lost.iter().filter_map(|(&reason, &count)| {
            let before = earlier.lost.get(reason).copied().unwrap_or(0);
            (count > before).then(|| (reason, count - before))
        });
        Self {
            lost: new.collect(),
            stalls_lost: self.stalls_lost.saturating_sub(earlier.stalls_lost),
        }
    }
}

/// Totals since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Totals {
    /// Attempts that opened.
    pub attempts: u64,
    /// Endings by label, those not printed included.
    pub outcomes: BTreeMap<Label, u64>,
    /// Attempts under way or not yet labelled.
    pub in_flight: u64,
    /// Attempts whose ending could not be delivered, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    /// Stall lines that could not be delivered.
    pub stalls_lost: u64,
    /// Runs of the hooks that the kernel skipped.
    pub missed_hooks: u64,
    /// State changes the second attachment took over from the first.
    pub second_attachment: u64,
    /// Lines left out by a limit.
    pub suppressed: u64,
    /// Records that `--record` could not keep.
    pub unrecorded: u64,
    /// Outcomes for whose cause there was no time.
    pub undiagnosed: u64,
    /// What failed most since the last summary.
    pub top: Vec<Top>,
}

/// How often the same thing happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Top {
    /// The calling thread's name.
    pub comm: Option<String>,
    /// Where to.
    pub remote: Endpoint,
    /// How it ended.
    pub label: Label,
    /// How often.
    pub count: u64,
}

/// The last line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stop {
    /// Why tracing ends.
    pub reason: Cow<'static, str>,
    /// The final totals: exact.
    #[serde(flatten)]
    pub totals: Totals,
}
