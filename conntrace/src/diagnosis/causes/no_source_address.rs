use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, FailedCall, Finding, place, step,
    },
    record::{Errno, Label},
};

/// A route is there, but this namespace has no address of that family to use as a source
/// (`ipv6_dev_get_saddr`).
///
/// Wrong when an address came or went between the call and the look.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::NoSourceAddress,
    labels: &[Label::Unreachable, Label::AddressUnavailable],
    is: "This host has no address to use as a source.",
    means: "this host has no address to use as a source",
    recognised: &[
        "Certain: no SYN left, and no interface has an address of the destination's family that can be a source. `evidence` has the addresses and the route.",
    ],
    reasons: &[
        "IPv6 is off (disable_ipv6), or there is nothing but a link-local address.",
        "A host or container of one family only, and a name that has addresses of the other one.",
        "The interface has lost its address, or has none yet (DHCP).",
        "The IPv6 address is still tentative, or somebody else has it (duplicate address detection).",
    ],
    steps: &[
        step("ip -br addr", "the addresses there are"),
        step(
            "ip -6 addr show tentative; ip -6 addr show dadfailed",
            "IPv6 addresses that cannot be used yet, or never will",
        ),
        step(
            "sysctl net.ipv6.conf.all.disable_ipv6 net.ipv6.conf.DEVICE.disable_ipv6",
            "1: IPv6 is off there",
        ),
        step(
            "getent ahosts NAME",
            "whether the name has an address of the other family",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "a route, and no address of that family beside loopback and link-local ones",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let label = matches!(case.label, Label::AddressUnavailable | Label::Unreachable);
    if !label || case.call != Some(FailedCall::Connect) || case.local_addr.is_some() {
        return Ok(None);
    }
    let Some(out) = place::way_out(case, evidence)? else {
        return Ok(None);
    };
    let Some(to) = case.remote.map(|remote| remote.addr) else {
        return Ok(None);
    };
    let v6 = to.is_ipv6();
    let own = evidence.own_addresses(case.netns, v6)?;
    if own.any || !own.usable.is_empty() {
        return Ok(None);
    }
    let (family, device) = (if v6 { "IPv6" } else { "IPv4" }, &out.device.name);
    Ok(Some(Cause::new(
        Code::NoSourceAddress,
        Certainty::Certain,
        &format!(
            "the route to {to} leaves by {device}, but this network namespace has no {family} \
             address to use as a source"
        ),
        &format!(
            "give {device} an {family} address (router advertisement, DHCP, network configuration), \
             or use an address of the server of the other family"
        ),
        Facts::new()
            .with("device", device)
            .with("errno", case.errno.as_ref().map(Errno::to_string))
            .with("to", to),
    )))
}
