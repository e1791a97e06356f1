use std::net::IpAddr;

use super::host_down::may_be;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Undiagnosed, place,
        step,
        way::{Covering, Flow, Link, Route, RouteOut},
        words,
    },
    record::{Label, ReplyKind},
};

/// The destination is looked for on a network where it is not. A container bridge, a netmask that
/// is too wide or a VPN's table takes it, or it is the very machine that a macvlan interface stands
/// on, which it never reaches.
///
/// Wrong when the host is on that network and is only down, while another route covers it by chance
/// or an unrelated namespace has the same address.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::WrongNetwork,
    labels: &[Label::TimedOut, Label::Unreachable],
    is: "The destination is looked for on a network where it is not.",
    means: "it is looked for on a network where it is not",
    recognised: &[
        "Likely: nobody answers for the address on a macvlan or ipvlan interface, and another namespace of this machine, which is on that network by another kind of interface, has the address. Such an interface never reaches its own host.",
        "Likely: nobody answers for the address on the network of an interface, and another route covers it that is no wider; or the interface is a bridge.",
        "Likely: a tunnel takes the packets, nothing answered from there, and an Ethernet interface of the client is on that network itself.",
        "Possible: nobody answers for the address there, and a wider route covers it, or another namespace of this machine has the address.",
    ],
    reasons: &[
        "A container network (docker, podman, libvirt) has taken the address range of a network that is routed.",
        "A container on a macvlan or ipvlan network connects to its own host.",
        "A netmask that is too wide: hosts behind the gateway are looked for on the own network.",
        "Two interfaces have the same network, or a VPN's table takes that of the local one.",
    ],
    steps: &[
        step(
            "ip route get ADDR",
            "the interface on whose network it is looked for",
        ),
        step(
            "ip route show table all to match ADDR",
            "all routes that cover it",
        ),
        step(
            "ip -d link show DEVICE",
            "macvlan, ipvlan or bridge: the kind of the interface",
        ),
        step(
            "docker network inspect NETWORK",
            "the range of a container network, to be set by --subnet or default-address-pools",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Likely,
            "a silent neighbour on a macvlan or ipvlan interface whose address is its own host's, or \
             on a network that another route covers as narrowly, or that is a bridge's, or no answer from \
             a tunnel that takes a network of the client's own",
        ),
        (
            Certainty::Possible,
            "a silent neighbour whose address another namespace of this machine has, or a wider \
             route covers",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let (true, Some(way)) = (may_be(case), case.way()) else {
        return Ok(None);
    };
    if case.reply == ReplyKind::Icmp {
        return Ok(None);
    }
    let addr = way.to;
    let Some(out) = place::way_out(case, evidence)?.filter(|out| out.gateway.is_none()) else {
        return Ok(None);
    };
    let link = evidence.link(case.netns, out.device.index)?;
    let Some(link) = link.filter(|link| place::can_send(Some(link))) else {
        return Ok(None);
    };
    if !link.resolves_neighbours {
        return taken(case, (&out, &link), way, evidence);
    }
    if place::silent(case, &out, addr, evidence)?.is_none() {
        return Ok(None);
    }
    let holders = evidence.holders(case.netns, addr)?;
    for &holder in &holders {
        if is_child(&link) && is_its_host(case, holder, evidence)? {
            return Ok(Some(own_host(case, addr, &link, holder, evidence)));
        }
    }
    let covering = evidence.covering(case.netns, way)?;
    if let Some(other) = covering.first() {
        return Ok(Some(covered(case, addr, (&out, &link), other, evidence)));
    }
    let held = holders.first();
    Ok(held.map(|&holder| held_elsewhere(case, addr, &link, holder, evidence)))
}

/// A tunnel takes packets to a network that an Ethernet interface of the client is on itself.
fn taken(
    case: &Case,
    (out, link): (&RouteOut, &Link),
    way: Flow,
    evidence: &mut dyn Evidence,
) -> Finding {
    let addr = way.to;
    let unanswered = case.label == Label::TimedOut && case.reply == ReplyKind::None;
    if !unanswered || case.heard.on_this_port_ago_s.is_some() {
        return Ok(None);
    }
    let covering = evidence.covering(case.netns, way)?;
    let is_own = |other: &&Covering| other.gateway.is_none() && other.prefix.1 >= out.prefix_len;
    let Some(other) = covering.iter().find(is_own) else {
        return Ok(None);
    };
    let Some(own) = &other.device else {
        return Ok(None);
    };
    let by = evidence.link(case.netns, own.index)?;
    if !by.is_some_and(|by| by.resolves_neighbours && place::can_send(Some(&by))) {
        return Ok(None);
    }
    let (device, own) = (&link.name, &own.name);
    let (network, len) = other.prefix;
    let ip = words::ip(addr);
    let [rules, routes, before] = [
        format!("{ip} rule show"),
        format!("{ip} route show table all to match {addr}"),
        format!(
            "{ip} rule add to {network}/{len} lookup {} priority 1",
            other.table
        ),
    ]
    .map(|list| words::command(case, &list, evidence));
    Ok(Some(Cause::new(
        Code::WrongNetwork,
        Certainty::Likely,
        &format!(
            "{addr} is routed into the tunnel {device} by table {} (/{}), and nothing answered from \
             there; {own} is itself on {network}/{len} (table {})",
            out.table, out.prefix_len, other.table
        ),
        &format!(
            "{rules} and {routes} show the order: keep {network}/{len} out of the tunnel's routes \
             (tailscale set --accept-routes=false, AllowedIPs, a route pushed by the server), or put a \
             rule before them: {before}"
        ),
        Facts::new()
            .with("addr", addr)
            .with("device", device)
            .with("device_kind", link.kind.as_deref())
            .with("prefix_len", out.prefix_len)
            .with("other_route", other),
    )))
}

/// An interface that shares its parent's hardware, and does not reach the parent's addresses.
fn is_child(link: &Link) -> bool {
    let kind = link.kind.as_deref();
    kind.is_some_and(|kind| matches!(kind, "macvlan" | "macvtap" | "ipvlan" | "ipvtap"))
}

/// A namespace that is on the client's network by another interface than such a child: a sibling
/// would be reached.
fn is_its_host(case: &Case, holder: u32, evidence: &mut dyn Evidence) -> Result<bool, Undiagnosed> {
    let Some(client) = case.local_addr else {
        return Ok(false);
    };
    let back = Flow::to(client, 0);
    let Route::Out(out) = evidence.route(holder, back)? else {
        return Ok(false);
    };
    let link = evidence.link(holder, out.device.index)?;
    let is_other = link.is_some_and(|link| place::can_send(Some(&link)) && !is_child(&link));
    Ok(out.gateway.is_none() && is_other)
}

fn own_host(
    case: &Case,
    addr: IpAddr,
    link: &Link,
    holder: u32,
    evidence: &mut dyn Evidence,
) -> Cause {
    let device = &link.name;
    let kind = link.kind.as_deref().unwrap_or_default();
    let show = words::command(case, &format!("ip -d link show {device}"), evidence);
    Cause::new(
        Code::WrongNetwork,
        Certainty::Likely,
        &format!(
            "{addr} is an address of this machine itself (network namespace {holder}), which a \
             {kind} interface such as {device} never reaches, and nobody answered for it"
        ),
        &format!(
            "give the host a {kind} interface of its own on the same parent, and use its address, or \
             attach the client to a bridge as well; {show} shows the parent"
        ),
        Facts::new()
            .with("addr", addr)
            .with("device", device)
            .with("device_kind", kind)
            .with("holder", holder),
    )
}

fn covered(
    case: &Case,
    addr: IpAddr,
    (out, link): (&RouteOut, &Link),
    other: &Covering,
    evidence: &mut dyn Evidence,
) -> Cause {
    let device = &link.name;
    let is_bridge = link.kind.as_deref() == Some("bridge");
    let certainty = if is_bridge || other.prefix.1 >= out.prefix_len {
        Certainty::Likely
    } else {
        Certainty::Possible
    };
    let (network, len) = other.prefix;
    let via = other.gateway.map(|gateway| format!(" via {gateway}"));
    let by = other.device.as_ref().map(|by| format!(" by {}", by.name));
    let (via, by) = (via.unwrap_or_default(), by.unwrap_or_default());
    let list = format!("{} route show table all to match {addr}", words::ip(addr));
    let list = words::command(case, &list, evidence);
    let bridge = if is_bridge { ", a bridge" } else { "" };
    Cause::new(
        Code::WrongNetwork,
        certainty,
        &format!(
            "{addr} is looked for on the network of {device}{bridge} (/{}), where nobody answers for \
             it, and the route {network}/{len}{via}{by} (table {}) covers it as well",
            out.prefix_len, other.table
        ),
        &format!(
            "{list} lists the routes: if {addr} is on the other one, give {device} another or a \
             narrower network, or add a route to {addr} of its own; else start the host"
        ),
        Facts::new()
            .with("addr", addr)
            .with("device", device)
            .with("device_kind", link.kind.as_deref())
            .with("prefix_len", out.prefix_len)
            .with("other_route", other),
    )
}

fn held_elsewhere(
    case: &Case,
    addr: IpAddr,
    link: &Link,
    holder: u32,
    evidence: &mut dyn Evidence,
) -> Cause {
    let device = &link.name;
    let show = words::command_in(holder, "ip -br addr", evidence);
    let neighbour = format!("ip neigh show {addr} dev {device}");
    let neighbour = words::command(case, &neighbour, evidence);
    Cause::new(
        Code::WrongNetwork,
        Certainty::Possible,
        &format!(
            "nobody answers for {addr} on the network of {device}; network namespace {holder} of this \
             machine has the address, and may be the host that is meant, on another network"
        ),
        &format!(
            "{show} shows the addresses there: connect the two networks, or start the host that \
             should have it; {neighbour} shows REACHABLE then"
        ),
        Facts::new()
            .with("addr", addr)
            .with("device", device)
            .with("device_kind", link.kind.as_deref())
            .with("holder", holder),
    )
}
