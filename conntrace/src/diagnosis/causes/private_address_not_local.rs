use super::{host_down::may_be, proxy_in_path};
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Undiagnosed,
        place::{self, PathEnd},
        step,
        way::RouteOut,
        words,
    },
    record::{IcmpError, IcmpVersion, Label, ReplyKind},
};

/// An internal address is used from another network. The destination is private, no interface
/// of this machine is in its network, the way leaves it by the default gateway, and nothing of
/// that private network was ever heard.
///
/// Wrong where the private networks of an organisation are routed: then the host behind the
/// gateway may simply be down or filtered. From a private address that is as good a guess, so
/// the cause is only possible.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::PrivateAddressNotLocal,
    labels: &[Label::TimedOut, Label::Unreachable],
    is: "A private address is used from another network.",
    means: "an internal address is used from another network",
    recognised: &[
        "The destination is private (RFC 1918, RFC 6598, unique local), no network of this machine has it, its packets leave by the default gateway, and nothing of that network was ever heard.",
        "Likely where the source address is a public one; possible where it is private as well, for an organisation may route its private networks.",
    ],
    reasons: &[
        "A configuration of the data centre is used elsewhere, or the internal address of a cloud server from outside.",
        "The VPN or the peering to that network is down.",
        "Split DNS gave the internal answer.",
    ],
    steps: &[
        step(
            "ip route get ADDR",
            "the default gateway where a route of its own was expected",
        ),
        step("ip -br link; ip -br addr", "whether the VPN is up"),
        step(
            "getent ahosts NAME",
            "whether the name leads to the internal address",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Likely,
            "a private destination by the default gateway, from a public address",
        ),
        (
            Certainty::Possible,
            "a private destination by the default gateway, from a private address",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some(to) = case.remote.filter(|to| place::is_private(to.addr)) else {
        return Ok(None);
    };
    // What answered is at the end of this very route.
    if !may_be(case) || case.heard.answered() || !is_unheard(case)? {
        return Ok(None);
    }
    if case.reply == ReplyKind::None && !case.is_free_of_drops()? {
        return Ok(None);
    }
    let Some(out) = place::way_out(case, evidence)?.filter(|out| out.prefix_len == 0) else {
        return Ok(None);
    };
    let Some(gateway) = out.gateway else {
        return Ok(None);
    };
    if !is_outside(case.netns, &out, evidence)?
        || proxy_in_path::rewriting(case, None, evidence)?.may_be()
        // By a gateway that answers for others' addresses (proxy ARP) the way leads there.
        || !evidence.holders(case.netns, to.addr)?.is_empty()
    {
        return Ok(None);
    }
    let leaves_by = match place::end_of_way(case, out.clone(), evidence)? {
        PathEnd::Here(_) | PathEnd::Rewritten => return Ok(None),
        // A route of its own leads there.
        PathEnd::Leaves(_, last) if last.prefix_len != 0 => return Ok(None),
        PathEnd::Leaves(netns, last) if !is_outside(netns, &last, evidence)? => return Ok(None),
        PathEnd::Leaves(..) | PathEnd::Stops => &out.device.name,
    };
    let to = to.addr;
    let certainty = if case.local_addr.is_none_or(place::is_private) {
        Certainty::Possible
    } else {
        Certainty::Likely
    };
    let get = words::command(case, &format!("ip route get {to}"), evidence);
    Ok(Some(Cause::new(
        Code::PrivateAddressNotLocal,
        certainty,
        &format!(
            "{to} is a private address, no network of this machine has it, and it is looked for \
             behind the default gateway {gateway} on {leaves_by}"
        ),
        &format!(
            "use the public address of that server, or connect this host to its network (VPN, \
             peering), so that {get} shows a route of its own"
        ),
        Facts::new()
            .with("gateway", gateway)
            .with("device", leaves_by)
            .with("source", case.local_addr)
            .with("network_silent_seconds", case.heard.network_silent_s)
            .with("from", case.icmp.and_then(|icmp| icmp.from)),
    )))
}

/// The interface of a way leads to a network outside of this machine: it is no tunnel and no TAP
/// device, behind which a program decides.
fn is_outside(
    netns: u32,
    out: &RouteOut,
    evidence: &mut dyn Evidence,
) -> Result<bool, Undiagnosed> {
    let link = evidence.link(netns, out.device.index)?;
    Ok(link.is_some_and(|link| !place::is_tunnel(&link) && link.kind.as_deref() != Some("tap")))
}

/// A router says that it knows no such network, or nothing of it was ever heard.
fn is_unheard(case: &Case) -> Result<bool, Undiagnosed> {
    match case.reply {
        ReplyKind::None => Ok(case.heard.network_silent()?.is_some()),
        ReplyKind::Icmp => Ok(case.icmp.as_ref().is_some_and(is_net_unreachable)),
        ReplyKind::SynAck | ReplyKind::Rst | ReplyKind::Local => Ok(false),
    }
}

fn is_net_unreachable(icmp: &IcmpError) -> bool {
    match icmp.version {
        IcmpVersion::V4 => icmp.icmp_type == 3 && matches!(icmp.code, 0 | 6),
        IcmpVersion::V6 => (icmp.icmp_type, icmp.code) == (1, 0),
    }
}
