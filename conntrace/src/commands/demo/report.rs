//! Expected against got, as a table.

use std::{collections::HashMap, fmt};

use super::{
    WIDTH,
    scenes::{Act, Expectation, ExpectedCause, SceneResult},
    words,
};
use crate::{
    diagnosis::Certainty,
    output::{event::Outcome, wrap::wrap},
    record::Label,
};

/// Columns of a scene's name.
const NAME_WIDTH: usize = 16;

/// Result of the demo.
#[derive(Debug)]
pub struct DemoReport {
    rows: Vec<ReportRow>,
}

#[derive(Debug)]
struct ReportRow {
    scene: &'static str,
    expected: String,
    /// The reason where it was skipped.
    got: String,
    result: RowResult,
    /// The causes of earlier tries.
    before: Vec<Option<ExpectedCause>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowResult {
    Same,
    Different,
    Skipped,
}

impl DemoReport {
    /// Compares; no program saw `missed` of the endings.
    pub(super) fn new(
        acts: &[Act],
        outcomes: &HashMap<u32, Vec<Outcome>>,
        mut missed: u64,
    ) -> Self {
        let row = |act| ReportRow::new(act, outcomes, &mut missed);
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

impl ReportRow {
    fn new(act: &Act, outcomes: &HashMap<u32, Vec<Outcome>>, missed: &mut u64) -> Self {
        let tid = match &act.played {
            SceneResult::Skipped(reason) => return Self::skipped(act, reason.clone()),
            SceneResult::By { tid } => tid,
        };
        let lines = outcomes.get(tid).map_or(&[][..], Vec::as_slice);
        let got: Vec<_> = lines.iter().map(Expectation::of_line).collect();
        let cause = lines.last().and_then(|line| line.cause.as_ref());
        let why = cause.map(|it| (it.code, it.certainty));
        let is_certain = why.is_some_and(|(_, certainty)| certainty == Certainty::Certain);
        let result = if got == act.expected && why == act.why {
            RowResult::Same
        } else if got.len() < act.expected.len() && *missed > 0 {
            // See the README's limits.
            *missed -= 1;
            return Self::skipped(
                act,
                "the kernel traced no ending: lost.ending_missed".into(),
            );
        } else if got == act.expected
            && !is_certain
            && let Some(reason) = lines.last().and_then(|line| line.undiagnosed)
        {
            // There is no cause, or one for which less had to be looked at.
            let reason = format!("the cause was not looked for in full: {}", reason.as_str());
            return Self::skipped(act, reason);
        } else {
            RowResult::Different
        };
        Self {
            scene: act.name,
            expected: describe(act.expected, act.why),
            got: describe(&got, why),
            result,
            before: act.before.clone(),
        }
    }

    fn skipped(act: &Act, reason: String) -> Self {
        Self {
            scene: act.name,
            expected: describe(act.expected, act.why),
            got: reason,
            result: RowResult::Skipped,
            before: act.before.clone(),
        }
    }

    /// What the table says was got: nothing else, and in which try, if not in the first.
    fn mark(&self) -> String {
        match self.result {
            RowResult::Same => format!("same{}", words::tries(self.before.len() + 1)),
            RowResult::Different => "DIFFERENT".to_owned(),
            RowResult::Skipped => "skipped".to_owned(),
        }
    }
}

/// The label and cause of the last attempt, after those that led up to it.
fn describe(attempts: &[Expectation], why: Option<ExpectedCause>) -> String {
    let Some((last, before)) = attempts.split_last() else {
        return "no line".to_owned();
    };
    let mut text = String::new();
    let established = before.iter().filter(|one| one.label == Label::Established);
    match (before.len(), established.count()) {
        (0, _) => {}
        (1, 1) => text.push_str("established, "),
        (all, good) if all == good => text.push_str(&format!("{good} established, ")),
        (all, good) => text.push_str(&format!("{all} attempts, {good} of them established, ")),
    }
    text.push_str(&words::ending(*last));
    if why.is_some() {
        text.push_str(": ");
        text.push_str(&words::cause(why));
    }
    text
}

impl fmt::Display for DemoReport {
    /// The table, what was played again or skipped, and the verdict as the last line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_table(f)?;
        self.fmt_played_again(f)?;
        self.fmt_skipped(f)?;
        writeln!(
            f,
            "\n{}: {} scenes as expected, {} different, {} skipped",
            if self.all_as_expected() {
                "PASSED"
            } else {
                "FAILED"
            },
            self.count(RowResult::Same),
            self.count(RowResult::Different),
            self.count(RowResult::Skipped),
        )
    }
}

impl DemoReport {
    fn fmt_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.rows.iter().map(|row| row.expected.chars().count());
        let expected = widths.max().unwrap_or(0);
        writeln!(
            f,
            "\n{:<NAME_WIDTH$} {:<expected$} got",
            "scene", "expected"
        )?;
        for row in &self.rows {
            let mark = row.mark();
            writeln!(
                f,
                "{:<NAME_WIDTH$} {:<expected$} {mark}",
                row.scene, row.expected
            )?;
            if row.result == RowResult::Different {
                let (first, next) = indents("got:");
                f.write_str(&wrap(&row.got, &first, &next, WIDTH))?;
            }
        }
        Ok(())
    }

