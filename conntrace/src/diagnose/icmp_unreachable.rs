use super::{Case, Evidence, Rule, admin_prohibited, host_down, private_address_not_local};
use crate::{
    errno::Errno,
    event::{self, Cause, Certainty, Code},
    label::Label,
    reply::ReplyKind,
    wire::{Icmp, IcmpVersion},
};

/// Unreachable: a router said that it cannot deliver. It has no route, or packets
/// go in circles.
///
/// Wrong only when the ICMP error was forged. Of IPv6 the kernel may have kept no
/// more than the errno.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let answered = case.label == Label::Unreachable && case.reply == ReplyKind::Icmp;
    let known_better: [Rule; 3] = [
        admin_prohibited::rule,
        host_down::rule,
        private_address_not_local::rule,
    ];
    if !answered
        || known_better
            .iter()
            .any(|rule| rule(case, evidence).is_some())
    {
        return None;
    }
    let to = case.remote?.addr;
    let from = case.icmp.and_then(|icmp| icmp.from);
    let router = from.map_or_else(
        || "a router".to_owned(),
        |from| format!("the router {from}"),
    );
    let said = match &case.icmp {
        Some(icmp) => meaning(icmp),
        None => format!(
            "ICMPv6 error, {}",
            case.errno.as_ref().map(Errno::to_string)?
        ),
    };
    Some(Cause::new(
        Code::IcmpUnreachable,
        Certainty::Certain,
        &format!("{router} cannot deliver to {to}: {said}"),
        &format!(
            "look at the route to {to} {}; `traceroute -n {to}` shows where the way ends",
            from.map_or_else(|| "on the routers".to_owned(), |from| format!("on {from}")),
        ),
        event::Facts::new()
            .with("from", from)
            .with("icmp_type", case.icmp.map(|icmp| icmp.icmp_type))
            .with("icmp_code", case.icmp.map(|icmp| icmp.code)),
    ))
}

fn meaning(icmp: &Icmp) -> String {
    let known = match (icmp.version, icmp.icmp_type, icmp.code) {
        (IcmpVersion::V4, 3, 0) | (IcmpVersion::V6, 1, 0) => "no route",
        (IcmpVersion::V4, 3, 1) | (IcmpVersion::V6, 1, 3) => "host unreachable",
        (IcmpVersion::V4, 3, 2) => "protocol unreachable",
        (IcmpVersion::V4, 11, 0) | (IcmpVersion::V6, 3, 0) => {
            "the packet was passed on too often (a loop?)"
        }
        _ => return format!("ICMP type {} code {}", icmp.icmp_type, icmp.code),
    };
    known.to_owned()
}
