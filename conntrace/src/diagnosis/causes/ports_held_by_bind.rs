use super::ephemeral_range_used_up::{available, facts, is_full, ports, tried};
use crate::diagnosis::{
    Case, Cause, CauseRule, Certainty, Code, Evidence, Finding, words,
    words::{count, holdings},
};

/// Port exhausted: sockets that were bound to their ports and are not connected, or listen,
/// hold them for every destination. A bind to port 0 needs a port that no socket has at all.
///
/// Wrong when these sockets came only after the attempt. The kernel tells of
/// sockets that are bound and neither listen nor are connected from Linux 6.8 on.
pub(crate) const RULE: CauseRule = CauseRule {
    code: Code::PortsHeldByBind,
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
