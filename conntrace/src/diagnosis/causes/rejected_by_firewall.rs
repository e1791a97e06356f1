use super::local_firewall;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding,
        firewall_facts::{Match, PacketEnd},
        step, words,
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
    match case.reply {
        ReplyKind::Local => here(case, evidence),
        ReplyKind::Icmp => Ok(elsewhere(case)),
        ReplyKind::None | ReplyKind::SynAck | ReplyKind::Rst => Ok(None),
    }
}

fn here(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some(remote) = case.remote_socket() else {
        return Ok(None);
    };
    let ending = match case.icmp {
        Some(_) => PacketEnd::RejectByIcmp,
        None => PacketEnd::RejectByReset,
    };
    let reason = case
        .drops
        .and_then(|drops| evidence.drop_reason(drops.reason).ok());
    // The answer is this host's own: only its rule may be unknown.
    let rules = local_firewall::rules(case, ending, evidence).ok();
    let first = rules.as_ref().and_then(|rules| rules.found.first());
    let facts = facts(case)
        .with("drop_reason", reason)
        .with("rules", rules.as_ref().map(|rules| &rules.found));
    let port = remote.port();
    let (certainty, what, find) = match first {
        Some(first) => {
            let (certainty, by) = match first.matches {
                Match::Fully => (Certainty::Certain, "by"),
                Match::Possibly => (Certainty::Likely, "probably by"),
            };
            let list = words::command(case, &words::list_chain(first), evidence);
            (certainty, format!(", {by} {}", words::rule(first)), list)
        }
        None => (
            Certainty::Likely,
            String::new(),
            words::command(case, "nft list ruleset | grep -n reject", evidence),
        ),
    };
    Ok(Some(Cause::new(
        Code::RejectedByFirewall,
        certainty,
        &format!("this host's own firewall rejected the connection to {remote}{what}"),
        &format!("find the rule with {find} and accept tcp dport {port} before it"),
        facts,
    )))
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
