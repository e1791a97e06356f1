//! Free local ports: ranges of a socket, reserved ports, and ports that `TIME_WAIT`, binds and
//! other connections hold.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{
    FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, Testnet, ports, set_local_port_range,
};
use conntrace_tests::{
    Attempted, ExpectedLine, Live, PlayedScenario, attempt, attempt_on, bound, lacks_port_range,
    live_test, run, tcp, unless,
};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use serde_json::json;
use socket2::Socket;

/// Local port range of only two ports.
const RANGE: [u16; 2] = [40_000, 40_001];
/// Port of the tests' own listeners, and of sockets bound outside of the range.
const OWN_PORT: u16 = 45_678;
/// Time limit for a connection to reach `TIME_WAIT`.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
/// Time after which `tcp_tw_reuse` lets a port in `TIME_WAIT` be used again.
const REUSABLE_AFTER: Duration = Duration::from_millis(1100);

/// Addresses of one family: local address, accepting port of a far host, and loopback.
#[derive(Clone, Copy)]
struct FamilyAddresses {
    name: &'static str,
    local: IpAddr,
    far: SocketAddr,
    loopback: IpAddr,
}

/// Name of a test, and the function that plays it with these addresses and checks its line.
type FamilyTest = (&'static str, fn(FamilyAddresses));

pub(crate) fn main() -> ExitCode {
    let families = [
        FamilyAddresses {
            name: "v4",
            local: FAR_LOCAL_V4.into(),
            far: (FAR_V4, ports::ACCEPTS).into(),
            loopback: Ipv4Addr::LOCALHOST.into(),
        },
        FamilyAddresses {
            name: "v6",
            local: FAR_LOCAL_V6.into(),
            far: (FAR_V6, ports::ACCEPTS).into(),
            loopback: Ipv6Addr::LOCALHOST.into(),
        },
    ];
    let scenarios: [FamilyTest; 13] = [
        ("socket_range_full", socket_range_full),
        (
            "socket_range_full_bound_without_port",
            full_bound_without_port,
        ),
        ("socket_range_outside_is_ignored", outside_is_ignored),
        ("socket_range_is_its_own", socket_range_is_its_own),
        ("reserved_ports_leave_none", reserved_ports_leave_none),
        ("reserved_ports_leave_one", reserved_ports_leave_one),
        ("time_wait_holds", time_wait_holds),
        ("time_wait_reused", time_wait_reused),
        ("time_wait_holds_a_bound_port", time_wait_holds_a_bound_port),
        (
            "time_wait_leaves_a_bound_port",
            time_wait_leaves_a_bound_port,
        ),
        ("binds_hold", binds_hold),
        (
            "binds_to_another_address_hold",
            binds_to_another_address_hold,
        ),
        (
            "connection_holds_a_bound_port",
            connection_holds_a_bound_port,
        ),
    ];
    let tests = families.into_iter().flat_map(|family| {
        scenarios.map(|(name, play)| {
            let test = live_test(&format!("{name}_{}", family.name), move || play(family));
            let of_socket = name.starts_with("socket_range");
            unless(lacks_port_range().filter(|_| of_socket), test)
        })
    });
    let long = live_test("long_list_of_reserved_ports", long_list_of_reserved_ports);
    run(tests.chain([long]).collect())
}

fn narrow(testnet: &Testnet) {
    let range = RANGE.map(|port| port.to_string()).join(" ");
    testnet
        .set_sysctl("net/ipv4/ip_local_port_range", &range)
        .unwrap();
}

/// Creates a socket whose own port range is the narrow one (`IP_LOCAL_PORT_RANGE`).
fn ranged(remote: SocketAddr) -> Socket {
    let socket = tcp(remote);
    set_local_port_range(&socket, RANGE[0], RANGE[1]).unwrap();
    socket
}

/// Connects sockets that `socket` creates until one fails. Each takes a port of the narrow range.
fn fill(remote: SocketAddr, socket: impl Fn() -> Socket) -> [Attempted; 3] {
    let sockets = [socket(), socket(), socket()];
    let attempts = sockets.each_ref().map(|socket| attempt_on(socket, remote));
    let [one, other, _] = attempts.each_ref().map(|attempt| attempt.local_port);
    let mut taken = [one, other].map(Option::unwrap);
    taken.sort_unstable();
    assert_eq!(taken, RANGE);
    attempts
}

/// Expects two connections, and no port for a third.
fn expect_two(live: &Live, scene: &PlayedScenario<[Attempted; 3]>) {
    let [one, other, third] = scene.value.each_ref();
    live.expect(
        scene,
        &[
            ExpectedLine::established(one),
            ExpectedLine::established(other),
            ExpectedLine::port_exhausted(third),
        ],
    );
}

fn socket_range_full(family: FamilyAddresses) {
    let live = Live::get();
    let scene = live.play(|_| fill(family.far, || ranged(family.far)));
    expect_two(&live, &scene);
}

fn full_bound_without_port(family: FamilyAddresses) {
    let live = Live::get();
    let scene = live.play(|_| {
        fill(family.far, || {
            let socket = ranged(family.far);
            setsockopt(&socket, IpBindAddressNoPort, &true).unwrap();
            let any_port = SocketAddr::new(family.local, 0);
            socket.bind(&any_port.into()).unwrap();
            socket
        })
    });
    expect_two(&live, &scene);
}

/// The kernel ignores a socket's range that lies outside of the sysctl's.
fn outside_is_ignored(family: FamilyAddresses) {
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        fill(family.far, || {
            let socket = tcp(family.far);
            set_local_port_range(&socket, 50_000, 50_001).unwrap();
            socket
        })
    });
    expect_two(&live, &scene);
}

