//! The place where a destination is, and the way that leads there.

use std::net::IpAddr;

use super::{
    Case, Evidence, Undiagnosed,
    causes::proxy_in_path,
    question::Neighbour,
    way::{Flow, Link, Route, RouteOut},
    way_drop, words,
};
use crate::record::{Errno, Label, Remote, ReplyKind};

/// Namespaces of this machine that a way is followed through.
pub(super) const NAMESPACES_MAX: usize = 4;

/// The destination that refused the attempt with a RST. After SYNs that crossed
/// (`ECONNRESET`) the other side was there and spoke TCP, and where this machine dropped the SYN
/// for another reason than that it met no socket, it never got it.
pub(super) fn reset_by(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<Remote>, Undiagnosed> {
    let reset = case.label == Label::Refused && case.reply == ReplyKind::Rst;
    let found = case
        .remote
        .filter(|_| reset && case.errno == Some(Errno::ECONNREFUSED));
    let is_stopped = found.is_some()
        && way_drop::named(case, evidence)?.is_some()
        && way_drop::met_no_socket(case, evidence)?.is_none();
    Ok(found.filter(|_| !is_stopped))
}

/// The socket address on this machine to which an attempt leads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    /// Inode number of the network namespace.
    pub(super) netns: u32,
    /// Address and port there, after any translation.
    pub(super) at: Remote,
    /// The packet itself met no socket there. Otherwise rules may lead it elsewhere.
    pub(super) is_witnessed: bool,
}

/// The place on this machine to which the attempt leads: where its SYN met no socket, or the
/// namespace whose own address the destination is. `None` of another host's.
pub(super) fn home(case: &Case, evidence: &mut dyn Evidence) -> Result<Option<Home>, Undiagnosed> {
    if let Some(drop) = way_drop::met_no_socket(case, evidence)? {
        return Ok(Some(Home {
            netns: drop.netns,
            at: drop.server,
            is_witnessed: true,
        }));
    }
    let (Some(way), Some(at)) = (case.way(), case.remote) else {
        return Ok(None);
    };
    let to = way.to;
    let netns = match evidence.route(case.netns, way)? {
        Route::Local => Some(case.netns),
        Route::Out(RouteOut {
            gateway: None,
            device,
            ..
        }) => evidence.owner(case.netns, device.index, to)?,
        Route::Out(_) | Route::None(_) => None,
    };
    Ok(netns.map(|netns| Home {
        netns,
        at,
        is_witnessed: false,
    }))
}

/// `10.96.0.50:80 is translated on its way to 10.244.0.6:8080; `, or nothing where it is not.
pub(super) fn translation(case: &Case, home: &Home) -> String {
    case.remote
        .filter(|remote| *remote != home.at)
        .map_or_else(String::new, |from| words::translation(from, home.at))
}

