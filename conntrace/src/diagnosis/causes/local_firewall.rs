use super::{remote_filtered, service_without_endpoints};
use crate::{
    diagnosis::{
        Case, CaseWayDrop, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding,
        Undiagnosed,
        firewall_facts::{Direction, Firewall, FirewallPacket, Match, PacketEnd},
        step,
        way::Route,
        way_drop, words,
    },
    record::Label,
};

/// A rule of this host's own firewall or another policy of it dropped the SYN, or the answer to
/// it. The kernel names the reason of every packet it drops (`kfree_skb`).
///
/// Wrong when the dropped packet was one of several and the others were lost elsewhere.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::LocalFirewall,
    labels: &[Label::TimedOut],
    is: "A firewall of this host dropped the packets.",
    means: "this host dropped the packets itself",
    recognised: &[
        "The kernel dropped the SYN, or the answer to it, and gave a reason that is a policy of this host: `evidence.drop_reason` is its name (Linux 5.17 and later).",
        "Certain: every packet was dropped, and a rule that drops matches the SYN in full, or the reason names a policy. Likely: such a rule may match, it matches only the answer, or only some packets were dropped.",
    ],
    reasons: &[
        "A rule that drops, or a chain's policy: the SYN at output or postrouting, the answer at prerouting or input (NETFILTER_DROP).",
        "Answers are not let in, because no rule accepts established connections.",
        "A BPF program on the cgroup, traffic control or an IPsec policy.",
        "The reverse path filter: the answer comes by an interface by which nothing would be sent to its sender (IP_RPFILTER).",
    ],
    steps: &[
        step(
            "nft -a list ruleset",
            "every base chain with its hook and policy, every rule with its handle; `iptables-save -c` for legacy iptables",
        ),
        step(
            "nft delete rule FAMILY TABLE CHAIN handle HANDLE",
            "removes the rule that drops. To accept in another base chain does not help: a drop is final, and an accept ends its own base chain only",
        ),
        step(
            "nft insert rule FAMILY TABLE CHAIN tcp dport PORT accept",
            "where the SYN is dropped, and in the very chain that drops it: lets it pass ahead of the drop",
        ),
        step(
            "nft insert rule FAMILY TABLE CHAIN ct state established,related accept",
            "where answers are dropped, in the very chain that drops them: PORT is their source port, so that a rule for `tcp dport PORT` does not match",
        ),
        step(
            "sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.DEVICE.rp_filter",
            "the larger of the two is in force: 1 is strict, 2 takes answers by any interface. Set DEVICE's to 2; 0 has no effect while that of all is 1",
        ),
        step("bpftool cgroup tree", "BPF programs on cgroups"),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "NETFILTER_DROP of every packet and a rule that matches the SYN fully, or the drop reason \
             of a policy",
        ),
        (
            Certainty::Likely,
            "NETFILTER_DROP and a rule that may match, or that matches the answer, or a drop of some \
             packets",
        ),
    ],
};

/// Reason of a packet that netfilter dropped.
pub(crate) const NETFILTER_DROP: &str = "NETFILTER_DROP";

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if case.label != Label::TimedOut {
        return Ok(None);
    }
    let (Some(drops), Some(remote)) = (case.drops, case.remote_socket()) else {
        return on_the_way(case, evidence);
    };
    let reason = evidence.drop_reason(drops.reason)?;
    let facts = Facts::new()
        .with("drop_reason", &reason)
        .with("remote", remote);
    let all = |certainty| match drops.all {
        true => certainty,
        false => Certainty::Likely,
    };
    if let Some((who, find)) = who(&reason) {
        let find: Vec<_> = find
            .iter()
            .map(|find| words::command(case, find, evidence))
            .collect();
        let find = find.join(" and ");
        return Ok(Some(Cause::new(
            Code::LocalFirewall,
            all(Certainty::Certain),
            &format!("this host itself dropped packets of the attempt: {who} ({reason})"),
            &format!("find it with {find}; let tcp to {remote} and its answers pass"),
            facts,
        )));
    }
    if reason != NETFILTER_DROP {
        return Ok(None);
    }
    let Firewall { found, complete } = rules(case, PacketEnd::Drop, evidence)?;
    let Some(first) = found.first() else {
        // Of rules that could not all be read none is known to be absent.
        return if complete {
            Ok(None)
        } else {
            Err(Undiagnosed::Unsupported)
        };
    };
    if service_without_endpoints::says_so(first) {
        return Ok(None);
    }
    let (certainty, what) = match first.matches {
        Match::Fully => (all(Certainty::Certain), "by"),
        Match::Possibly => (Certainty::Likely, "probably by"),
    };
    let list = words::command(case, &words::list_chain(first), evidence);
    Ok(Some(Cause::new(
        Code::LocalFirewall,
        certainty,
        &format!(
            "this host's own firewall dropped packets of the attempt (NETFILTER_DROP), {what} {}",
            words::rule(first)
        ),
        &format!("{list} shows it: let tcp to {remote} and its answers pass there"),
        facts.with("rules", &found),
    )))
}

