use super::{Case, Evidence, ask::Listener, place, proxy_in_path, words};
use crate::{
    event::{self, Cause, Certainty, Code},
    wire::Remote,
};

/// Refused: the server runs on this host, but not where the client looks. It
/// listens on 127.0.0.1 and the client uses another address, or on the other
/// address family, or in another network namespace (a container whose port is not
/// published).
///
/// Wrong when the server is another than the one the client means; for another
/// namespace that is only likely.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let Remote { addr, port } = place::reset_by(case, evidence)?;
    let home = place::home(case, evidence)?;
    let mut found = evidence.listeners(home, addr, port)?.on_port;
    if found.iter().any(|listener| listener.accepts(addr)) {
        // Since the attempt: it would have been let in.
        return None;
    }
    let certainty = if found.is_empty() {
        found = evidence.listeners_elsewhere(home, port)?;
        Certainty::Likely
    } else {
        Certainty::Certain
    };
    let first = found.first()?;
    if proxy_in_path::rewriting(case, evidence).is_some() {
        return None;
    }
    let fix = if certainty == Certainty::Certain {
        let own = std::net::SocketAddr::new(first.addr, first.port);
        let any = words::any_address(addr);
        format!("connect to {own}, or let the server listen on {addr} or {any}, port {port}")
    } else {
        in_namespace(first, port)
    };
    let listeners = words::listeners(&found);
    let where_else = if certainty == Certainty::Certain {
        format!("port {port} is listened on, but not on {addr}: {listeners}")
    } else {
        let netns = first.netns;
        format!("port {port} is listened on in another network namespace ({netns}): {listeners}")
    };
    Some(Cause::new(
        Code::ListeningElsewhere,
        certainty,
        &where_else,
        &fix,
        event::Facts::new()
            .with("netns", home)
            .with("listeners", &found),
    ))
}

fn in_namespace(listener: &Listener, port: u16) -> String {
    let netns = listener.netns;
    let into = listener.process.as_ref().map_or_else(
        || format!("`lsns -t net` finds namespace {netns}"),
        |owner| format!("`nsenter -t {} -n ip -br addr` shows them", owner.pid),
    );
    format!(
        "publish port {port} of the container to this host, or connect to one of its addresses: {into}"
    )
}
