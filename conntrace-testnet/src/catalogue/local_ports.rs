//! Scenarios without a free local port, or without the chosen one.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::Socket;

use super::{
    Act::{Connect, Holding, Once},
    LocalEnd, Scenario, Sysctls, keep, mapped,
    outcome::{ADDRESS_UNAVAILABLE, CERTAIN, ESTABLISHED, ExpectedOutcome, LIKELY, PORT_EXHAUSTED},
    scenario, v4, v6,
};
use crate::{
    FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6,
    endings::{attempt, bound, connect, hold, listener, tcp},
    ports::ACCEPTS,
    set_local_port_range,
};

/// The only two ports of a narrow range.
const LOW: u16 = 40_000;
const HIGH: u16 = 40_001;
pub(super) const NARROW: Sysctls = &[("net/ipv4/ip_local_port_range", "40000 40001")];
const RESERVED: Sysctls = &[
    ("net/ipv4/ip_local_port_range", "40000 40001"),
    ("net/ipv4/ip_local_reserved_ports", "40000-40001"),
];
const KEEPS_TIME_WAIT: Sysctls = &[
    ("net/ipv4/ip_local_port_range", "40000 40001"),
    ("net/ipv4/tcp_tw_reuse", "0"),
];

/// Port of bound sockets, below the range that the kernel chooses from.
const OWN_PORT: u16 = 20_003;
const LISTENER_PORT: u16 = 20_004;
const FAR: SocketAddr = v4(FAR_V4, ACCEPTS);
/// A far host to which no other scenario connects.
const OTHER_FAR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// Outcome with a range of two ports: the third connection finds none left.
const THIRD_HAS_NONE: &[ExpectedOutcome] = &[ESTABLISHED, ESTABLISHED, PORT_EXHAUSTED];
const TUPLE_IN_USE: &[ExpectedOutcome] = &[
    ESTABLISHED.from(LocalEnd::Port(OWN_PORT)),
    ADDRESS_UNAVAILABLE.from(LocalEnd::Port(OWN_PORT)),
];
const CHOSEN_IN_USE: &[ExpectedOutcome] =
    &[ESTABLISHED, ADDRESS_UNAVAILABLE.from(LocalEnd::Ephemeral)];

#[rustfmt::skip]
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("tuple in use", "bind two sockets to one local port, connect both to the same server", FAR, Holding(|to| tuple_in_use(to, FAR_LOCAL_V4.into())), TUPLE_IN_USE).alone().because("tuple_in_use", CERTAIN),
    scenario("tuple in use v6", "IPv6: bind two sockets to one local port, connect both to the same server", v6(FAR_V6, ACCEPTS), Holding(|to| tuple_in_use(to, FAR_LOCAL_V6.into())), TUPLE_IN_USE).alone().because("tuple_in_use", CERTAIN),
    scenario("tuple mapped", "bind two sockets to one local port, connect both to an IPv4-mapped IPv6 address", mapped(FAR_V4, ACCEPTS), Holding(|to| tuple_in_use(to, FAR_LOCAL_V4.to_ipv6_mapped().into())), TUPLE_IN_USE).alone().because("tuple_in_use", CERTAIN).only_tested(),
    scenario("chosen at bind", "bind to port 0, have another socket use that port to the same server, connect", FAR, Holding(chosen_at_bind), CHOSEN_IN_USE).alone().because("tuple_in_use", CERTAIN),

    scenario("no port left", "narrow the local port range to two ports, connect to one server three times", FAR, Holding(three), THIRD_HAS_NONE).with(NARROW).because("ephemeral_range_used_up", CERTAIN),
    scenario("no port left v6", "IPv6: narrow the local port range to two ports, connect to one server three times", v6(FAR_V6, ACCEPTS), Holding(three), THIRD_HAS_NONE).with(NARROW).because("ephemeral_range_used_up", CERTAIN),
    scenario("no port mapped", "narrow the local port range to two ports, connect to an IPv4-mapped IPv6 address three times", mapped(FAR_V4, ACCEPTS), Holding(three), THIRD_HAS_NONE).with(NARROW).because("ephemeral_range_used_up", CERTAIN).only_tested(),
    scenario("bound w/o port", "leave two local ports, bind three sockets to an address only (IP_BIND_ADDRESS_NO_PORT), connect", FAR, Holding(bound_without_port), THIRD_HAS_NONE).with(NARROW).because("ephemeral_range_used_up", CERTAIN),
    scenario("socket's range", "give sockets a range of two ports (IP_LOCAL_PORT_RANGE), connect three times", v4(OTHER_FAR_V4, ACCEPTS), Holding(sockets_range), THIRD_HAS_NONE).alone().checked(has_sockets_range).because("socket_port_range", LIKELY),
    scenario("reserved ports", "reserve every port of the local port range, connect", FAR, Connect, &[PORT_EXHAUSTED]).with(RESERVED).because("socket_port_range", CERTAIN),
    scenario("held by binds", "bind listeners to every port of the local port range, connect", FAR, Holding(held_by_binds), &[PORT_EXHAUSTED]).with(NARROW).because("ports_held_by_bind", CERTAIN),
    scenario("in TIME_WAIT", "close connections so that TIME_WAIT holds both ports of the range, connect", v4(Ipv4Addr::LOCALHOST, LISTENER_PORT), Once(in_time_wait), THIRD_HAS_NONE).with(KEEPS_TIME_WAIT).because("ephemeral_range_used_up", CERTAIN),
];

