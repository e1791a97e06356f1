//! Scenarios in which this host's own firewall rejects or drops the SYN.

use std::time::Duration;

use super::{
    Act::{Connect, Once},
    QUIET_V4, QUIET_V6, Scenario,
    outcome::{CERTAIN, DROPPED_HERE, REJECTED_HERE},
    scenario, v4, v6,
};
use crate::{
    FirewallVerdict::{Drop, RejectByIcmp, RejectByReset},
    endings::{DEADLINE, give_up},
};

/// Deadline that exceeds every answer time.
const LONG: Duration = Duration::from_secs(10);

// ICMP finds the socket locked by connect itself: the answer to the SYN sent again 1 s later
// ends the attempt. A RST does so at once. An application that waits in poll is woken by the
// first ICMP error, and closes: only the error queue still knows.
#[rustfmt::skip]
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("own drop", "add a firewall rule here that drops the SYN, connect, give up after 0.3 s", v4(QUIET_V4, 1000), Once(|to| give_up(to, DEADLINE)), &[DROPPED_HERE]).meeting(Drop).because("local_firewall", CERTAIN).covered_by("local_drop"),
    scenario("own drop v6", "IPv6: add a firewall rule here that drops the SYN, connect, give up after 0.3 s", v6(QUIET_V6, 1001), Once(|to| give_up(to, DEADLINE)), &[DROPPED_HERE]).meeting(Drop).because("local_firewall", CERTAIN).covered_by("local_drop"),
    scenario("own reset", "add a firewall rule here that rejects with a RST, connect", v4(QUIET_V4, 1002), Connect, &[REJECTED_HERE]).meeting(RejectByReset).because("rejected_by_firewall", CERTAIN).covered_by("local_drop"),
    scenario("own reset v6", "IPv6: add a firewall rule here that rejects with a RST, connect", v6(QUIET_V6, 1003), Connect, &[REJECTED_HERE]).meeting(RejectByReset).because("rejected_by_firewall", CERTAIN).covered_by("local_drop"),
    scenario("own reject", "add a firewall rule here that rejects with ICMP, connect", v4(QUIET_V4, 1004), Connect, &[REJECTED_HERE.icmp(3, 3).again()]).meeting(RejectByIcmp).because("rejected_by_firewall", CERTAIN),
    scenario("rejected early", "add a firewall rule here that rejects with ICMP, close the socket when poll reports it", v4(QUIET_V4, 1005), Once(|to| give_up(to, LONG)), &[REJECTED_HERE.icmp(3, 3)]).meeting(RejectByIcmp).because("rejected_by_firewall", CERTAIN),
];
