//! Scenarios with an answer: from the peer, a router, or this host itself.

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::TcpFastOpenConnect};
use socket2::Socket;

use super::{
    Act::{Connect, Once},
    LocalEnd, QUIET_V4, QUIET_V6, Scenario, Sysctls, mapped,
    outcome::{
        ABORTED, CANCELLED, CERTAIN, ESTABLISHED, ExpectedOutcome, LIKELY, NO_NEIGHBOUR, REFUSED,
        outcome, port_unreachable, unreachable,
    },
    scenario, v4, v6,
};
use crate::{
    FAR_LOCAL_V6, FAR_V4, FAR_V6, NEAR_V4, NEAR_V6,
    endings::{DEADLINE, attempt, begin, bound, can_kill, kill, tcp},
    ports::{
        ACCEPTS, ACCEPTS_SECOND_SYN, ADMIN_PROHIBITED, HOST_UNREACHABLE, NET_UNREACHABLE,
        PORT_UNREACHABLE, RESETS, RESETS_SECOND_SYN, SILENT, SYN_THEN_ACCEPTS, SYN_THEN_RESETS,
        TTL_EXCEEDED,
    },
};

/// Port of bound sockets, below the range that the kernel chooses from.
const OWN_PORT: u16 = 20_001;
const TO_ITSELF: ExpectedOutcome = ESTABLISHED.crossed().from(LocalEnd::Port(OWN_PORT));
const RESET_IN_SYN_RECV: ExpectedOutcome = outcome("refused", Some("ECONNRESET"), "rst").crossed();
/// A client may use TCP fast open (1), also without a cookie of the server (4).
const FAST_OPEN: Sysctls = &[("net/ipv4/tcp_fastopen", "5")];
/// Cause without type and code, which do not identify a router.
const BY_ERRNO: (&str, &str) = ("icmp_unreachable", LIKELY);

