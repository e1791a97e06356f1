//! Scans the sockets connected to a remote port.

use std::{
    cmp::Reverse,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    netlink::sock_diag::{self, DiagSocket, TIME_WAIT},
    netns::{AttemptRef, Namespaces},
    procfs::{port_range::PortRules, sysctl},
};
use crate::output::event::{PortUse, States};

/// Maximum number of destinations counted. With more the scan has no result.
const COUNTED_MAX: usize = 65_536;
/// Maximum number of destinations in a result.
const REPORTED_MAX: usize = 64;
/// Duration of `TIME_WAIT` (`TCP_TIMEWAIT_LEN`), in milliseconds.
const TIME_WAIT_MS: u32 = 60_000;

/// Request to scan a namespace's sockets connected to one remote port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortScan {
    pub(crate) netns: u32,
    pub(crate) port: u16,
    /// Attempt that leads into the namespace.
    pub(crate) about: AttemptRef,
    /// Usage in percent from which a destination is reported.
    pub(crate) percent: u32,
    /// Local and remote addresses that are reported at any usage.
    pub(crate) reported: Vec<(IpAddr, IpAddr)>,
}

/// Outcome of a scan.
#[derive(Debug)]
pub(crate) struct PortScanResult {
    pub(crate) scan: PortScan,
    pub(crate) took: Duration,
    /// `None` if the namespace cannot be entered or its sockets cannot be listed.
    pub(crate) found: Option<ScannedPorts>,
}

/// Local ports in use, by destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScannedPorts {
    /// Destinations reported.
    pub(crate) reported: Vec<PortUse>,
    /// Number of ports in the range that are not reserved.
    pub(crate) available: u32,
    /// Highest number of ports in use for a destination that is not reported.
    pub(crate) most_of_others: u32,
    /// True if some destinations were left out for lack of room.
    pub(crate) has_more: bool,
}

/// Scans in the namespace, as long as `until` at most to enter it.
pub(super) fn scan(namespaces: &mut Namespaces, scan: &PortScan, until: Instant) -> PortScanResult {
    let began = Instant::now();
    let found = namespaces.inside(scan.netns, &scan.about, until, || uses(scan));
    PortScanResult {
        took: began.elapsed(),
        found: found.ok(),
        scan: scan.clone(),
    }
}

/// Counts the ports in use per destination, in the calling thread's namespace.
fn uses(scan: &PortScan) -> io::Result<ScannedPorts> {
    let rules = PortRules::read().ok_or(io::ErrorKind::NotFound)?;
    let reuse = Reuse {
        tw_reuse: rules.tw_reuse,
        after_ms: sysctl::tw_reuse_after_ms(),
    };
    let reserved = rules.reserved_in_range();
    let unused = |(local, remote)| PortUse {
        netns: scan.netns,
        local,
        remote: SocketAddr::new(remote, scan.port),
        range: rules.range,
        reserved,
        used: 0,
        reusable: 0,
        states: States::default(),
    };
    let mut all = HashMap::new();
    let mut is_full = false;
    sock_diag::connected_to(scan.port, |sock| {
        let ends = (sock.local.ip(), sock.remote.ip());
        if all.len() >= COUNTED_MAX && !all.contains_key(&ends) {
            is_full = true;
            return ControlFlow::Break(());
        }
        let found = all.entry(ends).or_insert_with(|| unused(ends));
        found.states.count(sock.state);
        // A port stands for one socket: these sockets have all other parts of the tuple in common.
        match rules.has(sock.local.port()) {
            true if reuse.allows(&sock) => found.reusable += 1,
            true => found.used += 1,
            false => {}
        }
        ControlFlow::Continue(())
    })?;
    if is_full {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let asked = scan.reported.iter().take(REPORTED_MAX);
    let asked = asked.map(|ends| all.remove(ends).unwrap_or_else(|| unused(*ends)));
    let mut reported: Vec<_> = asked.collect();
    let mut others: Vec<_> = all.into_values().collect();
    others.sort_unstable_by_key(|found| Reverse(found.used));
    let pressed = others.partition_point(|found| found.percent() >= scan.percent);
    let room = REPORTED_MAX - reported.len();
    reported.extend(others.drain(..pressed.min(room)));
    Ok(ScannedPorts {
        reported,
        available: rules.available(),
        most_of_others: others.first().map_or(0, |found| found.used),
        has_more: pressed > room,
    })
}

/// Conditions for reusing a port in `TIME_WAIT` (`tcp_twsk_unique`).
struct Reuse {
    tw_reuse: u8,
    /// Minimum age in milliseconds; `None` without TCP timestamps, which reuse requires.
    after_ms: Option<u32>,
}

impl Reuse {
    /// Returns true if this socket's port may be reused. The peer's lack of timestamps, which would
    /// forbid it, is not visible.
    fn allows(&self, sock: &DiagSocket) -> bool {
        let for_these = match self.tw_reuse {
            0 => false,
            2 => sock.local.ip().is_loopback() || sock.remote.ip().is_loopback(),
            _ => true,
        };
        let age_ms = TIME_WAIT_MS.saturating_sub(sock.timer_ms);
        for_these && sock.state == TIME_WAIT && self.after_ms.is_some_and(|after| age_ms > after)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn time_wait_that_may_be_reused() {
        let sock = |addr: [u8; 4], timer_ms| DiagSocket {
            state: TIME_WAIT,
            local: (addr, 40_000).into(),
            remote: (addr, 80).into(),
            inode: 0,
            uid: 0,
            only_v6: false,
            device: 0,
            waiting: 0,
            backlog: 0,
            drops: 0,
            timer_ms,
        };
        let allows = |tw_reuse, after_ms, addr, timer_ms| {
            Reuse { tw_reuse, after_ms }.allows(&sock(addr, timer_ms))
        };
        let (loopback, other) = ([127, 0, 0, 1], [192, 0, 2, 1]);
        assert!(allows(2, Some(1000), loopback, 58_000) && allows(1, Some(1000), other, 58_000));
        assert!(!allows(2, Some(1000), other, 58_000) && !allows(0, Some(1000), loopback, 0));
        assert!(!allows(1, Some(1000), other, 59_500), "too young");
        assert!(!allows(1, None, other, 58_000), "no timestamps");
    }

    #[test]
    fn uses_of_a_destination() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let _clients = [(); 3].map(|()| TcpStream::connect(server.local_addr().unwrap()).unwrap());
        let home: IpAddr = Ipv4Addr::LOCALHOST.into();
        let scan = PortScan {
            netns: 1,
            port,
            about: AttemptRef {
                process: None,
                tid: None,
                netns_mix: 0,
                at_ns: 0,
                client: None,
            },
            percent: 100,
            reported: vec![(home, home), (home, [127, 0, 0, 2].into())],
        };
        let found = uses(&scan).unwrap();
        let reported: Vec<_> = found.reported.iter().map(|found| found.used).collect();
        assert_eq!((reported, found.most_of_others), (vec![3, 0], 0));
        let [own, _] = found.reported[..] else {
            panic!("{found:?}");
        };
        assert_eq!(own.remote, server.local_addr().unwrap());
        assert_eq!(own.states.established, 3);
    }
}
