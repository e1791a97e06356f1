use super::{host_down::may_be, wrong_source};
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, place,
        question::Neighbour, step, words,
    },
    record::{Label, ReplyKind},
};

/// The next hop, not the destination, does not answer ARP or neighbour discovery. The gateway
/// is off, or the route names the wrong one.
///
/// Wrong when the route changed between the attempt and the look.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::NeighbourUnresolved,
    labels: &[Label::TimedOut, Label::Unreachable],
    is: "The next hop does not answer ARP or neighbour discovery.",
    means: "the next hop does not answer",
    recognised: &[
        "Certain: the neighbour entry of the gateway on the route has failed, and sending failed or was dropped here. Likely: it has failed, or is still asked for, and nothing else is known of the packets.",
    ],
    reasons: &[
        "The gateway is off or has another address by now.",
        "The route names the wrong gateway, or the wrong interface.",
        "The link is up and leads nowhere (VLAN, bridge, cable).",
    ],
    steps: &[
        step("ip route get ADDR", "the gateway and the interface"),
        step(
            "ip neigh show to GATEWAY",
            "FAILED or INCOMPLETE: it does not answer",
        ),
        step(
            "arping -c 3 -I DEVICE GATEWAY",
            "whether it answers now; for IPv6: ndisc6 GATEWAY DEVICE",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "the gateway's neighbour entry is FAILED on an interface with carrier, and this host could not send",
        ),
        (
            Certainty::Likely,
            "the gateway's neighbour entry is FAILED or INCOMPLETE: it has not answered",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if !may_be(case) || case.reply == ReplyKind::Icmp {
        return Ok(None);
    }
    let (Some(to), Some(out)) = (case.remote, place::way_out(case, evidence)?) else {
        return Ok(None);
    };
    let Some(gateway) = out.gateway else {
        return Ok(None);
    };
    let Some(state) = place::silent(case, &out, gateway, evidence)? else {
        return Ok(None);
    };
    let link = evidence.link(case.netns, out.device.index)?;
    if !place::can_send(link.as_ref()) {
        return Ok(None);
    }
    // Without a failure of this very attempt, a rule or mark that is not known may have led it by
    // another gateway.
    let is_witnessed =
        case.reply == ReplyKind::Local || case.own_failure.is_some() || case.drops.is_some();
    let certainty = match state {
        Neighbour::Failed if is_witnessed => Certainty::Certain,
        Neighbour::Failed | Neighbour::Incomplete | Neighbour::Known | Neighbour::Absent => {
            Certainty::Likely
        }
    };
    let foreign = wrong_source::of_another_interface(case, &out, evidence)?;
    let (asked, mend) = foreign.as_ref().map_or_else(Default::default, |(source, of)| {
        (
            format!(
                "; it was asked from {source}, whose network is at {of}: a router with a strict \
                 reverse path filter does not answer that"
            ),
            format!(
                "send from an address of {} or lead {source} to its own gateway (`ip rule add from \
                 {source} table TABLE`, with a default route in that table), or ",
                out.device.name
            ),
        )
    });
    let (to, device) = (to.addr, &out.device.name);
    let get = words::command(case, &format!("ip route get {to}"), evidence);
    let neighbour = words::command(case, &format!("ip neigh show {gateway}"), evidence);
    Ok(Some(Cause::new(
        Code::NeighbourUnresolved,
        certainty,
        &format!("the gateway {gateway} on {device}, the way to {to}, does not answer{asked}"),
        &format!(
            "{mend}bring up the gateway {gateway}, or mend the route that {get} shows; {neighbour} shows \
             whether it is back"
        ),
        Facts::new()
            .with("neighbour", state)
            .with("gateway", gateway)
            .with("device", device)
            .with("prefix_len", out.prefix_len)
            .with("source", foreign.map(|(source, _)| source)),
    )))
}