    fn fmt_played_again(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = || self.rows.iter().filter(|row| !row.before.is_empty());
        if again().next().is_some() {
            writeln!(f, "\nPlayed again, because the cause was another one:")?;
        }
        for row in again() {
            let before: Vec<_> = row.before.iter().map(|why| words::cause(*why)).collect();
            let (first, next) = indents(row.scene);
            f.write_str(&wrap(&before.join(", then "), &first, &next, WIDTH))?;
        }
        Ok(())
    }

    /// Each reason once, with the scenes that it skipped.
    fn fmt_skipped(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = || {
            let is_skipped = |row: &&ReportRow| row.result == RowResult::Skipped;
            self.rows.iter().filter(is_skipped)
        };
        let mut reasons: Vec<&str> = Vec::new();
        for row in skipped() {
            if !reasons.contains(&row.got.as_str()) {
                reasons.push(&row.got);
            }
        }
        if !reasons.is_empty() {
            writeln!(f, "\nSkipped:")?;
        }
        for reason in reasons {
            f.write_str(&wrap(reason, "  ", "  ", WIDTH))?;
            let names = skipped().filter(|row| row.got == reason);
            let names: Vec<_> = names.map(|row| row.scene).collect();
            f.write_str(&wrap(&names.join(", "), "    ", "    ", WIDTH))?;
        }
        Ok(())
    }
}

/// Beginnings of lines that stand below the column of what was expected.
fn indents(name: &str) -> (String, String) {
    (format!("{name:<NAME_WIDTH$} "), " ".repeat(NAME_WIDTH + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commands::demo::{scenes::scenes_as_played, tests::told},
        diagnosis::{Code, Undiagnosed},
        output::event::{Event, tests::outcome_line},
        record::{ReplyKind, TimeoutBy},
    };

    const ONE: &[Expectation] = &[Expectation {
        label: Label::TimedOut,
        reply: ReplyKind::None,
        timeout_by: Some(TimeoutBy::Kernel),
    }];

    const SURE: ExpectedCause = (Code::HostDown, Certainty::Certain);
    const UNSURE: ExpectedCause = (Code::HostDown, Certainty::Likely);

    fn played(expected: &'static [Expectation], why: Option<ExpectedCause>) -> Act {
        Act {
            name: "silence",
            does: "connect to a silent host",
            expected,
            why,
            before: Vec::new(),
            played: SceneResult::By { tid: 1 },
        }
    }

    /// How many of two such scenes differ, and are skipped.
    fn counts(
        act: fn() -> Act,
        outcomes: &HashMap<u32, Vec<Outcome>>,
        missed: u64,
    ) -> (usize, usize) {
        let report = DemoReport::new(&[act(), act()], outcomes, missed);
        assert_eq!(
            report.all_as_expected(),
            report.count(RowResult::Different) == 0
        );
        (
            report.count(RowResult::Different),
            report.count(RowResult::Skipped),
        )
    }

    /// The report of one scene.
    fn report(mut act: Act, why: ExpectedCause, before: &[Option<ExpectedCause>]) -> DemoReport {
        let outcome = told(why);
        let expected = Expectation::of_line(&outcome);
        act.expected = Box::leak(Box::new([expected]));
        act.before = before.to_vec();
        let outcomes = HashMap::from([(1, vec![outcome])]);
        DemoReport::new(&[act], &outcomes, 0)
    }

    #[test]
    fn a_missing_line_differs_unless_its_ending_went_untraced() {
        let counts = |missed| counts(|| played(ONE, None), &HashMap::new(), missed);
        assert_eq!([0, 1, 2].map(counts), [(2, 0), (1, 1), (0, 2)]);
    }

    #[test]
    fn a_missing_cause_differs_unless_its_line_says_why() {
        const REFUSED: &[Expectation] = &[Expectation {
            label: Label::Refused,
            reply: ReplyKind::Rst,
            timeout_by: None,
        }];
        let counts = |undiagnosed| {
            let Event::Outcome(outcome) = outcome_line().event else {
                panic!("an outcome line");
            };
            let outcome = Outcome {
                undiagnosed,
                ..*outcome
            };
            let act = || played(REFUSED, Some((Code::NothingListening, Certainty::Likely)));
            counts(act, &HashMap::from([(1, vec![outcome])]), 9)
        };
        assert_eq!(counts(None), (2, 0));
        assert_eq!(counts(Some(Undiagnosed::NoTime)), (0, 2));
    }

    #[test]
    fn another_certainty_differs() {
        for (expected, got) in [(SURE, UNSURE), (UNSURE, SURE)] {
            let report = report(played(&[], Some(expected)), got, &[]);
            assert!(!report.all_as_expected(), "{report}");
            assert!(report.to_string().contains("DIFFERENT\n"), "{report}");
        }
        assert!(report(played(&[], Some(UNSURE)), UNSURE, &[]).all_as_expected());
    }

    #[test]
    fn what_was_played_again_is_told() {
        let again = report(played(&[], Some(SURE)), SURE, &[None, Some(UNSURE)]).to_string();
        let row = "silence          refused by RST: host_down (certain) same (3rd try)\n";
        assert!(again.contains(row), "{again}");
        let before = "silence          no cause, then host_down (likely)\n";
        assert!(again.contains(before), "{again}");
        let once = report(played(&[], Some(SURE)), SURE, &[]).to_string();
        assert!(
            !once.contains("try)") && !once.contains("Played again"),
            "{once}"
        );
    }

    #[test]
    fn what_differs_is_told_below() {
        let report = report(played(&[], Some(SURE)), UNSURE, &[]).to_string();
        let rows = "\
silence          refused by RST: host_down (certain) DIFFERENT
got:             refused by RST: host_down (likely)
";
        assert!(report.contains(rows), "{report}");
        assert!(report.ends_with("\nFAILED: 0 scenes as expected, 1 different, 0 skipped\n"));
    }

    #[test]
    fn skipped_scenes_stand_below_their_reason() {
        let skipped = |name| Act {
            name,
            played: SceneResult::Skipped("this machine has no IPv6".to_owned()),
            ..played(ONE, None)
        };
        let report = DemoReport::new(&[skipped("one"), skipped("two")], &HashMap::new(), 0);
        let text = report.to_string();
        let last = "
Skipped:
  this machine has no IPv6
    one, two

PASSED: 0 scenes as expected, 0 different, 2 skipped
";
        assert!(text.ends_with(last), "{text}");
    }

    /// All of them in their third try, with the longest cause that there is.
    #[test]
    fn the_table_fits_100_columns() {
        let longest = Some((Code::EphemeralRangeUsedUp, Certainty::Possible));
        let acts = scenes_as_played(SceneResult::By { tid: 1 }).map(|act| Act {
            before: vec![longest, longest],
            ..act
        });
        let row = |act: &Act, result| ReportRow {
            scene: act.name,
            expected: describe(act.expected, act.why),
            got: describe(act.expected, longest),
            result,
            before: act.before.clone(),
        };
        let acts: Vec<_> = acts.collect();
        for result in [RowResult::Same, RowResult::Different, RowResult::Skipped] {
            let rows = acts.iter().map(|act| row(act, result)).collect();
            let text = DemoReport { rows }.to_string();
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }
}
