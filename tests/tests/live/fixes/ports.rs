//! Fixes for want of a local port, or of the one that the application chose.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use conntrace::diagnosis::Code;
use conntrace_testnet::{FAR_LOCAL_V4, FAR_V4, Testnet, ports, set_local_port_range};
use conntrace_tests::{attempt, attempt_on, bound, lacks_bound_sockets, lacks_port_range, tcp};

use nix::errno::Errno;

use crate::fixes::{
    Fix, FixScene, HeldCause, answers::PORT, policies::until_failure, scene, shows,
};

const LOW: u16 = 40_000;
/// Last port of the range. In a range of odd length the kernel skips one port.
const HIGH: u16 = 40_003;
const RANGE_LEN: usize = 4;
const NARROW: &str = "40000 40003";
/// Widest possible range, so that only `tcp_tw_reuse` helps.
const WIDEST: &str = "1024 65535";
const ALL_BUT_4: &str = "1024-39999,40004-65535";
/// Ports of servers, as the fix writes them.
const SERVERS_LIST: &str = "ip_local_reserved_ports=1000,27017-27018";
/// Time after which a port in `TIME_WAIT` can be reused.
const A_SECOND: Duration = Duration::from_millis(1500);

pub(crate) const SCENES: &[FixScene] = &[
    scene(
        Code::EphemeralRangeUsedUp,
        "range_full_of_connections",
        Fix::Mends(|_| attempt(remote()).errno),
        RANGE_LEN + 1,
        |testnet| {
            set(testnet, "ip_local_port_range", NARROW);
            until_failure(remote())
        },
    ),
    scene(
        Code::EphemeralRangeUsedUp,
        "range_full_beside_servers",
        Fix::Mends(|fix| {
            assert!(fix.contains(SERVERS_LIST), "{fix}");
            let reserved = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
            assert_eq!(reserved.unwrap().trim(), "1000,27017-27018");
            attempt(remote()).errno
        }),
        RANGE_LEN + 1,
        |testnet| {
            set(testnet, "ip_local_port_range", NARROW);
            set(testnet, "ip_local_reserved_ports", "1000");
            let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
            // One below 10000 is in no range that is advised.
            let servers = [9000, 27_017, 27_018].map(listen);
            Box::new((servers, until_failure(remote())))
        },
    ),
    scene(
        Code::EphemeralRangeUsedUp,
        "range_full_of_time_wait",
        Fix::Mends(|_| attempt(own()).errno),
        RANGE_LEN + 1,
        |testnet| in_time_wait(testnet, NARROW, ""),
    ),
    scene(
        Code::EphemeralRangeUsedUp,
        "widest_range_full_of_time_wait",
        Fix::Mends(|_| {
            thread::sleep(A_SECOND);
            attempt(own()).errno
        }),
        RANGE_LEN + 1,
        |testnet| in_time_wait(testnet, WIDEST, ALL_BUT_4),
    ),
    scene(
        Code::PortsHeldByBind,
        "ports_held_by_bind",
        Fix::Words("the application is to bind no port, or to close its sockets"),
        1,
        |testnet| {
            set(testnet, "ip_local_port_range", NARROW);
            let holders: Vec<_> = (LOW..=HIGH)
                .map(|port| bound((Ipv4Addr::UNSPECIFIED, port).into()))
                .collect();
            attempt(remote());
            Box::new(holders)
        },
    )
    .unless(|| lacks_bound_sockets().map(str::to_owned)),
    scene(
        Code::SocketPortRange,
        "socket_port_range",
        Fix::Words("the application is to set another range"),
        3,
        |_| {
            Box::new([(); 3].map(|()| {
                let socket = tcp(remote());
                set_local_port_range(&socket, LOW, LOW + 1).unwrap();
                attempt_on(&socket, remote());
                socket
            }))
        },
    )
    .unless(|| lacks_port_range().map(str::to_owned)),
    scene(
        Code::SocketPortRange,
        "all_ports_reserved",
        Fix::Mends(|_| attempt(remote()).errno),
        1,
        |testnet| {
            set(testnet, "ip_local_port_range", NARROW);
            set(testnet, "ip_local_reserved_ports", "40000-40003");
            Box::new(attempt(remote()))
        },
    ),
    scene(
        Code::ConnectedToItself,
        "connected_to_itself",
        Fix::Mends(|fix| {
            assert!(fix.contains("ip_local_reserved_ports=1000,40000`"), "{fix}");
            // Of a range with other ports the kernel leaves out the server's.
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", NARROW).unwrap();
            attempt(itself()).errno - Errno::ECONNREFUSED as i32
        }),
        1,
        |testnet| {
            set(testnet, "ip_local_port_range", "40000 40000");
            set(testnet, "ip_local_reserved_ports", "1000");
            let socket = tcp(itself());
            assert_eq!(attempt_on(&socket, itself()).errno, 0);
            Box::new(socket)
        },
    ),
    scene(
        Code::PortInUse,
        "port_in_use",
        Fix::Shows(&[shows("LISTEN")]),
        1,
        |_| {
            let listener = TcpListener::bind(own()).unwrap();
            tcp(own()).bind(&own().into()).unwrap_err();
            Box::new(listener)
        },
    ),
    scene(
        Code::TupleInUse,
        "tuple_in_use",
        Fix::Shows(&[shows("ESTAB")]),
        2,
        |_| {
            Box::new([(); 2].map(|()| {
                let socket = bound((FAR_LOCAL_V4, LOW).into());
                attempt_on(&socket, remote());
                socket
            }))
        },
    ),
];

fn set(testnet: &Testnet, name: &str, value: &str) {
    testnet
        .set_sysctl(&format!("net/ipv4/{name}"), value)
        .unwrap();
}

fn remote() -> SocketAddr {
    (FAR_V4, ports::ACCEPTS).into()
}

fn itself() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, LOW).into()
}

fn own() -> SocketAddr {
    (FAR_LOCAL_V4, PORT).into()
}

/// Makes connections one after the other until one fails. The client closes each first.
fn in_time_wait(testnet: &Testnet, range: &str, reserved: &str) -> HeldCause {
    set(testnet, "ip_local_port_range", range);
    set(testnet, "ip_local_reserved_ports", reserved);
    set(testnet, "tcp_tw_reuse", "0");
    let listener = TcpListener::bind(own()).unwrap();
    let mut errno = 0;
    while errno == 0 {
        let client = tcp(own());
        errno = attempt_on(&client, own()).errno;
        drop(client);
        if errno == 0 {
            drop(listener.accept().unwrap());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Box::new(listener)
}
