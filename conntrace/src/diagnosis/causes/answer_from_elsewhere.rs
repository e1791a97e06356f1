use std::net::SocketAddr;

use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, step, way_drop,
    },
    record::{Label, ReplyKind},
};

/// A SYN-ACK came to the attempt's own address and port, from another address or port than was asked,
/// so that no socket took it.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::AnswerFromElsewhere,
    labels: &[Label::TimedOut],
    is: "The answer came from another address than was asked.",
    means: "the answer came from another address",
    recognised: &[
        "Certain: a SYN-ACK to the attempt's own address and port met no socket (kfree_skb with NO_SOCKET), because it came from another address or port than the attempt's. It is told of attempts that sent a second SYN.",
    ],
    reasons: &[
        "Source or destination NAT on the way there that the answer does not pass on its way back.",
        "A server with several addresses or a load balancer in direct server return that answers with its own.",
        "A hairpin: client and server are in the same network, and the translation's gateway is left out on the way back.",
    ],
    steps: &[
        step(
            "tcpdump -ni any 'tcp port PORT and tcp[tcpflags] & tcp-syn != 0'",
            "the SYN and its answer, with both addresses",
        ),
        step(
            "nft list ruleset",
            "on the gateway: a dnat without masquerade for connections from the same network",
        ),
        step(
            "ip route get ADDR",
            "on the server: the way back, which must lead through the translation",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "a SYN-ACK to the attempt's address and port, from another address, that met no socket",
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
    if Some(drop.server) == case.remote || drop.asked.is_some() {
        return Ok(None);
    }
    let from = SocketAddr::new(drop.server.addr, drop.server.port);
    Ok(Some(Cause::new(
        Code::AnswerFromElsewhere,
        Certainty::Certain,
        &format!(
            "the SYN went to {remote}, and its answer came from {from}: no socket waits for that"
        ),
        &format!(
            "let the answer go back through the translation that leads {remote} to {from}: masquerade \
             such connections there, or connect to {from} directly"
        ),
        Facts::new().with("remote", remote).with("from", from),
    )))
}
