use std::net::IpAddr;

use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, FailedCall, Finding, step,
    },
    record::{Errno, Label, Remote},
};

/// TCP connects to no such address or port: port 0, a multicast or broadcast address, a
/// link-local address without its interface.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::BadDestination,
    labels: &[
        Label::Refused,
        Label::TimedOut,
        Label::Unreachable,
        Label::Failed,
    ],
    is: "An address that TCP cannot connect to.",
    means: "an address that TCP cannot connect to",
    recognised: &[
        "Certain: the address alone explains it: port 0, a link-local IPv6 address without its interface, a broadcast or multicast address, or an IPv4 address on a socket that is for IPv6 only (IPV6_V6ONLY).",
    ],
    reasons: &[
        "A port that is not set: an empty variable, a failed look-up of a service, a default of 0.",
        "A link-local address (fe80::) that was copied without %DEVICE.",
        "A placeholder such as 0.0.0.0 or 255.255.255.255 was never replaced.",
        "The application opens IPv6 sockets for every address.",
    ],
    steps: &[
        step(
            "strace -f -e trace=socket,setsockopt,connect -p PID",
            "the address, the errno, and IPV6_V6ONLY if it is set",
        ),
        step(
            "tr '\\0' '\\n' < /proc/PID/cmdline",
            "what the client was told to connect to",
        ),
        step(
            "ping -c 1 ADDR%DEVICE",
            "a link-local address with its interface, as the client needs it",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "the address or port itself: no socket can listen there",
    )],
};

fn look(case: &Case, _: &mut dyn Evidence) -> Finding {
    let Some(Remote { addr, port }) = case.remote else {
        return Ok(None);
    };
    let label = matches!(
        case.label,
        Label::Refused | Label::Failed | Label::Unreachable | Label::TimedOut
    );
    let Some((what, fix)) = fault(case, addr, port).filter(|_| label) else {
        return Ok(None);
    };
    Ok(Some(Cause::new(
        Code::BadDestination,
        Certainty::Certain,
        &what,
        fix,
        Facts::new()
            .with("errno", case.errno.as_ref().map(Errno::to_string))
            .with("addr", addr)
            .with("port", port),
    )))
}

/// The fault of a destination, and the step that mends it.
fn fault(case: &Case, addr: IpAddr, port: u16) -> Option<(String, &'static str)> {
    let zoneless = match addr {
        IpAddr::V6(v6) => v6.is_unicast_link_local() && case.call == Some(FailedCall::Connect),
        IpAddr::V4(_) => false,
    };
    let no_host = match addr {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    if port == 0 {
        Some((
            format!("port 0 of {addr} is no port: nobody can listen on it"),
            "set the port in the client's configuration: often an empty or unset value became 0",
        ))
    } else if no_host {
        Some((
            format!("{addr} is a multicast or broadcast address, to which TCP does not connect"),
            "use the address of one host in the client's configuration",
        ))
    } else if zoneless && case.errno == Some(Errno::EINVAL) {
        Some((
            format!("{addr} is a link-local address, and the program names no interface for it"),
            "add the interface to the address in the client's configuration, such as %eth0 behind \
             it, or use another address of that host",
        ))
    } else {
        None
    }
}
