//! Endings and causes in the words of the demo's blocks and table.

use std::fmt;

use conntrace_testnet::catalogue::{ExpectedCause, ExpectedOutcome};

use crate::{
    output::event::Outcome,
    record::{ReplyKind, TimeoutBy},
};

/// The part of an outcome line that the demo compares and tells, in the words of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) label: &'static str,
    reply: &'static str,
    timeout_by: Option<&'static str>,
}

impl From<&Outcome> for Ending {
    fn from(line: &Outcome) -> Self {
        Self {
            label: line.label.as_str(),
            reply: match line.details.reply.kind {
                ReplyKind::None => "none",
                ReplyKind::SynAck => "syn_ack",
                ReplyKind::Rst => "rst",
                ReplyKind::Icmp => "icmp",
                ReplyKind::Local => "local",
            },
            timeout_by: line.details.timeout_by.map(|by| match by {
                TimeoutBy::Kernel => "kernel",
                TimeoutBy::Application => "application",
            }),
        }
    }
}

impl From<&ExpectedOutcome> for Ending {
    fn from(line: &ExpectedOutcome) -> Self {
        Self {
            label: line.label,
            reply: line.reply,
            timeout_by: line.timeout_by,
        }
    }
}

impl fmt::Display for Ending {
    /// `timed_out by application, dropped here`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)?;
        match (self.timeout_by, self.reply) {
            (Some("application"), "local") => f.write_str(" by application, dropped here"),
            (Some(by), _) => write!(f, " by {by}"),
            (None, "rst") => f.write_str(" by RST"),
            (None, "icmp") => f.write_str(" by ICMP"),
            (None, "local") => f.write_str(" by this host"),
            (None, _) => Ok(()),
        }
    }
}

/// The cause of a line, in the words of the line.
pub(super) fn cause_of(line: &Outcome) -> Option<ExpectedCause> {
    let cause = line.cause.as_ref()?;
    Some((cause.code.as_str(), cause.certainty.as_str()))
}

/// `host_down (likely)`
pub(super) fn cause(cause: Option<ExpectedCause>) -> String {
    cause.map_or_else(
        || "no cause".to_owned(),
        |(code, certainty)| format!("{code} ({certainty})"),
    )
}

/// ` (2nd try)`; nothing for the first.
pub(super) fn tries(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        2 => " (2nd try)".to_owned(),
        3 => " (3rd try)".to_owned(),
        nth => format!(" ({nth}th try)"),
    }
}
