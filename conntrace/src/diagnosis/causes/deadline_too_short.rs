use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, step, way_drop,
    },
    record::{Label, ReplyKind},
};

/// The application gave up before the answer could come: the SYN-ACK arrived after it had closed the
/// socket.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::DeadlineTooShort,
    labels: &[Label::TimedOut],
    is: "The application gave up before the answer could come.",
    means: "the application gave up too early",
    recognised: &[
        "Certain: the SYN-ACK of the destination arrived after the application had closed the socket, and met none (kfree_skb with NO_SOCKET). It is waited for at most half a second.",
    ],
    reasons: &[
        "The connect timeout is shorter than the round trip, as in another region, over a satellite or a busy VPN.",
        "The server or a host on the way is overloaded and answers late.",
        "A happy-eyeballs attempt got less time than the network needs.",
    ],
    steps: &[
        step(
            "ping -c 3 ADDR",
            "the round-trip time: the deadline must be several times longer",
        ),
        step(
            "curl -sS -o /dev/null -w '%{time_connect}\\n' --connect-timeout 10 'http://ADDR:PORT/'",
            "the time that a connect takes, in seconds",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "a SYN-ACK from the destination that met no socket after the close",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if case.label != Label::TimedOut || case.reply != ReplyKind::None {
        return Ok(None);
    }
    let (Some(drop), Some(remote)) = (
        way_drop::answer_without_socket(case, evidence)?,
        case.remote_socket(),
    ) else {
        return Ok(None);
    };
    if !drop.is_late || Some(drop.server) != case.remote {
        return Ok(None);
    }
    Ok(Some(Cause::new(
        Code::DeadlineTooShort,
        Certainty::Certain,
        &format!(
            "{remote} answered, and its SYN-ACK came after the application had closed the socket: it \
             gave up before, or was ended"
        ),
        &format!(
            "if it has a connect timeout, raise that for {remote} to several times the round-trip time, \
             a second at least"
        ),
        Facts::new()
            .with("remote", remote)
            .with("syn_ack", "after the close"),
    )))
}
