use std::net::SocketAddr;

use super::{proxy_in_path, wrong_port};
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Undiagnosed,
        place::{self, Home, PathEnd},
        step, way_drop, words,
    },
    record::{Label, Remote},
};

/// The server is not started, does not listen on that port, or the address is another host's
/// than the one meant. Certain where the way leads to a namespace of this machine, whose
/// sockets can be looked at; of another host there is the RST.
///
/// Wrong when the server stopped or started between the attempt and the look, when the RST is
/// that of a firewall in the host's name.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::NothingListening,
    labels: &[Label::Refused],
    is: "No socket listens on the port of the destination.",
    means: "no socket accepts connections to that port",
    recognised: &[
        "Certain: the way leads to an address of this machine, in the process's network namespace or in another one, no socket there listens on that port, and no firewall rule leads the attempt elsewhere.",
        "Likely: another host answered with a RST, so it is up; nothing accepts the port, or a firewall resets it in the host's name.",
        "Likely: as above, but the namespace lies behind a gateway of this machine, or legacy iptables has rules, which cannot be read.",
    ],
    reasons: &[
        "The server is not started, has crashed or is being restarted.",
        "It listens on another port than its clients use.",
        "The client uses the wrong address: an outdated DNS record, another environment's server, or 127.0.0.1 within a container, which is the container itself.",
        "A load balancer still sends to an instance that is gone.",
        "Address translation leads to a port on which nothing listens.",
    ],
    steps: &[
        step(
            "getent ahosts NAME",
            "which addresses the client's name for the server leads to, as against where the server is",
        ),
        step(
            "ss -ltnp 'sport = :PORT'",
            "on the destination: nothing, while this is the cause",
        ),
        step(
            "systemctl status SERVICE",
            "on the destination: whether it runs, and since when",
        ),
        step(
            "journalctl -u SERVICE -b",
            "on the destination: why it ended, or could not have its port",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "the namespace that has the address has no listener on the port, and no rule leads the \
             attempt elsewhere",
        ),
        (
            Certainty::Likely,
            "a RST from an address that is no namespace's of this machine, or of a namespace behind \
             a gateway, or rules that cannot be read (legacy iptables)",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some(Remote { addr, port }) = place::reset_by(case, evidence)? else {
        return Ok(None);
    };
    // Of a proxy there is more to say. Where that is unknown, this is no less true.
    if let Ok(Some(_)) = proxy_in_path::variable(case, evidence) {
        return Ok(None);
    }
    let direct = place::home(case, evidence)?;
    let home = match direct {
        Some(home) => Some(home),
        None if addr.is_loopback() => return Ok(None),
        None => match behind_a_gateway(case, evidence)? {
            Some(PathEnd::Here(netns)) => Some(Home {
                netns,
                at: Remote { addr, port },
                is_witnessed: false,
            }),
            Some(PathEnd::Rewritten) => return Ok(None),
            Some(PathEnd::Leaves(..) | PathEnd::Stops) | None => None,
        },
    };
    let is_witnessed = home.is_some_and(|home| home.is_witnessed);
    // Of a rule that redirects to a proxy of this host there is more to say.
    let is_redirected = home.is_some_and(|home| home.is_witnessed && is_redirect(case, &home));
    if is_redirected && proxy_in_path::rewriting(case, None, evidence)?.may_be() {
        return Ok(None);
    }
    // Of tables that nothing is known of, one may lead the attempt elsewhere, and a gateway may
    // choose its route by more than is asked for.
    let mut is_certain = is_witnessed;
    if !is_witnessed {
        let netns = home.map(|home| home.netns);
        let rewriting = proxy_in_path::rewriting(case, netns, evidence)?;
        if rewriting.may_be() {
            return Ok(None);
        }
        is_certain = rewriting.is_ruled_out && direct.is_some();
    }
    let Some(home) = home else {
        return Ok(Some(of_another_host(case, addr, port)));
    };
    let listeners = evidence.listeners(home.netns, home.at.addr, home.at.port)?;
    // The rules about these say more.
    let is_similar = wrong_port::of_similar(listeners.clone(), home.at.addr).is_some();
    if !listeners.on_port.is_empty() || (direct.is_some() && is_similar) {
        return Ok(None);
    }
    let certainty = if is_certain {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    Ok(Some(nobody_there(case, &home, certainty, evidence)))
}

/// The attempt was led to loopback of the client's own namespace, where proxies are.
fn is_redirect(case: &Case, home: &Home) -> bool {
    home.netns == case.netns && case.remote != Some(home.at) && home.at.addr.is_loopback()
}

/// Nothing listens on the port of a namespace of this machine.
fn nobody_there(
    case: &Case,
    home: &Home,
    certainty: Certainty,
    evidence: &mut dyn Evidence,
) -> Cause {
    let Home { netns, at, .. } = *home;
    // A remark: the way does not lead there.
    let elsewhere = evidence.listeners_elsewhere(netns, at.port).ok();
    let place = way_drop::place(case, netns);
    let translation = place::translation(case, home);
    let fix = if translation.is_empty() {
        "correct the address or port that the client uses"
    } else {
        "correct the port to which the translation leads, such as the targetPort of a Kubernetes \
         service or a published port"
    };
    let translated_to = (!translation.is_empty()).then(|| SocketAddr::new(at.addr, at.port));
    Cause::new(
        Code::NothingListening,
        certainty,
        &format!(
            "{translation}{} is an address of {place}, and no socket there listens on port {}",
            at.addr, at.port
        ),
        &format!(
            "start the server that should listen on port {} there, or {fix}",
            at.port
        ),
        Facts::new()
            .with("netns", netns)
            .with("port", at.port)
            .with("translated_to", translated_to)
            .with("listeners_in_other_namespaces", elsewhere),
    )
}

/// The end of a way whose first gateway may be a namespace of this machine, such as a
/// container's node.
fn behind_a_gateway(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<PathEnd>, Undiagnosed> {
    let Some(out) = place::way_out(case, evidence)? else {
        return Ok(None);
    };
    let link = evidence.link(case.netns, out.device.index)?;
    let is_veth = link.is_some_and(|link| link.kind.as_deref() == Some("veth"));
    // Of others the next hop is hardly on this machine, and all namespaces would be asked.
    if out.gateway.is_none() || !is_veth {
        return Ok(None);
    }
    place::end_of_way(case, out, evidence).map(Some)
}

fn of_another_host(case: &Case, addr: std::net::IpAddr, port: u16) -> Cause {
    let works = case.heard.handshake_lately();
    let works = works.filter(|works| works.port != port);
    let remote = SocketAddr::new(addr, port);
    // It restarts, or another host has the address now.
    let before = case.heard.on_this_port_ago_s;
    let answered = match before {
        Some(ago_s) => format!("; it completed a handshake there {ago_s} s before"),
        None => String::new(),
    };
    Cause::new(
        Code::NothingListening,
        Certainty::Likely,
        &format!(
            "{addr} is up and refuses {port}: nothing listens there, or a firewall resets it{answered}"
        ),
        &format!(
            "on {addr}: {} shows the listener and its address; start the server, open the firewall, \
             or correct the {remote} that the client uses",
            words::quoted(&format!("ss -ltn 'sport = :{port}'"))
        ),
        Facts::new()
            .with("reply", case.reply)
            .with("from", addr)
            .with("port", port)
            .with("answered_seconds_ago", before)
            .with("works_port", works.map(|works| works.port))
            .with("works_seconds_ago", works.map(|works| works.ago_s)),
    )
}
