//! Scans the sockets connected to a remote port, in a thread of its own: a dump of tens of
//! thousands of sockets takes longer than a cause may wait.

use std::{
    cmp::Reverse,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::mpsc::{Receiver, Sender, TryRecvError},
    time::{Duration, Instant},
};

use super::{
    netlink::sock_diag::{self, DiagSocket, TIME_WAIT},
    netns::{AttemptRef, Namespaces},
    procfs::{port_range::PortRules, sysctl},
    responder::Responder,
};
use crate::output::event::{PortUse, States};

/// Time limit for finding and entering a namespace.
const ENTER_MAX: Duration = Duration::from_secs(1);
/// Maximum number of destinations in a result.
const REPORTED_MAX: usize = 64;
/// Duration of `TIME_WAIT` (`TCP_TIMEWAIT_LEN`), in milliseconds.
const TIME_WAIT_MS: u32 = 60_000;

/// Request to scan a namespace's sockets connected to one remote port.
#[derive(Debug, Clone)]
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

/// The worker's handle to the scanner thread.
pub(crate) struct PortScanner(Responder<PortScan, PortScanResult>);

impl PortScanner {
    /// Starts the scanner thread.
    ///
    /// # Errors
    /// Fails when the thread cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        Responder::start("conntrace-ports", serve).map(Self)
    }

    /// Sends a request without blocking. Returns false if the thread has ended or another
    /// request waits.
    pub(crate) fn ask(&self, scan: PortScan) -> bool {
        self.0.send(scan)
    }

    /// Returns the result if it is ready.
    ///
    /// # Errors
    /// `Empty` if there is none yet, `Disconnected` if the thread has ended.
    pub(crate) fn result(&self) -> Result<PortScanResult, TryRecvError> {
        self.0.poll()
    }
}

fn serve(requests: &Receiver<PortScan>, results: &Sender<PortScanResult>) {
    let mut namespaces = match Namespaces::new() {
        Ok(namespaces) => namespaces,
        Err(error) => {
            log::warn!("no port_pressure: cannot open this thread's network namespace: {error}");
            return;
        }
    };
    for scan in requests {
        let began = Instant::now();
        let until = began + ENTER_MAX;
        let found = namespaces
            .inside(scan.netns, &scan.about, until, || uses(&scan))
            .ok();
        let result = PortScanResult {
            scan,
            took: began.elapsed(),
            found,
        };
        if results.send(result).is_err() {
            return;
        }
        if namespaces.is_stranded() {
            log::warn!("no further port_pressure: cannot return to the own network namespace");
            return;
        }
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
    for sock in sock_diag::connected_to(scan.port)? {
        let ends = (sock.local.ip(), sock.remote.ip());
        let found = all.entry(ends).or_insert_with(|| unused(ends));
        found.states.count(sock.state);
        // A port stands for one socket: these sockets have all other parts of the tuple in common.
        match rules.has(sock.local.port()) {
            true if reuse.allows(&sock) => found.reusable += 1,
            true => found.used += 1,
            false => {}
        }
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
            only_v6: false,
            device: None,
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
