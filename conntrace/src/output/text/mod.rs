//! Aligned text for a person: a header, a row per line, the remedy on first occurrence, and
//! repeated failures folded.

mod attempt;
mod folds;
mod header;
mod local_time;
mod page;
mod rows;
mod screen;
mod totals;

use std::{io, time::Duration};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    Format,
    event::{AttemptLine, Details, Event, Line, Subject},
    known_cases::{KnownCase, KnownCases},
};
use attempt::EndingText;
use folds::{FoldId, FoldKey, Folds, LineStyle, Repeat};
use local_time::LocalTime;
use page::{Page, WIDTH_MIN};
use rows::Rows;

/// Format with aligned text for a person.
///
/// Without a terminal (`default`) there are no colours, and lines do not wrap, so that each can be
/// searched for.
#[derive(Debug)]
pub struct Text {
    rows: Rows,
    folds: Folds,
    /// Places in `folds` of failures that came again.
    places: KnownCases<FoldId>,
    /// Queries the terminal's width again, which the user may have changed.
    ask_width: Option<fn() -> Option<u16>>,
}

impl Default for Text {
    fn default() -> Self {
        Self::for_terminal(None, false, true)
    }
}

impl Text {
    /// Creates text for a terminal of this width, with or without colours and non-ASCII characters.
    /// Fewer than 40 columns are treated as 40; with `None` nothing wraps.
    #[must_use]
    pub fn for_terminal(width: Option<u16>, colour: bool, utf8: bool) -> Self {
        let page = Page {
            width: columns(width),
            colour,
            utf8,
        };
        Self {
            rows: Rows::new(page, LocalTime::of(TimeZone::system())),
            folds: Folds::default(),
            places: KnownCases::default(),
            ask_width: None,
        }
    }

    /// Sets the time of a line, after printing the repeats that are due.
    fn advance(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if self.folds.is_due(now) {
            self.release(out);
        }
        if self.rows.set_time(now)
            && let Some(ask_width) = self.ask_width
        {
            self.rows.resize(columns(ask_width()), out);
        }
    }

    /// Prints all repeats that are held back.
    fn release(&mut self, out: &mut Vec<u8>) {
        let rows = &mut self.rows;
        self.folds.release(|folded| rows.folded(folded, out));
    }

    /// Prints an attempt, or counts it if it is a repeat.
    fn print_or_fold(
        &mut self,
        case: FoldKey<'_>,
        ending: &EndingText<'_>,
        attempt: (&Subject, &Details),
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        let style = self.folds.admit(case, attempt, now);
        if style == LineStyle::Held {
            return;
        }
        self.rows.attempt(ending, attempt, out);
        if style == LineStyle::First
            && let Some(cause) = ending.cause
        {
            self.rows.fix(&cause.fix, out);
        }
    }
}

impl Format for Text {
    fn render(&mut self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        let now = line.time.0;
        if let Event::Start(_) | Event::Summary(_) | Event::Stop(_) = line.event {
            self.release(out);
        }
        self.advance(now, out);
        match &line.event {
            Event::Outcome(outcome) => {
                let attempt = (&outcome.subject, &outcome.details);
                let case = FoldKey::of_outcome(outcome);
                self.print_or_fold(case, &EndingText::of_outcome(outcome), attempt, now, out);
            }
            Event::Stall(stall) => {
                let attempt = (&stall.subject, &stall.details);
                let case = FoldKey::of_stall(&stall.subject);
                self.print_or_fold(case, &EndingText::STALL, attempt, now, out);
            }
            Event::PortPressure(pressure) => self.rows.port_pressure(pressure, out),
            Event::Start(start) => self.rows.header(start, &line.hostname, now, out),
            Event::Loss(loss) => self.rows.loss(loss, out),
            Event::Summary(totals) => self.rows.summary(totals, out),
            Event::Stop(stop) => self.rows.stop(stop, out),
        }
        Ok(())
    }

    fn attempt(&mut self, attempt: &AttemptLine, out: &mut Vec<u8>) -> io::Result<()> {
        let now = attempt.numbers.time;
        self.advance(now, out);
        let hash = match self.places.find(&attempt.facts) {
            KnownCase::Kept(hash, place) => {
                let repeat = Repeat {
                    pid: attempt.pid(),
                    suppressed: attempt.numbers.suppressed,
                };
                if self.folds.repeat(*place, repeat, now) {
                    return Ok(());
                }
                Some(hash)
            }
            KnownCase::Again(hash) => Some(hash),
            KnownCase::New => None,
        };
        let line = attempt.line();
        self.render(&line, out)?;
        if let Some(hash) = hash
            && let Some(place) = FoldKey::of_line(&line).and_then(|case| self.folds.find(case))
        {
            self.places.keep(hash, attempt.facts.clone(), place);
        }
        Ok(())
    }

    fn idle(&mut self, now: Timestamp, out: &mut Vec<u8>) -> Option<Duration> {
        if self.folds.is_due(now) {
            self.release(out);
        }
        let wait = self.folds.wait(now)?;
        Some(wait.unsigned_abs())
    }

    fn held(&self) -> u64 {
        self.folds.lines()
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.release(out);
    }
}

/// Returns the number of columns for the layout.
fn columns(width: Option<u16>) -> usize {
    width.map_or(usize::MAX, |width| WIDTH_MIN.max(width.into()))
}

#[cfg(test)]
mod tests;
