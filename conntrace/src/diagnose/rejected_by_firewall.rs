use super::{Case, Evidence, ask::FirewallVerdict, words};
use crate::{
    event::{self, Cause, Certainty, Code},
    label::Label,
    reply::ReplyKind,
};

/// Refused: a firewall answered, with ICMP port unreachable or, a rule of this
/// host, with a RST. TCP itself never answers so.
///
/// Wrong where a host without TCP on that port answers with ICMP (some network
/// devices), so that only this host's own answer is certain. A RST that another
/// host's firewall sent looks like that host's own: see `nothing_listening`.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if case.label != Label::Refused {
        return None;
    }
    let remote = case.remote_socket()?;
    let facts = event::Facts::new()
        .with("reply", case.reply)
        .with("icmp_type", case.icmp.map(|icmp| icmp.icmp_type))
        .with("icmp_code", case.icmp.map(|icmp| icmp.code))
        .with("from", case.icmp.and_then(|icmp| icmp.from));
    let port = remote.port();
    match case.reply {
        ReplyKind::Local => {
            let reason = case
                .drop_reason
                .and_then(|number| evidence.drop_reason(number));
            let rules = evidence.firewall(case.netns, FirewallVerdict::Reject);
            let chain = rules.as_deref().and_then(words::only_chain);
            let find = match &chain {
                Some(chain) => format!("`nft -a list chain {chain}`"),
                None => "`nft list ruleset | grep -n reject` (or `iptables-save | grep REJECT`)"
                    .to_owned(),
            };
            let place = chain.map_or_else(String::new, |chain| {
                format!(", in the only chain that does, {chain}")
            });
            Some(Cause::new(
                Code::RejectedByFirewall,
                Certainty::Certain,
                &format!(
                    "a rule of this host's own firewall rejects connections to {remote}{place}"
                ),
                &format!("find the rule with {find} and accept tcp dport {port} before it"),
                facts.with("drop_reason", reason).with("rules", rules),
            ))
        }
        ReplyKind::Icmp => {
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
                facts,
            ))
        }
        ReplyKind::None | ReplyKind::SynAck | ReplyKind::Rst => None,
    }
}
