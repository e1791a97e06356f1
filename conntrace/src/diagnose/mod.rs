//! From a labelled attempt to its cause: one rule per file, in one ordered list.
//!
//! A rule is a function of the [`Case`] and of what it asks through
//! [`Evidence`]; nothing in here touches a clock, a file or a thread. No
//! evidence, no cause.

mod admin_prohibited;
pub mod ask;
mod case;
mod cgroup_policy;
mod denied;
mod ephemeral_range_used_up;
pub mod firewall_facts;
mod host_down;
mod icmp_unreachable;
mod listening_elsewhere;
mod local_firewall;
mod neighbour_unresolved;
mod no_route;
mod nothing_listening;
mod place;
mod ports_held_by_bind;
mod private_address_not_local;
mod prohibit_route;
mod proxy_in_path;
mod rejected_by_firewall;
mod remote_filtered;
mod security_module;
mod silent_host;
mod similar;
mod socket_port_range;
mod source_not_local;
mod tuple_in_use;
pub mod way;
mod words;
mod wrong_port;

pub use ask::Evidence;
pub use case::{Call, Case, Handshake, Heard};
pub use similar::is_similar;

use crate::{
    event::{Cause, Code},
    label::Label,
};

/// Recognises one cause.
pub type Rule = fn(&Case, &mut dyn Evidence) -> Option<Cause>;

/// Every rule, in the order they are asked: from what this host or a packet
/// proves to what is only possible. Of two that build on the same facts the one
/// that says more stands first, and what takes long to find out is asked last.
pub const RULES: [(Code, Rule); 23] = [
    (Code::ProhibitRoute, prohibit_route::rule),
    (Code::NoRoute, no_route::rule),
    (Code::SourceNotLocal, source_not_local::rule),
    (Code::TupleInUse, tuple_in_use::rule),
    (Code::RejectedByFirewall, rejected_by_firewall::rule),
    (Code::LocalFirewall, local_firewall::rule),
    (Code::ProxyInPath, proxy_in_path::rule),
    (Code::AdminProhibited, admin_prohibited::rule),
    (Code::ListeningElsewhere, listening_elsewhere::rule),
    (Code::WrongPort, wrong_port::rule),
    (Code::NothingListening, nothing_listening::rule),
    (Code::ProxyInPath, proxy_in_path::by_rewriting),
    (Code::EphemeralRangeUsedUp, ephemeral_range_used_up::rule),
    (Code::PortsHeldByBind, ports_held_by_bind::rule),
    (Code::HostDown, host_down::rule),
    (Code::NeighbourUnresolved, neighbour_unresolved::rule),
    (Code::RemoteFiltered, remote_filtered::rule),
    (
        Code::PrivateAddressNotLocal,
        private_address_not_local::rule,
    ),
    (Code::IcmpUnreachable, icmp_unreachable::rule),
    (Code::SocketPortRange, socket_port_range::rule),
    (Code::CgroupPolicy, cgroup_policy::rule),
    (Code::SecurityModule, security_module::rule),
    (Code::SilentHost, silent_host::rule),
];

/// Whether there are causes to look for behind this label.
#[must_use]
pub fn has_causes(label: Label) -> bool {
    match label {
        Label::PortExhausted
        | Label::AddressUnavailable
        | Label::Refused
        | Label::TimedOut
        | Label::Unreachable
        | Label::Denied => true,
        Label::Established | Label::Aborted | Label::Cancelled | Label::Failed => false,
    }
}

/// Why it ended so: what the first rule says that recognises it.
pub fn diagnose(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if !has_causes(case.label) {
        return None;
    }
    RULES.iter().find_map(|(_, rule)| rule(case, evidence))
}

#[cfg(test)]
mod tests;
