//! What fails before a SYN: only the system call shows it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    ADDRESS_UNAVAILABLE, DENIED, FAILED, NO_ROUTE, Needs, PORT_EXHAUSTED, Scene, Sysctls,
    acts::{at, connect, tcp},
    scene,
};
use crate::stage::{DeadEnd, ports::ACCEPTS};

const NARROW: Sysctls = &[("net/ipv4/ip_local_port_range", "40000 40001")];

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
pub(super) const SCENES: &[Scene] = &[
    scene("no route", Needs::Connects, &[NO_ROUTE], || connect(NOWHERE, ACCEPTS)),
    scene("route closed", Needs::Connects, &[NO_ROUTE], || connect(CLOSED, ACCEPTS)).by(DeadEnd::Unreachable, CLOSED),
    scene("route closed v6", Needs::ConnectsV6, &[NO_ROUTE], || connect(CLOSED_V6, ACCEPTS)).by(DeadEnd::Unreachable, CLOSED_V6),
    scene("route forbidden", Needs::Connects, &[DENIED], || connect(FORBIDDEN, ACCEPTS)).by(DeadEnd::Prohibit, FORBIDDEN),
    scene("route swallows", Needs::Connects, &[FAILED], || connect(SWALLOWED, ACCEPTS)).by(DeadEnd::Blackhole, SWALLOWED),
    scene("no port to bind", Needs::Binds, &[PORT_EXHAUSTED], no_port_to_bind).with(NARROW),
    scene("not our address", Needs::Binds, &[ADDRESS_UNAVAILABLE], not_our_address),
];

/// Two ports, both bound; connect is never called.
fn no_port_to_bind() -> io::Result<()> {
    let any = at(Ipv4Addr::UNSPECIFIED, 0);
    let sockets = [tcp(any)?, tcp(any)?, tcp(any)?];
    let [first, second, third] = sockets.each_ref().map(|socket| socket.bind(&any.into()));
    first.and(second)?;
    fails(&third)
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
