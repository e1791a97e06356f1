//! Row of an attempt, with its cause.

use std::fmt::Write as _;

use super::{
    page::Style,
    rows::{self, Begun, Rows},
};
use crate::{
    diagnosis::{Cause, Certainty, Undiagnosed},
    output::{
        event::{Details, Outcome, Subject},
        message,
    },
    record::{Label, ReplyKind, TimeoutBy},
};

/// Ending of an attempt, or a stall.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndingText<'a> {
    /// Label of an outcome; `None` for a stall.
    label: Option<Label>,
    errno: Option<&'a str>,
    pub(super) cause: Option<&'a Cause>,
    undiagnosed: Option<Undiagnosed>,
}

impl<'a> EndingText<'a> {
    pub(super) const STALL: Self = Self {
        label: None,
        errno: None,
        cause: None,
        undiagnosed: None,
    };

    pub(super) fn of_outcome(outcome: &'a Outcome) -> Self {
        Self {
            label: Some(outcome.label),
            errno: outcome.errno.as_deref(),
            cause: outcome.cause.as_deref().map(|cause| &**cause),
            undiagnosed: outcome.undiagnosed,
        }
    }
}

impl Rows {
    /// Writes the full row of an attempt.
    pub(super) fn attempt(
        &mut self,
        ending: &EndingText<'_>,
        (subject, details): (&Subject, &Details),
        out: &mut Vec<u8>,
    ) {
        let columns = self.columns;
        let process = &subject.process;
        let who = (process.comm.as_deref(), process.pid);
        let to = subject.remote.endpoint();
        let Begun {
            mut row,
            cell,
            facts,
        } = self.begin(rows::label(ending.label), who, to, out);
        match details.elapsed_us {
            Some(_) => message::elapsed(cell, details.elapsed_us),
            None => cell.push('-'),
        }
        row.cell_right(columns.after_end, cell);
        if let Some(at) = columns.from {
            cell.clear();
            message::endpoint(cell, details.local);
            row.cell(at, cell, Style::Plain);
        }
        if let (Some(at), Some(errno)) = (columns.errno, ending.errno) {
            row.cell(at, errno, Style::Plain);
        }
        row.column(columns.why);
        let errno = ending.errno.filter(|_| columns.errno.is_none());
        facts_of(ending, errno, details, facts);
        cell.clear();
        place(subject, cell);
        if !cell.is_empty() {
            if ending.cause.is_some() || !facts.is_empty() {
                cell.push(':');
            }
            row.words(columns.why, cell);
        }
        if let Some(cause) = ending.cause {
            cell.clear();
            rows::cause(cell, cause.code, cause.certainty);
            cell.push(':');
            row.styled(columns.why, cell, certainty(cause.certainty));
            row.words(columns.why, &cause.why);
            if !facts.is_empty() {
                facts.insert(0, '(');
                facts.push(')');
            }
        }
        if !facts.is_empty() {
            row.words(columns.why, facts);
        }
        row.end();
    }
}

/// Returns the style of a cause.
fn certainty(certainty: Certainty) -> Style {
    match certainty {
        Certainty::Certain | Certainty::Likely => Style::Bold,
        Certainty::Possible => Style::Plain,
    }
}

/// Appends names and containers that the addresses do not show.
fn place(subject: &Subject, words: &mut String) {
    let remote = &subject.remote;
    if let Some(name) = &remote.name {
        words.push_str("to ");
        words.push_str(name);
    }
    for (what, end) in [
        ("in place of ", remote.asked),
        ("passed on to ", remote.nat),
    ] {
        if let Some(end) = end {
            rows::join(words);
            words.push_str(what);
            message::endpoint(words, end);
        }
    }
    if let Some(container) = &subject.container {
        rows::in_container(words, container);
    }
}

/// Appends the reply and the side that gave up, unless the cause names them.
fn facts_of(ending: &EndingText<'_>, errno: Option<&str>, details: &Details, facts: &mut String) {
    if ending.cause.is_none() {
        facts.push_str(errno.unwrap_or_default());
        answer(details, facts);
    }
    let syn = details.syn;
    let again = syn.retransmitted.unwrap_or(0);
    let timed_out = ending.label == Some(Label::TimedOut);
    // A stall is reported at the first retransmission.
    let tells = timed_out || again > u32::from(ending.label.is_none());
    if let (Some(sent), true) = (syn.sent, tells) {
        rows::join(facts);
        facts.push_str(itoa::Buffer::new().format(sent));
        facts.push_str(if sent == 1 { " SYN" } else { " SYNs" });
    }
    if let Some(by) = details.timeout_by {
        rows::join(facts);
        facts.push_str(match by {
            TimeoutBy::Kernel => "the kernel gave up",
            TimeoutBy::Application => "the application gave up",
        });
        if let (TimeoutBy::Kernel, Some(limit)) = (by, details.early_limit) {
            let _ = write!(facts, " early: {limit}");
        }
    }
    rows::left_out(facts, details.suppressed);
    let certainty = ending.cause.map(|cause| cause.certainty);
    let before = match (ending.undiagnosed, certainty) {
        // Diagnosis is off, or more answers would not make the cause more certain.
        (None | Some(Undiagnosed::Off), _) | (_, Some(Certainty::Certain)) => return,
        (_, None) => "cause unknown: ",
        (_, Some(Certainty::Likely | Certainty::Possible)) => "not all was looked at: ",
    };
    if let Some(reason) = ending.undiagnosed {
        rows::join(facts);
        facts.push_str(before);
        facts.push_str(reason.as_str());
    }
}

/// Appends the reply, if there is one.
fn answer(details: &Details, facts: &mut String) {
    let reply = &details.reply;
    let who = match reply.kind {
        ReplyKind::None | ReplyKind::SynAck => return,
        ReplyKind::Rst => "RST",
        ReplyKind::Icmp => "ICMP",
        ReplyKind::Local if reply.icmp_type.is_some() => "own ICMP",
        ReplyKind::Local => details.own_part,
    };
    rows::join(facts);
    facts.push_str(who);
    if let (Some(icmp_type), Some(code)) = (reply.icmp_type, reply.icmp_code) {
        let _ = write!(facts, " {icmp_type}/{code}");
    }
    if let Some(from) = reply.from {
        let _ = write!(facts, " from {from}");
    }
}
