//! From a labelled attempt to its cause: one cause per file, in one ordered list.
//!
//! A rule is a function of the [`Case`] and of what it asks through
//! [`Evidence`]; nothing in here touches a clock, a file or a thread. No
//! evidence, no cause, and an answer that is unknown is none.

mod case;
pub(crate) mod cause;
mod causes;
mod denied;
pub mod firewall_facts;
mod place;
pub mod port_facts;
pub mod question;
mod similar;
mod translation;
pub mod tunnel_facts;
pub mod way;
mod way_drop;
mod words;

pub use case::{Case, CaseDrops, FailedCall, Handshake, HostHistory};
pub use question::Evidence;
pub use similar::{is_similar, similar_ports};
pub use translation::Translation;
pub(crate) use translation::translation;
pub use way_drop::CaseWayDrop;

use crate::record::{Attempt, Label};
pub use cause::{Cause, Certainty, DiagnosisResult, Facts, Undiagnosed, WrittenCause};
pub(crate) use causes::step;
pub use causes::{CauseInfo, CauseRule, Code, RULES, Step};
use question::{Answer, Question};

/// A cause, if a rule recognises one; the reason why not, if it needs an answer that is
/// unknown.
pub type Finding = Result<Option<Cause>, Undiagnosed>;

/// There are causes to look for behind this label.
#[must_use]
pub fn has_causes(label: Label) -> bool {
    match label {
        Label::PortExhausted
        | Label::AddressUnavailable
        | Label::Refused
        | Label::TimedOut
        | Label::Unreachable
        | Label::Denied
        | Label::Failed => true,
        Label::Established | Label::Aborted | Label::Cancelled => false,
    }
}

/// There are causes to look for behind the ending of this attempt. Of established ones only those
/// have one that are connected to themselves.
#[must_use]
pub fn may_have_cause(attempt: &Attempt, label: Label) -> bool {
    has_causes(label) || attempt.is_to_itself()
}

/// The cause that the first rule recognises, and the first reason why a rule before it could
/// not be decided.
pub fn diagnose(case: &Case, evidence: &mut dyn Evidence) -> (Option<Cause>, Option<Undiagnosed>) {
    if !has_causes(case.label) && !case.is_to_itself {
        return (None, None);
    }
    let mut asked = FirstUnknown {
        evidence,
        unknown: None,
    };
    let cause = RULES
        .iter()
        .find_map(|rule| match translation::look(rule, case, &mut asked) {
            Ok(cause) => cause,
            Err(reason) => {
                asked.unknown.get_or_insert(reason);
                None
            }
        });
    (cause, asked.unknown)
}

/// Evidence of which the first unknown answer is remembered.
struct FirstUnknown<'a> {
    evidence: &'a mut dyn Evidence,
    unknown: Option<Undiagnosed>,
}

impl Evidence for FirstUnknown<'_> {
    fn answer(&mut self, question: Question) -> Result<Answer, Undiagnosed> {
        let counts = !question.is_aside();
        let answer = self.evidence.answer(question);
        if let (true, Err(reason)) = (counts, &answer) {
            self.unknown.get_or_insert(*reason);
        }
        answer
    }
}

#[cfg(test)]
mod tests;
