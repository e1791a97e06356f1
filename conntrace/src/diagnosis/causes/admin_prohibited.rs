use std::net::IpAddr;

use super::local_firewall;
use crate::{
    diagnosis::{
        Case, CaseWayDrop, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding,
        firewall_facts::{Match, PacketEnd},
        step, way_drop, words,
    },
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

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
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
    if let Some(own) = by_this_machine(case, from, evidence) {
        return Ok(Some(own));
    }
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
            "have tcp dport {} to {} accepted by the firewall {at}, unless it is a route of type prohibit \
             there (ip route)",
            remote.port(),
            remote.ip()
        ),
        Facts::new()
            .with("from", from)
            .with("icmp_type", case.icmp.map(|icmp| icmp.icmp_type))
            .with("icmp_code", case.icmp.map(|icmp| icmp.code)),
    )))
}

/// A rule of this machine's firewall that rejected it, here or on the packet's way: the same answer,
/// with its rule.
fn by_this_machine(
    case: &Case,
    from: Option<IpAddr>,
    evidence: &mut dyn Evidence,
) -> Option<Cause> {
    // The answer is known. Only its rule may be unknown.
    let drop = way_drop::named(case, evidence).ok().flatten();
    let is_it = |(drop, reason): &(CaseWayDrop, String)| {
        drop.all && reason == local_firewall::NETFILTER_DROP
    };
    let drop = drop.filter(is_it);
    let (netns, rules) = match drop {
        Some((drop, _)) => {
            let rules = way_drop::rules(case, &drop, PacketEnd::RejectByIcmp, evidence);
            (drop.netns, rules.ok()?)
        }
        None if case.reply == ReplyKind::Local => {
            let rules = local_firewall::rules(case, PacketEnd::RejectByIcmp, evidence);
            (case.netns, rules.ok()?)
        }
        None => return None,
    };
    let first = rules.found.first()?;
    let by = match first.matches {
        Match::Fully => "by",
        Match::Possibly if rules.found.len() > 1 => "by one of several rules, perhaps",
        Match::Possibly => "probably by",
    };
    let whose = if netns == case.netns {
        "this host's own firewall".to_owned()
    } else {
        format!("the firewall of {}", way_drop::place(case, netns))
    };
    let list = words::command_in(netns, &words::list_chain(first), evidence);
    let mend = words::mend_rule(case, first);
    Some(Cause::new(
        Code::AdminProhibited,
        Certainty::Certain,
        &format!(
            "{whose} forbids the connection: ICMP administratively prohibited, {by} {}",
            words::rule(first)
        ),
        &format!("find the rule with {list}. {mend}"),
        Facts::new()
            .with("from", from)
            .with("icmp_type", case.icmp.map(|icmp| icmp.icmp_type))
            .with("icmp_code", case.icmp.map(|icmp| icmp.code))
            .with("netns", netns)
            .with("rules", &rules.found),
    ))
}

/// Network, host and communication prohibited (RFC 1812); communication, policy
/// and reject route (RFC 4443).
pub(crate) fn is_prohibition(icmp: &IcmpError) -> bool {
    match icmp.version {
        IcmpVersion::V4 => icmp.icmp_type == 3 && matches!(icmp.code, 9 | 10 | 13),
        IcmpVersion::V6 => icmp.icmp_type == 1 && matches!(icmp.code, 1 | 5 | 6),
    }
}
