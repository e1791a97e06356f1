//! The client looks in the wrong place.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use super::{
    DROPPED_HERE, DemoScene, HeldEvidence, NO_NEIGHBOUR, Needs, QUIET_V4, RESET, Sysctls,
    acts::{at, begin, connect, give_up, listener, tcp},
    held::Client,
    holding, scene,
    silence::{GIVES_UP_AFTER, GIVES_UP_LATE},
};
use crate::diagnosis::{Certainty, Code};
use conntrace_testnet::{
    FAR_DEVICE, FAR_LOCAL_V4, NEAR_V4, far_goes_down, leads_near, loopback_goes_down,
    ports::{ACCEPTS, RESETS, SILENT},
};

/// Nobody listens there, hopefully not in another namespace of this host either, nor on
/// one that is easily mistaken for it.
const NOBODYS_PORT: u16 = 27_183;
const LOOPBACK_PORT: u16 = 28_182;
/// Two digits in each other's place.
const SERVER_PORT: u16 = 29_081;
const MISTYPED_PORT: u16 = 29_018;

/// Behind the gateway.
const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// A packet must come by the interface that the way to its sender leads by.
const STRICT: Sysctls = &[("net/ipv4/conf/all/rp_filter", "1")];

#[rustfmt::skip]
pub(super) const SCENES: &[DemoScene] = &[
    scene("not started", "connect to an address of this host whose server is not started", Needs::Far, &[RESET], || connect(FAR_LOCAL_V4, NOBODYS_PORT)).apart().because(Code::NothingListening, Certainty::Certain),
    holding("on loopback", "start a server on 127.0.0.1, connect to another address of this host", Needs::Far, &[RESET], || elsewhere(at(Ipv4Addr::LOCALHOST, LOOPBACK_PORT), LOOPBACK_PORT)).apart().because(Code::ListeningElsewhere, Certainty::Certain),
    holding("mistyped port", "start a server on port 29081, connect to port 29018", Needs::Far, &[RESET], || elsewhere(at(FAR_LOCAL_V4, SERVER_PORT), MISTYPED_PORT)).apart().because(Code::WrongPort, Certainty::Likely),
    holding("proxy is down", "start a client with https_proxy set to a proxy that is not running", Needs::Far, &[RESET], || by_proxy(at(QUIET_V4, RESETS))).because(Code::ProxyInPath, Certainty::Certain),
    scene("gateway is down", "connect through a default gateway that does not answer", Needs::Near, &[NO_NEIGHBOUR], || connect(BEYOND, ACCEPTS)).through(NEAR_V4).because(Code::NeighbourUnresolved, Certainty::Certain)
        // With the last SYN the kernel may have begun to ask it anew.
        .or(Code::NeighbourUnresolved, Certainty::Likely),
    scene("link goes down", "take the interface down while the attempt waits for its answer", Needs::Far, &[DROPPED_HERE], link_goes_down).apart().because(Code::RouteWentAway, Certainty::Certain),
    scene("loopback down", "take the interface lo down, connect to 127.0.0.1", Needs::Drops, &[DROPPED_HERE], loopback_down).apart().because(Code::OwnLinkDown, Certainty::Certain),
    scene("other way back", "have the answer come by an interface that the strict reverse path filter rejects", Needs::Drops, &[DROPPED_HERE], || way_back_differs(at(QUIET_V4, ACCEPTS))).with(STRICT).because(Code::DroppedHere, Certainty::Certain),
];

/// The device goes down before the SYN is sent again.
fn link_goes_down() -> io::Result<()> {
    let _socket = begin(at(QUIET_V4, SILENT))?;
    thread::sleep(GIVES_UP_AFTER);
    far_goes_down()?;
    thread::sleep(GIVES_UP_LATE);
    Ok(())
}

fn loopback_down() -> io::Result<()> {
    loopback_goes_down()?;
    give_up(at(Ipv4Addr::LOCALHOST, NOBODYS_PORT), GIVES_UP_AFTER)
}

/// The answer comes by the device that the socket is bound to, but by the routes the way to
/// its sender is another.
fn way_back_differs(to: SocketAddr) -> io::Result<()> {
    leads_near(QUIET_V4)?;
    let socket = tcp(to)?;
    socket.bind_device(Some(FAR_DEVICE.as_bytes()))?;
    let _ = socket.connect_timeout(&to.into(), GIVES_UP_AFTER);
    Ok(())
}

/// A server on this host, but not where the client connects.
fn elsewhere(server: SocketAddr, port: u16) -> io::Result<HeldEvidence> {
    let server = listener(server, 0)?;
    connect(FAR_LOCAL_V4, port)?;
    Ok(HeldEvidence::Sockets(vec![server]))
}

/// The client's environment names a proxy, and how to log in there.
fn by_proxy(proxy: SocketAddr) -> io::Result<HeldEvidence> {
    let variable = ("https_proxy", format!("http://user:password@{proxy}/"));
    Client::start(proxy, variable).map(HeldEvidence::Client)
}