/// A socket still finds a port if another socket's own range is full.
fn socket_range_is_its_own(family: FamilyAddresses) {
    let live = Live::get();
    let scene = live.play(|_| (fill(family.far, || ranged(family.far)), attempt(family.far)));
    let ([one, other, third], fourth) = &scene.value;
    live.expect(
        &scene,
        &[
            ExpectedLine::established(one),
            ExpectedLine::established(other),
            ExpectedLine::port_exhausted(third),
            ExpectedLine::established(fourth),
        ],
    );
}

fn reserve(testnet: &Testnet, reserved: &str) {
    testnet
        .set_sysctl("net/ipv4/ip_local_reserved_ports", reserved)
        .unwrap();
}

fn reserved_ports_leave_none(family: FamilyAddresses) {
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        reserve(testnet, "40000-40001");
        attempt(family.far)
    });
    live.expect(&scene, &[ExpectedLine::port_exhausted(&scene.value)]);
}

fn reserved_ports_leave_one(family: FamilyAddresses) {
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        reserve(testnet, "40000");
        let sockets = [tcp(family.far), tcp(family.far)];
        sockets
            .each_ref()
            .map(|socket| attempt_on(socket, family.far))
    });
    let [one, other] = scene.value.each_ref();
    assert_eq!(one.local_port, Some(RANGE[1]));
    live.expect(
        &scene,
        &[
            ExpectedLine::established(one),
            ExpectedLine::port_exhausted(other),
        ],
    );
}

/// The kernel prints 2,000 single ports before the two that matter, and only the first read returns
/// any.
fn long_list_of_reserved_ports() {
    let singles = (1..4000).step_by(2).map(|port: u16| port.to_string());
    let reserved: Vec<_> = singles.chain(["40000-40001".to_owned()]).collect();
    assert_eq!(reserved.len(), 2001);
    let evidence = json!({ "range": RANGE, "reserved": 2, "available": 0 });
    let cause = ("socket_port_range", "certain");
    Live::get().expect_cause(1, cause, &evidence, |testnet| {
        narrow(testnet);
        reserve(testnet, &reserved.join(","));
        attempt((FAR_V4, ports::ACCEPTS))
    });
}

/// Makes a connection to a local listener and closes it, client first, so that its port stays in
/// `TIME_WAIT`.
fn leave_time_wait(listener: &Socket, client: Socket) -> Attempted {
    let remote = listener.local_addr().unwrap().as_socket().unwrap();
    let attempted = attempt_on(&client, remote);
    let (server, _) = listener.accept().unwrap();
    drop(client);
    drop(server);
    let began = Instant::now();
    while !is_in_time_wait(remote, attempted.local_port) {
        assert!(began.elapsed() < CLOSED_WITHIN, "no TIME_WAIT");
        thread::sleep(Duration::from_millis(1));
    }
    attempted
}

/// Returns true if this port belongs to a `TIME_WAIT` socket in this thread's network namespace.
fn is_in_time_wait(remote: SocketAddr, local_port: Option<u16>) -> bool {
    let table = if remote.is_ipv4() { "tcp" } else { "tcp6" };
    let sockets = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
    let local_port = format!(":{:04X}", local_port.unwrap());
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next(), fields.nth(1));
        local.is_some_and(|local| local.ends_with(&local_port)) && state == Some("06")
    })
}

