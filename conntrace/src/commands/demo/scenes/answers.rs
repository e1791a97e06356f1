//! Somebody answers: the other side, a router, this host itself.

use std::{
    io,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::TcpFastOpenConnect};
use socket2::Socket;

use super::{
    ABORTED, CANCELLED, DemoScene, ESTABLISHED, NO_NEIGHBOUR, Needs, PORT_UNREACHABLE, QUIET_V4,
    QUIET_V6, RESET, Sysctls, UNREACHABLE,
    acts::{at, begin, bound, connect, ends, tcp},
    scene,
    silence::GIVES_UP_AFTER,
};
use crate::diagnosis::{Certainty, Code};
use conntrace_testnet::{
    FAR_LOCAL_V6, FAR_V4, FAR_V6, NEAR_V4, NEAR_V6, destroy,
    ports::{
        ACCEPTS, ACCEPTS_SECOND_SYN, ADMIN_PROHIBITED, HOST_UNREACHABLE, NET_UNREACHABLE,
        PORT_UNREACHABLE as PORT_CLOSED, RESETS, RESETS_SECOND_SYN, SILENT, SYN_THEN_ACCEPTS,
        SYN_THEN_RESETS, TTL_EXCEEDED,
    },
};

/// Of sockets that are bound; below the ports that the kernel chooses from.
const OWN_PORT: u16 = 20_001;

