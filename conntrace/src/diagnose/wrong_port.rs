use super::{Case, Evidence, is_similar, place, proxy_in_path, words};
use crate::{
    event::{self, Cause, Certainty, Code},
    wire::Remote,
};

/// Refused: the client uses the wrong port. Of this host: nothing listens on it, and
/// something does on one that is easily mistaken for it: a digit more, less or other,
/// or two in each other's place. Of another host: it completed a handshake on another
/// port lately, which is likely if that one is similar and else only possible.
///
/// Wrong when the port that works is another server's and the right one is down.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let Remote { addr, port } = place::reset_by(case, evidence)?;
    let Some(home) = place::home(case, evidence) else {
        return of_another_host(case, Remote { addr, port }, evidence);
    };
    let mut listeners = evidence.listeners(home, addr, port)?;
    listeners
        .on_similar
        .retain(|listener| listener.accepts(addr));
    let first = listeners.on_similar.first()?;
    let mut rewritten = || proxy_in_path::rewriting(case, evidence).is_some();
    if !listeners.on_port.is_empty() || rewritten() {
        return None;
    }
    let found = words::listeners(&listeners.on_similar);
    Some(Cause::new(
        Code::WrongPort,
        Certainty::Likely,
        &format!("nothing listens on port {port} of {addr}, an address of this host, but: {found}"),
        &format!(
            "connect to port {} if that is the server meant; else start it on port {port}",
            first.port
        ),
        event::Facts::new()
            .with("netns", home)
            .with("listeners", &listeners.on_similar),
    ))
}

fn of_another_host(
    case: &Case,
    Remote { addr, port }: Remote,
    evidence: &mut dyn Evidence,
) -> Option<Cause> {
    let works = case.heard.handshake_lately()?;
    if addr.is_loopback()
        || works.port == port
        || proxy_in_path::rewriting(case, evidence).is_some()
    {
        return None;
    }
    let certainty = if is_similar(port, works.port) {
        Certainty::Likely
    } else {
        Certainty::Possible
    };
    let (other, ago_s) = (works.port, works.ago_s);
    Some(Cause::new(
        Code::WrongPort,
        certainty,
        &format!(
            "{addr} refuses port {port}, and completed a handshake on port {other} {ago_s} s before"
        ),
        &format!(
            "connect to port {other} if that is the server meant; else start it on port {port} of \
             {addr}, where `ss -ltn` lists what listens"
        ),
        event::Facts::new()
            .with("port", port)
            .with("handshake_port", other)
            .with("handshake_seconds_ago", ago_s),
    ))
}
