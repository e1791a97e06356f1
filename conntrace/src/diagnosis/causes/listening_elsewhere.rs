use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::proxy_in_path;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding,
        place::{self, Home},
        question::Listener,
        step, words,
    },
    record::{Label, Remote},
};

/// The server listens on this port in the namespace to which the way leads, but not on the
/// address that the client uses: on 127.0.0.1, on the other address family, or bound to another
/// interface.
///
/// Wrong when the server is another than the one the client means.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::ListeningElsewhere,
    labels: &[Label::Refused],
    is: "The server listens on another address, family or device than the client connects to.",
    means: "the server listens, but not where it is looked for",
    recognised: &[
        "Certain: sockets listen on that port where the way leads, and none accepts the address that was used: `evidence` has each, and why it does not apply (other address, IPv6 only, device).",
        "Likely: the same, but legacy iptables has rules, which cannot be read.",
    ],
    reasons: &[
        "The server listens on 127.0.0.1, the default of many, and the client uses the address of the network.",
        "It listens on the other address family: 0.0.0.0 takes no IPv6, and [::] with IPV6_V6ONLY no IPv4.",
        "It is bound to another device (SO_BINDTODEVICE, a VRF).",
    ],
    steps: &[
        step(
            "ss -ltnp 'sport = :PORT'",
            "the addresses that are listened on: 127.0.0.1 takes connections to that address only",
        ),
        step(
            "getent ahosts NAME",
            "which addresses the client's name for the server leads to",
        ),
        step(
            "grep -rn listen CONFIG",
            "in the server's configuration (bind, listen, listen_addresses): where it is told to listen",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "listeners on the port in the namespace that has the address, none of which accepts it, \
             and no rule leads the attempt elsewhere",
        ),
        (
            Certainty::Likely,
            "the same, and rules that cannot be read (legacy iptables)",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if place::reset_by(case, evidence)?.is_none() {
        return Ok(None);
    }
    let Some(home) = place::home(case, evidence)? else {
        return Ok(None);
    };
    let Home { netns, at, .. } = home;
    let found = evidence.listeners(netns, at.addr, at.port)?.on_port;
    // One that accepts it came after the attempt, or a device decides.
    if found
        .iter()
        .any(|listener| may_accept(case, &home, listener))
    {
        return Ok(None);
    }
    let mut is_certain = home.is_witnessed;
    if !home.is_witnessed {
        let rewriting = proxy_in_path::rewriting(case, Some(netns), evidence)?;
        if rewriting.may_be() {
            return Ok(None);
        }
        is_certain = rewriting.is_ruled_out;
    }
    let Some(first) = found.first() else {
        return Ok(None);
    };
    let listeners = words::listeners(&found);
    let Remote { addr, port } = at;
    let place = if netns == case.netns {
        String::new()
    } else {
        format!(" of {addr}, which is in network namespace {netns},")
    };
    let certainty = if is_certain {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    let translation = place::translation(case, &home);
    Ok(Some(Cause::new(
        Code::ListeningElsewhere,
        certainty,
        &format!("{translation}port {port}{place} is listened on, but not on {addr}: {listeners}"),
        &fix(case, &home, first),
        Facts::new()
            .with("netns", netns)
            .with("listeners", &found)
            .with(
                "translated_to",
                (!translation.is_empty()).then(|| SocketAddr::new(addr, port)),
            ),
    )))
}

/// A listener that takes connections to the address, as far as is known.
fn may_accept(case: &Case, home: &Home, listener: &Listener) -> bool {
    // Connections from its own namespace come by loopback.
    let other_device = listener.device.as_ref().is_some_and(|it| it.name != "lo");
    let by_loopback = home.netns == case.netns;
    listener.accepts(home.at.addr) && !(other_device && by_loopback)
}

fn fix(case: &Case, home: &Home, first: &Listener) -> String {
    let Remote { addr, port } = home.at;
    // A translated connection cannot use what only the server's own namespace can.
    let is_own = home.netns == case.netns && case.remote == Some(home.at);
    let own = SocketAddr::new(first.addr, port);
    let any = words::any_address(addr);
    let server = words::process(first.process.as_ref());
    if first.accepts(addr) {
        let device = first.device.as_ref().map_or("?", |device| &device.name);
        return format!("let {server} listen without being bound to the interface {device}");
    }
    let listen = format!("let {server} listen on {addr} or {any}, port {port}");
    // It listens on every address of the other family.
    let every = first.addr.is_unspecified();
    let family = if first.addr.is_ipv4() { "IPv4" } else { "IPv6" };
    match (is_own, every) {
        (true, false) => format!("connect to {own}, or {listen}"),
        (true, true) if addr.is_loopback() => {
            let loopback: IpAddr = match first.addr {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            let own = SocketAddr::new(loopback, port);
            format!("connect to {own}, or {listen}")
        }
        (_, true) => format!("connect to an {family} address of that host, or {listen}"),
        (false, false) => listen,
    }
}
