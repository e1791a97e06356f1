//! Rows with counts: loss, summary and stop.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    page::{INDENT, RowWriter, Style},
    rows::{self, Rows, WHO},
};
use crate::output::{
    event::{Loss, Stop, Totals},
    message,
};

impl Rows {
    /// Writes the row of losses.
    pub(super) fn loss(&self, loss: &Loss, out: &mut Vec<u8>) {
        let mut words = String::new();
        counts(&mut words, "attempts without an outcome", &loss.lost);
        counts(&mut words, "lines not written", &loss.undelivered);
        if let Some(table) = &loss.table {
            rows::join(&mut words);
            words.push_str(&message::no_place(table));
        }
        let mut row = self.begin_plain(out);
        row.cell(INDENT, "LOST", Style::BoldRed);
        row.column(WHO);
        row.words(WHO, &words);
        row.end();
    }

    /// Writes the row of a summary.
    pub(super) fn summary(&self, totals: &Totals, out: &mut Vec<u8>) {
        let mut row = self.begin_plain(out);
        row.styled(INDENT, &total(totals), Style::Dim);
        row.end();
    }

    /// Writes the row of the stop, with the totals.
    pub(super) fn stop(&self, stop: &Stop, out: &mut Vec<u8>) {
        let mut row = self.begin_plain(out);
        row.styled(INDENT, &format!("stopped ({}):", stop.reason), Style::Bold);
        row.words(INDENT, &total(&stop.totals));
        row.end();
    }

    /// Starts a row without columns.
    fn begin_plain<'a>(&'a self, out: &'a mut Vec<u8>) -> RowWriter<'a> {
        let mut row = RowWriter::new(out, &self.page);
        row.cell(0, self.time.text(), Style::Plain);
        row.column(INDENT);
        row
    }
}

/// Formats `12 attempts: 4 established, 5 refused, 1 timed_out, 1 in flight, 1 lost`.
fn total(totals: &Totals) -> String {
    let plural = if totals.attempts == 1 { "" } else { "s" };
    let mut words = format!("{} attempt{plural}", totals.attempts);
    let outcomes = totals.outcomes.iter();
    let outcomes = outcomes.map(|(label, count)| (*count, label.as_str()));
    let others = [
        (totals.in_flight, "in flight"),
        (totals.lost.sum(), "lost"),
        (totals.undelivered.sum(), "lines not written"),
        (totals.suppressed, "left out by --limit"),
        (totals.missed_hooks, "runs of hooks missed"),
        (totals.unrecorded, "not recorded"),
        (totals.inspectors_abandoned, "looks at the host abandoned"),
    ];
    let mut before = ": ";
    for (count, what) in outcomes.chain(others) {
        if count > 0 {
            let _ = write!(words, "{before}{count} {what}");
            before = ", ";
        }
    }
    words
}

/// Appends `4 attempts without an outcome (ring_full 3, untracked 1)`.
fn counts(words: &mut String, what: &str, counts: &BTreeMap<&'static str, u64>) {
    let sum = counts
        .values()
        .fold(0, |sum: u64, count| sum.saturating_add(*count));
    if sum == 0 {
        return;
    }
    rows::join(words);
    let _ = write!(words, "{sum} {what}");
    let mut before = " (";
    for (reason, count) in counts {
        let _ = write!(words, "{before}{reason} {count}");
        before = ", ";
    }
    words.push(')');
}
