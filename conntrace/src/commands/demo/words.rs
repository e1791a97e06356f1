//! Endings and causes in the words of the demo's blocks and table.

use super::scenes::{Expectation, ExpectedCause};
use crate::record::{ReplyKind, TimeoutBy};

/// `timed_out by application, dropped here`
pub(super) fn ending(line: Expectation) -> String {
    let by = match (line.timeout_by, line.reply) {
        (Some(TimeoutBy::Application), ReplyKind::Local) => " by application, dropped here",
        (Some(TimeoutBy::Kernel), _) => " by kernel",
        (Some(TimeoutBy::Application), _) => " by application",
        (None, ReplyKind::Rst) => " by RST",
        (None, ReplyKind::Icmp) => " by ICMP",
        (None, ReplyKind::Local) => " by this host",
        (None, ReplyKind::None | ReplyKind::SynAck) => "",
    };
    format!("{}{by}", line.label.as_str())
}

/// `host_down (likely)`
pub(super) fn cause(why: Option<ExpectedCause>) -> String {
    why.map_or_else(
        || "no cause".to_owned(),
        |(code, certainty)| format!("{} ({})", code.as_str(), certainty.as_str()),
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
