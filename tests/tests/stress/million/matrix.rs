//! Comparison of the applications' results with the lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
};

use conntrace_tests::StormOutcome;

use crate::million::{PrintedCall, worker::EITHER};

/// An ending by the kernel's timer can go unseen on a busy machine, which is counted
/// (`lost.ending_missed`). One in so many may.
const MISSED_ONE_IN: usize = 10;
const BY_TIMER: [&str; 2] = ["ByRetries", "ByUserTimeout"];
/// The column of calls without a line.
const NO_LINE: &str = "no line";
/// Limit of cancelled attempts that end close to the patience limit: one in this many.
const EITHER_ONE_IN: usize = 100;
/// Limit of the differences that are printed.
const SHOWN_MAX: usize = 20;

/// Totals of all rounds.
#[derive(Default)]
pub(crate) struct Sums {
    /// Counts by the application's result, then by the line's content.
    cells: BTreeMap<(String, String), usize>,
    /// Lines that belong to no call.
    foreign: Vec<StormOutcome>,
    /// Extra lines of a call.
    double: usize,
    /// Endings that no program saw, as reported by the agent.
    pub(crate) missed: usize,
    /// Counts by the way in which the attempts were made.
    how: BTreeMap<String, usize>,
    differences: Vec<String>,
}

impl Sums {
    /// Compares a thread's calls with its lines, both in their order.
    pub(crate) fn compare(&mut self, calls: &[PrintedCall], lines: Vec<StormOutcome>) {
        let mut lines = lines.into_iter().peekable();
        for call in calls {
            while let Some(line) = lines.next_if(|line| line.began < call.from) {
                self.foreign.push(line);
            }
            let line = lines.next_if(|line| line.began <= call.to);
            self.count(call, line);
            while lines.next_if(|line| line.began <= call.to).is_some() {
                self.double += 1;
            }
        }
        self.foreign.extend(lines);
    }

    fn count(&mut self, call: &PrintedCall, line: Option<StormOutcome>) {
        for how in call.how.split(',') {
            *self.how.entry(how.to_owned()).or_default() += 1;
        }
        let remote = line.as_ref().and_then(|line| line.remote);
        let elsewhere = remote.is_some_and(|remote| remote.to_string() != call.remote);
        let got = line.map_or_else(|| NO_LINE.to_owned(), |line| line.told);
        let gave_up = ["cancelled - -", "timed_out - application"].contains(&got.as_str());
        let got = if gave_up && call.told.starts_with(EITHER) {
            call.told.clone()
        } else {
            got
        };
        let staged = BY_TIMER.iter().any(|ending| call.how.starts_with(ending));
        let by_timer = staged || call.told == "timed_out ETIMEDOUT kernel";
        let differs = got != call.told && !(got == NO_LINE && by_timer);
        if differs || elsewhere {
            let PrintedCall {
                remote, how, told, ..
            } = call;
            self.differences
                .push(format!("{how} to {remote}: told {told}, line {got}"));
        }
        *self.cells.entry((call.told.clone(), got)).or_default() += 1;
    }

    fn told(&self, told: &str) -> usize {
        let row = self.cells.iter().filter(|((row, _), _)| row == told);
        row.map(|(_, count)| count).sum()
    }

    /// Nothing beside the diagonal but endings by the kernel's timer that are counted as
    /// not seen.
    pub(crate) fn assert_diagonal(&self) {
        assert_eq!(self.differences.first(), None);
        assert_eq!((self.double, self.foreign.len()), (0, 0), "double, foreign");
        let missing = self.cells.iter().filter(|((_, got), _)| got == NO_LINE);
        let missing: usize = missing.map(|(_, count)| count).sum();
        assert_eq!(missing, self.missed, "missing, ending_missed");
        let by_timer = BY_TIMER.iter().filter_map(|ending| self.how.get(*ending));
        assert!(self.missed * MISSED_ONE_IN <= by_timer.sum());
        let either = self.told(&format!("{EITHER} - -"));
        let given_up = self.told("cancelled - -") + self.told("timed_out - application");
        assert!(either * EITHER_ONE_IN <= given_up, "{either} {EITHER}");
    }
}

impl Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.cells.keys().flat_map(|(told, got)| [told, got]);
        let names: BTreeSet<_> = names.collect();
        write!(f, "{:>40}", "told \\ line")?;
        (1..=names.len()).try_for_each(|column| write!(f, "{column:>8}"))?;
        for (row, told) in names.iter().enumerate() {
            write!(f, "\n{:>2} {told:>37}", row + 1)?;
            for got in &names {
                let cell = ((*told).clone(), (*got).clone());
                match self.cells.get(&cell) {
                    Some(count) => write!(f, "{count:>8}")?,
                    None => write!(f, "{:>8}", ".")?,
                }
            }
        }
        let all: usize = self.cells.values().sum();
        write!(
            f,
            "\n{all} attempts, {} double, {} foreign, {} counted as ending_missed\n{:?}",
            self.double,
            self.foreign.len(),
            self.missed,
            self.how
        )?;
        let shown = self.differences.iter().take(SHOWN_MAX);
        shown
            .into_iter()
            .try_for_each(|shown| write!(f, "\n{shown}"))
    }
}