#[rustfmt::skip]
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("established", "connect to a port on which a server listens", v4(FAR_V4, ACCEPTS), Connect, &[ESTABLISHED]),
    scenario("established v6", "IPv6: connect to a port on which a server listens", v6(FAR_V6, ACCEPTS), Connect, &[ESTABLISHED]),
    scenario("answered late", "connect to a server that answers only the second SYN, after a second", v4(FAR_V4, ACCEPTS_SECOND_SYN), Connect, &[ESTABLISHED.again()]),
    scenario("answered late 6", "IPv6: connect to a server that answers only the second SYN, after a second", v6(FAR_V6, ACCEPTS_SECOND_SYN), Connect, &[ESTABLISHED.again()]).only_tested(),
    scenario("crossed SYNs", "connect to a host that sends a SYN at the same moment (simultaneous open)", v4(FAR_V4, SYN_THEN_ACCEPTS), Connect, &[ESTABLISHED.crossed()]),
    scenario("crossed SYNs v6", "IPv6: connect to a host that sends a SYN at the same moment (simultaneous open)", v6(FAR_V6, SYN_THEN_ACCEPTS), Connect, &[ESTABLISHED.crossed()]),
    scenario("to itself", "connect a socket to its own address and port", v4(Ipv4Addr::LOCALHOST, OWN_PORT), Once(to_itself), &[TO_ITSELF]).because("connected_to_itself", CERTAIN),
    scenario("to itself v6", "IPv6: connect a socket to its own address and port", v6(FAR_LOCAL_V6, OWN_PORT), Once(to_itself), &[TO_ITSELF]).because("connected_to_itself", CERTAIN),
    scenario("fast open", "connect with TCP fast open, then write: the SYN carries the data", v4(FAR_V4, ACCEPTS), Once(fast_open_written), &[ESTABLISHED]).with(FAST_OPEN),
    scenario("fast open held", "connect with TCP fast open and close without a write: no SYN ever leaves", v4(FAR_V4, ACCEPTS), Once(|to| fast_open(to).map(drop)), &[ExpectedOutcome { syn_sent: 0, ..CANCELLED }]).with(FAST_OPEN),

    scenario("refused", "connect to a port on which nothing listens: the host answers with a RST", v4(QUIET_V4, RESETS), Connect, &[REFUSED]).because("nothing_listening", LIKELY),
    scenario("refused v6", "IPv6: connect to a port on which nothing listens: the host answers with a RST", v6(QUIET_V6, RESETS), Connect, &[REFUSED]).because("nothing_listening", LIKELY),
    scenario("refused mapped", "connect to a port on which nothing listens, by an IPv4-mapped IPv6 address", mapped(QUIET_V4, RESETS), Connect, &[REFUSED]).because("nothing_listening", LIKELY),
    scenario("refused late", "connect to a host that answers the second SYN with a RST", v4(QUIET_V4, RESETS_SECOND_SYN), Connect, &[REFUSED.again()]).because("nothing_listening", LIKELY),
    scenario("crossed, reset", "connect to a host whose own SYN crosses ours and which then sends a RST", v4(QUIET_V4, SYN_THEN_RESETS), Connect, &[RESET_IN_SYN_RECV]),
    scenario("port 0", "connect to port 0", v4(QUIET_V4, 0), Connect, &[REFUSED]).because("bad_destination", CERTAIN),
    scenario("port closed", "connect through a firewall that answers with ICMP port unreachable", v4(QUIET_V4, PORT_UNREACHABLE), Connect, &[port_unreachable(3, 3)]).because("rejected_by_firewall", LIKELY),
    scenario("port closed v6", "IPv6: connect through a firewall that answers with ICMP port unreachable", v6(QUIET_V6, PORT_UNREACHABLE), Connect, &[port_unreachable(1, 4)]).because("rejected_by_firewall", LIKELY),

    scenario("host down", "connect to a host that its router reports as unreachable (ICMP)", v4(QUIET_V4, HOST_UNREACHABLE), Connect, &[unreachable("EHOSTUNREACH", 3, 1)]).because("host_down", LIKELY),
    scenario("host down v6", "IPv6: connect to a host that its router reports as unreachable (ICMP)", v6(QUIET_V6, HOST_UNREACHABLE), Connect, &[unreachable("EHOSTUNREACH", 1, 3)]).because_of_icmp6(("host_down", LIKELY), BY_ERRNO),
    scenario("host mapped", "connect to an unreachable host by an IPv4-mapped IPv6 address", mapped(QUIET_V4, HOST_UNREACHABLE), Connect, &[unreachable("EHOSTUNREACH", 3, 1)]).because("host_down", LIKELY).only_tested(),
    scenario("no network", "connect to a network to which the router has no route (ICMP)", v4(QUIET_V4, NET_UNREACHABLE), Connect, &[unreachable("ENETUNREACH", 3, 0)]).because("icmp_unreachable", CERTAIN),
    scenario("no network v6", "IPv6: connect to a network to which the router has no route (ICMP)", v6(QUIET_V6, NET_UNREACHABLE), Connect, &[unreachable("ENETUNREACH", 1, 0)]).because_of_icmp6(("icmp_unreachable", CERTAIN), BY_ERRNO),
    scenario("prohibited", "connect through a router that forbids it (ICMP administratively prohibited)", v4(QUIET_V4, ADMIN_PROHIBITED), Connect, &[unreachable("EHOSTUNREACH", 3, 13)]).because("admin_prohibited", CERTAIN),
    scenario("prohibited v6", "IPv6: connect through a router that forbids it (ICMP administratively prohibited)", v6(QUIET_V6, ADMIN_PROHIBITED), Connect, &[unreachable("EACCES", 1, 1)]).because("admin_prohibited", CERTAIN),
    scenario("TTL exceeded", "connect along a route that goes in a circle (ICMP time exceeded)", v4(QUIET_V4, TTL_EXCEEDED), Connect, &[unreachable("EHOSTUNREACH", 11, 0)]).because("icmp_unreachable", CERTAIN),
    scenario("TTL exceeded v6", "IPv6: connect along a route that goes in a circle (ICMP time exceeded)", v6(QUIET_V6, TTL_EXCEEDED), Connect, &[unreachable("EHOSTUNREACH", 3, 0)]).because_of_icmp6(("icmp_unreachable", CERTAIN), BY_ERRNO),
    scenario("no neighbour", "connect to an address of the own network that nobody has (no ARP answer)", v4(NEAR_V4, ACCEPTS), Connect, &[NO_NEIGHBOUR.icmp(3, 1)]).because("host_down", LIKELY),
    scenario("no neighbour v6", "IPv6: connect to an address of the own network that nobody has (no neighbour advertisement)", v6(NEAR_V6, ACCEPTS), Connect, &[NO_NEIGHBOUR.icmp(1, 3)]).because("host_down", LIKELY),

    scenario("aborted", "begin to connect, then kill the socket from outside, as `ss -K` does", v4(QUIET_V4, SILENT), Once(aborted), &[ABORTED]).checked(can_kill),
    scenario("aborted v6", "IPv6: begin to connect, then kill the socket from outside, as `ss -K` does", v6(QUIET_V6, SILENT), Once(aborted), &[ABORTED]).checked(can_kill),
    scenario("aborted mapped", "kill the socket of an attempt to an IPv4-mapped IPv6 address", mapped(QUIET_V4, SILENT), Once(aborted), &[ABORTED]).checked(can_kill).only_tested(),
];

/// Connects a socket to its own address: its SYN crosses itself.
fn to_itself(own: SocketAddr) -> io::Result<()> {
    attempt(&bound(own)?, own);
    Ok(())
}

/// Connects, but TCP holds the SYN back until the first write.
fn fast_open(to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(to)?;
    setsockopt(&socket, TcpFastOpenConnect, &true)?;
    socket.connect(&to.into())?;
    Ok(socket)
}

fn fast_open_written(to: SocketAddr) -> io::Result<()> {
    let socket = fast_open(to)?;
    socket.send(b"request")?;
    // Waits for the handshake: the far end sends nothing.
    socket.set_read_timeout(Some(DEADLINE))?;
    let _ = (&socket).read(&mut [0]);
    Ok(())
}

fn aborted(to: SocketAddr) -> io::Result<()> {
    kill(&begin(to, None)?, to)
}
