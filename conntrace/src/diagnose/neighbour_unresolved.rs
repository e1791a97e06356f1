use super::{
    Case, Evidence,
    host_down::{certainty, may_be},
    place,
};
use crate::{
    event::{self, Cause, Certainty, Code},
    reply::ReplyKind,
};

/// Unreachable, timed out: the next hop, not the destination, does not answer ARP
/// or neighbour discovery. The gateway is off, or the route names the wrong one.
///
/// Wrong when the route changed between the attempt and the look.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if !may_be(case) || case.reply == ReplyKind::Icmp {
        return None;
    }
    let to = case.remote?.addr;
    let out = place::way_out(case, evidence)?;
    let gateway = out.gateway?;
    let state = place::silent(case, &out, gateway, evidence)?;
    let device = &out.device.name;
    let certainty: Certainty = certainty(state);
    Some(Cause::new(
        Code::NeighbourUnresolved,
        certainty,
        &format!("the gateway {gateway} on {device}, the way to {to}, does not answer"),
        &format!(
            "bring up the gateway {gateway}, or mend the route that `ip route get {to}` shows; \
             `ip neigh show {gateway}` shows whether it is back"
        ),
        event::Facts::new()
            .with("neighbour", state)
            .with("gateway", gateway)
            .with("device", device)
            .with("prefix_len", out.prefix_len),
    ))
}
