use std::net::IpAddr;

use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, FailedCall, Finding, Undiagnosed,
        place, step,
        way::{DeadEnd, DeadEndKind, Flow, Route},
        words,
    },
    record::{Errno, Label},
};

/// This host has no route there, or one of type unreachable. The interface or the VPN is down,
/// the default route is missing, a VPN's rule forbids the way, or the namespace has no address
/// of that family.
///
/// Wrong when the routes changed between the call and the look. Where a route is there without
/// the chosen source it is `wrong_source`.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::NoRoute,
    labels: &[Label::Unreachable],
    is: "This host has no route to the destination.",
    means: "this host has no route there",
    recognised: &[
        "Certain: connect returned ENETUNREACH or EHOSTUNREACH before there was a SYN (--trace-syscalls), and the kernel finds no route, or one of type unreachable. With the chosen source address and without it: where only that one has none, it is another cause (wrong_source).",
    ],
    reasons: &[
        "The interface or the VPN is down, or was not up yet.",
        "There is no default route, or none for IPv6.",
        "The process is in a network namespace with nothing but loopback.",
        "A rule of policy routing leads to a table without a route.",
    ],
    steps: &[
        step("ip route get ADDR", "the same error"),
        step(
            "ip rule; ip route show table all; ip -6 route show table all",
            "the rules, in their order, and the routes there are",
        ),
        step("ip -br link; ip -br addr", "which interfaces are up"),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "no route for this socket (device, mark, user), with or without its source",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if case.label != Label::Unreachable || case.call != Some(FailedCall::Connect) {
        return Ok(None);
    }
    let Some(errno) = place::no_way(case, evidence)? else {
        return Ok(None);
    };
    let Some(way) = case.way() else {
        return Ok(None);
    };
    if errno != Errno::ENETUNREACH && errno != Errno::EHOSTUNREACH {
        return Ok(None);
    }
    if way_without_source(case, evidence)?.is_some() {
        return Ok(None);
    }
    let to = way.to;
    let dead_end = evidence.dead_end(case.netns, way)?;
    let (what, fix) = match &dead_end {
        Some(found) => forbidden(case, to, found, evidence),
        None => missing(case, to, evidence)?,
    };
    Ok(Some(Cause::new(
        Code::NoRoute,
        Certainty::Certain,
        &what,
        &fix,
        Facts::new()
            .with("route_errno", errno.to_string())
            .with("to", to)
            .with("dead_end", dead_end),
    )))
}

/// The way that the attempt would have without its chosen source; `None` if there is none,
/// or no source was chosen.
pub(crate) fn way_without_source(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<Route>, Undiagnosed> {
    let Some(way) = case.way().filter(|way| way.from.is_some()) else {
        return Ok(None);
    };
    let freely = Flow { from: None, ..way };
    Ok(match evidence.route(case.netns, freely)? {
        Route::None(_) => None,
        found @ (Route::Local | Route::Out(_)) => Some(found),
    })
}

/// The sentences about a route or rule that forbids the way.
pub(crate) fn forbidden(
    case: &Case,
    to: IpAddr,
    found: &DeadEnd,
    evidence: &mut dyn Evidence,
) -> (String, String) {
    let kind = match found.kind {
        DeadEndKind::Unreachable => "unreachable",
        DeadEndKind::Blackhole => "blackhole",
        DeadEndKind::Prohibit => "prohibit",
    };
    let (priority, text) = (found.rule.priority, &found.rule.text);
    let ip = words::ip(to);
    let (what, list) = match (found.table, found.prefix) {
        (Some(table), Some((addr, len))) => (
            format!("the route {kind} {addr}/{len} of table {table} (rule {priority}: {text})"),
            format!("{ip} route show table {table}"),
        ),
        (Some(table), None) => (
            format!("a route of type {kind} in table {table} (rule {priority}: {text})"),
            format!("{ip} route show table {table}"),
        ),
        (None, _) => (
            format!("the policy rule {priority} ({text})"),
            format!("{ip} rule show"),
        ),
    };
    let list = words::command(case, &list, evidence);
    // Before a route that forbids, a more specific one is used.
    let unused = match found.table {
        None => "; a further route would not be used",
        Some(_) => "",
    };
    let instead = match &found.instead {
        Some(out) => format!("; without it the way by {} would be taken", out.device.name),
        None => String::new(),
    };
    (
        format!("{what} forbids the way to {to}{instead}"),
        format!(
            "{list} shows it: start the VPN that set it, or let it exempt {to} (kill switch, \
             allowed addresses){unused}"
        ),
    )
}

/// The sentences about a route that is missing.
fn missing(
    case: &Case,
    to: IpAddr,
    evidence: &mut dyn Evidence,
) -> Result<(String, String), Undiagnosed> {
    let v6 = to.is_ipv6();
    let (family, other) = if v6 {
        ("IPv6", "IPv4")
    } else {
        ("IPv4", "IPv6")
    };
    let own = evidence.own_addresses(case.netns, v6)?;
    if own.any || own.usable.iter().any(|addr| !addr.is_loopback()) {
        let show = format!("{} route show", words::ip(to));
        let show = words::command(case, &show, evidence);
        let whose = whose(case, evidence);
        return Ok((
            format!("no route of {whose} leads to {to}"),
            format!(
                "{show} lists the routes: bring up what should set the missing one (interface, \
                 DHCP client, VPN)"
            ),
        ));
    }
    let has_other = !evidence.own_addresses(case.netns, !v6)?.usable.is_empty();
    let instead = if has_other {
        format!("use a name or address of the server that has {other}, or ")
    } else {
        String::new()
    };
    let by = if v6 { "" } else { ", NAT64 or CLAT" };
    Ok((
        format!(
            "this network namespace has no {family} address beside loopback and link-local ones, and \
             no route to {to}"
        ),
        format!("{instead}give this network namespace {family}{by}"),
    ))
}

/// Other interfaces may have a route that the socket cannot use.
fn whose(case: &Case, evidence: &mut dyn Evidence) -> String {
    let Some(device) = case.bound_device else {
        return "this network namespace".to_owned();
    };
    match evidence.link(case.netns, device) {
        Ok(Some(link)) => format!("{}, to which the socket is bound,", link.name),
        Ok(None) | Err(_) => "the interface to which the socket is bound".to_owned(),
    }
}
