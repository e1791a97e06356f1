//! Failures for want of a local port, or of the one that the application chose.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_LOCAL_V4, FAR_V4, Testnet, ports, set_local_port_range};
use conntrace_tests::{
    attempt, attempt_on, bound, connect_until_failure, lacks_bound_sockets, lacks_port_range,
    live_test, tcp, unless,
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::causes::{CERTAIN, LIKELY, PORT, live, me};

/// Local port range that a test can use up.
const RANGE: [u16; 2] = [40_000, 40_009];
const RANGE_LEN: usize = 10;

/// Lists the tests of this group.
pub(super) fn tests() -> Vec<Trial> {
    vec![
        live_test("range_full_of_connections", range_full_of_connections),
        live_test("range_full_of_time_wait", range_full_of_time_wait),
        unless(
            lacks_bound_sockets(),
            live_test("ports_held_by_bind", ports_held_by_bind),
        ),
        unless(
            lacks_port_range(),
            live_test("socket_port_range", socket_port_range),
        ),
        live_test("reserved_ports_leave_none", reserved_ports_leave_none),
        live_test("tuple_in_use", tuple_in_use),
    ]
}

fn narrow(testnet: &Testnet) {
    let [low, high] = RANGE;
    let range = format!("{low} {high}");
    testnet
        .set_sysctl("net/ipv4/ip_local_port_range", &range)
        .unwrap();
}

fn range_full_of_connections() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let evidence = json!({
        "range": RANGE, "reserved": 0, "available": RANGE_LEN, "connected": RANGE_LEN, "bound": 0,
        "states": { "ESTABLISHED": RANGE_LEN }, "tcp_tw_reuse": 2,
    });
    let endings = RANGE_LEN + 1;
    let cause = ("ephemeral_range_used_up", CERTAIN);
    let line = live().expect_cause(endings, cause, &evidence, |testnet| {
        narrow(testnet);
        connect_until_failure(remote)
    });
    let by = &line["cause"]["evidence"]["connected_by"][0];
    assert_eq!(by["process"], me(), "{line:#}");
    assert_eq!(by["sockets"], RANGE_LEN, "{line:#}");
    let fix = line["cause"]["fix"].as_str().unwrap();
    let advice = "ip_local_port_range=\"10000 65535\"` has 55,536 ports and adds 55,526";
    assert!(fix.contains(advice), "{fix}");
}

/// Makes as many connections as the range has ports, each closed by the client first.
fn range_full_of_time_wait() {
    let own = SocketAddr::from((FAR_LOCAL_V4, PORT));
    let evidence = json!({ "available": RANGE_LEN, "connected": RANGE_LEN, "tcp_tw_reuse": 0 });
    let endings = RANGE_LEN + 1;
    let cause = ("ephemeral_range_used_up", CERTAIN);
    let line = live().expect_cause(endings, cause, &evidence, |testnet| {
        narrow(testnet);
        testnet.set_sysctl("net/ipv4/tcp_tw_reuse", "0").unwrap();
        let listener = TcpListener::bind(own).unwrap();
        let mut errno = 0;
        while errno == 0 {
            let client = tcp(own);
            errno = attempt_on(&client, own).errno;
            drop(client);
            if errno == 0 {
                drop(listener.accept().unwrap());
            }
            thread::sleep(Duration::from_millis(2));
        }
        listener
    });
    let cause = &line["cause"];
    let waiting = &cause["evidence"]["states"]["TIME_WAIT"];
    assert_eq!(*waiting, RANGE_LEN, "{line:#}");
    let fix = cause["fix"].as_str().unwrap();
    assert!(
        fix.contains("tcp_tw_reuse=1` lets the 10 in TIME_WAIT"),
        "{fix}"
    );
}

fn ports_held_by_bind() {
    let evidence = json!({ "available": RANGE_LEN, "connected": 0, "bound": RANGE_LEN });
    let cause = ("ports_held_by_bind", CERTAIN);
    let line = live().expect_cause(1, cause, &evidence, |testnet| {
        narrow(testnet);
        let [low, high] = RANGE;
        let holders: Vec<_> = (low..=high)
            .map(|port| bound((Ipv4Addr::UNSPECIFIED, port).into()))
            .collect();
        attempt((FAR_V4, ports::ACCEPTS));
        holders
    });
    let by = &line["cause"]["evidence"]["bound_by"][0];
    assert_eq!(
        *by,
        json!({ "process": me(), "sockets": RANGE_LEN }),
        "{line:#}"
    );
}

/// The socket's own range is used up; the range of the host is not.
fn socket_port_range() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let evidence = json!({ "connected": 2, "bound": 0 });
    live().expect_cause(3, ("socket_port_range", LIKELY), &evidence, |_| {
        [(); 3].map(|()| {
            let socket = tcp(remote);
            set_local_port_range(&socket, 40_000, 40_001).unwrap();
            attempt_on(&socket, remote);
            socket
        })
    });
}

fn reserved_ports_leave_none() {
    let evidence = json!({ "available": 0, "reserved": RANGE_LEN });
    live().expect_cause(1, ("socket_port_range", CERTAIN), &evidence, |testnet| {
        narrow(testnet);
        testnet
            .set_sysctl("net/ipv4/ip_local_reserved_ports", "40000-40009")
            .unwrap();
        attempt((FAR_V4, ports::ACCEPTS))
    });
}

fn tuple_in_use() {
    let local = SocketAddr::from((FAR_LOCAL_V4, RANGE[0]));
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let holder = json!({ "state": "ESTABLISHED", "process": me() });
    let evidence = json!({ "local": local, "remote": remote, "holder": holder });
    live().expect_cause(2, ("tuple_in_use", CERTAIN), &evidence, |_| {
        [(); 2].map(|()| {
            let socket = bound(local);
            attempt_on(&socket, remote);
            socket
        })
    });
}
