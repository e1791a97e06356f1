use super::{Case, Evidence, Handshake};
use crate::{
    event::{self, Cause, Certainty, Code},
    label::Label,
    reply::ReplyKind,
    wire::Remote,
};

/// Timed out: the server's firewall, the cloud's security group or a hosting panel's
/// firewall drops the SYNs. The same host completed a handshake on another port lately,
/// or sent a RST, so it is there and knows the way back.
///
/// Wrong when the host went down, or the network between, in the minutes since; and when
/// it is the server that is too busy to accept. A host that answered on this very port
/// is none of this rule's.
pub(super) fn rule(case: &Case, _: &mut dyn Evidence) -> Option<Cause> {
    if case.label != Label::TimedOut || case.reply != ReplyKind::None {
        return None;
    }
    let Remote { addr, port } = case.remote?;
    let handshake = case.heard.handshake_lately();
    let reset_ago_s = case.heard.reset_lately();
    let answered = match (handshake, reset_ago_s) {
        (Some(handshake), _) if handshake.port == port => return None,
        (Some(Handshake { port, ago_s }), _) => {
            format!("completed a handshake on port {port} {ago_s} s before")
        }
        (None, Some(ago_s)) => format!("refused a connection {ago_s} s before"),
        (None, None) => return None,
    };
    Some(Cause::new(
        Code::RemoteFiltered,
        Certainty::Likely,
        &format!("{addr} {answered}, but answers nothing on port {port}"),
        &format!(
            "let tcp dport {port} from this host pass in the firewall of {addr}, its cloud \
             security group or hosting panel; on {addr}: `nft list ruleset | grep -n drop`"
        ),
        event::Facts::new()
            .with("port", port)
            .with("handshake_port", handshake.map(|handshake| handshake.port))
            .with(
                "handshake_seconds_ago",
                handshake.map(|handshake| handshake.ago_s),
            )
            .with("reset_seconds_ago", reset_ago_s),
    ))
}
