use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, place, step,
        way::{Flow, Route},
        way_drop, words,
    },
    record::{IcmpError, IcmpVersion, Label, ReplyKind, WayPacket},
};

/// The server does not exist or is not running. On our own network it does not answer ARP or
/// neighbour discovery; elsewhere the router in front of it says so.
///
/// Wrong when the netmask is too wide and no route tells so, and when a router says host
/// unreachable for another reason.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::HostDown,
    labels: &[Label::TimedOut, Label::Unreachable],
    is: "The remote host does not exist or is not running.",
    means: "the host is not there",
    recognised: &[
        "Likely: it should be on a network of this host, the interface is up and has carrier, and nobody answered for its address (the neighbour entry has failed, or is still asked for). No namespace of this machine has the address, and no other route covers it.",
        "Likely: this machine is the router, and dropped the packets because nobody answered for the address, after any translation.",
        "Likely: a router says that it cannot reach the host on its own network (ICMP host unreachable).",
    ],
    reasons: &[
        "The machine or container is off, or is still starting.",
        "The address is wrong or has been given to nobody.",
        "A switch, VLAN or security group keeps the two apart.",
    ],
    steps: &[
        step(
            "ip neigh show to ADDR",
            "FAILED or INCOMPLETE: nobody answers for that address",
        ),
        step(
            "ip route get ADDR",
            "whether it should be on that interface's network at all",
        ),
        step(
            "arping -c 3 -I DEVICE ADDR",
            "whether it answers now; for IPv6: ndisc6 ADDR DEVICE",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Likely,
        "a silent neighbour behind an interface with carrier, whose address no namespace of this \
         machine has and no other route covers, or a router's word",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let (true, Some(remote), Some(way)) = (may_be(case), case.remote_socket(), case.way()) else {
        return Ok(None);
    };
    if case.reply == ReplyKind::Icmp {
        let here = behind_this_machine(case, evidence)?;
        return Ok(here.or_else(|| by_router(case)));
    }
    let addr = remote.ip();
    let Some(out) = place::way_out(case, evidence)?.filter(|out| out.gateway.is_none()) else {
        return Ok(None);
    };
    let Some(state) = place::silent(case, &out, addr, evidence)? else {
        return Ok(None);
    };
    let link = evidence.link(case.netns, out.device.index)?;
    // Another rule has more to say of these, or the packet went to the wrong network.
    if !place::can_send(link.as_ref())
        || !evidence.holders(case.netns, addr)?.is_empty()
        || !evidence.covering(case.netns, way)?.is_empty()
    {
        return Ok(None);
    }
    let asked = if addr.is_ipv4() {
        "ARP"
    } else {
        "neighbour discovery"
    };
    let device = &out.device.name;
    let neighbour = format!("ip neigh show {addr} dev {device}");
    let neighbour = words::command(case, &neighbour, evidence);
    Ok(Some(Cause::new(
        Code::HostDown,
        Certainty::Likely,
        &format!("{addr} should be on the network of {device} and does not answer {asked}"),
        &format!(
            "start the host or correct its address; {neighbour} shows REACHABLE once it is back"
        ),
        Facts::new()
            .with("neighbour", state)
            .with("device", device)
            .with("device_kind", link.and_then(|link| link.kind))
            .with("addr", addr),
    )))
}

/// An attempt that may have met no host: unanswered, or answered by this host or
/// a router.
pub(crate) fn may_be(case: &Case) -> bool {
    let label = matches!(case.label, Label::TimedOut | Label::Unreachable);
    label && case.call.is_none()
}

/// This machine itself is the router, and nobody answers for the address to which it led the packets.
fn behind_this_machine(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some((drop, reason)) = way_drop::named(case, evidence)? else {
        return Ok(None);
    };
    let (Some(icmp), true) = (
        case.icmp.filter(is_host_unreachable),
        reason.starts_with("NEIGH_") && drop.packet == WayPacket::Syn && drop.netns != case.netns,
    ) else {
        return Ok(None);
    };
    let addr = drop.server.addr;
    let onward = Flow::to(addr, drop.server.port);
    let Route::Out(out) = evidence.route(drop.netns, onward)? else {
        return Ok(None);
    };
    if out.gateway.is_some() {
        return Ok(None);
    }
    let (place, device) = (way_drop::place(case, drop.netns), &out.device.name);
    let translation = way_drop::translation(case, &drop);
    let mend = if translation.is_empty() {
        ""
    } else {
        ", or delete the rule that still leads to it"
    };
    let neighbour = format!("ip neigh show {addr} dev {device}");
    let neighbour = way_drop::command(&drop, &neighbour, evidence);
    Ok(Some(Cause::new(
        Code::HostDown,
        Certainty::Likely,
        &format!(
            "{translation}{addr} should be on the network of {device} in {place} and does not answer \
             there"
        ),
        &format!(
            "start what should have {addr} there{mend}; {neighbour} shows REACHABLE once it is back"
        ),
        way_drop::facts(case, &drop, &reason, evidence)
            .with("from", icmp.from)
            .with("addr", addr),
    )))
}

fn by_router(case: &Case) -> Option<Cause> {
    let icmp = case.icmp.filter(is_host_unreachable)?;
    let (addr, from) = (case.remote?.addr, icmp.from?);
    if from == addr {
        return None;
    }
    Some(Cause::new(
        Code::HostDown,
        Certainty::Likely,
        &format!("the router {from} says that {addr} cannot be reached on its own network"),
        &format!("start the host {addr} or correct its address; on {from}: `ip neigh show {addr}`"),
        Facts::new()
            .with("from", from)
            .with("icmp_type", icmp.icmp_type)
            .with("icmp_code", icmp.code)
            .with("addr", addr),
    ))
}

fn is_host_unreachable(icmp: &IcmpError) -> bool {
    match icmp.version {
        IcmpVersion::V4 => (icmp.icmp_type, icmp.code) == (3, 1),
        IcmpVersion::V6 => (icmp.icmp_type, icmp.code) == (1, 3),
    }
}