fn listener(family: FamilyAddresses) -> (Socket, SocketAddr) {
    let own = SocketAddr::new(family.loopback, OWN_PORT);
    let listener = tcp(own);
    listener.bind(&own.into()).unwrap();
    listener.listen(8).unwrap();
    (listener, own)
}

fn reuse_time_wait(testnet: &Testnet, value: &str) {
    testnet.set_sysctl("net/ipv4/tcp_tw_reuse", value).unwrap();
}

fn time_wait_holds(family: FamilyAddresses) {
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        reuse_time_wait(testnet, "0");
        let (listener, own) = listener(family);
        [
            leave_time_wait(&listener, tcp(own)),
            leave_time_wait(&listener, tcp(own)),
            attempt(own),
        ]
    });
    expect_two(&live, &scene);
}

/// With `tcp_tw_reuse` the same ports can be used again after a second.
fn time_wait_reused(family: FamilyAddresses) {
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        reuse_time_wait(testnet, "1");
        let (listener, own) = listener(family);
        let held = [(); 2].map(|()| leave_time_wait(&listener, tcp(own)));
        thread::sleep(REUSABLE_AFTER);
        (held, attempt(own))
    });
    let ([one, other], third) = &scene.value;
    live.expect(&scene, &[one, other, third].map(ExpectedLine::established));
}

/// Connects twice from one bound port to one destination, with these sysctls.
fn same_bound_port_twice(
    live: &Live,
    family: FamilyAddresses,
    settings: [(&str, &str); 2],
) -> PlayedScenario<[Attempted; 2]> {
    let source = SocketAddr::new(family.loopback, RANGE[0]);
    live.play(|testnet| {
        for (name, value) in settings {
            testnet.set_sysctl(name, value).unwrap();
        }
        let (listener, own) = listener(family);
        [
            leave_time_wait(&listener, bound(source)),
            attempt_on(&bound(source), own),
        ]
    })
}

/// Without timestamps the bound port's own `TIME_WAIT` blocks it, whatever `tcp_tw_reuse` is.
fn time_wait_holds_a_bound_port(family: FamilyAddresses) {
    let settings = [
        ("net/ipv4/tcp_timestamps", "0"),
        ("net/ipv4/tcp_tw_reuse", "1"),
    ];
    let live = Live::get();
    let scene = same_bound_port_twice(&live, family, settings);
    let [first, second] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::established(first),
            ExpectedLine::address_unavailable(second, RANGE[0]),
        ],
    );
}

/// With timestamps the bound port is free, because only the search for a port depends on
/// `tcp_tw_reuse`.
fn time_wait_leaves_a_bound_port(family: FamilyAddresses) {
    let settings = [
        ("net/ipv4/tcp_timestamps", "1"),
        ("net/ipv4/tcp_tw_reuse", "0"),
    ];
    let live = Live::get();
    let scene = same_bound_port_twice(&live, family, settings);
    let expected = scene.value.each_ref().map(ExpectedLine::established);
    live.expect(&scene, &expected);
}

/// Bound sockets hold the ports of the narrow range, and the search skips them for every
/// destination.
fn held_by_binds(family: FamilyAddresses, at: IpAddr) {
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        let _holders = RANGE.map(|port| {
            let holder = tcp(family.far);
            holder.bind(&SocketAddr::new(at, port).into()).unwrap();
            holder
        });
        let elsewhere = SocketAddr::new(family.far.ip(), ports::RESETS);
        [attempt(family.far), attempt(elsewhere)]
    });
    let expected = scene.value.each_ref().map(ExpectedLine::port_exhausted);
    live.expect(&scene, &expected);
}

fn binds_hold(family: FamilyAddresses) {
    held_by_binds(family, any(family));
}

fn binds_to_another_address_hold(family: FamilyAddresses) {
    held_by_binds(family, family.loopback);
}

fn any(family: FamilyAddresses) -> IpAddr {
    match family.local {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A bound port in use is reported as such, even if the range is full.
fn connection_holds_a_bound_port(family: FamilyAddresses) {
    let source = SocketAddr::new(family.local, RANGE[0]);
    let live = Live::get();
    let scene = live.play(|testnet| {
        narrow(testnet);
        let sockets = [bound(source), tcp(family.far)];
        let [one, other] = sockets
            .each_ref()
            .map(|socket| attempt_on(socket, family.far));
        let last = attempt_on(&bound(source), family.far);
        [one, other, last, attempt(family.far)]
    });
    let [one, other, last, fourth] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::established(one),
            ExpectedLine::established(other),
            ExpectedLine::address_unavailable(last, source.port()),
            ExpectedLine::port_exhausted(fourth),
        ],
    );
}
