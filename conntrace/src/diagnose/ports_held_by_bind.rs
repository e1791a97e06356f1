use super::{
    Case, Evidence,
    ephemeral_range_used_up::{available, facts, is_full, ports},
    words::{count, holdings},
};
use crate::event::{Cause, Certainty, Code};

/// Port exhausted: sockets that were bound to their ports hold them for every
/// destination, whether they are connected or not. A bind to port 0 needs a port
/// that no socket has at all.
///
/// Wrong when these sockets came only after the attempt. The kernel tells of
/// sockets that are bound and neither listen nor are connected from Linux 6.8 on.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let ports = ports(case, evidence)?;
    if ports.bound <= ports.connected || !is_full(&ports) {
        return None;
    }
    let (low, high) = ports.range;
    let available = available(&ports);
    let by = match holdings(&ports.bound_by) {
        by if by.is_empty() => String::new(),
        by => format!(": {by}"),
    };
    let certainty = if ports.bound + ports.connected >= available {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    Some(Cause::new(
        Code::PortsHeldByBind,
        certainty,
        &format!(
            "sockets bound to them hold {} of the {} ports of the range {low} {high}, whatever the \
             destination{by}",
            count(ports.bound),
            count(available),
        ),
        "do not bind a port before connect: bind the address only, with IP_BIND_ADDRESS_NO_PORT, so \
         that a port can serve many destinations; or close the sockets that `ss -tanp` shows",
        facts(&ports),
    ))
}
