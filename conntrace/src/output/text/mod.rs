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
    event::{Details, Event, Line, Subject},
};
use attempt::EndingText;
use folds::{FoldKey, Folds, LineStyle};
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
            ask_width: None,
        }
    }

    /// Sets the time of a line, after printing the repeats that are due.
    fn advance(&mut self, line: &Line, out: &mut Vec<u8>) {
        let now = line.time.0;
        let counts = matches!(
            line.event,
            Event::Start(_) | Event::Summary(_) | Event::Stop(_)
        );
        if counts || self.folds.is_due(now) {
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
    fn attempt(
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
        self.advance(line, out);
        match &line.event {
            Event::Outcome(outcome) => {
                let attempt = (&outcome.subject, &outcome.details);
                let case = FoldKey::of_outcome(outcome);
                self.attempt(case, &EndingText::of_outcome(outcome), attempt, now, out);
            }
            Event::Stall(stall) => {
                let attempt = (&stall.subject, &stall.details);
                let case = FoldKey::of_stall(&stall.subject);
                self.attempt(case, &EndingText::STALL, attempt, now, out);
            }
            Event::PortPressure(pressure) => self.rows.port_pressure(pressure, out),
            Event::Start(start) => self.rows.header(start, &line.hostname, now, out),
            Event::Loss(loss) => self.rows.loss(loss, out),
            Event::Summary(totals) => self.rows.summary(totals, out),
            Event::Stop(stop) => self.rows.stop(stop, out),
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
