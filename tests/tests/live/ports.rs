//! Failures for want of a local port, or of the one that the application chose.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, Testnet, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, Live, attempt, attempt_on, bound, live_test, run, tcp,
};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::Socket;

/// Local port range of only two ports.
const RANGE: &str = "40000 40001";
/// Port outside of the narrow range.
const BOUND_PORT: u16 = 45_678;

const FAR_MAPPED: Ipv6Addr = FAR_V4.to_ipv6_mapped();
const LOCAL_MAPPED: Ipv6Addr = FAR_LOCAL_V4.to_ipv6_mapped();

pub(crate) fn main() -> ExitCode {
    let mut tests = vec![
        live_test(
            "exhausted_only_for_that_remote",
            exhausted_only_for_that_remote,
        ),
        live_test("given_back", given_back),
        live_test("bound_port_is_no_exhaustion", bound_port_is_no_exhaustion),
    ];
    let families: [(&str, IpAddr, IpAddr); 3] = [
        ("v4", FAR_LOCAL_V4.into(), FAR_V4.into()),
        ("v6", FAR_LOCAL_V6.into(), FAR_V6.into()),
        ("mapped", LOCAL_MAPPED.into(), FAR_MAPPED.into()),
    ];
    for (name, local, remote) in families {
        let remote = SocketAddr::new(remote, ports::ACCEPTS);
        tests.extend([
            live_test(&format!("exhausted_{name}"), move || {
                exhausted(remote, attempt);
            }),
            live_test(&format!("exhausted_polled_{name}"), move || {
                exhausted(remote, |remote| Attempted::begin(&tcp(remote), remote));
            }),
            live_test(&format!("exhausted_without_bind_port_{name}"), move || {
                exhausted(remote, move |remote| {
                    let socket = tcp(remote);
                    setsockopt(&socket, IpBindAddressNoPort, &true).unwrap();
                    socket.bind(&SocketAddr::new(local, 0).into()).unwrap();
                    attempt_on(&socket, remote)
                });
            }),
            live_test(&format!("tuple_in_use_{name}"), move || {
                tuple_in_use(SocketAddr::new(local, BOUND_PORT), remote);
            }),
            live_test(&format!("tuple_in_use_any_address_{name}"), move || {
                let any: IpAddr = match local {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                tuple_in_use(SocketAddr::new(any, BOUND_PORT), remote);
            }),
            live_test(&format!("kernels_choice_in_use_{name}"), move || {
                kernels_choice_in_use(local, remote);
            }),
        ]);
    }
    run(tests)
}

fn narrow(testnet: &Testnet) {
    testnet
        .set_sysctl("net/ipv4/ip_local_port_range", RANGE)
        .unwrap();
}

/// Takes both ports of the narrow range by connections.
fn fill(remote: SocketAddr) -> [(Socket, Attempted); 2] {
    [
        connected(tcp(remote), remote),
        connected(tcp(remote), remote),
    ]
}

fn connected(socket: Socket, remote: SocketAddr) -> (Socket, Attempted) {
    let attempted = attempt_on(&socket, remote);
    assert_eq!(attempted.errno, 0, "connected");
    (socket, attempted)
}

fn exhausted(remote: SocketAddr, fail: impl Fn(SocketAddr) -> Attempted + Sync) {
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        let [(_one, first), (_other, second)] = fill(remote);
        [first, second, fail(remote)]
    });
    let [first, second, third] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::established(first),
            ExpectedLine::established(second),
            ExpectedLine::port_exhausted(third),
        ],
    );
}

/// Ports that are used up for one remote port still serve another.
fn exhausted_only_for_that_remote() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        let [(_one, first), (_other, second)] = fill(remote);
        [
            first,
            second,
            attempt(remote),
            attempt((FAR_V4, ports::RESETS)),
        ]
    });
    let [first, second, third, fourth] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::established(first),
            ExpectedLine::established(second),
            ExpectedLine::port_exhausted(third),
            ExpectedLine::refused(fourth),
        ],
    );
}

/// Ports are free again after a close. The far end resets on FIN, so that no `TIME_WAIT` keeps
/// them.
fn given_back() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        let [(one, first), (_other, second)] = fill(remote);
        let third = attempt(remote);
        drop(one);
        while connections_v4() > 1 {
            thread::sleep(Duration::from_millis(1));
        }
        [first, second, third, attempt(remote)]
    });
    let [first, second, third, fourth] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::established(first),
            ExpectedLine::established(second),
            ExpectedLine::port_exhausted(third),
            ExpectedLine::established(fourth),
        ],
    );
}

/// A socket bound to a port outside of the full range still connects.
fn bound_port_is_no_exhaustion() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        let [(_one, first), (_other, second)] = fill(remote);
        let bound = bound((FAR_LOCAL_V4, BOUND_PORT).into());
        let (_bound, third) = connected(bound, remote);
        [first, second, third]
    });
    assert_eq!(scene.value[2].local_port, Some(BOUND_PORT));
    let expected = scene.value.each_ref().map(ExpectedLine::established);
    live.expect(&scene, &expected);
}

/// Two sockets with the same local address and port connect to one destination.
fn tuple_in_use(local: SocketAddr, remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| {
        let (_first, first) = connected(bound(local), remote);
        [first, attempt_on(&bound(local), remote)]
    });
    let [first, second] = scene.value.each_ref();
    assert_eq!(first.local_port, Some(local.port()));
    live.expect(
        &scene,
        &[
            ExpectedLine::established(first),
            ExpectedLine::address_unavailable(second, local.port()),
        ],
    );
}

/// The kernel chose the port at bind, so connect cannot choose another.
fn kernels_choice_in_use(local: IpAddr, remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| {
        let late = bound(SocketAddr::new(local, 0));
        let chosen = late.local_addr().unwrap().as_socket().unwrap();
        let (_quick, first) = connected(bound(chosen), remote);
        (chosen.port(), first, attempt_on(&late, remote))
    });
    let (port, first, second) = &scene.value;
    assert_eq!(first.local_port, Some(*port));
    live.expect(
        &scene,
        &[
            ExpectedLine::established(first),
            ExpectedLine::address_unavailable(second, *port),
        ],
    );
}

/// Counts the IPv4 TCP sockets in this thread's network namespace.
fn connections_v4() -> usize {
    let sockets = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    sockets.lines().count() - 1
}
