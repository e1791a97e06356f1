use std::net::SocketAddr;

use crate::{
    diagnosis::{Case, Cause, CauseRule, Certainty, Code, Evidence, Facts, Finding, words},
    record::Label,
};

/// Address unavailable: a socket with the same two addresses and ports is there
/// already. A fixed source port is used again while its last connection to the
/// same destination is open or in `TIME_WAIT`.
///
/// Wrong when that socket came only after the attempt.
pub(crate) const RULE: CauseRule = CauseRule {
    code: Code::TupleInUse,
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
