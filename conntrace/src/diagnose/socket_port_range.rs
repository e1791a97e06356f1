use super::{
    Case, Evidence,
    ephemeral_range_used_up::{available, facts, ports},
    words::count,
};
use crate::event::{Cause, Certainty, Code};

/// Port exhausted though ports of the range are free: reserved ports leave none,
/// which is certain, or the socket has a range of its own (`IP_LOCAL_PORT_RANGE`,
/// Linux 6.3), which the kernel tells nobody and is what remains.
///
/// Wrong when many ports were given back between the attempt and the look, so that
/// more than half of the range must be free.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let ports = ports(case, evidence)?;
    let (low, high) = ports.range;
    let available = available(&ports);
    let held = ports.connected.saturating_add(ports.bound);
    if available == 0 {
        return Some(Cause::new(
            Code::SocketPortRange,
            Certainty::Certain,
            &format!(
                "net.ipv4.ip_local_reserved_ports leaves none of the {} ports of the range {low} {high}",
                count(ports.reserved)
            ),
            "reserve fewer ports (`sysctl net.ipv4.ip_local_reserved_ports`), or widen the range: \
             `sysctl -w net.ipv4.ip_local_port_range=\"10000 65535\"`",
            facts(&ports),
        ));
    }
    // Without any connection to it they may all have been closed at once.
    let explained = ports.connected == 0 || held.saturating_mul(2) > available;
    if explained || case.remote.is_none() {
        return None;
    }
    let free = count(available - held);
    Some(Cause::new(
        Code::SocketPortRange,
        Certainty::Likely,
        &format!(
            "{free} of the {} ports of the range {low} {high} are free, so the socket has a narrower \
             range of its own (IP_LOCAL_PORT_RANGE)",
            count(available)
        ),
        "widen the range that the application sets with setsockopt(IP_LOCAL_PORT_RANGE), or let it \
         set none",
        facts(&ports),
    ))
}
