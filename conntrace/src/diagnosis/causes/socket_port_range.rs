use super::ephemeral_range_used_up::{available, facts, ports, widening};
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Finding,
        port_facts::LocalPorts,
        step,
        words::{self, count},
    },
    record::Label,
};

/// Port exhausted though ports of the range are free: reserved ports leave none, which is
/// certain, or the socket has a range of its own (`IP_LOCAL_PORT_RANGE`, Linux 6.3), which the
/// kernel tells nobody and is what remains.
///
/// Wrong when many ports were given back between the attempt and the look, so that more than
/// half of the range must be free.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::SocketPortRange,
    labels: &[Label::PortExhausted],
    is: "The range of ports that is left to the socket is too narrow.",
    means: "the range that is left to the socket is too narrow",
    recognised: &[
        "Certain: ip_local_reserved_ports leaves none of ip_local_port_range.",
        "Likely: more than half of the range is free, so that the socket must have a narrower one of its own (IP_LOCAL_PORT_RANGE, Linux 6.3), which the kernel does not tell.",
    ],
    reasons: &[
        "The application divides the ports among its workers.",
        "Ports were reserved for services, and the range was narrowed later.",
    ],
    steps: &[
        step(
            "sysctl net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports",
            "the range, and what is left out of it",
        ),
        step(
            "strace -f -e trace=setsockopt -p PID",
            "IP_LOCAL_PORT_RANGE (51) with the range that is asked for",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "ip_local_reserved_ports covers the whole of ip_local_port_range",
        ),
        (
            Certainty::Likely,
            "more than half of the range is free, and connections to the destination are there",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some(ports) = ports(case, evidence)? else {
        return Ok(None);
    };
    let (low, high) = ports.range;
    let available = available(&ports);
    if available == 0 {
        return Ok(Some(all_reserved(case, &ports, evidence)));
    }
    // Without any connection to it they may all have been closed at once.
    let explained = ports.connected == 0 || ports.free < available.div_ceil(2);
    if explained || case.remote.is_none() {
        return Ok(None);
    }
    let free = count(ports.free);
    Ok(Some(Cause::new(
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
    )))
}

fn all_reserved(case: &Case, ports: &LocalPorts, evidence: &mut dyn Evidence) -> Cause {
    let (low, high) = ports.range;
    let reserved = words::command(case, "sysctl net.ipv4.ip_local_reserved_ports", evidence);
    // Where it is as wide already only fewer reserved ports help.
    let widen = match widening(case, ports, evidence) {
        steps if steps.is_empty() => String::new(),
        steps => format!(
            ", or widen the range: {} (also in /etc/sysctl.d)",
            steps.join("; ")
        ),
    };
    Cause::new(
        Code::SocketPortRange,
        Certainty::Certain,
        &format!(
            "net.ipv4.ip_local_reserved_ports leaves none of the {} ports of the range {low} {high}",
            count(ports.reserved)
        ),
        &format!("reserve fewer ports ({reserved}){widen}"),
        facts(ports),
    )
}
