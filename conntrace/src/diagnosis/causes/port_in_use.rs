use std::net::IpAddr;

use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, FailedCall, Finding,
        question::PortHolder, step, words,
    },
    record::{Errno, Label},
};

/// A bind chose a port that another socket has: a server that runs already, an earlier connection in
/// `TIME_WAIT`, or a client to which the kernel gave the port.
///
/// Wrong when that socket came only after the call. Before Linux 6.8 the kernel does not tell of
/// sockets that are bound and neither listen nor are connected.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::PortInUse,
    labels: &[Label::AddressUnavailable],
    is: "Another socket has the port that bind chose.",
    means: "another socket has the port",
    recognised: &[
        "Certain: bind returned EADDRINUSE (--trace-syscalls), and one process listens on that port of that address.",
        "Likely: several processes listen on the port, or sockets have it that are only bound, are bound to an interface, are connected or in TIME_WAIT, or may be of the other family.",
        "Such an outcome is printed only with --all or --label, for most are a server's.",
    ],
    reasons: &[
        "The server runs already, or another one has its port.",
        "Its earlier connections are in TIME_WAIT, and it binds without SO_REUSEADDR.",
        "The port lies in ip_local_port_range, and the kernel gave it to a client.",
    ],
    steps: &[
        step("ss -tanp 'sport = :PORT'", "the sockets that have it"),
        step(
            "sysctl net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports",
            "whether the kernel can give the port to clients",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "one process listens on that port of that address",
        ),
        (
            Certainty::Likely,
            "sockets have that port, of which it is not known that they stand in the way",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let (Some(FailedCall::Bind), Some(Errno::EADDRINUSE), Some(port)) =
        (case.call, case.errno, case.bound_port)
    else {
        return Ok(None);
    };
    let holders = evidence.port_holders(case.netns, port)?;
    let addr = case.local_addr;
    let mut in_the_way: Vec<_> = holders
        .iter()
        .filter(|holder| addr.is_none_or(|addr| holder.shares(addr)))
        .collect();
    // The surest first.
    in_the_way.sort_by_key(|holder| (holder.state != "LISTEN", holder.remote.is_some()));
    let Some(first) = in_the_way.first() else {
        return Ok(None);
    };
    // Two sockets that do not listen may share a port (`SO_REUSEADDR`).
    let listens = |holder: &&&PortHolder| holder.state == "LISTEN";
    let is_of_one = in_the_way
        .iter()
        .filter(listens)
        .all(|it| it.process == first.process);
    let is_sure = listens(&first) && !first.is_of_device && certainly_shares(first, addr);
    let certainty = match is_of_one && is_sure {
        true => Certainty::Certain,
        false => Certainty::Likely,
    };
    let is_own = case.process.is_some_and(|own| {
        let holder = first.process.as_ref();
        holder.is_some_and(|holder| holder.pid == own.pid)
    });
    let list = words::command(case, &format!("ss -tanp 'sport = :{port}'"), evidence);
    Ok(Some(Cause::new(
        Code::PortInUse,
        certainty,
        &format!("{} has port {port}", who(first)),
        &fix(first, is_own, port, &list),
        Facts::new()
            .with("address", addr)
            .with("port", port)
            .with("holders", &in_the_way),
    )))
}

/// The address is known not to be of the other family. An unspecified one is not told.
fn certainly_shares(holder: &PortHolder, addr: Option<IpAddr>) -> bool {
    addr.is_some() || (holder.local.ip().is_unspecified() && !holder.only_v6)
}

fn who(holder: &PortHolder) -> String {
    let process = words::process(holder.process.as_ref());
    let PortHolder { local, state, .. } = holder;
    match (holder.remote, &holder.process) {
        (Some(remote), None) => format!("the connection {local} -> {remote}, in {state},"),
        (Some(remote), Some(_)) => {
            format!("the connection {local} -> {remote} of {process}, in {state},")
        }
        (None, _) if state == "LISTEN" => format!("{process}, which listens on {local},"),
        (None, _) => format!("{process}, which is bound to {local},"),
    }
}

fn fix(holder: &PortHolder, is_own: bool, port: u16, list: &str) -> String {
    match (holder.remote, &*holder.state) {
        (Some(_), "TIME_WAIT") => format!(
            "set SO_REUSEADDR before bind, or wait a minute until {list} no longer shows it"
        ),
        (Some(_), _) => format!(
            "close that connection; if {port} lies in net.ipv4.ip_local_port_range, add it to \
             net.ipv4.ip_local_reserved_ports (also in /etc/sysctl.d), which keeps it for its server"
        ),
        (None, _) if is_own => format!(
            "let the program use the socket that it has, or close that first; {list} shows it"
        ),
        (None, _) => format!("stop that process, or bind another port; {list} lists who has it"),
    }
}