#[rustfmt::skip]
pub(super) const SCENES: &[DemoScene] = &[
    scene("established", "connect to a port on which a server listens", Needs::Far, &[ESTABLISHED], || connect(FAR_V4, ACCEPTS)),
    scene("established v6", "IPv6: connect to a port on which a server listens", Needs::FarV6, &[ESTABLISHED], || connect(FAR_V6, ACCEPTS)),
    scene("answered late", "connect to a server that answers only the second SYN, after a second", Needs::Far, &[ESTABLISHED], || connect(FAR_V4, ACCEPTS_SECOND_SYN)),
    scene("crossed SYNs", "connect to a host that sends a SYN at the same moment (simultaneous open)", Needs::Far, &[ESTABLISHED], || connect(FAR_V4, SYN_THEN_ACCEPTS)),
    scene("crossed SYNs v6", "IPv6: connect to a host that sends a SYN at the same moment (simultaneous open)", Needs::FarV6, &[ESTABLISHED], || connect(FAR_V6, SYN_THEN_ACCEPTS)),
    scene("to itself", "connect a socket to its own address and port", Needs::Lo, &[ESTABLISHED], || to_itself(at(Ipv4Addr::LOCALHOST, OWN_PORT))),
    scene("to itself v6", "IPv6: connect a socket to its own address and port", Needs::FarV6, &[ESTABLISHED], || to_itself(at(FAR_LOCAL_V6, OWN_PORT))),
    scene("fast open", "connect with TCP fast open, then write: the SYN carries the data", Needs::Far, &[ESTABLISHED], fast_open_written).with(FAST_OPEN),
    scene("fast open held", "connect with TCP fast open and close without a write: no SYN ever leaves", Needs::Far, &[CANCELLED], || fast_open(at(FAR_V4, ACCEPTS)).map(drop)).with(FAST_OPEN),

    scene("refused", "connect to a port on which nothing listens: the host answers with a RST", Needs::Far, &[RESET], || connect(QUIET_V4, RESETS)).because(Code::NothingListening, Certainty::Likely),
    scene("refused v6", "IPv6: connect to a port on which nothing listens: the host answers with a RST", Needs::FarV6, &[RESET], || connect(QUIET_V6, RESETS)).because(Code::NothingListening, Certainty::Likely),
    scene("refused mapped", "connect to a port on which nothing listens, by an IPv4-mapped IPv6 address", Needs::FarV6, &[RESET], || connect(QUIET_V4.to_ipv6_mapped(), RESETS)).because(Code::NothingListening, Certainty::Likely),
    scene("refused late", "connect to a host that answers the second SYN with a RST", Needs::Far, &[RESET], || connect(QUIET_V4, RESETS_SECOND_SYN)).because(Code::NothingListening, Certainty::Likely),
    scene("crossed, reset", "connect to a host whose own SYN crosses ours and which then sends a RST", Needs::Far, &[RESET], || connect(QUIET_V4, SYN_THEN_RESETS)),
    scene("port 0", "connect to port 0", Needs::Far, &[RESET], || connect(QUIET_V4, 0)).because(Code::BadDestination, Certainty::Certain),
    scene("port closed", "connect through a firewall that answers with ICMP port unreachable", Needs::Far, &[PORT_UNREACHABLE], || connect(QUIET_V4, PORT_CLOSED)).because(Code::RejectedByFirewall, Certainty::Likely),
    scene("port closed v6", "IPv6: connect through a firewall that answers with ICMP port unreachable", Needs::FarV6, &[PORT_UNREACHABLE], || connect(QUIET_V6, PORT_CLOSED)).because(Code::RejectedByFirewall, Certainty::Likely),

    scene("host down", "connect to a host that its router reports as unreachable (ICMP)", Needs::Far, &[UNREACHABLE], || connect(QUIET_V4, HOST_UNREACHABLE)).because(Code::HostDown, Certainty::Likely),
    scene("host down v6", "IPv6: connect to a host that its router reports as unreachable (ICMP)", Needs::FarV6, &[UNREACHABLE], || connect(QUIET_V6, HOST_UNREACHABLE)).because_of_icmp6((Code::HostDown, Certainty::Likely), (Code::IcmpUnreachable, Certainty::Likely)),
    scene("no network", "connect to a network to which the router has no route (ICMP)", Needs::Far, &[UNREACHABLE], || connect(QUIET_V4, NET_UNREACHABLE)).because(Code::IcmpUnreachable, Certainty::Certain),
    scene("no network v6", "IPv6: connect to a network to which the router has no route (ICMP)", Needs::FarV6, &[UNREACHABLE], || connect(QUIET_V6, NET_UNREACHABLE)).because_of_icmp6((Code::IcmpUnreachable, Certainty::Certain), (Code::IcmpUnreachable, Certainty::Likely)),
    scene("prohibited", "connect through a router that forbids it (ICMP administratively prohibited)", Needs::Far, &[UNREACHABLE], || connect(QUIET_V4, ADMIN_PROHIBITED)).because(Code::AdminProhibited, Certainty::Certain),
    scene("prohibited v6", "IPv6: connect through a router that forbids it (ICMP administratively prohibited)", Needs::FarV6, &[UNREACHABLE], || connect(QUIET_V6, ADMIN_PROHIBITED)).because(Code::AdminProhibited, Certainty::Certain),
    scene("TTL exceeded", "connect along a route that goes in a circle (ICMP time exceeded)", Needs::Far, &[UNREACHABLE], || connect(QUIET_V4, TTL_EXCEEDED)).because(Code::IcmpUnreachable, Certainty::Certain),
    scene("TTL exceeded v6", "IPv6: connect along a route that goes in a circle (ICMP time exceeded)", Needs::FarV6, &[UNREACHABLE], || connect(QUIET_V6, TTL_EXCEEDED)).because_of_icmp6((Code::IcmpUnreachable, Certainty::Certain), (Code::IcmpUnreachable, Certainty::Likely)),
    scene("no neighbour", "connect to an address of the own network that nobody has (no ARP answer)", Needs::Near, &[NO_NEIGHBOUR], || connect(NEAR_V4, ACCEPTS)).because(Code::HostDown, Certainty::Likely),
    scene("no neighbour v6", "IPv6: connect to an address of the own network that nobody has (no neighbour advertisement)", Needs::NearV6, &[NO_NEIGHBOUR], || connect(NEAR_V6, ACCEPTS)).because(Code::HostDown, Certainty::Likely),

    scene("aborted", "begin to connect, then kill the socket from outside, as `ss -K` does", Needs::Far, &[ABORTED], || aborted(at(QUIET_V4, SILENT))),
    scene("aborted v6", "IPv6: begin to connect, then kill the socket from outside, as `ss -K` does", Needs::FarV6, &[ABORTED], || aborted(at(QUIET_V6, SILENT))),
];

/// Connects a socket to its own address: its SYN crosses its SYN.
fn to_itself(own: SocketAddr) -> io::Result<()> {
    let socket = bound(own)?;
    ends(&socket, own);
    Ok(())
}

/// A client may use TCP fast open (1), also without a cookie of the server (4).
const FAST_OPEN: Sysctls = &[("net/ipv4/tcp_fastopen", "5")];

/// Connects, but TCP holds the SYN back until the first write.
fn fast_open(to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(to)?;
    setsockopt(&socket, TcpFastOpenConnect, &true)?;
    socket.connect(&to.into())?;
    Ok(socket)
}

fn fast_open_written() -> io::Result<()> {
    let socket = fast_open(at(FAR_V4, ACCEPTS))?;
    socket.send(b"request")?;
    // Waits for the handshake: the far end sends nothing.
    socket.set_read_timeout(Some(GIVES_UP_AFTER))?;
    let _ = (&socket).read(&mut [0]);
    Ok(())
}

/// Somebody with the privilege ends the attempt, as `ss -K` does.
fn aborted(to: SocketAddr) -> io::Result<()> {
    let socket = begin(to)?;
    let local = socket.local_addr()?.as_socket();
    destroy(local.ok_or(io::ErrorKind::InvalidData)?, to)
}
