use super::{Case, Evidence, ask::Neighbour, place};
use crate::{
    event::{self, Cause, Certainty, Code},
    label::Label,
    reply::ReplyKind,
    wire::{Icmp, IcmpVersion},
};

/// Timed out, unreachable: the server does not exist or is not running. On our
/// own network it does not answer ARP or neighbour discovery; elsewhere the router
/// in front of it says so.
///
/// Wrong when the netmask is, so that a host is looked for on a network where it
/// cannot be, and when a router says host unreachable for another reason.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if !may_be(case) {
        return None;
    }
    let remote = case.remote_socket()?;
    if case.reply == ReplyKind::Icmp {
        return by_router(case);
    }
    let addr = remote.ip();
    let out = place::way_out(case, evidence)?;
    if out.gateway.is_some() {
        return None;
    }
    let state = place::silent(case, &out, addr, evidence)?;
    let asked = if addr.is_ipv4() {
        "ARP"
    } else {
        "neighbour discovery"
    };
    let device = &out.device.name;
    Some(Cause::new(
        Code::HostDown,
        certainty(state),
        &format!("{addr} should be on the network of {device} and does not answer {asked}"),
        &format!(
            "start the host or correct its address; `ip neigh show {addr}` and `arping -I {device} \
             {addr}` show whether it is back"
        ),
        event::Facts::new()
            .with("neighbour", state)
            .with("device", device)
            .with("addr", addr),
    ))
}

/// An attempt that may have met no host: unanswered, or answered by this host or
/// a router.
pub(super) fn may_be(case: &Case) -> bool {
    let label = matches!(case.label, Label::TimedOut | Label::Unreachable);
    label && case.call.is_none()
}

/// A neighbour that was asked to the end is not there; one that is still asked may
/// be slow.
pub(super) fn certainty(state: Neighbour) -> Certainty {
    match state {
        Neighbour::Failed => Certainty::Certain,
        Neighbour::Incomplete | Neighbour::Known | Neighbour::Absent => Certainty::Likely,
    }
}

fn by_router(case: &Case) -> Option<Cause> {
    let icmp = case.icmp.filter(is_host_unreachable)?;
    let (addr, from) = (case.remote?.addr, icmp.from?);
    Some(Cause::new(
        Code::HostDown,
        Certainty::Likely,
        &format!("the router {from} says that {addr} cannot be reached on its own network"),
        &format!("start the host {addr} or correct its address; on {from}: `ip neigh show {addr}`"),
        event::Facts::new()
            .with("from", from)
            .with("icmp_type", icmp.icmp_type)
            .with("icmp_code", icmp.code)
            .with("addr", addr),
    ))
}

fn is_host_unreachable(icmp: &Icmp) -> bool {
    match icmp.version {
        IcmpVersion::V4 => (icmp.icmp_type, icmp.code) == (3, 1),
        IcmpVersion::V6 => (icmp.icmp_type, icmp.code) == (1, 3),
    }
}
