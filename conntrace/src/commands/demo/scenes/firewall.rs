//! This host's own firewall says no, or nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    DROPPED_HERE, DemoScene, Needs, QUIET_V4, QUIET_V6, REJECTED_HERE,
    acts::{at, connect, give_up},
    scene,
    silence::GIVES_UP_AFTER,
};
use crate::diagnosis::{Certainty, Code};
use conntrace_testnet::{FirewallVerdict, firewall};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(10);

#[rustfmt::skip]
pub(super) const SCENES: &[DemoScene] = &[
    scene("own drop", "add a firewall rule here that drops the SYN, connect, give up after 0.3 s", Needs::Drops, &[DROPPED_HERE], || dropped(at(QUIET_V4, 1000))).apart().because(Code::LocalFirewall, Certainty::Certain),
    scene("own drop v6", "IPv6: add a firewall rule here that drops the SYN, connect, give up after 0.3 s", Needs::DropsV6, &[DROPPED_HERE], || dropped(at(QUIET_V6, 1001))).apart().because(Code::LocalFirewall, Certainty::Certain),
    scene("own reset", "add a firewall rule here that rejects with a RST, connect", Needs::Drops, &[REJECTED_HERE], || rejected(QUIET_V4.into(), 1002, FirewallVerdict::RejectByReset)).apart().because(Code::RejectedByFirewall, Certainty::Certain),
    scene("own reset v6", "IPv6: add a firewall rule here that rejects with a RST, connect", Needs::DropsV6, &[REJECTED_HERE], || rejected(QUIET_V6.into(), 1003, FirewallVerdict::RejectByReset)).apart().because(Code::RejectedByFirewall, Certainty::Certain),
    scene("own reject", "add a firewall rule here that rejects with ICMP, connect", Needs::Far, &[REJECTED_HERE], || rejected(QUIET_V4.into(), 1004, FirewallVerdict::RejectByIcmp)).apart().because(Code::RejectedByFirewall, Certainty::Certain),
    scene("rejected early", "add a firewall rule here that rejects with ICMP, close the socket when poll reports it", Needs::Far, &[REJECTED_HERE], || rejected_early(at(QUIET_V4, 1005))).apart().because(Code::RejectedByFirewall, Certainty::Certain),
];

/// The rule is for that port.
fn dropped(to: SocketAddr) -> io::Result<()> {
    firewall(to.port(), FirewallVerdict::Drop)?;
    give_up(to, GIVES_UP_AFTER)
}

/// ICMP finds the socket locked by connect itself: the answer to the SYN sent
/// again 1 s later ends the attempt. A RST does so at once.
fn rejected(host: IpAddr, port: u16, by: FirewallVerdict) -> io::Result<()> {
    firewall(port, by)?;
    connect(host, port)
}

/// ICMP finds the socket locked, poll wakes the application, and it closes: only
/// the error queue still knows.
fn rejected_early(to: SocketAddr) -> io::Result<()> {
    firewall(to.port(), FirewallVerdict::RejectByIcmp)?;
    give_up(to, LONG)
}
