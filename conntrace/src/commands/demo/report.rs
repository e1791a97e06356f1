//! Expected against got, as a table.

use std::{collections::HashMap, fmt};

use conntrace_testnet::catalogue::ExpectedCause;

use super::{
    WIDTH,
    play::{DemoScene, SceneResult},
    words::{self, Ending},
};
use crate::output::{event::Outcome, wrap::wrap};

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
    /// Ending and cause where these differ; the reason where the scene was skipped.
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
        scenes: &[DemoScene],
        outcomes: &HashMap<u32, Vec<Outcome>>,
        mut missed: u64,
    ) -> Self {
        let row = |scene| ReportRow::new(scene, outcomes, &mut missed);
        Self {
            rows: scenes.iter().map(row).collect(),
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
    fn new(scene: &DemoScene, outcomes: &HashMap<u32, Vec<Outcome>>, missed: &mut u64) -> Self {
        let wanted: Vec<_> = scene.scenario.expected.iter().map(Ending::from).collect();
        let row = |result, got| Self {
            scene: scene.scenario.name,
            expected: describe(&wanted, scene.cause),
            got,
            result,
            before: scene.before.clone(),
        };
        let tid = match &scene.result {
            SceneResult::Skipped(reason) => return row(RowResult::Skipped, reason.clone()),
            SceneResult::By { tid } => tid,
        };
        let lines = outcomes.get(tid).map_or(&[][..], Vec::as_slice);
        let got: Vec<_> = lines.iter().map(Ending::from).collect();
        let last = lines.last();
        let cause = last.and_then(words::cause_of);
        let is_certain = cause.is_some_and(|(_, certainty)| certainty == "certain");
        if got == wanted && cause == scene.cause {
            row(RowResult::Same, String::new())
        } else if got.len() < wanted.len() && *missed > 0 {
            // See docs/limitations.md.
            *missed -= 1;
            let reason = "the kernel traced no ending: lost.ending_missed";
            row(RowResult::Skipped, reason.to_owned())
        } else if got == wanted
            && !is_certain
            && let Some(reason) = last.and_then(|line| line.undiagnosed)
        {
            // There is no cause, or one for which less had to be looked at.
            let reason = reason.as_str();
            let reason = format!("the cause was not looked for in full: {reason}");
            row(RowResult::Skipped, reason)
        } else {
            row(RowResult::Different, describe(&got, cause))
        }
    }

    /// Writes the cell of the table for what was got: nothing else, and in which try, if not in the first.
    fn mark(&self) -> String {
        match self.result {
            RowResult::Same => format!("same{}", words::tries(self.before.len() + 1)),
            RowResult::Different => "DIFFERENT".to_owned(),
            RowResult::Skipped => "skipped".to_owned(),
        }
    }
}

/// The label and cause of the last attempt, after those that led up to it.
fn describe(attempts: &[Ending], cause: Option<ExpectedCause>) -> String {
    let Some((last, before)) = attempts.split_last() else {
        return "no line".to_owned();
    };
    let mut text = String::new();
    let established = before.iter().filter(|one| one.label == "established");
    match (before.len(), established.count()) {
        (0, _) => {}
        (1, 1) => text.push_str("established, "),
        (all, good) if all == good => text.push_str(&format!("{good} established, ")),
        (all, good) => text.push_str(&format!("{all} attempts, {good} of them established, ")),
    }
    text.push_str(&last.to_string());
    if cause.is_some() {
        text.push_str(": ");
        text.push_str(&words::cause(cause));
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
            let before: Vec<_> = row
                .before
                .iter()
                .map(|cause| words::cause(*cause))
                .collect();
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
    use conntrace_testnet::catalogue::Scenario;

    use super::*;
    use crate::{
        commands::demo::{play, tests::told},
        diagnosis::{Certainty, Code, Undiagnosed},
    };

    const CERTAIN: (Code, Certainty) = (Code::HostDown, Certainty::Certain);
    const LIKELY: (Code, Certainty) = (Code::HostDown, Certainty::Likely);

    /// A scenario, which this thread has played. Its cause is that of [`LIKELY`].
    fn played(name: &str) -> DemoScene {
        DemoScene {
            scenario: play::scenarios().find(|it| it.name == name).unwrap(),
            cause: Some(("host_down", "likely")),
            before: Vec::new(),
            result: SceneResult::By { tid: 1 },
        }
    }

    /// Numbers of scenes that differ, and that are skipped, of two whose thread has these lines.
    fn counts(lines: &[Outcome], missed: u64) -> (usize, usize) {
        let outcomes = HashMap::from([(1, lines.to_vec())]);
        let report = DemoReport::new(&[played("refused"), played("refused")], &outcomes, missed);
        let different = report.count(RowResult::Different);
        assert_eq!(report.all_as_expected(), different == 0);
        (different, report.count(RowResult::Skipped))
    }

    /// The report of a scene that is to have the one cause, and whose line has the other.
    fn report(
        (code, certainty): (Code, Certainty),
        told_as: (Code, Certainty),
        before: &[Option<ExpectedCause>],
    ) -> DemoReport {
        let scene = DemoScene {
            cause: Some((code.as_str(), certainty.as_str())),
            before: before.to_vec(),
            ..played("refused")
        };
        let outcomes = HashMap::from([(1, vec![told(told_as)])]);
        DemoReport::new(&[scene], &outcomes, 0)
    }

    #[test]
    fn a_missing_line_differs_unless_its_ending_went_untraced() {
        let counts = |missed| counts(&[], missed);
        assert_eq!([0, 1, 2].map(counts), [(2, 0), (1, 1), (0, 2)]);
    }

    #[test]
    fn a_missing_cause_differs_unless_its_line_says_why() {
        let counts = |undiagnosed| {
            let line = Outcome {
                cause: None,
                undiagnosed,
                ..told(LIKELY)
            };
            counts(&[line], 9)
        };
        assert_eq!(counts(None), (2, 0));
        assert_eq!(counts(Some(Undiagnosed::NoTime)), (0, 2));
    }

    #[test]
    fn another_certainty_differs() {
        for (expected, got) in [(CERTAIN, LIKELY), (LIKELY, CERTAIN)] {
            let report = report(expected, got, &[]);
            assert!(!report.all_as_expected(), "{report}");
            assert!(report.to_string().contains("DIFFERENT\n"), "{report}");
        }
        assert!(report(LIKELY, LIKELY, &[]).all_as_expected());
    }

    #[test]
    fn what_was_played_again_is_told() {
        let before = [None, Some(("host_down", "certain"))];
        let again = report(LIKELY, LIKELY, &before).to_string();
        let row = "refused          refused by RST: host_down (likely) same (3rd try)\n";
        assert!(again.contains(row), "{again}");
        let before = "refused          no cause, then host_down (certain)\n";
        assert!(again.contains(before), "{again}");
        let once = report(LIKELY, LIKELY, &[]).to_string();
        assert!(
            !once.contains("try)") && !once.contains("Played again"),
            "{once}"
        );
    }

    #[test]
    fn what_differs_is_told_below() {
        let report = report(LIKELY, CERTAIN, &[]).to_string();
        let rows = "\
refused          refused by RST: host_down (likely) DIFFERENT
got:             refused by RST: host_down (certain)
";
        assert!(report.contains(rows), "{report}");
        assert!(report.ends_with("\nFAILED: 0 scenes as expected, 1 different, 0 skipped\n"));
    }

    #[test]
    fn skipped_scenes_stand_below_their_reason() {
        let skipped = |name| DemoScene {
            result: SceneResult::Skipped("this machine has no IPv6".to_owned()),
            ..played(name)
        };
        let scenes = [skipped("refused v6"), skipped("closed v6")];
        let text = DemoReport::new(&scenes, &HashMap::new(), 0).to_string();
        let last = "
Skipped:
  this machine has no IPv6
    refused v6, closed v6

PASSED: 0 scenes as expected, 0 different, 2 skipped
";
        assert!(text.ends_with(last), "{text}");
    }

    /// All of them in their third try, with the longest cause that there is.
    #[test]
    fn the_table_fits_100_columns() {
        let longest = Some(("ephemeral_range_used_up", "possible"));
        for result in [RowResult::Same, RowResult::Different, RowResult::Skipped] {
            let row = |scenario: &'static Scenario| {
                let wanted: Vec<_> = scenario.expected.iter().map(Ending::from).collect();
                ReportRow {
                    scene: scenario.name,
                    expected: describe(&wanted, scenario.cause),
                    got: describe(&wanted, longest),
                    result,
                    before: vec![longest, longest],
                }
            };
            let rows = play::scenarios().map(row).collect();
            let text = DemoReport { rows }.to_string();
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }
}
