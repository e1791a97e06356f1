use super::{local_firewall, service_without_endpoints};
use crate::{
    diagnosis::{
        Case, CaseWayDrop, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding,
        Undiagnosed,
        firewall_facts::{Firewall, Match, PacketEnd},
        step, way_drop, words,
    },
    record::{Label, ReplyKind},
};

/// A firewall answered, with ICMP port unreachable or, a rule of this host, with a RST. TCP
/// itself never answers so.
///
/// Wrong where a host without TCP on that port answers with ICMP (some network devices). A RST
/// that another host's firewall sent looks like that host's own: see `nothing_listening`.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::RejectedByFirewall,
    labels: &[Label::Refused],
    is: "A firewall answered the attempt.",
    means: "a firewall answered",
    recognised: &[
        "Certain: this host itself answered its own packet, and a rule that rejects matches the packet in full.",
        "Likely: this host itself answered, and no such rule is known; or ICMP port unreachable came, which TCP never sends (`evidence.from` sent it).",
    ],
    reasons: &[
        "A rule with `reject` (nftables), REJECT (iptables) or a firewall's default, such as firewalld's.",
        "The port is open for other sources only.",
        "A router or load balancer speaks for a server it does not have.",
    ],
    steps: &[
        step(
            "nft -a list ruleset",
            "here and at `evidence.from`: rules with reject, in every base chain. One that accepts in another base chain does not help",
        ),
        step(
            "iptables-save -c | grep REJECT",
            "the same where iptables is in use; the counters tell which one it is",
        ),
        step(
            "firewall-cmd --list-all",
            "where firewalld runs: which ports are open in the zone",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "this host's own answer, and a rule that matches fully and gives that answer",
        ),
        (
            Certainty::Likely,
            "this host's own answer without such a rule, or ICMP port unreachable of another",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if case.label != Label::Refused {
        return Ok(None);
    }
    if let Some((drop, reason)) = way_drop::named(case, evidence)?
        && reason == local_firewall::NETFILTER_DROP
    {
        return Ok(here(case, Some(&drop), evidence));
    }
    match case.reply {
        ReplyKind::Local => Ok(here(case, None, evidence)),
        ReplyKind::Icmp => Ok(elsewhere(case)),
        ReplyKind::None | ReplyKind::SynAck | ReplyKind::Rst => Ok(None),
    }
}

/// The rules of this machine that may have rejected the attempt, and their namespace; `None` if it
/// rejected none.
pub(crate) fn rules(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<(u32, Firewall)>, Undiagnosed> {
    let ending = match case.icmp {
        Some(_) => PacketEnd::RejectByIcmp,
        None => PacketEnd::RejectByReset,
    };
    if let Some((drop, reason)) = way_drop::named(case, evidence)? {
        if reason != local_firewall::NETFILTER_DROP {
            return Ok(None);
        }
        let rules = way_drop::rules(case, &drop, ending, evidence)?;
        return Ok(Some((drop.netns, rules)));
    }
    if case.reply != ReplyKind::Local {
        return Ok(None);
    }
    let rules = local_firewall::rules(case, ending, evidence)?;
    Ok(Some((case.netns, rules)))
}

/// This machine itself rejected it: in the client's namespace, or where it dropped the packet.
fn here(case: &Case, drop: Option<&CaseWayDrop>, evidence: &mut dyn Evidence) -> Option<Cause> {
    let reason = case
        .drops
        .map(|drops| drops.reason)
        .or(drop.map(|drop| drop.reason))
        .and_then(|reason| evidence.drop_reason(reason).ok());
    // The answer is this machine's own: only its rule may be unknown.
    let (netns, rules) = match rules(case, evidence) {
        Ok(Some((netns, rules))) => (netns, Some(rules)),
        Ok(None) | Err(_) => (drop.map_or(case.netns, |drop| drop.netns), None),
    };
    let first = rules.as_ref().and_then(|rules| rules.found.first());
    // That rule says more.
    if first.is_some_and(service_without_endpoints::says_so) {
        return None;
    }
    // Without such a rule the answer was another's.
    let is_read = rules.as_ref().is_some_and(|rules| rules.complete);
    if drop.is_some() && first.is_none() && is_read {
        return None;
    }
    let facts = facts(case)
        .with("netns", netns)
        .with("drop_reason", reason)
        .with("rules", rules.as_ref().map(|rules| &rules.found));
    let (certainty, what, fix) = match first {
        Some(first) => {
            let (certainty, by) = match first.matches {
                Match::Fully => (Certainty::Certain, "by"),
                Match::Possibly => (Certainty::Likely, "probably by"),
            };
            let list = words::command_in(netns, &words::list_chain(first), evidence);
            let mend = words::mend_rule(case, first);
            (
                certainty,
                format!(", {by} {}", words::rule(first)),
                format!("find the rule with {list}. {mend}"),
            )
        }
        None => {
            let list = words::command_in(netns, "nft list ruleset | grep -n reject", evidence);
            (
                Certainty::Likely,
                String::new(),
                format!("find the rule with {list}, and let the connection pass there"),
            )
        }
    };
    let translation = drop.map_or_else(String::new, |drop| way_drop::translation(case, drop));
    let to = case.remote_socket();
    let to = to.map_or_else(String::new, |to| format!(" to {to}"));
    let who = if netns == case.netns {
        "this host's own firewall".to_owned()
    } else {
        format!("the firewall of {}", way_drop::place(case, netns))
    };
    Some(Cause::new(
        Code::RejectedByFirewall,
        certainty,
        &format!("{translation}{who} rejected the connection{to}{what}"),
        &fix,
        facts,
    ))
}

fn elsewhere(case: &Case) -> Option<Cause> {
    let remote = case.remote_socket()?;
    let port = remote.port();
    let from = case.icmp.and_then(|icmp| icmp.from);
    let whose = match from {
        Some(from) if from == remote.ip() => format!("the firewall of {from} itself"),
        Some(from) => format!("a firewall at {from}, on the way to {remote},"),
        None => format!("a firewall on the way to {remote}, or there,"),
    };
    let at = from.map_or_else(
        || "there and on the way".to_owned(),
        |from| format!("on {from}"),
    );
    Some(Cause::new(
        Code::RejectedByFirewall,
        Certainty::Likely,
        &format!("{whose} answered with ICMP port unreachable, which TCP never does"),
        &format!("have tcp dport {port} from this host accepted {at}"),
        facts(case),
    ))
}

fn facts(case: &Case) -> Facts {
    Facts::new()
        .with("reply", case.reply)
        .with("icmp_type", case.icmp.map(|icmp| icmp.icmp_type))
        .with("icmp_code", case.icmp.map(|icmp| icmp.code))
        .with("from", case.icmp.and_then(|icmp| icmp.from))
}
