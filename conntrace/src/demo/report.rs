//! Expected against got, as a table.

use std::{collections::HashMap, fmt};

use super::scenes::{Act, Expected, Played};
use crate::{
    event::Outcome,
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowResult {
    Same,
    Different,
    Skipped,
}

impl Report {
    /// Of the endings `untraced` were seen by no program.
    pub(super) fn new(
        acts: Vec<Act>,
        outcomes: &HashMap<u32, Vec<Outcome>>,
        mut untraced: u64,
    ) -> Self {
        let row = |act| Row::new(act, outcomes, &mut untraced);
        Self {
            rows: acts.into_iter().map(row).collect(),
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
    fn new(act: Act, outcomes: &HashMap<u32, Vec<Outcome>>, untraced: &mut u64) -> Self {
        let expected = describe(act.expected);
        let (got, result) = match act.played {
            Played::Skipped(reason) => (reason, RowResult::Skipped),
            Played::By { tid } => {
                let lines = outcomes.get(&tid).map_or(&[][..], Vec::as_slice);
                let got: Vec<_> = lines.iter().map(of_line).collect();
                if got == act.expected {
                    (describe(&got), RowResult::Same)
                } else if got.len() < act.expected.len() && *untraced > 0 {
                    // See the README's limits.
                    *untraced -= 1;
                    let reason = "the kernel traced no ending: lost.ending_missed";
                    (reason.to_owned(), RowResult::Skipped)
                } else {
                    (describe(&got), RowResult::Different)
                }
            }
        };
        Self {
            scene: act.name,
            expected,
            got,
            result,
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
fn describe(attempts: &[Expected]) -> String {
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
    let established = before.iter().filter(|one| one.label == Label::Established);
    match (before.len(), established.count()) {
        (0, _) => {}
        (all, good) if all == good => text.push_str(&format!(", after {good} established")),
        (all, good) => text.push_str(&format!(", after {all}, {good} of them established")),
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<16} {:<49} {:<49}", "scene", "expected", "got")?;
        for row in &self.rows {
            let mark = match row.result {
                RowResult::Same => "ok",
                RowResult::Different => "DIFFERENT",
                RowResult::Skipped => "skipped",
            };
            writeln!(
                f,
                "{:<16} {:<49} {:<49} {mark}",
                row.scene, row.expected, row.got
            )?;
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

    #[test]
    fn a_missing_line_differs_unless_its_ending_went_untraced() {
        let played = |untraced| {
            let act = || Act {
                name: "silence",
                expected: ONE,
                played: Played::By { tid: 1 },
            };
            Report::new(vec![act(), act()], &HashMap::new(), untraced)
        };
        let counts = |report: &Report| {
            (
                report.count(RowResult::Different),
                report.count(RowResult::Skipped),
            )
        };
        assert_eq!(counts(&played(0)), (2, 0));
        assert_eq!(counts(&played(1)), (1, 1));
        assert!(played(2).all_as_expected());
    }
}
