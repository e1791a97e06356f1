use super::ephemeral_range_used_up::{available, facts, is_full, ports, tried};
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Finding, step,
        words::{self, count, holdings},
    },
    record::Label,
};

/// Sockets that were bound to their ports and are not connected, or listen, hold them for every
/// destination. A bind to port 0 needs a port that no socket has at all.
///
/// Wrong when these sockets came only after the attempt. The kernel tells of sockets that are
/// bound and neither listen nor are connected from Linux 6.8 on.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::PortsHeldByBind,
    labels: &[Label::PortExhausted],
    is: "Sockets bound to ephemeral ports hold them for every destination.",
    means: "bound sockets hold the ports for every destination",
    recognised: &[
        "Certain: sockets that are bound and not connected hold the ports of ip_local_port_range; likely from nine tenths of them on. Those that do not listen are seen from Linux 6.8 on.",
        "Of a bind to port 0: sockets in any state hold them, for it needs a port that nobody has.",
    ],
    reasons: &[
        "An application binds a source address before connect, which takes a port for every destination.",
        "A proxy that keeps its client's address (transparent) binds for each connection.",
        "A leak of sockets that are bound and never used.",
    ],
    steps: &[
        step(
            "setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, ...)",
            "in the application, before it binds: the port is chosen at connect, for that destination only",
        ),
        step("ss -tanp", "who holds which port"),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "sockets hold every port that connect tries, most of them bound for every destination",
        ),
        (
            Certainty::Likely,
            "sockets hold nine tenths of the range, most of them bound for every destination",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some(ports) = ports(case, evidence)? else {
        return Ok(None);
    };
    if ports.bound <= ports.connected || !is_full(&ports) {
        return Ok(None);
    }
    let (low, high) = ports.range;
    let available = available(&ports);
    let by = match holdings(&ports.bound_by) {
        by if by.is_empty() => String::new(),
        by => format!(": {by}"),
    };
    let certainty = if ports.bound.saturating_add(ports.connected) >= tried(&ports) {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    // Sockets that are only bound are what `ss` lists by an option of late versions.
    let whose = match words::holdings(&ports.bound_by) {
        by if by.is_empty() => format!(
            "close the sockets, of which {} lists those that listen or are connected",
            words::command(case, "ss -tanp", evidence)
        ),
        by => format!("let these close their sockets: {by}"),
    };
    Ok(Some(Cause::new(
        Code::PortsHeldByBind,
        certainty,
        &format!(
            "sockets bound to them hold {} of the {} ports of the range {low} {high}, whatever the \
             destination{by}",
            count(ports.bound),
            count(available),
        ),
        &format!(
            "do not bind a port before connect: bind the address only, with \
             IP_BIND_ADDRESS_NO_PORT, so that a port can serve many destinations; or {whose}"
        ),
        facts(&ports),
    )))
}
