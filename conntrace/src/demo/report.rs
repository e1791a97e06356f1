//! Expected against got, as a table.

use std::{collections::HashMap, fmt, sync::Arc};

use super::scenes::{Act, Expected, Played, Why};
use crate::{
    event::{Certainty, Outcome, WrittenCause},
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
    /// The causes of earlier tries.
    before: Vec<Option<Why>>,
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
    /// Of the endings no program saw `missed`.
    pub(super) fn new(
        acts: &[Act],
        outcomes: &HashMap<u32, Vec<Outcome>>,
        mut missed: u64,
    ) -> Self {
        let row = |act| Row::new(act, outcomes, &mut missed);
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
    fn new(act: &Act, outcomes: &HashMap<u32, Vec<Outcome>>, missed: &mut u64) -> Self {
        let tid = match &act.played {
            Played::Skipped(reason) => return Self::skipped(act, reason.clone()),
            Played::By { tid } => tid,
        };
        let lines = outcomes.get(tid).map_or(&[][..], Vec::as_slice);
        let got: Vec<_> = lines.iter().map(of_line).collect();
        let cause = lines.last().and_then(|line| line.cause.clone());
        let why = cause.as_ref().map(|it| (it.code, it.certainty));
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
            cause,
        }
    }

    fn skipped(act: &Act, reason: String) -> Self {
        Self {
            scene: act.name,
            expected: describe(act.expected, act.why),
            got: reason,
            result: RowResult::Skipped,
            before: act.before.clone(),
            cause: None,
        }
    }
}

fn of_line(outcome: &Outcome) -> Expected {
    Expected {
        label: outcome.label,
        reply: outcome.details.reply.kind,
        timeout_by: outcome.details.timeout_by,
    }
}

/// The last attempt in words, the ones that led up to it as a number.
fn describe(attempts: &[Expected], why: Option<Why>) -> String {
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
    if why.is_some() {
        text.push_str(&format!(", {}", name(why)));
    }
    let established = before.iter().filter(|one| one.label == Label::Established);
    match (before.len(), established.count()) {
        (0, _) => {}
        (all, good) if all == good => text.push_str(&format!(" (after {good} established)")),
        (all, good) => text.push_str(&format!(" (after {all}, {good} of them established)")),
    }
    text
}

fn name(why: Option<Why>) -> String {
    why.map_or_else(
        || "no cause".to_owned(),
        |(code, certainty)| format!("{} ({})", code.as_str(), certainty.as_str()),
    )
}

impl Row {
    /// The result, and in which try it came, if not in the first.
    fn mark(&self) -> String {
        let mark = match self.result {
            RowResult::Same => "ok",
            RowResult::Different => "DIFFERENT",
            RowResult::Skipped => "skipped",
        };
        match self.before.len() + 1 {
            1 => mark.to_owned(),
            2 => format!("{mark} (2nd try)"),
            3 => format!("{mark} (3rd try)"),
            nth => format!("{mark} ({nth}th try)"),
        }
    }
}

impl fmt::Display for Report {
    /// Why each attempt ended as it did and what to do about it, then the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            if let Some(cause) = &row.cause {
                let why = name(Some((cause.code, cause.certainty)));
                writeln!(f, "\n{}: {why}", row.scene)?;
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
            line(row.scene, &row.expected, &row.got, &row.mark())?;
        }
        let again = || self.rows.iter().filter(|row| !row.before.is_empty());
        if again().next().is_some() {
            writeln!(f, "\nplayed again, because their cause was another one:")?;
        }
        for row in again() {
            let before: Vec<_> = row.before.iter().map(|why| name(*why)).collect();
            writeln!(f, "{:<16} {}", row.scene, before.join(", then "))?;
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
    use jiff::Timestamp;

    use super::*;
    use crate::{
        event::{
            self, Cause, Code, Diagnosed, Event, Facts, Owner, Undiagnosed, tests::outcome_line,
        },
        label::label,
        wire,
    };

    const ONE: &[Expected] = &[Expected {
        label: Label::TimedOut,
        reply: ReplyKind::None,
        timeout_by: Some(TimeoutBy::Kernel),
    }];

    const SURE: Why = (Code::HostDown, Certainty::Certain);
    const UNSURE: Why = (Code::HostDown, Certainty::Likely);

    fn played(expected: &'static [Expected], why: Option<Why>) -> Act {
        Act {
            name: "silence",
            expected,
            why,
            before: Vec::new(),
            played: Played::By { tid: 1 },
        }
    }

    /// How many of two such scenes differ, and are skipped.
    fn counts(
        act: fn() -> Act,
        outcomes: &HashMap<u32, Vec<Outcome>>,
        missed: u64,
    ) -> (usize, usize) {
        let report = Report::new(&[act(), act()], outcomes, missed);
        assert_eq!(
            report.all_as_expected(),
            report.count(RowResult::Different) == 0
        );
        (
            report.count(RowResult::Different),
            report.count(RowResult::Skipped),
        )
    }

    /// An attempt's line with this cause.
    fn told(why: Why) -> Outcome {
        let attempt = wire::decode(&wire::tests::refused()).unwrap();
        let verdict = label(&attempt, 200).unwrap();
        let cause = Cause::new(why.0, why.1, "why", "fix", Facts::default());
        let diagnosed = Diagnosed {
            cause: Some(Arc::new(cause.into())),
            undiagnosed: None,
        };
        let (at, owner) = (Timestamp::UNIX_EPOCH, Owner::default());
        event::outcome(&attempt, &verdict, at, owner, diagnosed)
    }

    /// The report of one scene.
    fn report(mut act: Act, why: Why, before: &[Option<Why>]) -> Report {
        let outcome = told(why);
        let expected = of_line(&outcome);
        act.expected = Box::leak(Box::new([expected]));
        act.before = before.to_vec();
        let outcomes = HashMap::from([(1, vec![outcome])]);
        Report::new(&[act], &outcomes, 0)
    }

    #[test]
    fn a_missing_line_differs_unless_its_ending_went_untraced() {
        let counts = |missed| counts(|| played(ONE, None), &HashMap::new(), missed);
        assert_eq!([0, 1, 2].map(counts), [(2, 0), (1, 1), (0, 2)]);
    }

    #[test]
    fn a_missing_cause_differs_unless_its_line_says_why() {
        const REFUSED: &[Expected] = &[Expected {
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
        assert!(
            again.contains("host_down (certain) ok (3rd try)\n"),
            "{again}"
        );
        let before = "silence          no cause, then host_down (likely)\n";
        assert!(again.contains(before), "{again}");
        let once = report(played(&[], Some(SURE)), SURE, &[]).to_string();
        assert!(
            !once.contains("try)") && !once.contains("played again"),
            "{once}"
        );
    }
}
