use super::{local_firewall, proxy_in_path};
use crate::{
    diagnosis::{
        Case, CaseWayDrop, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Handshake,
        Undiagnosed,
        firewall_facts::{Firewall, Match, PacketEnd},
        place, step, way_drop, words,
    },
    record::{Label, Remote, ReplyKind, WayPacket},
};

/// The server's firewall, the cloud's security group or a hosting panel's firewall drops the
/// SYNs. The same host completed a handshake on another port lately, or sent a RST, so it is
/// there and knows the way back; on this port it never did, and two SYNs at least were lost,
/// over longer than its handshakes take.
///
/// Wrong when the host went down, or the network between, in the minutes since; and when it is
/// the server that is too busy to accept. A host that answered on this very port is
/// `answers_sometimes`.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::RemoteFiltered,
    labels: &[Label::TimedOut],
    is: "A firewall of the remote host, or in front of it, drops the packets.",
    means: "the other side's firewall drops the packets",
    recognised: &[
        "Certain: the host is another network namespace of this machine on the client's own network, it lately answered on another port, and a rule there that drops matches the dropped SYNs in full.",
        "Likely: at least two SYNs were lost, over longer than handshakes with that host take. The same host lately completed a handshake on another port, or sent a RST, and completed none on this one. Both in attempts that were traced, from the same network namespace.",
    ],
    reasons: &[
        "The server's firewall drops what it does not let in (ufw, firewalld, nftables).",
        "The cloud's security group or network policy does not list the port, or not this client.",
        "A hosting panel has a firewall of its own.",
        "Looks the same: the listener's accept queue is full. The server's kernel then drops SYNs without an answer, on that port alone.",
        "Looks the same: a full connection tracking table, on the server or on a firewall on the way. It keeps old connections and drops new ones.",
        "Looks the same: asymmetric routes. The SYN arrives, and the answer takes a way on which it is dropped (a stateful firewall, reverse path filtering).",
        "The host went down in the meantime.",
    ],
    steps: &[
        step(
            "tcpdump -ni any 'tcp port PORT'",
            "on the destination. No SYN: it is dropped on the way. A SYN and no answer: the server drops it. A SYN-ACK that does not arrive here: it is dropped on the way back",
        ),
        step(
            "nft -a list ruleset",
            "on the destination: base chains with the policy drop, and rules that drop",
        ),
        step(
            "ss -ltn 'sport = :PORT'; nstat -az TcpExtListenOverflows",
            "on the destination: Recv-Q above Send-Q, and a counter that grows, mean a full accept queue",
        ),
        step(
            "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
            "on the destination and on firewalls on the way: a count at its maximum",
        ),
        step(
            "ip route get CLIENT",
            "on the destination, with this host's address: whether answers leave by the interface on which the SYN came",
        ),
        step(
            "nc -vz ADDR PORT",
            "from another host: whether only this one is kept out",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "a rule of the server's own namespace on this machine that fully matches the dropped SYNs, \
             and an answer of it on another port",
        ),
        (
            Certainty::Likely,
            "an answer of the host on another port within ten minutes, none known on this one, and \
             two SYNs lost",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some(Remote { addr, port }) = case.remote.filter(|_| is_silent(case)) else {
        return Ok(None);
    };
    if let Some((drop, reason)) = way_drop::named(case, evidence)? {
        return if is_by_server(case, &drop, &reason, evidence)? {
            by_server(case, &drop, evidence)
        } else {
            Ok(None)
        };
    }
    if !case.is_free_of_drops()? {
        return Ok(None);
    }
    let Some(answered) = answered_on_another_port(case) else {
        return Ok(None);
    };
    let (handshake, reset) = other_answers(case);
    // What this host itself, or a proxy that a rule leads to, has answered is no answer of
    // that host.
    let heard_on = handshake.or(reset).map_or(port, |answer| answer.port);
    let to_that = Case {
        remote: Some(Remote {
            addr,
            port: heard_on,
        }),
        ..case.clone()
    };
    if place::way_out(case, evidence)?.is_none()
        || proxy_in_path::rewriting(&to_that, None, evidence)?.may_be()
    {
        return Ok(None);
    }
    if has_answered_here(case)? {
        return Ok(None);
    }
    Ok(Some(Cause::new(
        Code::RemoteFiltered,
        Certainty::Likely,
        &format!("{addr} {answered}, but answered none of this attempt's SYNs to port {port}"),
        &format!(
            "let tcp dport {port} from this host pass in the firewall of {addr}, its cloud \
             security group or hosting panel; on {addr}: `nft list ruleset | grep -n drop`"
        ),
        facts(case, port),
    )))
}

/// No answer, and two SYNs lost over longer than the host's handshakes take.
fn is_silent(case: &Case) -> bool {
    case.label == Label::TimedOut && case.reply == ReplyKind::None && case.heard.outwaited
}

/// The host's last handshake on another port and its last RST, if they count.
fn other_answers(case: &Case) -> (Option<Handshake>, Option<Handshake>) {
    let port = case.remote.map(|remote| remote.port);
    let other = |answer: &Handshake| Some(answer.port) != port;
    let handshake = case.heard.handshake_lately().filter(other);
    (handshake, case.heard.reset_lately())
}

/// `completed a handshake on port 22 1 s before`; `None` of a host that is not known to have answered.
fn answered_on_another_port(case: &Case) -> Option<String> {
    let (what, answer) = match other_answers(case) {
        (Some(handshake), _) => ("completed a handshake on", handshake),
        (None, Some(reset)) => ("refused a connection to", reset),
        (None, None) => return None,
    };
    let Handshake { port, ago_s } = answer;
    Some(format!("{what} port {port} {ago_s} s before"))
}

/// The host has answered on this very port.
fn has_answered_here(case: &Case) -> Result<bool, Undiagnosed> {
    let port = case.remote.map(|remote| remote.port);
    let reset = case.heard.reset_lately();
    let is_refused = reset.is_some_and(|reset| Some(reset.port) == port);
    Ok(is_refused || case.heard.on_this_port_lately()?.is_some())
}

/// The SYN was dropped by the firewall of the server itself: the server is a namespace of this
/// machine on the client's own network, and has answered on another port only.
pub(crate) fn is_by_server(
    case: &Case,
    drop: &CaseWayDrop,
    reason: &str,
    evidence: &mut dyn Evidence,
) -> Result<bool, Undiagnosed> {
    let is_untranslated = drop.packet == WayPacket::Syn && Some(drop.server) == case.remote;
    if !is_silent(case)
        || reason != local_firewall::NETFILTER_DROP
        || !is_untranslated
        || drop.netns == case.netns
        || answered_on_another_port(case).is_none()
        || has_answered_here(case)?
    {
        return Ok(false);
    }
    let Some(out) = place::way_out(case, evidence)?.filter(|out| out.gateway.is_none()) else {
        return Ok(false);
    };
    let owner = evidence.owner(case.netns, out.device.index, drop.server.addr)?;
    Ok(owner == Some(drop.netns))
}

fn by_server(case: &Case, drop: &CaseWayDrop, evidence: &mut dyn Evidence) -> Finding {
    let Remote { addr, port } = drop.server;
    let (Some(answered), Firewall { found, complete }) = (
        answered_on_another_port(case),
        way_drop::rules(case, drop, PacketEnd::Drop, evidence)?,
    ) else {
        return Ok(None);
    };
    let Some(rule) = found.first() else {
        return if complete {
            Ok(None)
        } else {
            Err(Undiagnosed::Unsupported)
        };
    };
    let (certainty, by) = match rule.matches {
        Match::Fully if drop.all => (Certainty::Certain, "by"),
        Match::Fully => (Certainty::Likely, "by"),
        Match::Possibly => (Certainty::Likely, "probably by"),
    };
    let list = way_drop::command(drop, &words::list_chain(rule), evidence);
    let place = way_drop::place(case, drop.netns);
    Ok(Some(Cause::new(
        Code::RemoteFiltered,
        certainty,
        &format!(
            "{addr} {answered}, and its own firewall ({place}) drops SYNs to port {port} \
             (NETFILTER_DROP), {by} {}",
            words::rule(rule)
        ),
        &format!("{list} shows it. {}", words::mend_rule(case, rule)),
        facts(case, port)
            .with("netns", drop.netns)
            .with("drop_reason", local_firewall::NETFILTER_DROP)
            .with("rules", &found),
    )))
}

fn facts(case: &Case, port: u16) -> Facts {
    let (handshake, reset) = other_answers(case);
    Facts::new()
        .with("port", port)
        .with("handshake_port", handshake.map(|it| it.port))
        .with("handshake_seconds_ago", handshake.map(|it| it.ago_s))
        .with("reset_port", reset.map(|it| it.port))
        .with("reset_seconds_ago", reset.map(|it| it.ago_s))
}
