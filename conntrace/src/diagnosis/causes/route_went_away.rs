use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, place, step, words,
    },
    record::{Errno, Label},
};

/// This host's link, address or route went away while the attempt was under way. No router said
/// anything.
///
/// Wrong where something else took the way between the attempt and the look. Over IPv6 a
/// neighbour that does not answer looks alike; then the route is still there.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::RouteWentAway,
    labels: &[Label::TimedOut, Label::Unreachable],
    is: "Route, address or link of this host went away under the attempt.",
    means: "route, address or link went away under the attempt",
    recognised: &[
        "A SYN had left, and then this host itself could not send any more (EHOSTUNREACH, ENETUNREACH): no ICMP error came. `evidence` has the route as it is now.",
        "Certain: there is no route now, or no such IPv4 source address. Likely: the route is back, or an IPv6 source address is not assigned now.",
    ],
    reasons: &[
        "An interface or a VPN went down, or a container was taken off its network.",
        "The address was removed: a DHCP lease that ended, a failover (VRRP, keepalived).",
        "A routing daemon withdrew the route.",
    ],
    steps: &[
        step(
            "ip route get ADDR",
            "whether there is a route now, and from which address",
        ),
        step(
            "ip monitor link address route",
            "what goes away the next time, and when",
        ),
        step(
            "journalctl --since -10min",
            "what changed the network around the line's `time`",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "a soft error of this host's own sending, and no route now; over IPv4 EINVAL, and no \
             such source address now",
        ),
        (
            Certainty::Likely,
            "a soft error of this host's own sending, and the source address is not assigned now; \
             or ENETUNREACH, and the route is back now",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let label = matches!(case.label, Label::TimedOut | Label::Unreachable);
    let (Some(errno), Some(to)) = (case.own_failure.filter(|_| label), case.remote) else {
        return Ok(None);
    };
    let to = to.addr;
    let source_gone = match case.local_addr {
        Some(source) => !evidence.is_own(case.netns, source)?,
        None => false,
    };
    let now = place::no_way(case, evidence)?;
    let (certainty, what) = match (case.local_addr, now) {
        // Over IPv4 each look-up of the route asks for it (`ip_route_output_key_hash_rcu`).
        (Some(source), _) if source_gone && errno == Errno::EINVAL => (
            Certainty::Certain,
            format!("the source address {source} was removed from this network namespace"),
        ),
        (Some(source), None) if source_gone => (
            Certainty::Likely,
            format!("the source address {source} is not assigned here, and may have gone"),
        ),
        (_, Some(_)) => (
            Certainty::Certain,
            format!("the route to {to}, or the interface it left by, went away"),
        ),
        (_, None) if errno == Errno::ENETUNREACH => (
            Certainty::Likely,
            format!("the route to {to} was away for a moment, and is back now"),
        ),
        (_, None) => return Ok(None),
    };
    // Without a route a look-up only fails.
    let (command, shows) = match now {
        Some(_) => (
            format!("{} route show", words::ip(to)),
            "shows the routes that are left",
        ),
        None => (format!("ip route get {to}"), "shows the way now"),
    };
    let show = words::command(case, &command, evidence);
    Ok(Some(Cause::new(
        Code::RouteWentAway,
        certainty,
        &format!(
            "{what} while the attempt was under way: this host's own sending failed with {errno}"
        ),
        &format!(
            "find what took it away (`journalctl -b -u NetworkManager -u systemd-networkd`, a DHCP \
             client, a VPN); {show} {shows}"
        ),
        Facts::new()
            .with("soft_error", errno.to_string())
            .with("source", case.local_addr)
            .with("source_is_own", !source_gone)
            .with("route_errno", now.as_ref().map(Errno::to_string)),
    )))
}
