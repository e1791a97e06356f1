use super::{Case, Evidence, ask::FirewallVerdict, words};
use crate::{
    event::{self, Cause, Certainty, Code},
    label::Label,
};

/// Timed out: this host itself dropped the SYN, or the answer to it. The kernel
/// names the reason for every packet it drops (`kfree_skb`).
///
/// Wrong when the dropped packet was one of several and the others were lost
/// elsewhere. Reasons that are no policy, such as a full queue or a neighbour that
/// does not answer, are none of this rule's.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if case.label != Label::TimedOut {
        return None;
    }
    let reason = evidence.drop_reason(case.drop_reason?)?;
    let (who, find) = policy(&reason)?;
    let remote = case.remote_socket()?;
    let rules = match reason.as_str() {
        "NETFILTER_DROP" => evidence.firewall(case.netns, FirewallVerdict::Drop),
        _ => None,
    };
    let chain = rules.as_deref().and_then(words::only_chain);
    let (place, find) = match chain {
        Some(chain) => (
            format!(", in the only chain that drops, {chain}"),
            format!("find the rule with `nft -a list chain {chain}`"),
        ),
        None => (String::new(), find.to_owned()),
    };
    Some(Cause::new(
        Code::LocalFirewall,
        Certainty::Certain,
        &format!("this host itself dropped packets of the attempt: {who} ({reason}){place}"),
        &format!("{find}; let tcp to {remote} and its answers pass"),
        event::Facts::new()
            .with("drop_reason", &reason)
            .with("remote", remote)
            .with("rules", rules),
    ))
}

/// Whose decision a reason is, and how to find it.
fn policy(reason: &str) -> Option<(&'static str, &'static str)> {
    Some(match reason {
        "NETFILTER_DROP" => (
            "a firewall rule",
            "find the rule with `nft list ruleset | grep -n drop` (or `iptables-save -c | grep \
             DROP`), policies of chains included, at output and input",
        ),
        "BPF_CGROUP_EGRESS" => (
            "a BPF program on the process's cgroup",
            "find it with `bpftool cgroup tree`",
        ),
        "SOCKET_FILTER" => (
            "a BPF program on the socket or its cgroup",
            "find it with `bpftool cgroup tree` and `ss -tnp --bpf`",
        ),
        "TC_EGRESS" | "TC_INGRESS" => (
            "traffic control on the interface",
            "find it with `tc filter show dev DEVICE egress` (and ingress)",
        ),
        "XFRM_POLICY" => ("an IPsec policy", "find it with `ip xfrm policy`"),
        "IP_RPFILTER" => (
            "the reverse path filter, because the answer came by another interface",
            "set `sysctl -w net.ipv4.conf.all.rp_filter=2` or mend the routes",
        ),
        "SECURITY_HOOK" => (
            "a security module",
            "find it with `ausearch -m avc -ts recent`",
        ),
        _ => return None,
    })
}
