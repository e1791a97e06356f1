use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::no_route;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, CauseRule, Certainty, Code, Evidence, Facts, FailedCall, Finding,
        Undiagnosed, place, step,
        way::{Flow, Route, RouteOut},
        words,
    },
    record::{Label, ReplyKind},
};

/// The way is there, but not with the source address of the attempt. No interface of the
/// namespace has it (`ip_nonlocal_bind`, the address moved away or was removed under the
/// attempt), or a policy rule routes that source elsewhere.
///
/// Wrong when addresses or routes changed between the attempt and the look. A transparent
/// proxy's sockets have foreign sources by design (`IP_TRANSPARENT`).
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::WrongSource,
    labels: &[Label::TimedOut, Label::Unreachable],
    is: "The source address cannot be answered there.",
    means: "the source address cannot be answered there",
    recognised: &[
        "The source address is another interface's, no interface's, or one that the destination cannot answer, such as a unique local address to a global one. `evidence` has the route with that source and without it.",
        "Certain: there is a route without this source, and none with it. Likely: no answer came, and no interface has the address. Possible: no answer came from a global IPv6 address to a unique local one.",
    ],
    reasons: &[
        "The application binds an address of another network than the one by which it leaves.",
        "A virtual address that another host has by now; ip_nonlocal_bind lets it be bound all the same.",
        "IPv6 with nothing but a unique local address, without address translation.",
        "With several uplinks: no rule leads this source address to its own gateway.",
    ],
    steps: &[
        step(
            "ip route get ADDR from SOURCE",
            "the way with this source address (`local.addr`), or why there is none",
        ),
        step(
            "ip route get ADDR",
            "the way without it; src is the address that the kernel would choose",
        ),
        step(
            "ip -br addr",
            "which interface has the address, if one has it",
        ),
        step(
            "ip rule add from SOURCE table TABLE",
            "leads what comes from that address to a table with its own gateway",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "there is a route without the chosen source, and none with it",
        ),
        (
            Certainty::Likely,
            "no answer, and no interface of the namespace has the source address",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let unanswered = case.label == Label::TimedOut && case.reply == ReplyKind::None;
    if unanswered {
        unanswerable(case, evidence)
    } else {
        unroutable(case, evidence)
    }
}

/// Packets leave with a source address to which no answer can come.
fn unanswerable(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let (Some(to), Some(source)) = (case.remote.map(|remote| remote.addr), case.local_addr) else {
        return Ok(None);
    };
    if evidence.is_own(case.netns, source)? {
        return Ok(None);
    }
    let list = words::command(case, "ip -br addr", evidence);
    Ok(Some(Cause::new(
        Code::WrongSource,
        Certainty::Likely,
        &format!(
            "{source}, the source of the packets to {to}, is not assigned to any interface of this \
             network namespace (any more): no answer can reach it"
        ),
        &format!(
            "give the address back, or let the application connect anew; {list} lists the addresses \
             that there are"
        ),
        Facts::new()
            .with("source", source)
            .with("source_is_own", false)
            .with("to", to),
    )))
}

fn unroutable(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if case.label != Label::Unreachable || case.call != Some(FailedCall::Connect) {
        return Ok(None);
    }
    let (Some(to), Some(source)) = (case.remote.map(|remote| remote.addr), case.local_addr) else {
        return Ok(None);
    };
    if place::no_way(case, evidence)?.is_none() {
        return Ok(None);
    }
    let Some(freely) = no_route::way_without_source(case, evidence)? else {
        return Ok(None);
    };
    let device = match &freely {
        Route::Out(RouteOut { device, .. }) => Some(device.name.as_str()),
        Route::Local | Route::None(_) => None,
    };
    let is_own = evidence.is_own(case.netns, source)?;
    let why_not = if is_own {
        format!("a policy rule leads packets from {source} another way")
    } else {
        format!("{source} is not assigned to any interface of this network namespace")
    };
    let way = device.map_or_else(String::new, |device| format!(", by {device}"));
    let list = words::command(
        case,
        &if is_own {
            format!("{} rule show", words::ip(to))
        } else {
            "ip -br addr".to_owned()
        },
        evidence,
    );
    let fix = if is_own {
        format!("let the application bind to no source address; {list} shows the rule")
    } else {
        format!(
            "let the application bind to an address that {list} lists, or to none; a virtual \
             address that moves (keepalived) is used only where it is"
        )
    };
    Ok(Some(Cause::new(
        Code::WrongSource,
        Certainty::Certain,
        &format!("the route to {to} is there{way}, but not from the chosen source: {why_not}"),
        &fix,
        Facts::new()
            .with("source", source)
            .with("source_is_own", is_own)
            .with("device", device)
            .with("to", to),
    )))
}

/// The source of the packets, and the interface at which its network is, if that is another one than
/// they leave by.
pub(crate) fn of_another_interface(
    case: &Case,
    out: &RouteOut,
    evidence: &mut dyn Evidence,
) -> Result<Option<(IpAddr, String)>, Undiagnosed> {
    let Some(source) = case.way().and_then(|way| way.from) else {
        return Ok(None);
    };
    // The route to the address beside it is that of its network.
    let to = match source {
        IpAddr::V4(addr) => IpAddr::from(Ipv4Addr::from_bits(addr.to_bits() ^ 1)),
        IpAddr::V6(addr) => IpAddr::from(Ipv6Addr::from_bits(addr.to_bits() ^ 1)),
    };
    let network = match evidence.route(case.netns, Flow::to(to, 0))? {
        Route::Out(network) => network,
        Route::Local | Route::None(_) => return Ok(None),
    };
    let is_there = network.prefix_len != 0 && network.device.index != out.device.index;
    Ok(is_there.then_some((source, network.device.name)))
}

/// A unique local address as the source of packets to a global one. Without translation on the way
/// nobody on the internet has a route back.
///
/// Wrong where a router translates it (NAT66) and the destination is silent for another reason.
pub(crate) const UNIQUE_LOCAL: CauseRule = CauseRule {
    code: Code::WrongSource,
    look: look_for_unique_local,
    proofs: &[(
        Certainty::Possible,
        "no answer from a global address to a unique local one",
    )],
};

fn look_for_unique_local(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let unanswered = case.label == Label::TimedOut && case.reply == ReplyKind::None;
    let (Some(to), Some(source)) = (case.remote.map(|remote| remote.addr), case.local_addr) else {
        return Ok(None);
    };
    let (IpAddr::V6(source), IpAddr::V6(global)) = (source, to) else {
        return Ok(None);
    };
    // 2000::/3, the prefixes of the internet.
    let is_global = global.octets().first().is_some_and(|first| first >> 5 == 1);
    let is_heard =
        case.heard.handshake_lately().is_some() || case.heard.on_this_port_ago_s.is_some();
    if !unanswered || !source.is_unique_local() || !is_global || is_heard {
        return Ok(None);
    }
    let list = words::command(case, "ip -6 addr show scope global", evidence);
    Ok(Some(Cause::new(
        Code::WrongSource,
        Certainty::Possible,
        &format!(
            "{source}, the source of the packets to {to}, is a unique local address: nobody on the \
             internet can answer it, unless a router on the way translates it (NAT66)"
        ),
        &format!(
            "give the client an address of a global prefix ({list} lists what it has), or let the \
             router by which it leaves translate it: `ip6tables -t nat -A POSTROUTING -s {source} -j \
             MASQUERADE` (docker: \"ip6tables\": true)"
        ),
        Facts::new().with("source", source).with("to", to),
    )))
}
