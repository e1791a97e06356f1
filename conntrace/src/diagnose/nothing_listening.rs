use super::{Case, Evidence, place, proxy_in_path};
use crate::{
    event::{self, Cause, Certainty, Code},
    wire::Remote,
};

/// Refused: the server is not started, or does not listen on that port. Certain
/// where the destination is this host, whose sockets can be looked at; of another
/// host there is the RST.
///
/// Wrong when the server stopped or started between the attempt and the look, when
/// the RST is that of a firewall in the host's name, or when address translation led
/// the attempt elsewhere by a rule that `proxy_in_path` does not recognise.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let Remote { addr, port } = place::reset_by(case, evidence)?;
    let Some(home) = place::home(case, evidence) else {
        let rewritten = proxy_in_path::rewriting(case, evidence).is_some();
        return (!addr.is_loopback() && !rewritten).then(|| of_another_host(case, addr, port));
    };
    let listeners = evidence.listeners(home, addr, port)?;
    let mut similar = listeners.on_similar.iter();
    let known_better = !listeners.on_port.is_empty()
        || similar.any(|listener| listener.accepts(addr))
        || !evidence.listeners_elsewhere(home, port)?.is_empty()
        || proxy_in_path::rewriting(case, evidence).is_some();
    if known_better {
        return None;
    }
    Some(Cause::new(
        Code::NothingListening,
        Certainty::Certain,
        &format!("{addr} is an address of this host, and no socket listens on port {port}"),
        &format!(
            "start the server that should listen on port {port}; `ss -ltnp` lists those that do"
        ),
        event::Facts::new()
            .with("netns", home)
            .with("port", port)
            .with("listeners", &listeners.on_port),
    ))
}

fn of_another_host(case: &Case, addr: std::net::IpAddr, port: u16) -> Cause {
    Cause::new(
        Code::NothingListening,
        Certainty::Likely,
        &format!("{addr} is up, nothing accepts {port} or a firewall resets it"),
        &format!(
            "on {addr}: `ss -ltn 'sport = :{port}'` shows whether the server listens, and on which \
             address; start it, or open its firewall"
        ),
        event::Facts::new()
            .with("reply", case.reply)
            .with("from", addr)
            .with("port", port),
    )
}
