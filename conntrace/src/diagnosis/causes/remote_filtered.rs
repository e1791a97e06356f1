use super::proxy_in_path;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Handshake, place, step,
    },
    record::{Label, Remote, ReplyKind},
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
    proofs: &[(
        Certainty::Likely,
        "an answer of the host on another port within ten minutes, none known on this one, and \
         two SYNs lost",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let silent = case.label == Label::TimedOut && case.reply == ReplyKind::None;
    let Some(Remote { addr, port }) = case.remote.filter(|_| silent && case.heard.outwaited) else {
        return Ok(None);
    };
    if !case.is_free_of_drops()? {
        return Ok(None);
    }
    let other = |answer: &Handshake| answer.port != port;
    let handshake = case.heard.handshake_lately().filter(other);
    let reset = case.heard.reset_lately();
    let answered = match (handshake, reset) {
        (Some(Handshake { port, ago_s }), _) => {
            format!("completed a handshake on port {port} {ago_s} s before")
        }
        (None, Some(Handshake { port, ago_s })) => {
            format!("refused a connection to port {port} {ago_s} s before")
        }
        (None, None) => return Ok(None),
    };
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
    let refused_here = reset.is_some_and(|reset| reset.port == port);
    if case.heard.on_this_port_lately()?.is_some() || refused_here {
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
        Facts::new()
            .with("port", port)
            .with("handshake_port", handshake.map(|it| it.port))
            .with("handshake_seconds_ago", handshake.map(|it| it.ago_s))
            .with("reset_port", reset.map(|it| it.port))
            .with("reset_seconds_ago", reset.map(|it| it.ago_s)),
    )))
}
