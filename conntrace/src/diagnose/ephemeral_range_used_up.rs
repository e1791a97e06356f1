use super::{
    Case, Evidence,
    ask::Ports,
    words::{count, holdings},
};
use crate::{
    event::{self, Cause, Certainty, Code},
    label::Label,
    wire::Remote,
};

/// Where a wider range may begin: below are ports that servers are known by.
const LOW: u16 = 10_000;
const HIGH: u16 = u16::MAX;

/// Port exhausted: connections to one destination hold every ephemeral port.
/// There are too many at once, or `TIME_WAIT` holds each for 60 s after its end.
///
/// Wrong when these sockets came only after the attempt; that others hold the
/// ports is `ports_held_by_bind`.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let Remote { addr, port } = case.remote?;
    let ports = ports(case, evidence)?;
    let available = available(&ports);
    if ports.connected < ports.bound || !is_full(&ports) {
        return None;
    }
    let held = ports.connected + ports.bound;
    let certainty = if held >= available {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    let (low, high) = ports.range;
    let states: Vec<_> = ports
        .states
        .iter()
        .map(|(state, sockets)| format!("{} {state}", count(*sockets)))
        .collect();
    let by = match holdings(&ports.connected_by) {
        by if by.is_empty() => String::new(),
        by => format!("; most by {by}"),
    };
    let why = format!(
        "connections to {addr}:{port} hold {} of the {} ports of the range {low} {high}: {}{by}",
        count(ports.connected),
        count(available),
        states.join(", "),
        addr = bracketed(addr),
    );
    Some(Cause::new(
        Code::EphemeralRangeUsedUp,
        certainty,
        &why,
        &advice(&ports, addr.is_loopback()),
        facts(&ports),
    ))
}

/// How the ports are used of which the attempt found none.
pub(super) fn ports(case: &Case, evidence: &mut dyn Evidence) -> Option<Ports> {
    if case.label != Label::PortExhausted {
        return None;
    }
    evidence.ports(case.netns, case.local_addr, case.remote_socket())
}

/// Ports that the kernel can choose from.
pub(super) fn available(ports: &Ports) -> u32 {
    let (low, high) = ports.range;
    size(low, high).saturating_sub(ports.reserved)
}

/// Whether nine tenths of them are held: by the time of the look some may have
/// been given back.
pub(super) fn is_full(ports: &Ports) -> bool {
    let held = u64::from(ports.connected) + u64::from(ports.bound);
    let available = u64::from(available(ports));
    available > 0 && held * 10 >= available * 9
}

/// What shows how the ports are used.
pub(super) fn facts(ports: &Ports) -> event::Facts {
    let (low, high) = ports.range;
    event::Facts::new()
        .with("range", [low, high])
        .with("reserved", ports.reserved)
        .with("available", available(ports))
        .with("connected", ports.connected)
        .with("bound", ports.bound)
        .with("states", &ports.states)
        .with("connected_by", &ports.connected_by)
        .with("bound_by", &ports.bound_by)
        .with("tcp_tw_reuse", ports.tw_reuse)
}

fn size(low: u16, high: u16) -> u32 {
    (u32::from(high) + 1).saturating_sub(low.into())
}

fn bracketed(addr: std::net::IpAddr) -> String {
    if addr.is_ipv4() {
        addr.to_string()
    } else {
        format!("[{addr}]")
    }
}

/// A wider range, and whether `tcp_tw_reuse` would help. By default (2) it is in
/// force for loopback only; a port can be used again after a second.
fn advice(ports: &Ports, to_loopback: bool) -> String {
    let mut steps = Vec::new();
    let (low, high) = ports.range;
    let (wide_low, wide_high) = (LOW.min(low), HIGH);
    let wide = size(wide_low, wide_high);
    let added = wide.saturating_sub(size(low, high));
    if added > 0 {
        steps.push(format!(
            "`sysctl -w net.ipv4.ip_local_port_range=\"{wide_low} {wide_high}\"` has {} ports and adds {}",
            count(wide),
            count(added),
        ));
    }
    let waiting = ports.states.get("TIME_WAIT").copied().unwrap_or(0);
    let reused = ports.tw_reuse == 1 || (ports.tw_reuse == 2 && to_loopback);
    if waiting > 0 && !reused {
        steps.push(format!(
            "`sysctl -w net.ipv4.tcp_tw_reuse=1` lets the {} in TIME_WAIT be used again after a second",
            count(waiting),
        ));
    }
    steps.push("keep connections open (a pool) instead of one per request".to_owned());
    steps.join("; ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn ports(range: (u16, u16), tw_reuse: u8, waiting: u32) -> Ports {
        Ports {
            range,
            reserved: 0,
            tw_reuse,
            states: BTreeMap::from([("TIME_WAIT".to_owned(), waiting)]),
            connected: 0,
            bound: 0,
            connected_by: Vec::new(),
            bound_by: Vec::new(),
        }
    }

    #[test]
    fn the_wider_range_is_counted() {
        let advice = advice(&ports((32_768, 60_999), 2, 0), false);
        assert!(
            advice.contains("\"10000 65535\"` has 55,536 ports and adds 27,304"),
            "{advice}"
        );
    }

    #[test]
    fn what_would_not_help_is_not_said() {
        let widest = advice(&ports((1024, 65_535), 1, 5), false);
        assert!(!widest.contains("sysctl"), "{widest}");
        let loopback = advice(&ports((1024, 65_535), 2, 5), true);
        assert!(!loopback.contains("tcp_tw_reuse"), "{loopback}");
        let waiting = advice(&ports((1024, 65_535), 2, 5000), false);
        assert!(waiting.contains("the 5,000 in TIME_WAIT"), "{waiting}");
    }
}
