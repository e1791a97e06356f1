use crate::{
    diagnosis::{Case, Cause, CauseRule, Certainty, Code, Evidence, Facts, Finding},
    record::{Label, ReplyKind},
};

/// Timed out: the same address and port completed a handshake in the last ten minutes. The
/// server is overloaded or its queue full, a rate limit or ban set in, a gateway's NAT ran out
/// of ports, or the host behind the address changed. These cannot be told apart from here.
///
/// Wrong when the host or the network between went down meanwhile.
pub(crate) const RULE: CauseRule = CauseRule {
    code: Code::AnswersSometimes,
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
