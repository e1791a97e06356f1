//! No local port, or not the one that was chosen.

use std::{
    io,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};

use super::{
    ADDRESS_UNAVAILABLE, DemoScene, ESTABLISHED, Expectation, HeldEvidence, Needs, PORT_EXHAUSTED,
    Sysctls,
    acts::{at, bound, connect, ends, hold, listener, tcp},
    holding, scene,
};
use crate::diagnosis::{Certainty, Code};
use conntrace_testnet::{
    FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, ports::ACCEPTS, set_local_port_range,
};

/// The only two ports of a narrow range.
const RANGE: [u16; 2] = [40_000, 40_001];
const NARROW: Sysctls = &[("net/ipv4/ip_local_port_range", "40000 40001")];
const RESERVED: Sysctls = &[
    ("net/ipv4/ip_local_port_range", "40000 40001"),
    ("net/ipv4/ip_local_reserved_ports", "40000-40001"),
];
const KEEPS_TIME_WAIT: Sysctls = &[
    ("net/ipv4/ip_local_port_range", "40000 40001"),
    ("net/ipv4/tcp_tw_reuse", "0"),
];

/// Of sockets that are bound; below the ports that the kernel chooses from.
const OWN_PORT: u16 = 20_003;
const LISTENER_PORT: u16 = 20_004;
/// A far host to which no other scene connects.
const OTHER_FAR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// Two connections take both ports.
const THIRD_HAS_NONE: &[Expectation] = &[ESTABLISHED, ESTABLISHED, PORT_EXHAUSTED];
const SECOND_HAS_NOT: &[Expectation] = &[ESTABLISHED, ADDRESS_UNAVAILABLE];

#[rustfmt::skip]
pub(super) const SCENES: &[DemoScene] = &[
    holding("tuple in use", "bind two sockets to one local port, connect both to the same server", Needs::Far, SECOND_HAS_NOT, || tuple_in_use(FAR_LOCAL_V4.into(), FAR_V4.into())).apart().because(Code::TupleInUse, Certainty::Certain),
    holding("tuple in use v6", "IPv6: bind two sockets to one local port, connect both to the same server", Needs::FarV6, SECOND_HAS_NOT, || tuple_in_use(FAR_LOCAL_V6.into(), FAR_V6.into())).apart().because(Code::TupleInUse, Certainty::Certain),
    holding("chosen at bind", "bind to port 0, have another socket use that port to the same server, connect", Needs::Far, SECOND_HAS_NOT, chosen_at_bind).apart().because(Code::TupleInUse, Certainty::Certain),

    holding("no port left", "narrow the local port range to two ports, connect to one server three times", Needs::Far, THIRD_HAS_NONE, || three(at(FAR_V4, ACCEPTS))).with(NARROW).because(Code::EphemeralRangeUsedUp, Certainty::Certain),
    holding("no port left v6", "IPv6: narrow the local port range to two ports, connect to one server three times", Needs::FarV6, THIRD_HAS_NONE, || three(at(FAR_V6, ACCEPTS))).with(NARROW).because(Code::EphemeralRangeUsedUp, Certainty::Certain),
    holding("bound w/o port", "leave two local ports, bind three sockets to an address only (IP_BIND_ADDRESS_NO_PORT), connect", Needs::Far, THIRD_HAS_NONE, bound_without_port).with(NARROW).because(Code::EphemeralRangeUsedUp, Certainty::Certain),
    holding("socket's range", "give sockets a range of two ports (IP_LOCAL_PORT_RANGE), connect three times", Needs::Far, THIRD_HAS_NONE, sockets_range).apart().because(Code::SocketPortRange, Certainty::Likely),
    scene("reserved ports", "reserve every port of the local port range, connect", Needs::Far, &[PORT_EXHAUSTED], || connect(FAR_V4, ACCEPTS)).with(RESERVED).because(Code::SocketPortRange, Certainty::Certain),
    holding("held by binds", "bind listeners to every port of the local port range, connect", Needs::Far, &[PORT_EXHAUSTED], held_by_binds).with(NARROW).because(Code::PortsHeldByBind, Certainty::Certain),
    scene("in TIME_WAIT", "close connections so that TIME_WAIT holds both ports of the range, connect", Needs::Lo, THIRD_HAS_NONE, || in_time_wait(at(Ipv4Addr::LOCALHOST, LISTENER_PORT))).with(KEEPS_TIME_WAIT).because(Code::EphemeralRangeUsedUp, Certainty::Certain),
];

/// Two sockets with the same local address and port go to the same place.
fn tuple_in_use(local: IpAddr, far: IpAddr) -> io::Result<HeldEvidence> {
    let (local, far) = (at(local, OWN_PORT), at(far, ACCEPTS));
    let (first, second) = (bound(local)?, bound(local)?);
    ends(&first, far);
    ends(&second, far);
    Ok(HeldEvidence::Sockets(vec![first, second]))
}

/// The kernel chose the port, but at bind: connect cannot have another.
fn chosen_at_bind() -> io::Result<HeldEvidence> {
    let far = at(FAR_V4, ACCEPTS);
    let late = bound(at(FAR_LOCAL_V4, 0))?;
    let chosen = late.local_addr()?.as_socket();
    let quick = bound(chosen.ok_or(io::ErrorKind::InvalidData)?)?;
    ends(&quick, far);
    ends(&late, far);
    Ok(HeldEvidence::Sockets(vec![quick, late]))
}

/// Three connections at a time.
fn three(to: SocketAddr) -> io::Result<HeldEvidence> {
    Ok(HeldEvidence::Sockets(vec![hold(to)?, hold(to)?, hold(to)?]))
}

/// The address is bound, the port left to connect.
fn bound_without_port() -> io::Result<HeldEvidence> {
    let far = at(FAR_V4, ACCEPTS);
    let mut held = Vec::new();
    for _ in 0..3 {
        let socket = tcp(far)?;
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&at(FAR_LOCAL_V4, 0).into())?;
        ends(&socket, far);
        held.push(socket);
    }
    Ok(HeldEvidence::Sockets(held))
}

/// The application narrows the range itself (`IP_LOCAL_PORT_RANGE`).
fn sockets_range() -> io::Result<HeldEvidence> {
    let far = at(OTHER_FAR_V4, ACCEPTS);
    let [low, high] = RANGE;
    let mut held = Vec::new();
    for _ in 0..3 {
        let socket = tcp(far)?;
        set_local_port_range(&socket, low, high)?;
        ends(&socket, far);
        held.push(socket);
    }
    Ok(HeldEvidence::Sockets(held))
}

/// Sockets that are bound hold their ports for every destination. They listen as
/// well: of others the kernel tells only from Linux 6.8 on.
fn held_by_binds() -> io::Result<HeldEvidence> {
    let [low, high] = RANGE.map(|port| listener(at(Ipv4Addr::LOCALHOST, port), 0));
    let held = vec![low?, high?];
    connect(FAR_V4, ACCEPTS)?;
    Ok(HeldEvidence::Sockets(held))
}

/// Connections that are over, closed by this side first, still hold both ports.
fn in_time_wait(own: SocketAddr) -> io::Result<()> {
    let listener = listener(own, 8)?;
    for _ in 0..2 {
        let client = hold(own)?;
        let (mut server, _) = listener.accept()?;
        drop(client);
        // Its end: then the server closes, too.
        let _ = server.read(&mut [0])?;
    }
    connect(own.ip(), own.port())
}
