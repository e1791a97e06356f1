//! Expected against got, as a table.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{
    Missing,
    scenes::{Act, Expected, Played},
};
use crate::{
    event::{Certainty, Code, Outcome, WrittenCause},
    label::{Label, TimeoutBy},
    reply::ReplyKind,
};

/// What the demo came to.
#[derive(Debug)]
pub struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    scene: &'static str,
    expected: String,
    got: String,
    result: RowResult,
    /// Why the last attempt ended so.
    cause: Option<Arc<WrittenCause>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowResult {
    Same,
    Different,
    Skipped,
}

impl Report {
    /// Of what the tracer could not see, `missing` says how much.
    pub(super) fn new(
        acts: &[Act],
        outcomes: &HashMap<u32, Vec<Outcome>>,
        mut missing: Missing,
    ) -> Self {
        let row = |act| Row::new(act, outcomes, &mut missing);
        Self {
            rows: acts.iter().map(row).collect(),
        }
    }

    /// No row differs. Skipped scenes do not count.
    #[must_use]
    pub fn all_as_expected(&self) -> bool {
        self.count(RowResult::Different) == 0
    }

    fn count(&self, result: RowResult) -> usize {
        self.rows.iter().filter(|row| row.result == result).count()
    }
}

impl Row {
    fn new(act: &Act, outcomes: &HashMap<u32, Vec<Outcome>>, missing: &mut Missing) -> Self {
        let tid = match &act.played {
            Played::Skipped(reason) => return Self::skipped(act, reason.clone()),
            Played::By { tid } => tid,
        };
        let lines = outcomes.get(tid).map_or(&[][..], Vec::as_slice);
        let got: Vec<_> = lines.iter().map(of_line).collect();
        let cause = lines.last().and_then(|line| line.cause.clone());
        let code = cause.as_ref().map(|cause| cause.code);
        let is_certain = (cause.as_ref()).is_some_and(|it| it.certainty == Certainty::Certain);
        let result = if got == act.expected && code == act.cause {
            RowResult::Same
        } else if got.len() < act.expected.len() && missing.endings > 0 {
            // See the README's limits.
            missing.endings -= 1;
            return Self::skipped(
                act,
                "the kernel traced no ending: lost.ending_missed".into(),
            );
        } else if got == act.expected && !is_certain && missing.causes > 0 {
            // None, or one for which less had to be looked at.
            missing.causes -= 1;
            return Self::skipped(
                act,
                "no time to look for all of its cause: undiagnosed".into(),
            );
        } else {
            RowResult::Different
        };
        Self {
            scene: act.name,
            expected: describe(act.expected, act.cause),
            got: describe(&got, code),
            result,
            cause,
        }
    }

    fn skipped(act: &Act, reason: String) -> Self {
        Self {
            scene: act.name,
            expected: describe(act.expected, act.cause),
            got: reason,
            result: RowResult::Skipped,
            cause: None,
        }
    }
}

fn of_line(outcome: &Outcome) -> Expected {
    Expected {
        label: outcome.label,
        reply: outcome.attempt.reply.kind,
        timeout_by: outcome.attempt.timeout_by,
    }
}

/// The last attempt in words, the ones that led up to it as a number.
fn describe(attempts: &[Expected], cause: Option<Code>) -> String {
    let Some((last, before)) = attempts.split_last() else {
        return "no line".to_owned();
    };
    let mut text = last.label.as_str().to_owned();
    match (last.timeout_by, last.reply) {
        (Some(TimeoutBy::Application), ReplyKind::Local) => {
            text.push_str(" by the application, dropped here");
        }
        (Some(TimeoutBy::Kernel), _) => text.push_str(" by the kernel"),
        (Some(TimeoutBy::Application), _) => text.push_str(" by the application"),
        (None, ReplyKind::Rst) => text.push_str(" by a RST"),
        (None, ReplyKind::Icmp) => text.push_str(" by ICMP"),
        (None, ReplyKind::Local) => text.push_str(" by this host"),
        (None, ReplyKind::None | ReplyKind::SynAck) => {}
    }
    if let Some(cause) = cause {
        text.push_str(&format!(", {}", cause.as_str()));
    }
    let established = before.iter().filter(|one| one.label == Label::Established);
    match (before.len(), established.count()) {
        (0, _) => {}
        (all, good) if all == good => text.push_str(&format!(" (after {good} established)")),
        (all, good) => text.push_str(&format!(" (after {all}, {good} of them established)")),
    }
    text
}

impl fmt::Display for Report {
    /// Why each attempt ended as it did and what to do about it, then the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            if let Some(cause) = &row.cause {
                let (code, certainty) = (cause.code.as_str(), cause.certainty.as_str());
                writeln!(f, "\n{}: {code} ({certainty})", row.scene)?;
                writeln!(f, "  why: {}\n  fix: {}", cause.why, cause.fix)?;
            }
        }
        let width = |column: fn(&Row) -> &str| {
            let widths = self.rows.iter().map(|row| column(row).chars().count());
            widths.max().unwrap_or(0)
        };
        let expected = width(|row| &row.expected);
        let got = width(|row| match row.result {
            RowResult::Same | RowResult::Different => &row.got,
            // A reason may be long.
            RowResult::Skipped => "",
        });
        let mut line = |scene: &str, wanted: &str, told: &str, mark: &str| {
            let row = format!("{scene:<16} {wanted:<expected$} {told:<got$} {mark}");
            writeln!(f, "{}", row.trim_end())
        };
        line("\nscene", "expected", "got", "")?;
        for row in &self.rows {
            let mark = match row.result {
                RowResult::Same => "ok",
                RowResult::Different => "DIFFERENT",
                RowResult::Skipped => "skipped",
            };
            line(row.scene, &row.expected, &row.got, mark)?;
        }
        writeln!(
            f,
            "\n{} scenes as expected, {} different, {} skipped",
            self.count(RowResult::Same),
            self.count(RowResult::Different),
            self.count(RowResult::Skipped),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[Expected] = &[Expected {
        label: Label::TimedOut,
        reply: ReplyKind::None,
        timeout_by: Some(TimeoutBy::Kernel),
    }];

    fn played(expected: &'static [Expected], cause: Option<Code>) -> Act {
        Act {
            name: "silence",
            expected,
            cause,
            played: Played::By { tid: 1 },
        }
    }

    /// How many of two such scenes differ, and are skipped.
    fn counts(act: fn() -> Act, missing: Missing) -> (usize, usize) {
        let report = Report::new(&[act(), act()], &HashMap::new(), missing);
        assert_eq!(
            report.all_as_expected(),
            report.count(RowResult::Different) == 0
        );
        (
            report.count(RowResult::Different),
            report.count(RowResult::Skipped),
        )
    }

    #[test]
    fn a_missing_line_differs_unless_its_ending_went_untraced() {
        let counts = |endings| counts(|| played(ONE, None), Missing { endings, causes: 9 });
        assert_eq!([0, 1, 2].map(counts), [(2, 0), (1, 1), (0, 2)]);
    }

    #[test]
    fn a_missing_cause_differs_unless_there_was_no_time_for_it() {
        let cause = || played(&[], Some(Code::HostDown));
        let counts = |causes| counts(cause, Missing { endings: 9, causes });
        assert_eq!([0, 1, 2].map(counts), [(2, 0), (1, 1), (0, 2)]);
    }
}