/// Connects three sockets, each made by `make`, and keeps them all.
fn connected(
    to: SocketAddr,
    make: fn(SocketAddr) -> io::Result<Socket>,
) -> io::Result<Vec<OwnedFd>> {
    let mut held = Vec::new();
    for _ in 0..3 {
        let socket = make(to)?;
        attempt(&socket, to);
        held.push(socket.into());
    }
    Ok(held)
}

fn three(to: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    connected(to, tcp)
}

/// Gives two sockets the same 4-tuple.
fn tuple_in_use(to: SocketAddr, local: IpAddr) -> io::Result<Vec<OwnedFd>> {
    let local = SocketAddr::new(local, OWN_PORT);
    let held = [bound(local)?, bound(local)?];
    held.iter().for_each(|socket| attempt(socket, to));
    Ok(keep(held))
}

/// The kernel chose the port, but at bind: connect cannot have another.
fn chosen_at_bind(to: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    let late = bound(v4(FAR_LOCAL_V4, 0))?;
    let chosen = late.local_addr()?.as_socket();
    let quick = bound(chosen.ok_or(io::ErrorKind::InvalidData)?)?;
    attempt(&quick, to);
    attempt(&late, to);
    Ok(keep([quick, late]))
}

/// Binds the address and leaves the choice of a port to connect.
fn bound_without_port(to: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    connected(to, |to| {
        let socket = tcp(to)?;
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&v4(FAR_LOCAL_V4, 0).into())?;
        Ok(socket)
    })
}

/// The application narrows the range itself (`IP_LOCAL_PORT_RANGE`).
fn sockets_range(to: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    connected(to, with_own_range)
}

fn with_own_range(to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(to)?;
    set_local_port_range(&socket, LOW, HIGH)?;
    Ok(socket)
}

fn has_sockets_range() -> io::Result<()> {
    with_own_range(FAR).map(drop)
}

/// Sockets that are bound hold their ports for every destination. They also listen, because before
/// Linux 6.8 the kernel lists bound sockets only if they listen.
fn held_by_binds(to: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    let listen = |port| listener(v4(Ipv4Addr::LOCALHOST, port), 0);
    let held = [listen(LOW)?, listen(HIGH)?];
    connect(to)?;
    Ok(keep(held))
}

/// Leaves both ports in `TIME_WAIT`, because this side closes first.
fn in_time_wait(own: SocketAddr) -> io::Result<()> {
    let listener = listener(own, 8)?;
    for _ in 0..2 {
        let client = hold(own)?;
        let (mut server, _) = listener.accept()?;
        drop(client);
        // Its end: then the server closes, too.
        let _ = server.read(&mut [0])?;
    }
    connect(own)
}
