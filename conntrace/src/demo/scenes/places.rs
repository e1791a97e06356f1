//! The client looks in the wrong place.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use super::{
    BY_APPLICATION, Held, NO_NEIGHBOUR, Needs, QUIET_V4, RESET, Scene,
    acts::{at, connect, give_up, listener},
    held::Client,
    holding, scene,
    silence::GIVES_UP_AFTER,
};
use crate::{
    event::{Certainty, Code},
    stage::{
        FAR_LOCAL_V4, FAR_ROUTER_V4, NEAR_V4,
        ports::{ACCEPTS, RESETS, SILENT},
    },
};

/// Nobody listens there, hopefully not in another namespace of this host either, nor on
/// one that is easily mistaken for it.
const NOBODYS_PORT: u16 = 27_183;
const LOOPBACK_PORT: u16 = 28_182;
/// Two digits in each other's place.
const SERVER_PORT: u16 = 29_081;
const MISTYPED_PORT: u16 = 29_018;

/// Of a private network that this host is not in.
const INTERNAL: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
/// Behind the gateway.
const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

#[rustfmt::skip]
pub(super) const SCENES: &[Scene] = &[
    scene("not started", Needs::Far, &[RESET], || connect(FAR_LOCAL_V4, NOBODYS_PORT)).apart().because(Code::NothingListening, Certainty::Certain),
    holding("on loopback", Needs::Far, &[RESET], || elsewhere(at(Ipv4Addr::LOCALHOST, LOOPBACK_PORT), LOOPBACK_PORT)).apart().because(Code::ListeningElsewhere, Certainty::Certain),
    holding("mistyped port", Needs::Far, &[RESET], || elsewhere(at(FAR_LOCAL_V4, SERVER_PORT), MISTYPED_PORT)).apart().because(Code::WrongPort, Certainty::Likely),
    holding("proxy is down", Needs::Far, &[RESET], || by_proxy(at(QUIET_V4, RESETS))).because(Code::ProxyInPath, Certainty::Certain),
    scene("internal", Needs::Far, &[BY_APPLICATION], || give_up(at(INTERNAL, SILENT), GIVES_UP_AFTER)).through(FAR_ROUTER_V4).because(Code::PrivateAddressNotLocal, Certainty::Likely),
    scene("gateway is down", Needs::Near, &[NO_NEIGHBOUR], || connect(BEYOND, ACCEPTS)).through(NEAR_V4).because(Code::NeighbourUnresolved, Certainty::Certain),
];

/// A server on this host, but not where the client connects.
fn elsewhere(server: SocketAddr, port: u16) -> io::Result<Held> {
    let server = listener(server, 0)?;
    connect(FAR_LOCAL_V4, port)?;
    Ok(Held::Sockets(vec![server]))
}

/// The client's environment names a proxy, and how to log in there.
fn by_proxy(proxy: SocketAddr) -> io::Result<Held> {
    let variable = ("https_proxy", format!("http://user:password@{proxy}/"));
    Client::start(proxy, variable).map(Held::Client)
}
