use std::net::SocketAddr;

use crate::{
    diagnosis::{Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, step, words},
    record::Label,
};

/// A socket with the same two addresses and ports is there already. A fixed source port is used
/// again while its last connection to the same destination is open or in `TIME_WAIT`.
///
/// Wrong when that socket came only after the attempt.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::TupleInUse,
    labels: &[Label::AddressUnavailable],
    is: "Another socket has the 4-tuple of the attempt.",
    means: "another socket has the 4-tuple",
    recognised: &[
        "Certain: a socket with these two addresses and ports is there; `evidence.holder` has its state and process.",
    ],
    reasons: &[
        "A fixed source port is used again while its last connection is open or in TIME_WAIT.",
        "Several sockets bound to one port with SO_REUSEADDR connect to one destination.",
    ],
    steps: &[
        step("ss -tanpo 'sport = :LOCAL_PORT'", "the socket that has it"),
        step(
            "strace -f -e trace=bind,connect -p PID",
            "where the application binds its port",
        ),
    ],
    look,
    proofs: &[(Certainty::Certain, "the socket that has the same two ends")],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if case.label != Label::AddressUnavailable || case.call.is_some() {
        return Ok(None);
    }
    let (Some(addr), Some(port), Some(remote)) =
        (case.local_addr, case.bound_port, case.remote_socket())
    else {
        return Ok(None);
    };
    let local = SocketAddr::new(addr, port);
    let Some(holder) = evidence.tuple(case.netns, local, remote)? else {
        return Ok(None);
    };
    let state = &holder.state;
    let who = match &holder.process {
        Some(owner) => format!(", by {}", words::process(Some(owner))),
        None => String::new(),
    };
    let list = words::command(case, &format!("ss -tanpo 'sport = :{port}'"), evidence);
    Ok(Some(Cause::new(
        Code::TupleInUse,
        Certainty::Certain,
        &format!("the connection {local} -> {remote} is there already, in {state}{who}"),
        &format!(
            "do not bind port {port} before connect (bind the address with \
             IP_BIND_ADDRESS_NO_PORT), or wait until {list} no longer shows it"
        ),
        Facts::new()
            .with("local", local)
            .with("remote", remote)
            .with("holder", &holder),
    )))
}
