//! Columns and rows of the text output.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    folds::Folded,
    local_time::LocalTime,
    page::{INDENT, Page, RowWriter, Style},
};
use crate::{
    diagnosis::{Certainty, Code},
    output::{
        event::{Container, Endpoint, PortPressure},
        message,
    },
    record::Label,
};

/// First columns of the label and of the process.
const WHAT: usize = INDENT;
pub(super) const WHO: usize = 26;

/// Width of the destination column: the longest IPv4 address with a port.
const TO_LEN: usize = 21;
/// Width of the duration column.
const AFTER_LEN: usize = 9;

/// Minimum screen widths for the errno and longer names, for the local address, and for the cause
/// beside the row.
const WIDTH_ERRNO: usize = 100;
const WIDTH_FROM: usize = 120;
const WIDTH_WHY: usize = 200;

/// Columns that depend on the screen's width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    /// End of the process column; longer names are shortened.
    who_end: usize,
    to: usize,
    /// Last column of the duration.
    pub(super) after_end: usize,
    pub(super) from: Option<usize>,
    pub(super) errno: Option<usize>,
    /// First column of the cause, beside the row or below it.
    pub(super) why: usize,
}

impl Columns {
    fn of(width: usize) -> Self {
        let who_len = if width >= WIDTH_ERRNO { 22 } else { 18 };
        let to = WHO + who_len + 2;
        let after_end = to + TO_LEN + 2 + AFTER_LEN;
        let next = after_end + 2;
        let from = (width >= WIDTH_FROM).then_some(next);
        let errno = from.map_or(next, |from| from + TO_LEN + 2);
        Self {
            who_end: if width == usize::MAX {
                width
            } else {
                WHO + who_len
            },
            to,
            after_end,
            from,
            errno: (width >= WIDTH_ERRNO).then_some(errno),
            why: if width >= WIDTH_WHY {
                errno + 15
            } else {
                INDENT
            },
        }
    }
}

/// Writer for rows.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) page: Page,
    pub(super) columns: Columns,
    pub(super) time: LocalTime,
    /// Buffer for the current cell.
    cell: String,
    /// Buffer for the facts of the current row.
    facts: String,
}

/// Row that was started, and buffers for its cells and facts.
pub(super) struct Begun<'a> {
    pub(super) row: RowWriter<'a>,
    pub(super) cell: &'a mut String,
    pub(super) facts: &'a mut String,
}

impl Rows {
    pub(super) fn new(page: Page, time: LocalTime) -> Self {
        Self {
            columns: Columns::of(page.width),
            page,
            time,
            cell: String::new(),
            facts: String::new(),
        }
    }

    /// Sets the time. Returns true if its second differs from the last one.
    pub(super) fn set_time(&mut self, now: Timestamp) -> bool {
        self.time.set(now)
    }

    /// Adapts the layout to another width. If columns move, their names are written again.
    pub(super) fn resize(&mut self, width: usize, out: &mut Vec<u8>) {
        self.page.width = width;
        let columns = Columns::of(width);
        if columns != self.columns {
            self.columns = columns;
            self.heads(out);
        }
    }

    /// Writes the names of the columns.
    pub(super) fn heads(&self, out: &mut Vec<u8>) {
        let columns = self.columns;
        let after = columns.after_end.saturating_sub("AFTER".len());
        let why = (columns.why > INDENT).then_some(columns.why);
        let mut row = RowWriter::new(out, &self.page);
        for (at, head) in [
            (Some(0), "TIME"),
            (Some(WHAT), "WHAT"),
            (Some(WHO), "WHO"),
            (Some(columns.to), "TO"),
            (Some(after), "AFTER"),
            (columns.from, "FROM"),
            (columns.errno, "ERRNO"),
            (why, "WHY"),
        ] {
            if let Some(at) = at {
                row.cell(at, head, Style::Bold);
            }
        }
        row.end();
    }

