use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Undiagnosed,
        port_facts::{LocalPorts, WiderRange},
        step,
        words::{self, count, holdings},
    },
    record::{Label, Remote},
};

/// Connections to one destination hold every ephemeral port. There are too many at once, or
/// `TIME_WAIT` holds each for 60 s after its end.
///
/// Wrong when these sockets came only after the attempt; that others hold the ports is
/// `ports_held_by_bind`.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::EphemeralRangeUsedUp,
    labels: &[Label::PortExhausted],
    is: "Connections to this destination hold every ephemeral port.",
    means: "connections to it hold every ephemeral port",
    recognised: &[
        "Certain: sockets to the destination hold all ports of ip_local_port_range that are not reserved; likely from nine tenths of them on, for some may have been given back since.",
    ],
    reasons: &[
        "A connection per request: each stays in TIME_WAIT for 60 s after this side has closed it.",
        "Too many connections at once: a pool without a limit (ESTABLISHED).",
        "A leak: the other side has closed, and the application has not (CLOSE_WAIT).",
        "All clients of a NAT gateway or proxy go to one address and port.",
    ],
    steps: &[
        step(
            "ss -Htan dst '[ADDR]:PORT' | awk '{print $1}' | sort | uniq -c",
            "the sockets by state",
        ),
        step(
            "ss -Htanp state close-wait dst '[ADDR]:PORT'",
            "whose connections are not closed though the other side has closed: to be mended in the application, for more ports only put it off",
        ),
        step(
            "keep-alive, or a pool with a limit",
            "in the application: a connection that is used again leaves no TIME_WAIT. Where they must be short, let the server close first: TIME_WAIT is on the side that closes first",
        ),
        step(
            "ip addr add ADDRESS dev DEVICE",
            "more source addresses: each has all the ports for itself. The application binds them in turn, with IP_BIND_ADDRESS_NO_PORT. More addresses or ports of the destination do the same",
        ),
        step(
            "ss -Hltn",
            "what listens from 10000 on: reserve these ports before the range is widened, or a connection can have a service's port when that starts again",
        ),
        step(
            "sysctl -w net.ipv4.ip_local_reserved_ports=LIST",
            "leaves them out, as 11211,27017-27019. It replaces the list, so begin with what is in it",
        ),
        step(
            "sysctl -w net.ipv4.ip_local_port_range='10000 65535'",
            "55,536 ports, also for IPv6; from the default of 28,232 it adds 27,304",
        ),
        step(
            "echo 'net.ipv4.ip_local_port_range = 10000 65535' > /etc/sysctl.d/90-local-ports.conf",
            "keeps it when the host starts again; likewise ip_local_reserved_ports and tcp_tw_reuse",
        ),
        step(
            "sysctl -w net.ipv4.tcp_tw_reuse=1",
            "a port in TIME_WAIT can be used again after a second; it needs timestamps on both sides",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "sockets hold every port that connect tries, most of them connected to the destination",
        ),
        (
            Certainty::Likely,
            "sockets hold nine tenths of the range, most of them connected to the destination",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let Some(Remote { addr, port }) = case.remote else {
        return Ok(None);
    };
    let Some(ports) = ports(case, evidence)? else {
        return Ok(None);
    };
    let available = available(&ports);
    if ports.connected < ports.bound || !is_full(&ports) {
        return Ok(None);
    }
    let held = ports.connected.saturating_add(ports.bound);
    let certainty = if held >= tried(&ports) {
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
    Ok(Some(Cause::new(
        Code::EphemeralRangeUsedUp,
        certainty,
        &why,
        &advice(case, &ports, addr.is_loopback(), evidence),
        facts(&ports),
    )))
}

/// The use of the ports of which the attempt found none.
pub(crate) fn ports(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<LocalPorts>, Undiagnosed> {
    if case.label != Label::PortExhausted {
        return Ok(None);
    }
    let remote = case.remote_socket();
    evidence
        .ports(case.netns, case.local_addr, remote)
        .map(Some)
}

/// Ports that the kernel can choose from.
pub(crate) fn available(ports: &LocalPorts) -> u32 {
    let (low, high) = ports.range;
    size(low, high).saturating_sub(ports.reserved)
}

/// Number of them that a connect or bind tries: of an odd number the kernel leaves one out,
/// now this one and now that (`__inet_hash_connect`, `inet_csk_find_open_port`).
pub(crate) fn tried(ports: &LocalPorts) -> u32 {
    let (low, high) = ports.range;
    let available = available(ports);
    if available > 1 && size(low, high) % 2 == 1 {
        available - 1
    } else {
        available
    }
}

/// Returns true if nine tenths of the ports that connect tries are held; some may have been given
/// back since the attempt.
pub(crate) fn is_full(ports: &LocalPorts) -> bool {
    let held = u64::from(ports.connected) + u64::from(ports.bound);
    available(ports) > 0 && held * 10 >= u64::from(tried(ports)) * 9
}

/// Facts about the use of the ports.
pub(crate) fn facts(ports: &LocalPorts) -> Facts {
    let (low, high) = ports.range;
    Facts::new()
        .with("range", [low, high])
        .with("reserved", ports.reserved)
        .with("available", available(ports))
        .with("connected", ports.connected)
        .with("bound", ports.bound)
        .with("free", ports.free)
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

/// The steps that help here, the state of the sockets first. By default (2)
/// `tcp_tw_reuse` is in force for loopback only; a port can be used again after a second.
fn advice(
    case: &Case,
    ports: &LocalPorts,
    to_loopback: bool,
    evidence: &mut dyn Evidence,
) -> String {
    let mut steps = widening(case, ports, evidence);
    let held = |state: &str| ports.states.get(state).copied().unwrap_or(0);
    let (waiting, open, half_closed) = (held("TIME_WAIT"), held("ESTABLISHED"), held("CLOSE_WAIT"));
    let reused = ports.tw_reuse == 1 || (ports.tw_reuse == 2 && to_loopback);
    if waiting > 0 && !reused {
        steps.push(format!(
            "{} lets the {} in TIME_WAIT be used again after a second",
            words::command(case, "sysctl -w net.ipv4.tcp_tw_reuse=1", evidence),
            count(waiting),
        ));
    }
    if !steps.is_empty() {
        steps.push("also in /etc/sysctl.d".to_owned());
    }
    steps.push(of_application(waiting, open, half_closed).to_owned());
    steps.join("; ")
}

/// The steps that widen the range, if that adds ports. Without the first one a connection can have a
/// server's port when that starts again.
pub(crate) fn widening(
    case: &Case,
    ports: &LocalPorts,
    evidence: &mut dyn Evidence,
) -> Vec<String> {
    let (low, high) = WiderRange::instead_of(ports.range);
    let wider = ports.wider.as_ref();
    let unreserved = size(low, high).saturating_sub(ports.reserved);
    let has = wider.map_or(unreserved, |wider| wider.available);
    let added = has.saturating_sub(available(ports));
    if added == 0 || ports.range == (low, high) {
        return Vec::new();
    }
    let mut set = |setting: &str| words::command(case, &format!("sysctl -w {setting}"), evidence);
    let range = format!("net.ipv4.ip_local_port_range=\"{low} {high}\"");
    let widen = format!(
        "{} has {} ports and adds {}",
        set(&range),
        count(has),
        count(added)
    );
    let known = wider.map(|wider| (wider.listened.as_deref(), wider.reserved.as_deref()));
    let reserve = match known {
        Some((Some([]), _)) => return vec![widen],
        Some((Some(listened), Some(reserved))) => {
            let served = ranges(listened);
            let list = [reserved, &served].into_iter().filter(|it| !it.is_empty());
            let list = list.collect::<Vec<_>>().join(",");
            format!(
                "{} leaves out the ports that servers here listen on ({served})",
                set(&format!("net.ipv4.ip_local_reserved_ports={list}"))
            )
        }
        Some((Some(_) | None, _)) | None => {
            let [listening, reserved] = [
                &format!("ss -Hltn 'sport >= :{low}'"),
                "sysctl net.ipv4.ip_local_reserved_ports",
            ]
            .map(|it| words::command(case, it, evidence));
            format!(
                "reserve the ports of servers first: {listening} lists them, and {reserved} those \
                 that are reserved already"
            )
        }
    };
    vec![reserve, widen]
}

/// Writes ports in ascending order as `ip_local_reserved_ports` takes them: `11211,27017-27019`.
fn ranges(ports: &[u16]) -> String {
    let runs = ports.chunk_by(|port, next| port.checked_add(1) == Some(*next));
    let runs = runs.filter_map(|run| match run {
        [port] => Some(port.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
        [] => None,
    });
    runs.collect::<Vec<_>>().join(",")
}

/// The step for the application, by the state that most of its sockets are in.
fn of_application(waiting: u32, open: u32, half_closed: u32) -> &'static str {
    if half_closed > waiting && half_closed > open {
        "the other side has closed most of them: let the application close its sockets too"
    } else if waiting > open {
        "keep connections open (a pool) instead of one per request"
    } else {
        "use fewer connections at once (a smaller pool, HTTP/2), or more source or server addresses"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::diagnosis::tests::wider;

    fn ports(range: (u16, u16), tw_reuse: u8, waiting: u32) -> LocalPorts {
        LocalPorts {
            range,
            reserved: 0,
            tw_reuse,
            states: BTreeMap::from([("TIME_WAIT".to_owned(), waiting)]),
            connected: 0,
            bound: 0,
            free: 0,
            connected_by: Vec::new(),
            bound_by: Vec::new(),
            wider: Some(wider(&[])),
        }
    }

    fn advice(ports: &LocalPorts, to_loopback: bool) -> String {
        let case = crate::diagnosis::tests::exhausted();
        let mut nothing = crate::diagnosis::tests::Script::default();
        super::advice(&case, ports, to_loopback, &mut nothing)
    }

    #[test]
    fn one_port_of_an_odd_range_is_not_tried() {
        let held = |range, reserved, connected| {
            let ports = LocalPorts {
                reserved,
                connected,
                ..ports(range, 0, 0)
            };
            (tried(&ports), is_full(&ports))
        };
        assert_eq!(held((40_000, 40_004), 0, 4), (4, true));
        assert_eq!(held((40_000, 40_004), 0, 3), (4, false));
        assert_eq!(held((40_000, 40_003), 0, 3), (4, false));
        assert_eq!(held((40_000, 40_000), 0, 0), (1, false));
        assert_eq!(held((40_000, 40_000), 0, 1), (1, true));
        assert_eq!(held((40_000, 40_002), 2, 0), (1, false));
        assert_eq!(held((40_000, 40_004), 5, 0), (0, false));
    }

    #[test]
    fn the_application_is_told_by_the_state() {
        assert!(of_application(10, 200, 0).contains("fewer"));
        assert!(of_application(200, 10, 0).contains("pool"));
        assert!(of_application(0, 0, 0).contains("fewer"));
        assert!(of_application(5, 10, 200).contains("close its sockets"));
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
    fn servers_keep_their_ports() {
        let with = |wider| {
            let ports = LocalPorts {
                wider,
                ..ports((32_768, 60_999), 2, 0)
            };
            advice(&ports, false)
        };
        let text = with(Some(wider(&[11_211, 27_017, 27_018])));
        assert!(
            text.starts_with(
                "`sysctl -w net.ipv4.ip_local_reserved_ports=11211,27017-27018` leaves out"
            ),
            "{text}"
        );
        assert!(text.contains("has 55,533 ports and adds 27,301"), "{text}");
        // The list in force is replaced, so that it is part of the new one.
        let text = with(Some(WiderRange {
            reserved: Some("30000-30010".to_owned()),
            ..wider(&[11_211])
        }));
        assert!(text.contains("reserved_ports=30000-30010,11211`"), "{text}");
        for unknown in [
            Some(WiderRange {
                listened: None,
                ..wider(&[])
            }),
            Some(WiderRange {
                reserved: None,
                ..wider(&[11_211])
            }),
            None,
        ] {
            let text = with(unknown);
            assert!(text.contains("`ss -Hltn 'sport >= :10000'`"), "{text}");
            assert!(!text.contains("sysctl -w net.ipv4.ip_local_res"), "{text}");
        }
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
