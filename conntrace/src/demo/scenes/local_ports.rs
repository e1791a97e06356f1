//! No local port, or not the one that was chosen.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};

use super::{
    ADDRESS_UNAVAILABLE, ESTABLISHED, Expected, Needs, PORT_EXHAUSTED, Scene, Sysctls,
    acts::{at, bound, connect, ends, hold, listener, tcp},
    scene,
};
use crate::stage::{
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
const THIRD_HAS_NONE: &[Expected] = &[ESTABLISHED, ESTABLISHED, PORT_EXHAUSTED];
const SECOND_HAS_NOT: &[Expected] = &[ESTABLISHED, ADDRESS_UNAVAILABLE];

#[rustfmt::skip]
pub(super) const SCENES: &[Scene] = &[
    scene("tuple in use", Needs::Far, SECOND_HAS_NOT, || tuple_in_use(FAR_LOCAL_V4.into(), FAR_V4.into())),
    scene("tuple in use v6", Needs::FarV6, SECOND_HAS_NOT, || tuple_in_use(FAR_LOCAL_V6.into(), FAR_V6.into())),
    scene("chosen at bind", Needs::Far, SECOND_HAS_NOT, chosen_at_bind),

    scene("no port left", Needs::Far, THIRD_HAS_NONE, || three(at(FAR_V4, ACCEPTS))).with(NARROW),
    scene("no port left v6", Needs::FarV6, THIRD_HAS_NONE, || three(at(FAR_V6, ACCEPTS))).with(NARROW),
    scene("bound w/o port", Needs::Far, THIRD_HAS_NONE, bound_without_port).with(NARROW),
    scene("socket's range", Needs::Far, THIRD_HAS_NONE, sockets_range),
    scene("reserved ports", Needs::Far, &[PORT_EXHAUSTED], || connect(FAR_V4, ACCEPTS)).with(RESERVED),
    scene("held by binds", Needs::Far, &[PORT_EXHAUSTED], held_by_binds).with(NARROW),
    scene("in TIME_WAIT", Needs::Lo, THIRD_HAS_NONE, || in_time_wait(at(Ipv4Addr::LOCALHOST, LISTENER_PORT))).with(KEEPS_TIME_WAIT),
];

/// Two sockets with the same local address and port go to the same place.
fn tuple_in_use(local: IpAddr, far: IpAddr) -> io::Result<()> {
    let (local, far) = (at(local, OWN_PORT), at(far, ACCEPTS));
    let (first, second) = (bound(local)?, bound(local)?);
    ends(&first, far);
    ends(&second, far);
    Ok(())
}

/// The kernel chose the port, but at bind: connect cannot have another.
fn chosen_at_bind() -> io::Result<()> {
    let far = at(FAR_V4, ACCEPTS);
    let late = bound(at(FAR_LOCAL_V4, 0))?;
    let chosen = late.local_addr()?.as_socket();
    let quick = bound(chosen.ok_or(io::ErrorKind::InvalidData)?)?;
    ends(&quick, far);
    ends(&late, far);
    Ok(())
}

/// Three connections at a time.
fn three(to: SocketAddr) -> io::Result<()> {
    let _held = [hold(to)?, hold(to)?, hold(to)?];
    Ok(())
}

/// The address is bound, the port left to connect.
fn bound_without_port() -> io::Result<()> {
    let far = at(FAR_V4, ACCEPTS);
    let mut held = Vec::new();
    for _ in 0..3 {
        let socket = tcp(far)?;
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&at(FAR_LOCAL_V4, 0).into())?;
        ends(&socket, far);
        held.push(socket);
    }
    Ok(())
}

/// The application narrows the range itself (`IP_LOCAL_PORT_RANGE`).
fn sockets_range() -> io::Result<()> {
    let far = at(OTHER_FAR_V4, ACCEPTS);
    let [low, high] = RANGE;
    let mut held = Vec::new();
    for _ in 0..3 {
        let socket = tcp(far)?;
        set_local_port_range(&socket, low, high)?;
        ends(&socket, far);
        held.push(socket);
    }
    Ok(())
}

/// Sockets that are only bound hold their ports for every destination.
fn held_by_binds() -> io::Result<()> {
    let mut held = Vec::new();
    for port in RANGE {
        let own = at(Ipv4Addr::LOCALHOST, port);
        let socket = tcp(own)?;
        socket.bind(&own.into())?;
        held.push(socket);
    }
    connect(FAR_V4, ACCEPTS)
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
