//! Fixes for attempts without a route, or without one from the chosen source address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use conntrace::diagnosis::Code;
use conntrace_testnet::{
    DeadEndRoute, FAR_DEVICE, FAR_LOCAL_V4, FAR_ROUTER_V4, FAR_ROUTER_V6, FAR_V4, NEAR_DEVICE,
    NEAR_LOCAL_V4, Testnet, ports,
};
use conntrace_tests::{Attempted, attempt, attempt_on, bound, give_up, ip, tcp};

use crate::fixes::{Fix, FixScene, HeldCause, answers::PORT, scene, shows};

/// Address outside every network of the testnet.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const ELSEWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
/// Address that is assigned to another machine.
const MOVED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// Wait in which the first SYN retransmission fails.
const AFTER_A_FAILURE: Duration = Duration::from_millis(1600);

pub(crate) const SCENES: &[FixScene] = &[
    scene(
        Code::NoRoute,
        "no_route",
        Fix::Shows(&[shows("192.0.2.0/24 dev far")]),
        1,
        |_| Box::new(attempt((ELSEWHERE, PORT))),
    ),
    scene(
        Code::NoRoute,
        "forbidden_by_a_table_of_a_rule",
        Fix::Shows(&[shows("unreachable default")]),
        1,
        |_| {
            ip(&format!("route add default via {FAR_ROUTER_V4}"));
            ip("rule add pref 5000 not fwmark 51820 lookup 51820");
            ip("route add unreachable default table 51820 metric 4278198272");
            Box::new(attempt((ELSEWHERE, PORT)))
        },
    ),
    scene(
        Code::NoRoute,
        "forbidden_by_a_rule_v6",
        Fix::Shows(&[shows("5000:\tfrom all unreachable")]),
        1,
        |_| {
            ip("-6 rule add pref 5000 unreachable");
            Box::new(attempt((ELSEWHERE_V6, PORT)))
        },
    ),
    scene(
        Code::ProhibitRoute,
        "prohibit_route",
        Fix::Shows(&[shows("prohibit 203.0.113.1")]),
        1,
        |testnet| dead_end(testnet, DeadEndRoute::Prohibit, ELSEWHERE.into()),
    ),
    scene(
        Code::ProhibitRoute,
        "prohibit_route_v6",
        Fix::Shows(&[shows("prohibit 2001:db8:9::1")]),
        1,
        |testnet| dead_end(testnet, DeadEndRoute::Prohibit, ELSEWHERE_V6.into()),
    ),
    scene(
        Code::BlackholeRoute,
        "blackhole_route",
        Fix::Shows(&[shows("blackhole 203.0.113.1")]),
        1,
        |testnet| dead_end(testnet, DeadEndRoute::Blackhole, ELSEWHERE.into()),
    ),
    scene(
        Code::BlackholeRoute,
        "blackhole_rule_v6",
        Fix::Shows(&[shows("5000:\tfrom all blackhole")]),
        1,
        |_| {
            ip("-6 rule add pref 5000 blackhole");
            Box::new(attempt((ELSEWHERE_V6, PORT)))
        },
    ),
    scene(
        Code::NoSourceAddress,
        "no_source_address",
        Fix::Words("the network is to give an address"),
        1,
        |_| {
            for device in ["lo", FAR_DEVICE, NEAR_DEVICE] {
                ip(&format!("-6 address flush dev {device}"));
            }
            ip(&format!("-6 route add {ELSEWHERE_V6} dev {FAR_DEVICE}"));
            Box::new(attempt((ELSEWHERE_V6, PORT)))
        },
    ),
    scene(
        Code::SourceNotLocal,
        "source_not_local",
        Fix::Shows(&[shows("192.0.2.1/24")]),
        1,
        |_| {
            let source = SocketAddr::from((ELSEWHERE, 0));
            Box::new(tcp(source).bind(&source.into()).unwrap_err())
        },
    ),
    scene(
        Code::WrongSource,
        "address_of_another_machine",
        Fix::Shows(&[shows("192.0.2.1/24")]),
        1,
        |testnet| {
            testnet
                .set_sysctl("net/ipv4/ip_nonlocal_bind", "1")
                .unwrap();
            from(MOVED)
        },
    ),
    scene(
        Code::WrongSource,
        "source_of_another_rule",
        Fix::Shows(&[shows("from 198.51.100.1 lookup 100")]),
        1,
        |_| {
            ip(&format!(
                "rule add pref 100 from {NEAR_LOCAL_V4} lookup 100"
            ));
            ip("route add unreachable default table 100");
            from(NEAR_LOCAL_V4)
        },
    ),
    scene(
        Code::OwnLinkDown,
        "device_is_down",
        Fix::Mends(|_| attempt((FAR_V4, ports::ACCEPTS)).errno),
        1,
        |_| {
            let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
            let socket = tcp(remote);
            socket.bind_device(Some(FAR_DEVICE.as_bytes())).unwrap();
            ip(&format!("link set {FAR_DEVICE} down"));
            attempt_on(&socket, remote);
            Box::new(socket)
        },
    ),
    scene(
        Code::NoRoute,
        "no_route_of_the_device",
        Fix::Shows(&[shows("2001:db8:0:2::/64 dev near")]),
        1,
        |_| {
            ip(&format!("-6 route add {ELSEWHERE_V6} dev {NEAR_DEVICE}"));
            let remote = SocketAddr::from((ELSEWHERE_V6, PORT));
            let socket = tcp(remote);
            socket.bind_device(Some(FAR_DEVICE.as_bytes())).unwrap();
            Box::new(attempt_on(&socket, remote))
        },
    ),
    scene(
        Code::OwnLinkDown,
        "loopback_is_down",
        Fix::Mends(|_| attempt((Ipv4Addr::LOCALHOST, PORT)).errno),
        1,
        |_| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
            ip("link set lo down");
            give_up((Ipv4Addr::LOCALHOST, PORT));
            Box::new(listener)
        },
    ),
    scene(
        Code::RouteWentAway,
        "route_went_away",
        Fix::Shows(&[shows(""), shows("192.0.2.0/24 dev far")]),
        1,
        |_| went_away("", ELSEWHERE.into(), FAR_ROUTER_V4.into()),
    ),
    scene(
        Code::RouteWentAway,
        "route_went_away_v6",
        Fix::Shows(&[shows(""), shows("2001:db8:0:1::/64 dev far")]),
        1,
        |_| went_away("-6 ", ELSEWHERE_V6.into(), FAR_ROUTER_V6.into()),
    ),
];

fn dead_end(testnet: &Testnet, kind: DeadEndRoute, to: IpAddr) -> HeldCause {
    testnet.add_dead_end(kind, to).unwrap();
    Box::new(attempt((to, PORT)))
}

fn from(source: Ipv4Addr) -> HeldCause {
    let socket = bound((source, 0).into());
    Box::new(attempt_on(&socket, (FAR_V4, ports::ACCEPTS)))
}

/// Begins an attempt, and removes the route before the SYN is retransmitted.
fn went_away(family: &str, to: IpAddr, via: IpAddr) -> HeldCause {
    ip(&format!(
        "{family}route add {to} via {via} dev {FAR_DEVICE}"
    ));
    let remote = SocketAddr::new(to, ports::SILENT);
    let socket = tcp(remote);
    Attempted::begin(&socket, remote);
    thread::sleep(Duration::from_millis(200));
    ip(&format!("{family}route del {to}"));
    thread::sleep(AFTER_A_FAILURE);
    drop(socket);
    Box::new(FAR_LOCAL_V4)
}
