use super::{Case, Evidence, place, proxy_in_path, words};
use crate::{
    event::{self, Cause, Certainty, Code},
    wire::Remote,
};

/// Refused: the client uses the wrong port of this host. Nothing listens on it,
/// and something does on one that is easily mistaken for it: a digit more, less or
/// other, or two in each other's place.
///
/// Wrong when the similar port is a coincidence and the right server is down.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let Remote { addr, port } = place::reset_by(case, evidence)?;
    let home = place::home(case, evidence)?;
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
