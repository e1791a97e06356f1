use std::net::SocketAddr;

use super::{Case, Evidence, words};
use crate::{
    event::{self, Cause, Certainty, Code},
    label::Label,
};

/// Address unavailable: a socket with the same two addresses and ports is there
/// already. A fixed source port is used again while its last connection to the
/// same destination is open or in `TIME_WAIT`.
///
/// Wrong when that socket came only after the attempt.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if case.label != Label::AddressUnavailable || case.call.is_some() {
        return None;
    }
    let local = SocketAddr::new(case.local_addr?, case.bound_port?);
    let remote = case.remote_socket()?;
    let holder = evidence.tuple(case.netns, local, remote)??;
    let state = &holder.state;
    let who = match &holder.process {
        Some(owner) => format!(", by {}", words::process(Some(owner))),
        None => String::new(),
    };
    Some(Cause::new(
        Code::TupleInUse,
        Certainty::Certain,
        &format!("the connection {local} -> {remote} is there already, in {state}{who}"),
        &format!(
            "do not bind port {} before connect (bind the address with \
             IP_BIND_ADDRESS_NO_PORT), or wait until `ss -tanpo 'sport = :{}'` no longer shows it",
            local.port(),
            local.port()
        ),
        event::Facts::new()
            .with("local", local)
            .with("remote", remote)
            .with("holder", &holder),
    ))
}
