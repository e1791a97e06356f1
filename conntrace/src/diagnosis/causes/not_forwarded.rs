use super::proxy_in_path;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Undiagnosed,
        place::{self, NextHop},
        step,
        way::{Forwarding, Route},
        way_drop, words,
    },
    record::{Label, Remote, ReplyKind},
};

/// This machine itself is the gateway, and does not forward. The next hop is a network namespace of
/// this machine, such as a container's node, whose forwarding is off. The kernel drops what arrives
/// there for others, and says nothing.
///
/// Wrong when forwarding was switched off after the attempt, and where a BPF program takes the
/// packets before the routing does.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::NotForwarded,
    labels: &[Label::TimedOut],
    is: "This machine is the gateway on the way, and does not forward.",
    means: "this machine is the gateway and does not forward",
    recognised: &[
        "Certain: the next hop of the way, or of a later one, is a network namespace of this machine that has a route on to the destination, and no interface of it forwards (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding).",
        "Likely: only the interface by which the packets arrive does not forward; or the host answered before; or a firewall's rules could not all be read, one of which may lead the packets to this machine itself.",
        "Possible: a rule there gives the packets another destination, which may be on this machine.",
    ],
    reasons: &[
        "net.ipv4.ip_forward is 0: nothing has set it at boot, or a later sysctl.d file resets it.",
        "A network manager or a hardening tool has set the interface's own forwarding to 0.",
        "IPv6 forwarding was never switched on: container runtimes set that of IPv4 alone.",
    ],
    steps: &[
        step(
            "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
            "on the gateway, or in its namespace by nsenter: 0 does not forward",
        ),
        step(
            "sysctl -w net.ipv4.ip_forward=1",
            "switches it on, for every interface; in /etc/sysctl.d to keep it",
        ),
        step(
            "grep -rn forward /etc/sysctl.conf /etc/sysctl.d /usr/lib/sysctl.d /run/sysctl.d",
            "which file sets it at boot; the last one counts",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "a next hop that is a namespace of this machine, with a route onward, no rule that \
             rewrites, and forwarding off on every interface",
        ),
        (
            Certainty::Likely,
            "the same, but for other interfaces that forward, an answer of the host before, or \
             rules that cannot be read",
        ),
        (
            Certainty::Possible,
            "the same, and a rule there that rewrites destinations",
        ),
    ],
};

/// Reason of a packet that a namespace neither delivers nor forwards (`ip_error` after
/// `EHOSTUNREACH`, which `ip_route_input_slow` gives where forwarding is off).
const NOT_FORWARDED: &str = "IP_INADDRERRORS";

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let silent = case.label == Label::TimedOut && case.reply == ReplyKind::None;
    let left = case.own_failure.is_none() && case.drops.is_none();
    let Some(to) = case.remote.filter(|_| silent && left) else {
        return Ok(None);
    };
    let dropped = way_drop::named(case, evidence)?;
    // A drop for another reason tells more.
    if dropped
        .as_ref()
        .is_some_and(|(_, reason)| reason != NOT_FORWARDED)
    {
        return Ok(None);
    }
    let Some((hop, found)) = closed_hop(case, to, evidence)? else {
        return Ok(None);
    };
    if let Some((drop, _)) = &dropped {
        let is_witness = drop.all && drop.netns == hop.netns;
        let cause = cause(&hop, &found, to, Certainty::Certain, evidence);
        return Ok(is_witness.then_some(cause));
    }
    // What is led elsewhere does not go that way.
    let from_here = proxy_in_path::rewriting(case, None, evidence)?;
    if from_here.may_be() {
        return Ok(None);
    }
    let there = proxy_in_path::at_arrival(hop.netns, to, case.local_addr, evidence)?;
    let is_read = from_here.is_ruled_out && there.complete;
    let certainty = if !there.found.is_empty() {
        Certainty::Possible
    } else if found == Forwarding::Off && is_read && !case.heard.answered() {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    Ok(Some(cause(&hop, &found, to, certainty, evidence)))
}

/// The first namespace of this machine on the way that has a way on, and does not forward.
fn closed_hop(
    case: &Case,
    to: Remote,
    evidence: &mut dyn Evidence,
) -> Result<Option<(NextHop, Forwarding)>, Undiagnosed> {
    let Some(first) = place::way_out(case, evidence)? else {
        return Ok(None);
    };
    let link = evidence.link(case.netns, first.device.index)?;
    // Of others the next hop is hardly on this machine, and all namespaces would be asked.
    if !link.is_some_and(|link| place::may_lead_on(&link)) {
        return Ok(None);
    }
    let mut at = (case.netns, first);
    for _ in 0..place::NAMESPACES_MAX {
        let Some(hop) = place::next_hop(to, at.0, &at.1, evidence)? else {
            return Ok(None);
        };
        // What is delivered there needs no forwarding, and without a route that alone is no help.
        let Route::Out(onward) = hop.onward(to, evidence)? else {
            return Ok(None);
        };
        match evidence.forwarding(hop.netns, hop.addr, to.addr.is_ipv6())? {
            Forwarding::On => {}
            off @ (Forwarding::Off | Forwarding::OffAt(_)) => return Ok(Some((hop, off))),
        }
        let rewriting = proxy_in_path::at_arrival(hop.netns, to, case.local_addr, evidence)?;
        if !rewriting.found.is_empty() {
            return Ok(None);
        }
        at = (hop.netns, onward);
    }
    Ok(None)
}

fn cause(
    hop: &NextHop,
    found: &Forwarding,
    to: Remote,
    certainty: Certainty,
    evidence: &mut dyn Evidence,
) -> Cause {
    let NextHop { netns, addr } = hop;
    let setting = match (to.addr.is_ipv6(), found) {
        (true, _) => "net.ipv6.conf.all.forwarding".to_owned(),
        // In the name of a sysctl a dot of the interface's name is a slash.
        (false, Forwarding::OffAt(device)) => {
            format!("net.ipv4.conf.{}.forwarding", device.replace('.', "/"))
        }
        (false, Forwarding::Off | Forwarding::On) => "net.ipv4.ip_forward".to_owned(),
    };
    let rewriting = if certainty == Certainty::Possible {
        "; a rule there may lead them elsewhere"
    } else {
        ""
    };
    let set = words::command_in(*netns, &format!("sysctl -w {setting}=1"), evidence);
    let keep = match evidence.door(*netns) {
        Ok(None) => "also in /etc/sysctl.d, so that it stays",
        Ok(Some(_)) | Err(_) => "also where that namespace is set up, so that it stays",
    };
    Cause::new(
        Code::NotForwarded,
        certainty,
        &format!(
            "the next hop {addr} on the way to {} is network namespace {netns} of this machine, which \
             does not forward packets ({setting} is 0){rewriting}",
            to.addr
        ),
        &format!("{set} lets it forward; {keep}"),
        Facts::new()
            .with("netns", netns)
            .with("next_hop", addr)
            .with("sysctl", setting)
            .with("forwarding", found)
            .with("to", to.addr),
    )
}
