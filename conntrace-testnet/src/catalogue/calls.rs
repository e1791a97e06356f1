//! Calls that fail before a SYN leaves: only the system call shows them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use super::{
    Act::{Connect, Holding, Once},
    LocalEnd, Scenario, Sysctls, keep,
    local_ports::NARROW,
    outcome::{ADDRESS_UNAVAILABLE, CERTAIN, ExpectedOutcome, unsent},
    scenario, v4, v6,
};
use crate::{
    DeadEndRoute, FAR_V4,
    endings::{attempt, bound, listener, tcp},
    ports::ACCEPTS,
};

/// Setting of hosts that run keepalived.
const NONLOCAL: Sysctls = &[("net/ipv4/ip_nonlocal_bind", "1")];
/// A virtual address that another machine has by now.
const MOVED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const FROM_MOVED: LocalEnd = LocalEnd::Address(IpAddr::V4(MOVED));

/// Hosts outside of the networks that are attached.
const NOWHERE: SocketAddr = elsewhere(1);
const CLOSED: SocketAddr = elsewhere(2);
const FORBIDDEN: SocketAddr = elsewhere(3);
const SWALLOWED: SocketAddr = elsewhere(4);
const CLOSED_V6: SocketAddr = v6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1), ACCEPTS);
const NOT_OURS: SocketAddr = v4(Ipv4Addr::new(203, 0, 113, 1), 0);
const TAKEN: SocketAddr = v4(Ipv4Addr::LOCALHOST, 20_005);
const ANY: SocketAddr = v4(Ipv4Addr::UNSPECIFIED, 0);

const fn elsewhere(host: u8) -> SocketAddr {
    v4(Ipv4Addr::new(203, 0, 113, host), ACCEPTS)
}

const NO_ROUTE: ExpectedOutcome = unsent("unreachable", "ENETUNREACH");
const ROUTE_CLOSED: ExpectedOutcome = unsent("unreachable", "EHOSTUNREACH");
const PORT_TAKEN: ExpectedOutcome = unsent("address_unavailable", "EADDRINUSE");
const NO_PORT_TO_BIND: ExpectedOutcome = unsent("port_exhausted", "EADDRINUSE");

#[rustfmt::skip]
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("no route", "connect to an address to which this host has no route", NOWHERE, Connect, &[NO_ROUTE]).because("no_route", CERTAIN).covered_by("no_route"),
    scenario("route closed", "connect by a route of type unreachable", CLOSED, Connect, &[ROUTE_CLOSED]).by(DeadEndRoute::Unreachable).because("no_route", CERTAIN).covered_by("no_route"),
    scenario("route closed v6", "IPv6: connect by a route of type unreachable", CLOSED_V6, Connect, &[ROUTE_CLOSED]).by(DeadEndRoute::Unreachable).because("no_route", CERTAIN).covered_by("no_route"),
    scenario("route forbidden", "connect by a route of type prohibit", FORBIDDEN, Connect, &[unsent("denied", "EACCES")]).by(DeadEndRoute::Prohibit).because("prohibit_route", CERTAIN).covered_by("no_route"),
    scenario("route swallows", "connect by a route of type blackhole", SWALLOWED, Connect, &[unsent("failed", "EINVAL")]).by(DeadEndRoute::Blackhole).because("blackhole_route", CERTAIN).covered_by("no_route"),
    scenario("no port to bind", "bind to port 0 while listeners hold every port of the range", ANY, Holding(no_port_to_bind), &[NO_PORT_TO_BIND.from(LocalEnd::BindOnly)]).with(NARROW).because("ports_held_by_bind", CERTAIN).covered_by("bind_exhausted"),
    scenario("moved address", "bind to an address that this host no longer has (ip_nonlocal_bind), connect", v4(FAR_V4, ACCEPTS), Once(moved_address), &[NO_ROUTE.from(FROM_MOVED)]).with(NONLOCAL).because("wrong_source", CERTAIN).covered_by("no_route"),
    scenario("not our address", "bind to an address that no interface of this host has", NOT_OURS, Once(fails_to_bind), &[ADDRESS_UNAVAILABLE.from(LocalEnd::BindOnly)]).because("source_not_local", CERTAIN).covered_by("bind_exhausted"),
    scenario("port taken", "bind to a port that a server listens on", TAKEN, Holding(taken), &[PORT_TAKEN.from(LocalEnd::BindOnly)]).because("port_in_use", CERTAIN).covered_by("bind_exhausted"),
];

/// A server that is already there.
fn taken(local: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    let held = [listener(local, 1)?];
    fails_to_bind(local)?;
    Ok(keep(held))
}

/// Two ports, both listened on; connect is never called.
fn no_port_to_bind(any: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    let held = [listener(any, 0)?, listener(any, 0)?];
    fails_to_bind(any)?;
    Ok(keep(held))
}

fn moved_address(to: SocketAddr) -> io::Result<()> {
    attempt(&bound(v4(MOVED, 0))?, to);
    Ok(())
}

fn fails_to_bind(local: SocketAddr) -> io::Result<()> {
    match tcp(local)?.bind(&local.into()) {
        Ok(()) => Err(io::Error::other("the kernel let it bind")),
        Err(_) => Ok(()),
    }
}
