use crate::{
    diagnosis::{Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, step},
    record::{Label, ReplyKind},
};

/// The same address and port completed a handshake in the last ten minutes. The server is
/// overloaded or its queue full, a rate limit or ban set in, a gateway's NAT ran out of ports,
/// or the host behind the address changed. These cannot be told apart from here.
///
/// Wrong when the host or the network between went down meanwhile.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::AnswersSometimes,
    labels: &[Label::TimedOut],
    is: "The same address and port completed a handshake moments ago.",
    means: "the same address and port answered moments ago",
    recognised: &[
        "Possible: a handshake on this very address and port completed in the last ten minutes, and this attempt was not answered.",
    ],
    reasons: &[
        "The server does not accept fast enough: its accept queue or SYN queue is full.",
        "A firewall limits new connections (recent, hashlimit), or has banned this client (fail2ban).",
        "The connection tracking table of a gateway is full, or its NAT has no port left for this destination.",
        "Another host answers for the address now: a stale neighbour entry, a duplicate address, a load balancer with one dead backend.",
        "A device on the way drops packets with certain TCP options, such as timestamps or fast open.",
    ],
    steps: &[
        step(
            "nstat -az TcpExtListenOverflows TcpExtListenDrops",
            "on the server: both rise while its accept queue is full",
        ),
        step(
            "ss -ltn 'sport = :PORT'",
            "on the server: Recv-Q above Send-Q is a full accept queue",
        ),
        step(
            "ip neigh show ADDRESS",
            "here, twice: another link-layer address means that two hosts have the address",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Possible,
        "a handshake on this very address and port within ten minutes",
    )],
};

fn look(case: &Case, _: &mut dyn Evidence) -> Finding {
    if case.label != Label::TimedOut || case.reply != ReplyKind::None {
        return Ok(None);
    }
    if !case.is_free_of_drops()? {
        return Ok(None);
    }
    let (Some(remote), Some(ago_s)) = (case.remote_socket(), case.heard.on_this_port_lately()?)
    else {
        return Ok(None);
    };
    let port = remote.port();
    Ok(Some(Cause::new(
        Code::AnswersSometimes,
        Certainty::Possible,
        &format!(
            "{remote} completed a handshake {ago_s} s ago and did not answer this time: overload, a \
             full accept queue, a rate limit or ban, a NAT gateway out of ports, or another host \
             behind the address"
        ),
        &format!(
            "on the server: `nstat -az TcpExtListenDrops` and `ss -ltn 'sport = :{port}'` show a \
             full accept queue; look for a limit of new connections in its firewall"
        ),
        Facts::new()
            .with("remote", remote)
            .with("handshake_seconds_ago", ago_s)
            .with("two_syns_lost", case.heard.outwaited),
    )))
}
