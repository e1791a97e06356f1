//! What fails before a SYN: only the system call shows it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    ADDRESS_UNAVAILABLE, DENIED, DemoScene, FAILED, HeldEvidence, NO_ROUTE, Needs, PORT_EXHAUSTED,
    Sysctls,
    acts::{at, bound, connect, ends, listener, tcp},
    holding, scene,
};
use crate::diagnosis::{Certainty, Code};
use conntrace_testnet::{DeadEndRoute, FAR_V4, ports::ACCEPTS};

const NARROW: Sysctls = &[("net/ipv4/ip_local_port_range", "40000 40001")];

/// As keepalived has it.
const NONLOCAL: Sysctls = &[("net/ipv4/ip_nonlocal_bind", "1")];
const MOVED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

/// Hosts of no network of the stage.
const NOWHERE: IpAddr = elsewhere(1);
const CLOSED: IpAddr = elsewhere(2);
const FORBIDDEN: IpAddr = elsewhere(3);
const SWALLOWED: IpAddr = elsewhere(4);
const CLOSED_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1));

const fn elsewhere(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, host))
}

#[rustfmt::skip]
pub(super) const SCENES: &[DemoScene] = &[
    scene("no route", "connect to an address to which this host has no route", Needs::Connects, &[NO_ROUTE], || connect(NOWHERE, ACCEPTS)).because(Code::NoRoute, Certainty::Certain),
    scene("route closed", "connect by a route of type unreachable", Needs::Connects, &[NO_ROUTE], || connect(CLOSED, ACCEPTS)).by(DeadEndRoute::Unreachable, CLOSED).because(Code::NoRoute, Certainty::Certain),
    scene("route closed v6", "IPv6: connect by a route of type unreachable", Needs::ConnectsV6, &[NO_ROUTE], || connect(CLOSED_V6, ACCEPTS)).by(DeadEndRoute::Unreachable, CLOSED_V6).because(Code::NoRoute, Certainty::Certain),
    scene("route forbidden", "connect by a route of type prohibit", Needs::Connects, &[DENIED], || connect(FORBIDDEN, ACCEPTS)).by(DeadEndRoute::Prohibit, FORBIDDEN).because(Code::ProhibitRoute, Certainty::Certain),
    scene("route swallows", "connect by a route of type blackhole", Needs::Connects, &[FAILED], || connect(SWALLOWED, ACCEPTS)).by(DeadEndRoute::Blackhole, SWALLOWED),
    holding("no port to bind", "bind to port 0 while listeners hold every port of the range", Needs::Binds, &[PORT_EXHAUSTED], no_port_to_bind).with(NARROW).because(Code::PortsHeldByBind, Certainty::Certain),
    scene("moved address", "bind to an address that this host no longer has (ip_nonlocal_bind), connect", Needs::Connects, &[NO_ROUTE], moved_address).with(NONLOCAL).because(Code::WrongSource, Certainty::Certain),
    scene("not our address", "bind to an address that no interface of this host has", Needs::Binds, &[ADDRESS_UNAVAILABLE], not_our_address).because(Code::SourceNotLocal, Certainty::Certain),
];

/// Two ports, both listened on; connect is never called.
fn no_port_to_bind() -> io::Result<HeldEvidence> {
    let any = at(Ipv4Addr::UNSPECIFIED, 0);
    let held = vec![listener(any, 0)?, listener(any, 0)?];
    fails(&tcp(any)?.bind(&any.into()))?;
    Ok(HeldEvidence::Sockets(held))
}

/// The source is a virtual address that another machine has by now.
fn moved_address() -> io::Result<()> {
    let socket = bound(at(MOVED, 0))?;
    ends(&socket, at(FAR_V4, ACCEPTS));
    Ok(())
}

fn not_our_address() -> io::Result<()> {
    let theirs = at(NOWHERE, 0);
    fails(&tcp(theirs)?.bind(&theirs.into()))
}

/// What must fail to be a scene.
fn fails(bound: &io::Result<()>) -> io::Result<()> {
    match bound {
        Ok(()) => Err(io::Error::other("the kernel let it bind")),
        Err(_) => Ok(()),
    }
}
