use std::net::SocketAddr;

use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, port_facts::LocalPorts,
        step, words,
    },
    record::Label,
};

/// A client tries a closed port of its own host until the kernel chooses that very port for it. The
/// SYN then meets the socket that sent it, and the handshake completes (simultaneous open).
///
/// Never wrong: no other socket has the same two ends. That no server listened is certain where the
/// kernel chose the port, for it chooses none that a socket is bound to. Where the application bound
/// the port, it may have meant to connect to itself.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::ConnectedToItself,
    labels: &[Label::Established],
    is: "The socket is connected to itself: both ends have the same address and port.",
    means: "the socket is connected to itself, to no server",
    recognised: &[
        "Certain: both ends of the connection have the same address and port. Such an outcome is printed without --all as well.",
    ],
    reasons: &[
        "A client tries again and again to reach a server of this host that is down, and the server's port lies in ip_local_port_range: at last the kernel chooses that port for the client itself. The server cannot start then, because its port is taken.",
        "The application binds its socket to the port that it connects to, by mistake or on purpose.",
    ],
    steps: &[
        step(
            "sysctl net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports",
            "whether the server's port can be chosen for a client, and what is left out already",
        ),
        step(
            "sysctl -w net.ipv4.ip_local_reserved_ports=LIST",
            "leaves the server's port out. It replaces the list, so begin with what is in it",
        ),
        step(
            "echo 'net.ipv4.ip_local_reserved_ports = LIST' > /etc/sysctl.d/90-reserved-ports.conf",
            "keeps it when the host starts again",
        ),
        step(
            "ss -tnp 'sport = :PORT'",
            "the process that is connected to itself: to be restarted before the server, whose port it holds",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "both ends of the connection have the same address and port",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let (true, Some(own)) = (case.is_to_itself, case.remote_socket()) else {
        return Ok(None);
    };
    let port = own.port();
    // The ends alone prove it.
    let ports = evidence.ports(case.netns, Some(own.ip()), Some(own)).ok();
    let range = ports.as_ref().map(|ports| ports.range);
    let is_in_range = range.map(|(low, high)| (low..=high).contains(&port));
    let is_bound = case.bound_port.is_some();
    let fix = fix(case, own, is_in_range, ports.as_ref(), evidence);
    Ok(Some(Cause::new(
        Code::ConnectedToItself,
        Certainty::Certain,
        &why(own, is_bound, range.filter(|_| is_in_range == Some(true))),
        &fix,
        Facts::new()
            .with("address", own)
            .with("bound", is_bound)
            .with("range", range.map(|(low, high)| [low, high]))
            .with("in_ephemeral_range", is_in_range),
    )))
}

fn why(own: SocketAddr, is_bound: bool, range: Option<(u16, u16)>) -> String {
    let port = own.port();
    if is_bound {
        return format!(
            "both ends are {own}: the socket was bound to the port that it connects to, and its SYN \
             met the socket itself; no server answered"
        );
    }
    let of_range = match range {
        Some((low, high)) => {
            format!(", which lies in net.ipv4.ip_local_port_range ({low} {high}),")
        }
        None => String::new(),
    };
    format!(
        "both ends are {own}: no server listened there, the kernel chose {port}{of_range} as the \
         client's own port, and the SYN met the socket itself"
    )
}

/// The step that helps here. A port that the application bound may have been chosen by the kernel as
/// well (bind to port 0).
fn fix(
    case: &Case,
    own: SocketAddr,
    is_in_range: Option<bool>,
    ports: Option<&LocalPorts>,
    evidence: &mut dyn Evidence,
) -> String {
    let port = own.port();
    let is_bound = case.bound_port.is_some();
    let own_port =
        format!("if the program wants a server on {port}, let it bind another port or none");
    if is_in_range == Some(false) {
        return if is_bound { own_port } else { restart(port) };
    }
    let reserve = reserve(case, port, ports, evidence);
    if is_bound {
        format!("{own_port}; if it bound port 0, which takes any, {reserve}")
    } else {
        format!("{reserve}; {}", restart(port))
    }
}

/// The step that gives the port back to its server.
fn restart(port: u16) -> String {
    format!("close this connection, which holds the server's port, and start the server on {port}")
}

/// The step that leaves the port out of the range.
fn reserve(
    case: &Case,
    port: u16,
    ports: Option<&LocalPorts>,
    evidence: &mut dyn Evidence,
) -> String {
    let wider = ports.and_then(|ports| ports.wider.as_ref());
    let Some(reserved) = wider.and_then(|wider| wider.reserved.as_deref()) else {
        let shown = "sysctl net.ipv4.ip_local_reserved_ports";
        let shown = words::command(case, shown, evidence);
        return format!("add {port} to the ports that {shown} lists (also in /etc/sysctl.d)");
    };
    let own = port.to_string();
    let list = [reserved, &own].into_iter().filter(|it| !it.is_empty());
    let list = list.collect::<Vec<_>>().join(",");
    let set = format!("sysctl -w net.ipv4.ip_local_reserved_ports={list}");
    let set = words::command(case, &set, evidence);
    format!("{set} keeps {port} for its server (also in /etc/sysctl.d)")
}
