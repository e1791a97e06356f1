use crate::{
    diagnosis::{Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, step},
    record::{Errno, IcmpError, IcmpVersion, Label, ReplyKind},
};

/// A router or firewall said that it may not deliver (administratively prohibited).
///
/// Wrong only when the ICMP error was forged. Of IPv6 the kernel may have kept no more than the
/// errno, EACCES, which no other ICMPv6 error gives (`icmpv6_err_convert`).
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::AdminProhibited,
    labels: &[Label::Unreachable],
    is: "A router is not allowed to deliver the packets.",
    means: "a router may not deliver",
    recognised: &[
        "Certain: an ICMP error came that says administratively prohibited (IPv4 3/9, 3/10, 3/13; IPv6 1/1, 1/5, 1/6), or of IPv6 its errno, EACCES.",
    ],
    reasons: &[
        "An access list on the router `evidence.from`.",
        "A firewall in front of the server that rejects openly.",
        "A policy between networks, such as those of tenants.",
    ],
    steps: &[
        step(
            "traceroute -n ADDR",
            "where `evidence.from` lies on the way",
        ),
        step(
            "nft -a list ruleset",
            "on `evidence.from`, where it is a Linux host: rules with reject",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "the ICMP error of that type and code, or the errno that only it gives",
    )],
};

fn look(case: &Case, _: &mut dyn Evidence) -> Finding {
    if case.label != Label::Unreachable || case.call.is_some() || case.own_failure.is_some() {
        return Ok(None);
    }
    let prohibited = match &case.icmp {
        Some(icmp) => is_prohibition(icmp),
        None => case.reply == ReplyKind::Icmp && case.errno == Some(Errno::EACCES),
    };
    let Some(remote) = case.remote_socket().filter(|_| prohibited) else {
        return Ok(None);
    };
    let from = case.icmp.and_then(|icmp| icmp.from);
    let (who, at) = match (case.reply, from) {
        (ReplyKind::Local, _) => ("this host itself".to_owned(), "here".to_owned()),
        (_, Some(from)) => (from.to_string(), format!("on {from}")),
        (_, None) => (
            "a router or firewall".to_owned(),
            "on the way or there".to_owned(),
        ),
    };
    Ok(Some(Cause::new(
        Code::AdminProhibited,
        Certainty::Certain,
        &format!("{who} forbids the connection: ICMP administratively prohibited"),
        &format!(
            "have tcp dport {} to {} accepted by the firewall {at}",
            remote.port(),
            remote.ip()
        ),
        Facts::new()
            .with("from", from)
            .with("icmp_type", case.icmp.map(|icmp| icmp.icmp_type))
            .with("icmp_code", case.icmp.map(|icmp| icmp.code)),
    )))
}

/// Network, host and communication prohibited (RFC 1812); communication, policy
/// and reject route (RFC 4443).
pub(crate) fn is_prohibition(icmp: &IcmpError) -> bool {
    match icmp.version {
        IcmpVersion::V4 => icmp.icmp_type == 3 && matches!(icmp.code, 9 | 10 | 13),
        IcmpVersion::V6 => icmp.icmp_type == 1 && matches!(icmp.code, 1 | 5 | 6),
    }
}