    /// Starts a row with time, label, process and destination.
    pub(super) fn begin<'a>(
        &'a mut self,
        (what, style): (&str, Style),
        who: (Option<&str>, Option<u32>),
        to: Endpoint,
        out: &'a mut Vec<u8>,
    ) -> Begun<'a> {
        let Self {
            page,
            columns,
            time,
            cell,
            facts,
        } = self;
        let mut row = RowWriter::new(out, page);
        row.cell(0, time.text(), Style::Plain);
        row.cell(WHAT, what, style);
        // The longest label extends into the next column.
        let at = WHO.max(row.written() + 1);
        process(page, columns.who_end.saturating_sub(at), who, cell);
        row.cell(at, cell, Style::Plain);
        cell.clear();
        message::endpoint(cell, to);
        row.cell(columns.to, cell, Style::Plain);
        cell.clear();
        facts.clear();
        Begun { row, cell, facts }
    }

    /// Writes the number of a case's repeats.
    pub(super) fn folded(&mut self, folded: &Folded, out: &mut Vec<u8>) {
        self.time.set(folded.until);
        let (columns, who) = (self.columns, (folded.comm.as_deref(), folded.pid));
        let Begun {
            mut row,
            cell,
            facts,
        } = self.begin(label(folded.label), who, folded.remote, out);
        let _ = write!(cell, "{} more", folded.count);
        row.cell_right(columns.after_end, cell);
        if let (Some(at), Some(errno)) = (columns.errno, &folded.errno) {
            row.cell(at, errno, Style::Plain);
        }
        // Below the row, the cause would take a second line; the first row has named it.
        if columns.why > INDENT
            && let Some((code, certainty)) = folded.cause
        {
            cause(facts, code, certainty);
        }
        if let Some(container) = &folded.container {
            in_container(facts, container);
        }
        left_out(facts, folded.suppressed);
        if !facts.is_empty() {
            row.column(columns.why);
            row.words(columns.why, facts);
        }
        row.end();
    }

    /// Writes the row of port pressure.
    pub(super) fn port_pressure(&mut self, pressure: &PortPressure, out: &mut Vec<u8>) {
        let columns = self.columns;
        let what = match pressure.level {
            0 => "ports free".to_owned(),
            level => format!("ports {level} %"),
        };
        let netns = format!("netns {}", pressure.netns);
        let who = (Some(netns.as_str()), None);
        let begun = self.begin((&what, Style::Yellow), who, pressure.remote, out);
        let Begun { mut row, facts, .. } = begun;
        if let Some(addr) = pressure.local.addr {
            let _ = write!(facts, "connections from {addr} hold ");
        }
        let (first, last) = pressure.range;
        let (used, percent) = (pressure.used, pressure.percent);
        let _ = write!(facts, "{used} ports of {first} to {last} ({percent} %)");
        message::states(facts, &pressure.states, pressure.reusable);
        row.column(columns.why);
        row.words(columns.why, facts);
        row.end();
    }

    /// Writes the remedy of a cause.
    pub(super) fn fix(&self, fix: &str, out: &mut Vec<u8>) {
        let mut row = RowWriter::new(out, &self.page);
        row.column(INDENT);
        row.styled(INDENT, "fix:", Style::Green);
        row.words(INDENT + "fix: ".len(), fix);
        row.end();
    }
}

/// Returns the name and style of a label, or of a stall.
pub(super) fn label(label: Option<Label>) -> (&'static str, Style) {
    let Some(label) = label else {
        return ("stalled", Style::Dim);
    };
    let style = match label {
        Label::Established => Style::Green,
        Label::PortExhausted => Style::BoldRed,
        Label::AddressUnavailable | Label::Refused | Label::Failed => Style::Red,
        Label::TimedOut => Style::Yellow,
        Label::Unreachable => Style::Magenta,
        Label::Denied | Label::Aborted => Style::Cyan,
        Label::Cancelled => Style::Dim,
    };
    (label.as_str(), style)
}

/// Appends `nothing_listening (likely)`; a possible cause is marked as such.
pub(super) fn cause(words: &mut String, code: Code, certainty: Certainty) {
    match certainty {
        Certainty::Certain | Certainty::Likely => {
            words.push_str(code.as_str());
            words.push_str(" (");
            words.push_str(certainty.as_str());
            words.push(')');
        }
        Certainty::Possible => {
            words.push_str("possibly ");
            words.push_str(code.as_str());
        }
    }
}

/// Appends `in container web`, with the pod if it is known.
pub(super) fn in_container(facts: &mut String, container: &Container) {
    join(facts);
    if let Some(pod) = &container.pod {
        facts.push_str("in pod ");
        if let Some(namespace) = &container.namespace {
            facts.push_str(namespace);
            facts.push('/');
        }
        facts.push_str(pod);
        facts.push_str(", ");
    }
    let id = container.id.as_deref().unwrap_or("?");
    // Container runtimes shorten ids in the same way.
    let (short, _) = id.split_at_checked(12).unwrap_or((id, ""));
    facts.push_str("in container ");
    facts.push_str(container.name.as_deref().unwrap_or(short));
}

/// Appends the number of lines suppressed by `--limit`.
pub(super) fn left_out(facts: &mut String, suppressed: u64) {
    if suppressed > 0 {
        join(facts);
        let _ = write!(facts, "{suppressed} more like it left out by --limit");
    }
}

/// Appends the separator between two facts.
pub(super) fn join(facts: &mut String) {
    if !facts.is_empty() {
        facts.push_str(", ");
    }
}

/// Formats `curl[4242]`, in at most `max` columns.
fn process(page: &Page, max: usize, (comm, pid): (Option<&str>, Option<u32>), cell: &mut String) {
    cell.clear();
    let comm = page.shown(comm.unwrap_or("?"));
    let pid_len = pid.map_or(0, |pid| {
        let digits = pid.checked_ilog10().unwrap_or(0) + 1;
        usize::try_from(digits).unwrap_or_default() + "[]".len()
    });
    cell.push_str(&page.shortened(&comm, max.saturating_sub(pid_len)));
    if let Some(pid) = pid {
        cell.push('[');
        cell.push_str(itoa::Buffer::new().format(pid));
        cell.push(']');
    }
}
