use std::net::IpAddr;

use super::proxy_in_path;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding,
        place::{self, Home},
        question::{Listener, Listeners},
        step, words,
    },
    record::{Label, Remote},
};

/// The client uses the wrong port of this machine: nothing listens on it, and something does on
/// one that is easily mistaken for it: a digit more, less or other, or two in each other's
/// place.
///
/// Wrong when the port that works is another server's and the right one is down.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::WrongPort,
    labels: &[Label::Refused],
    is: "The server listens on another port than the client connects to.",
    means: "the server listens on another port than this one",
    recognised: &[
        "Likely: the way leads to an address of this machine. Nothing there listens on that port, but something does, on an address that fits, on a port that differs by a digit or has two neighbouring digits swapped.",
    ],
    reasons: &[
        "A typing error in a configuration.",
        "A second instance (5433 beside 5432) or a plain and an encrypted port (8080, 8443).",
        "The right server is down, and the similar port is a coincidence.",
    ],
    steps: &[
        step("ss -ltnp", "what listens, and by which process"),
        step(
            "tr '\\0' '\\n' < /proc/PID/cmdline",
            "what the client was told to connect to",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Likely,
        "no listener on the port, and one on a port that is easily mistaken for it",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if place::reset_by(case, evidence)?.is_none() {
        return Ok(None);
    }
    let Some(home) = place::home(case, evidence)? else {
        return Ok(None);
    };
    let Home { netns, at, .. } = home;
    let listeners = evidence.listeners(netns, at.addr, at.port)?;
    let nothing = listeners.on_port.is_empty();
    let Some(similar) = of_similar(listeners, at.addr).filter(|_| nothing) else {
        return Ok(None);
    };
    if !home.is_witnessed && proxy_in_path::rewriting(case, Some(netns), evidence)?.may_be() {
        return Ok(None);
    }
    let translation = place::translation(case, &home);
    let found = words::listeners(&similar);
    let instead = similar.first().map_or(at.port, |first| first.port);
    let Remote { addr, port } = at;
    let fix = if translation.is_empty() {
        format!(
            "connect to port {instead} if that is the server meant; else start it on port {port}"
        )
    } else {
        format!(
            "let the translation lead to port {instead} if that is the server meant (a service's \
             targetPort, a published port); else start it on port {port}"
        )
    };
    Ok(Some(Cause::new(
        Code::WrongPort,
        Certainty::Likely,
        &format!(
            "{translation}nothing listens on port {port} of {addr}, an address of this machine, but: \
             {found}"
        ),
        &fix,
        Facts::new()
            .with("netns", netns)
            .with("listeners", &similar),
    )))
}

/// Listeners that accept the address on a port that is easily mistaken for the one tried;
/// `None` if there are none.
pub(crate) fn of_similar(listeners: Listeners, addr: IpAddr) -> Option<Vec<Listener>> {
    let mut similar = listeners.on_similar;
    similar.retain(|listener| listener.device.is_none() && listener.accepts(addr));
    (!similar.is_empty()).then_some(similar)
}
