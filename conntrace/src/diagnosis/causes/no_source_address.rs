use crate::{
    diagnosis::{
        Case, Cause, CauseRule, Certainty, Code, Evidence, Facts, FailedCall, Finding, place,
    },
    record::{Errno, Label},
};

/// Address unavailable, unreachable: a route is there, but this namespace has no address of
/// that family to use as a source (`ipv6_dev_get_saddr`).
///
/// Wrong when an address came or went between the call and the look.
pub(crate) const RULE: CauseRule = CauseRule {
    code: Code::NoSourceAddress,
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