/// The rules that may have dropped the attempt's packets, and their namespace; `None` if netfilter
/// dropped none.
pub(crate) fn dropping(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<(u32, Firewall)>, Undiagnosed> {
    if let Some(drops) = case.drops {
        if evidence.drop_reason(drops.reason)? != NETFILTER_DROP {
            return Ok(None);
        }
        return Ok(Some((case.netns, rules(case, PacketEnd::Drop, evidence)?)));
    }
    let Some((drop, reason)) = way_drop::named(case, evidence)? else {
        return Ok(None);
    };
    if reason != NETFILTER_DROP {
        return Ok(None);
    }
    let mut rules = way_drop::rules(case, &drop, PacketEnd::Drop, evidence)?;
    if !drop.all {
        let found = rules.found.iter_mut();
        found.for_each(|found| found.matches = Match::Possibly);
    }
    Ok(Some((drop.netns, rules)))
}

/// A packet that was dropped after it had lost its socket: on loopback, or in another namespace.
fn on_the_way(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some((drop, reason)) = way_drop::named(case, evidence)? else {
        return Ok(None);
    };
    if let Some(policy) = who(&reason) {
        return Ok(Some(by_policy(case, &drop, &reason, policy, evidence)));
    }
    // Of the server's own firewall there is more to say.
    if reason != NETFILTER_DROP || remote_filtered::is_by_server(case, &drop, &reason, evidence)? {
        return Ok(None);
    }
    let Firewall { found, complete } = way_drop::rules(case, &drop, PacketEnd::Drop, evidence)?;
    let Some(first) = found.first() else {
        return if complete {
            Ok(None)
        } else {
            Err(Undiagnosed::Unsupported)
        };
    };
    if service_without_endpoints::says_so(first) {
        return Ok(None);
    }
    let (certainty, by) = match first.matches {
        Match::Fully => (certainty_of(&drop), "by"),
        Match::Possibly => (Certainty::Likely, "probably by"),
    };
    let other = found
        .get(1)
        .filter(|_| first.matches == Match::Possibly)
        .map_or_else(String::new, |other| format!(" or {}", words::rule(other)));
    let before = match case.heard.on_this_port_ago_s {
        Some(ago_s) => {
            format!("; a handshake there completed {ago_s} s ago: it may limit or ban, or be new")
        }
        None => String::new(),
    };
    let translation = way_drop::translation(case, &drop);
    let (packet, place) = (way_drop::packet(&drop), way_drop::place(case, drop.netns));
    let list = way_drop::command(&drop, &words::list_chain(first), evidence);
    Ok(Some(Cause::new(
        Code::LocalFirewall,
        certainty,
        &format!(
            "{translation}the {packet} was dropped in {place} (NETFILTER_DROP), {by} {}{other}{before}",
            words::rule(first)
        ),
        &format!("{list} shows it. {}", words::mend_rule(case, first)),
        way_drop::facts(case, &drop, &reason, evidence)
            .with("rules", &found)
            .with("answered_seconds_ago", case.heard.on_this_port_ago_s),
    )))
}

/// Packets lost elsewhere may have been lost for another reason.
fn certainty_of(drop: &CaseWayDrop) -> Certainty {
    if drop.all {
        Certainty::Certain
    } else {
        Certainty::Likely
    }
}

/// The reason of the drop names a policy, and the commands that find it.
fn by_policy(
    case: &Case,
    drop: &CaseWayDrop,
    reason: &str,
    (who, find): (&str, &[&str]),
    evidence: &mut dyn Evidence,
) -> Cause {
    let translation = way_drop::translation(case, drop);
    let (packet, place) = (way_drop::packet(drop), way_drop::place(case, drop.netns));
    let device = way_drop::device_name(drop, evidence);
    let at = device.map_or_else(String::new, |device| format!(" at {device}"));
    let find: Vec<_> = find
        .iter()
        .map(|find| way_drop::command(drop, find, evidence))
        .collect();
    Cause::new(
        Code::LocalFirewall,
        certainty_of(drop),
        &format!("{translation}the {packet} was dropped in {place}{at}: {who} ({reason})"),
        &format!(
            "find it with {}; ask its owner to let this connection and its answers pass",
            find.join(" and ")
        ),
        way_drop::facts(case, drop, reason, evidence),
    )
}

/// The rules that may have ended the attempt's SYN so, or the SYN-ACK.
pub(crate) fn rules(
    case: &Case,
    ending: PacketEnd,
    evidence: &mut dyn Evidence,
) -> Result<Firewall, Undiagnosed> {
    let Some(syn) = syn(case, evidence)? else {
        return Ok(Firewall::default());
    };
    // It may come by another interface than the SYN left by, and has no mark yet.
    let answer = FirewallPacket {
        direction: Direction::In,
        device: None,
        mark: None,
        uid: None,
        ..syn.clone()
    };
    let mut all = evidence.firewall(case.netns, syn, ending)?;
    if ending == PacketEnd::Drop {
        let mut of_answer = evidence.firewall(case.netns, answer, ending)?;
        // Which of the two was dropped is not recorded: NAT may have dropped the SYN.
        let of_one = of_answer.found.iter_mut();
        of_one.for_each(|found| found.matches = Match::Possibly);
        all.complete &= of_answer.complete;
        all.found.extend(of_answer.found);
        all.found
            .sort_by_key(|found| found.matches == Match::Possibly);
        all.found
            .dedup_by(|one, other| way_drop::is_same(one, other));
    }
    Ok(all)
}

/// The SYN as it is sent.
pub(crate) fn syn(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<FirewallPacket>, Undiagnosed> {
    let Some(remote) = case.remote_socket() else {
        return Ok(None);
    };
    Ok(Some(FirewallPacket {
        direction: Direction::Out,
        remote,
        local: case.local_addr,
        local_port: case.bound_port,
        device: device(case, evidence)?,
        leaves_by: None,
        asked: None,
        mark: Some(case.mark),
        uid: case.socket_uid,
    }))
}

/// Name of the interface that the SYN leaves by.
fn device(case: &Case, evidence: &mut dyn Evidence) -> Result<Option<String>, Undiagnosed> {
    let Some(way) = case.way() else {
        return Ok(None);
    };
    Ok(match evidence.route(case.netns, way)? {
        Route::Local => Some("lo".to_owned()),
        Route::Out(out) => Some(out.device.name),
        Route::None(_) => None,
    })
}

/// The policy behind a reason that is no rule of netfilter's, and the commands that find it.
pub(crate) fn who(reason: &str) -> Option<(&'static str, &'static [&'static str])> {
    Some(match reason {
        "BPF_CGROUP_EGRESS" => (
            "a BPF program on the process's cgroup",
            &["bpftool cgroup tree"],
        ),
        "SOCKET_FILTER" => (
            "a BPF program on the socket or its cgroup",
            &["bpftool cgroup tree", "ss -tnp --bpf"],
        ),
        "TC_EGRESS" | "TC_INGRESS" => (
            "traffic control on the interface, such as a network policy's BPF program",
            &["bpftool net show"],
        ),
        "XDP" => ("an XDP program on the interface", &["bpftool net show"]),
        "XFRM_POLICY" => ("an IPsec policy", &["ip xfrm policy"]),
        "SECURITY_HOOK" => ("a security module", &["ausearch -m avc -ts recent"]),
        _ => return None,
    })
}
