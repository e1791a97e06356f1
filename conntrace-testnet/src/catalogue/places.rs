//! Scenarios in which the client has the wrong address, or the route to the server is broken.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    thread,
};

use super::{
    Act::{Connect, Holding, Once, Starting},
    LocalEnd, QUIET_V4, Scenario, Sysctls, keep,
    outcome::{
        BY_APPLICATION, CERTAIN, DROPPED_HERE, ExpectedOutcome, LIKELY, NO_NEIGHBOUR, POSSIBLE,
        REFUSED,
    },
    process::Client,
    scenario, v4,
};
use crate::{
    FAR_DEVICE, FAR_LOCAL_V4, NEAR_LOCAL_V4, NEAR_V4,
    endings::{DEADLINE, LATE_DEADLINE, begin, connect, give_up, listener, tcp},
    far_goes_down, leads_near, loopback_goes_down,
    ports::{ACCEPTS, RESETS, SILENT},
    tunnel,
};

/// Port without a listener. No other namespace of this host should have one either, nor on a
/// similar port.
const NOBODYS_PORT: u16 = 27_183;
const LOOPBACK_PORT: u16 = 28_182;
/// Server port with two digits swapped.
const SERVER_PORT: u16 = 29_081;
const MISTYPED_PORT: u16 = 29_018;

/// Host that is reachable only through the gateway.
const BEYOND: SocketAddr = v4(Ipv4Addr::new(203, 0, 113, 9), ACCEPTS);
/// This side's address in a tunnel without a far end, and a host behind it.
const TUNNEL_LOCAL: Ipv4Addr = Ipv4Addr::new(198, 18, 4, 2);
const BEHIND_TUNNEL: SocketAddr = v4(Ipv4Addr::new(198, 18, 4, 1), ACCEPTS);
const UNHEARD_BY_TUNNEL: ExpectedOutcome = BY_APPLICATION
    .again()
    .from(LocalEnd::Address(IpAddr::V4(TUNNEL_LOCAL)));
const NOBODY_NEAR: ExpectedOutcome = NO_NEIGHBOUR
    .icmp(3, 1)
    .from(LocalEnd::Address(IpAddr::V4(NEAR_LOCAL_V4)));

/// Strict reverse path filter: a packet is accepted only from the interface that leads to its
/// sender.
const STRICT: Sysctls = &[("net/ipv4/conf/all/rp_filter", "1")];

#[rustfmt::skip]
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("not started", "connect to an address of this host whose server is not started", v4(FAR_LOCAL_V4, NOBODYS_PORT), Connect, &[REFUSED]).alone().because("nothing_listening", CERTAIN),
    scenario("on loopback", "start a server on 127.0.0.1, connect to another address of this host", v4(FAR_LOCAL_V4, LOOPBACK_PORT), Holding(|to| elsewhere(to, v4(Ipv4Addr::LOCALHOST, LOOPBACK_PORT))), &[REFUSED]).alone().because("listening_elsewhere", CERTAIN),
    scenario("mistyped port", "start a server on port 29081, connect to port 29018", v4(FAR_LOCAL_V4, MISTYPED_PORT), Holding(|to| elsewhere(to, v4(FAR_LOCAL_V4, SERVER_PORT))), &[REFUSED]).alone().because("wrong_port", LIKELY),
    scenario("proxy is down", "start a client with https_proxy set to a proxy that is not running", v4(QUIET_V4, RESETS), Starting(by_proxy), &[REFUSED]).because("proxy_in_path", CERTAIN),
    scenario("gateway is down", "connect through a default gateway that does not answer", BEYOND, Connect, &[NOBODY_NEAR]).through(NEAR_V4).because("neighbour_unresolved", CERTAIN)
        // With the last SYN the kernel may have begun to ask it anew.
        .or("neighbour_unresolved", LIKELY),
    scenario("wrong network", "have a route look for a host on another network than its own", v4(QUIET_V4, ACCEPTS), Once(looked_for_near), &[NOBODY_NEAR]).alone().because("wrong_network", POSSIBLE),
    scenario("dead tunnel", "connect to a host behind a VPN whose far end does not answer, give up after 1.2 s", BEHIND_TUNNEL, Holding(by_dead_tunnel), &[UNHEARD_BY_TUNNEL]).alone().because("through_tunnel", LIKELY),
    scenario("link goes down", "take the interface down while the attempt waits for its answer", v4(QUIET_V4, SILENT), Once(link_goes_down), &[DROPPED_HERE]).alone().because("route_went_away", CERTAIN),
    scenario("loopback down", "take the interface lo down, connect to 127.0.0.1", v4(Ipv4Addr::LOCALHOST, NOBODYS_PORT), Once(loopback_down), &[DROPPED_HERE]).alone().because("own_link_down", CERTAIN).covered_by("local_drop"),
    scenario("other way back", "have the answer come by an interface that the strict reverse path filter rejects", v4(QUIET_V4, ACCEPTS), Once(way_back_differs), &[DROPPED_HERE]).with(STRICT).because("dropped_here", CERTAIN).covered_by("local_drop"),
];

/// The device goes down before the SYN is sent again.
fn link_goes_down(to: SocketAddr) -> io::Result<()> {
    let _socket = begin(to, None)?;
    thread::sleep(DEADLINE);
    far_goes_down()?;
    thread::sleep(LATE_DEADLINE);
    Ok(())
}

/// Makes a TUN device whose packets nobody reads.
fn by_dead_tunnel(to: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    let device = tunnel(TUNNEL_LOCAL).map_err(io::Error::other)?;
    give_up(to, LATE_DEADLINE)?;
    Ok(vec![device.into()])
}

fn loopback_down(to: SocketAddr) -> io::Result<()> {
    loopback_goes_down()?;
    give_up(to, DEADLINE)
}

fn looked_for_near(to: SocketAddr) -> io::Result<()> {
    leads_near(QUIET_V4)?;
    connect(to)
}

/// Receives the answer by the device that the socket is bound to, while the route to its sender
/// leads elsewhere.
fn way_back_differs(to: SocketAddr) -> io::Result<()> {
    leads_near(QUIET_V4)?;
    let socket = tcp(to)?;
    socket.bind_device(Some(FAR_DEVICE.as_bytes()))?;
    let _ = socket.connect_timeout(&to.into(), DEADLINE);
    Ok(())
}

/// Starts a server on this host at an address other than the client's destination.
fn elsewhere(to: SocketAddr, server: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    let server = listener(server, 0)?;
    connect(to)?;
    Ok(keep([server]))
}

/// Names a proxy and its credentials in the client's environment.
fn by_proxy(proxy: SocketAddr, program: &Path) -> io::Result<Option<Client>> {
    let url = format!("http://user:password@{proxy}/");
    Client::start(program, proxy, "https_proxy", &url).map(Some)
}