/// The way out that the attempt took.
pub(super) fn way_out(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<RouteOut>, Undiagnosed> {
    let Some(way) = case.way() else {
        return Ok(None);
    };
    match evidence.route(case.netns, way)? {
        Route::Out(out) => Ok(Some(out)),
        Route::Local | Route::None(_) => Ok(None),
    }
}

/// The errno of a connect that finds no way.
pub(super) fn no_way(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<Errno>, Undiagnosed> {
    let Some(way) = case.way() else {
        return Ok(None);
    };
    match evidence.route(case.netns, way)? {
        Route::None(errno) => Ok(Some(Errno(errno))),
        Route::Local | Route::Out(_) => Ok(None),
    }
}

/// The end of a way within this machine.
pub(super) enum PathEnd {
    /// This namespace of this machine has the address.
    Here(u32),
    /// A namespace of this machine rewrites the destination, or may do so.
    Rewritten,
    /// It leaves this namespace of this machine by this route, which is the first one's where no
    /// namespace of this machine is the next hop.
    Leaves(u32, RouteOut),
    /// No further namespace has a way there.
    Stops,
}

/// Follows the way through the namespaces of this machine that are its next hops.
pub(super) fn end_of_way(
    case: &Case,
    first: RouteOut,
    evidence: &mut dyn Evidence,
) -> Result<PathEnd, Undiagnosed> {
    let Some(to) = case.remote else {
        return Ok(PathEnd::Leaves(case.netns, first));
    };
    let mut at = (case.netns, first);
    for _ in 0..NAMESPACES_MAX {
        let Some(hop) = next_hop(to, at.0, &at.1, evidence)? else {
            return Ok(PathEnd::Leaves(at.0, at.1));
        };
        let rewritten = proxy_in_path::at_arrival(hop.netns, to, case.local_addr, evidence)?;
        if !rewritten.found.is_empty() {
            return Ok(PathEnd::Rewritten);
        }
        match hop.onward(to, evidence)? {
            Route::Local => return Ok(PathEnd::Here(hop.netns)),
            Route::None(_) => return Ok(PathEnd::Stops),
            Route::Out(further) => at = (hop.netns, further),
        }
    }
    Err(Undiagnosed::Incomplete)
}

/// A namespace of this machine that is the next hop of a way.
pub(super) struct NextHop {
    /// Its inode number.
    pub(super) netns: u32,
    /// The address that it has as the next hop.
    pub(super) addr: IpAddr,
}

/// The namespace of this machine that packets come to which leave this one by that route; `None`
/// if they leave the machine.
pub(super) fn next_hop(
    to: Remote,
    netns: u32,
    out: &RouteOut,
    evidence: &mut dyn Evidence,
) -> Result<Option<NextHop>, Undiagnosed> {
    let addr = out.gateway.unwrap_or(to.addr);
    let owner = evidence.owner(netns, out.device.index, addr)?;
    Ok(owner.map(|netns| NextHop { netns, addr }))
}

impl NextHop {
    /// The way on from there, as far as the destination decides it.
    pub(super) fn onward(
        &self,
        to: Remote,
        evidence: &mut dyn Evidence,
    ) -> Result<Route, Undiagnosed> {
        let forwarded = Flow::to(to.addr, to.port);
        evidence.route(self.netns, forwarded)
    }
}

/// The state of a neighbour that did not answer; `None` of one that did, or that was not
/// asked lately.
pub(super) fn silent(
    case: &Case,
    out: &RouteOut,
    addr: IpAddr,
    evidence: &mut dyn Evidence,
) -> Result<Option<Neighbour>, Undiagnosed> {
    let state = evidence.neighbour(case.netns, out.device.index, addr)?;
    Ok(match state {
        Neighbour::Incomplete | Neighbour::Failed => Some(state),
        Neighbour::Known | Neighbour::Absent => None,
    })
}

/// An interface that packets can leave by.
pub(super) fn can_send(link: Option<&Link>) -> bool {
    link.is_some_and(|link| link.up && link.carrier)
}

/// Kinds of interfaces behind which a tunnel begins, whose far end this host cannot see.
pub(super) fn is_tunnel(link: &Link) -> bool {
    let kind = link.kind.as_deref().unwrap_or_default();
    matches!(
        kind,
        "wireguard"
            | "vxlan"
            | "geneve"
            | "gre"
            | "gretap"
            | "ip6gre"
            | "ip6gretap"
            | "erspan"
            | "ip6erspan"
            | "bareudp"
            | "ipip"
            | "sit"
            | "ip6tnl"
            | "vti"
            | "vti6"
            | "xfrm"
            | "tun"
            | "ovpn"
            | "ppp"
            | "l2tp"
            | "amt"
            | "gtp"
    )
}

/// A virtual interface whose other end is in a namespace of this machine or on a network that such
/// namespaces share: no hardware, no tunnel, and no TAP device, whose other end is a program.
pub(super) fn may_lead_on(link: &Link) -> bool {
    link.kind.as_deref().is_some_and(|kind| kind != "tap") && !is_tunnel(link)
}

/// The interface behind which a tunnel begins on the way of an attempt.
#[derive(Debug)]
pub(super) struct TunnelEntry {
    /// Inode number of its network namespace.
    pub(super) netns: u32,
    /// Interface index.
    pub(super) device: u32,
    /// Its state.
    pub(super) link: Link,
}

/// Follows the way through the namespaces of this machine to the first tunnel. A PPP interface is
/// mostly the line to the provider, and none.
pub(super) fn tunnel(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<TunnelEntry>, Undiagnosed> {
    let (Some(to), Some(first)) = (case.remote, way_out(case, evidence)?) else {
        return Ok(None);
    };
    let mut at = (case.netns, first);
    for _ in 0..NAMESPACES_MAX {
        let (netns, device) = (at.0, at.1.device.index);
        let Some(link) = evidence.link(netns, device)? else {
            return Ok(None);
        };
        if is_tunnel(&link) {
            let is_line = link.kind.as_deref() == Some("ppp");
            return Ok((!is_line).then_some(TunnelEntry {
                netns,
                device,
                link,
            }));
        }
        if !may_lead_on(&link) {
            return Ok(None);
        }
        let Some(hop) = next_hop(to, netns, &at.1, evidence)? else {
            return Ok(None);
        };
        let rewritten = proxy_in_path::at_arrival(hop.netns, to, case.local_addr, evidence)?;
        if !rewritten.found.is_empty() {
            return Ok(None);
        }
        let Route::Out(onward) = hop.onward(to, evidence)? else {
            return Ok(None);
        };
        at = (hop.netns, onward);
    }
    Ok(None)
}

/// Addresses that no router of the internet knows: RFC 1918, RFC 6598, unique local.
pub(super) fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, ..] = addr.octets();
            addr.is_private() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(addr) => addr.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses() {
        for (addr, expected) in [
            ("10.1.2.3", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.168.0.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("169.254.1.1", false),
            ("fd00::1", true),
            ("fe80::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(addr.parse().unwrap()), expected, "{addr}");
        }
    }
}
