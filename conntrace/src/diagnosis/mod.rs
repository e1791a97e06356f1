//! From a labelled attempt to its cause: one rule per file, in one ordered list.
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
pub mod question;
mod similar;
pub mod way;
mod words;

pub use case::{Case, CaseDrops, FailedCall, Handshake, HostHistory};
pub use question::Evidence;
pub use similar::is_similar;

use crate::record::Label;
pub use cause::{Cause, Certainty, Code, DiagnosisResult, Facts, Undiagnosed, WrittenCause};
use causes::*;
use question::{Answer, Question};

/// A cause, if a rule recognises one; the reason why not, if it needs an answer that is
/// unknown.
pub type Finding = Result<Option<Cause>, Undiagnosed>;

/// A rule, by which one cause is recognised.
pub struct CauseRule {
    /// The cause.
    pub code: Code,
    /// Looks for it.
    pub look: fn(&Case, &mut dyn Evidence) -> Finding,
    /// Each certainty that it can have, with the fact that proves as much.
    pub proofs: &'static [(Certainty, &'static str)],
}

macro_rules! rules {
    ($($code:ident: $($name:ident)::+;)+) => {
        /// Every rule, in the order they are asked: from what this host or a packet
        /// proves to what is only possible. Of two that build on the same facts the one
        /// that says more stands first, and what takes long to find out is asked last.
        pub const RULES: &[CauseRule] = &[$($($name)::+::RULE),+];

        #[cfg(test)]
        const CODES: &[Code] = &[$(Code::$code),+];
    };
}

rules! {
    BadDestination: bad_destination;
    ProhibitRoute: prohibit_route;
    OwnLinkDown: own_link_down;
    WrongSource: wrong_source;
    NoRoute: no_route;
    NoSourceAddress: no_source_address;
    SourceNotLocal: source_not_local;
    TupleInUse: tuple_in_use;
    RouteWentAway: route_went_away;
    RejectedByFirewall: rejected_by_firewall;
    LocalFirewall: local_firewall;
    DroppedHere: dropped_here;
    ProxyInPath: proxy_in_path;
    AdminProhibited: admin_prohibited;
    ListeningElsewhere: listening_elsewhere;
    WrongPort: wrong_port;
    NothingListening: nothing_listening;
    ProxyInPath: proxy_in_path::rewritten;
    EphemeralRangeUsedUp: ephemeral_range_used_up;
    PortsHeldByBind: ports_held_by_bind;
    HostDown: host_down;
    NeighbourUnresolved: neighbour_unresolved;
    AnswersSometimes: answers_sometimes;
    RemoteFiltered: remote_filtered;
    PrivateAddressNotLocal: private_address_not_local;
    IcmpUnreachable: icmp_unreachable;
    SocketPortRange: socket_port_range;
    CgroupPolicy: cgroup_policy;
    SecurityModule: security_module;
    SilentHost: silent_host;
}

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

/// The cause that the first rule recognises, and the first reason why a rule before it could
/// not be decided.
pub fn diagnose(case: &Case, evidence: &mut dyn Evidence) -> (Option<Cause>, Option<Undiagnosed>) {
    if !has_causes(case.label) {
        return (None, None);
    }
    let mut asked = FirstUnknown {
        evidence,
        unknown: None,
    };
    let cause = RULES
        .iter()
        .find_map(|rule| match (rule.look)(case, &mut asked) {
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
