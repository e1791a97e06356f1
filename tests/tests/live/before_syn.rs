//! Failures before a SYN exists. They are traced by hooked kernel functions, or else by
//! `--trace-syscalls`.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixStream,
    process::{self, Command, ExitCode},
    sync::Arc,
    thread,
};

use conntrace_testnet::{
    DeadEndRoute, FAR_DEVICE, FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, NEAR_DEVICE, ports,
};
use conntrace_tests::{
    Attempted, Cgroup, Denial, ExpectedLine, Live, PlayedScenario, Uring, attempt, attempt_on,
    in_role, ip, is_covered, is_root, lacks_functions, lacks_lsm, lacks_mptcp, lacks_tracefs,
    lacks_uring, live_test, mptcp, remote_end, role, run, tcp, unless, unless_all, with_ip,
};
use nix::errno::Errno;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Option that adds system calls to the trace; redundant where kernel functions are hooked.
const TRACE: &str = "--trace-syscalls";

/// Address outside every network of the testnet.
const ELSEWHERE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const ELSEWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
const ELSEWHERE_MAPPED: Ipv6Addr = ELSEWHERE_V4.to_ipv6_mapped();
const FAR: [IpAddr; 2] = [IpAddr::V4(FAR_V4), IpAddr::V6(FAR_V6)];
const PORT: u16 = 5432;
const BOUND_PORT: u16 = 45_678;

/// Name of a route, its type, the errno that connect returns for it, and the label.
const ROUTES: [(&str, DeadEndRoute, Errno, &str); 3] = [
    (
        "unreachable",
        DeadEndRoute::Unreachable,
        Errno::EHOSTUNREACH,
        "unreachable",
    ),
    ("prohibit", DeadEndRoute::Prohibit, Errno::EACCES, "denied"),
    (
        "blackhole",
        DeadEndRoute::Blackhole,
        Errno::EINVAL,
        "failed",
    ),
];

/// Role of a child that connects against a policy: its cgroup's, or its own security module's.
const BY_CGROUP: &str = "by_cgroup";
const BY_LSM: &str = "by_lsm";
/// Environment variable that makes the child connect by `io_uring` as well.
const BY_URING: &str = "CONNTRACE_TEST_URING";

pub(crate) fn main() -> ExitCode {
    match role().as_deref() {
        Some(BY_CGROUP) => return denied_by_its_cgroup(),
        Some(BY_LSM) => return denied_by_lsm_of_its_own(),
        Some(_) | None => {}
    }
    let tracefs = lacks_tracefs();
    let mut tests = vec![
        live_test("other_thread", other_thread),
        live_test("again_on_the_same_socket", again_on_the_same_socket),
        with_ip("no_source_address_v6", no_source_address_v6),
        live_test("attempts_are_told_once", attempts_are_told_once),
        unless(lacks_mptcp(), live_test("mptcp", mptcp_gets_no_further)),
        live_test("denied_by_cgroup", denied_by_cgroup),
        unless(lacks_lsm(), live_test("denied_by_lsm", denied_by_lsm)),
        live_test("no_attempts", no_attempts),
    ];
    let elsewhere: [(&str, IpAddr, IpAddr); 3] = [
        ("v4", ELSEWHERE_V4.into(), FAR_LOCAL_V4.into()),
        ("v6", ELSEWHERE_V6.into(), FAR_LOCAL_V6.into()),
        (
            "mapped",
            ELSEWHERE_MAPPED.into(),
            FAR_LOCAL_V4.to_ipv6_mapped().into(),
        ),
    ];
    for (family, host, local) in elsewhere {
        let remote = SocketAddr::new(host, PORT);
        tests.extend([
            live_test(&format!("no_route_{family}"), move || no_route(remote)),
            live_test(&format!("no_route_polled_{family}"), move || {
                no_route_polled(remote);
            }),
            live_test(&format!("no_route_bound_{family}"), move || {
                no_route_bound(SocketAddr::new(local, BOUND_PORT), remote);
            }),
        ]);
        for (route, dead_end, errno, label) in ROUTES {
            tests.push(live_test(&format!("{route}_{family}"), move || {
                by_route(dead_end, remote, errno, label);
            }));
        }
    }
    let functions = is_root().then(|| lacks_functions(None)).flatten();
    for (name, host) in [
        ("v4", IpAddr::from(ELSEWHERE_V4)),
        ("v6", ELSEWHERE_V6.into()),
    ] {
        let test = live_test(&format!("no_route_io_uring_{name}"), move || {
            no_route_io_uring(SocketAddr::new(host, PORT));
        });
        tests.push(unless(functions.clone().or_else(lacks_uring), test));
    }
    run(unless_all(tracefs.as_deref(), tests))
}

fn live() -> Arc<Live> {
    Live::with(&[TRACE])
}

/// Expects a failure before any SYN was sent and before a local port was chosen.
fn unsent(label: &'static str, errno: Errno, attempted: &Attempted) -> ExpectedLine {
    assert_eq!(Errno::from_raw(attempted.errno), errno);
    ExpectedLine {
        syn_sent: 0,
        has_port: false,
        ..ExpectedLine::new(label, attempted)
    }
}

fn no_route(remote: SocketAddr) {
    let live = live();
    let scene = live.play(|_| attempt(remote));
    live.expect(
        &scene,
        &[unsent("unreachable", Errno::ENETUNREACH, &scene.value)],
    );
}

fn no_route_polled(remote: SocketAddr) {
    let live = live();
    let scene = live.play(|_| Attempted::begin(&tcp(remote), remote));
    live.expect(
        &scene,
        &[unsent("unreachable", Errno::ENETUNREACH, &scene.value)],
    );
}

/// The line has the port that the application bound, although it did not cause the failure.
fn no_route_bound(local: SocketAddr, remote: SocketAddr) {
    let live = live();
    let scene = live.play(|_| {
        let socket = tcp(remote);
        socket.bind(&local.into()).unwrap();
        attempt_on(&socket, remote)
    });
    let line = &live.endings(&scene, 1)[0];
    assert_eq!(line["label"], "unreachable", "{line:#}");
    assert_eq!(line["errno"], "ENETUNREACH", "{line:#}");
    let local = json!({ "addr": local.ip().to_canonical(), "port": BOUND_PORT });
    assert_eq!(line["local"], local);
}

fn by_route(dead_end: DeadEndRoute, remote: SocketAddr, errno: Errno, label: &'static str) {
    let live = live();
    let scene = live.play(|testnet| {
        let host = remote.ip().to_canonical();
        testnet.add_dead_end(dead_end, host).unwrap();
        attempt(remote)
    });
    live.expect(&scene, &[unsent(label, errno, &scene.value)]);
}

/// A route exists, but no source address. Local ports do not matter here.
fn no_source_address_v6() {
    let live = live();
    let scene = live.play(|_| {
        for device in ["lo", FAR_DEVICE, NEAR_DEVICE] {
            ip(&format!("-6 address flush dev {device}"));
        }
        ip(&format!("-6 route add {ELSEWHERE_V6} dev {FAR_DEVICE}"));
        attempt((ELSEWHERE_V6, PORT))
    });
    live.expect(
        &scene,
        &[unsent(
            "address_unavailable",
            Errno::EADDRNOTAVAIL,
            &scene.value,
        )],
    );
}

fn other_thread() {
    let live = live();
    let scene = live.play(|_| {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("caller".to_owned());
            let thread = thread.spawn_scoped(scope, || attempt((ELSEWHERE_V4, PORT)));
            thread.unwrap().join().unwrap()
        })
    });
    assert_eq!(scene.value.comm, "caller");
    live.expect(
        &scene,
        &[unsent("unreachable", Errno::ENETUNREACH, &scene.value)],
    );
}

/// Failures before a SYN are traced on a socket whose next attempt does send one.
fn again_on_the_same_socket() {
    let live = live();
    let (elsewhere, resets) = ((ELSEWHERE_V4, PORT), (FAR_V4, ports::RESETS));
    let scene = live.play(|_| {
        let socket = tcp(elsewhere.into());
        [
            attempt_on(&socket, elsewhere),
            attempt_on(&socket, elsewhere),
            attempt_on(&socket, resets),
        ]
    });
    let [first, second, third] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            unsent("unreachable", Errno::ENETUNREACH, first),
            unsent("unreachable", Errno::ENETUNREACH, second),
            ExpectedLine::refused(third),
        ],
    );
}

/// Attempts that state changes already show are not reported again for their system call.
fn attempts_are_told_once() {
    let live = live();
    let scene = live.play(|testnet| {
        testnet
            .set_sysctl("net/ipv4/ip_local_port_range", "40000 40001")
            .unwrap();
        let accepts = SocketAddr::from((FAR_V4, ports::ACCEPTS));
        let sockets = [tcp(accepts), tcp(accepts), tcp(accepts)];
        let mut attempted = sockets
            .each_ref()
            .map(|socket| attempt_on(socket, accepts))
            .to_vec();
        for port in [
            ports::RESETS,
            ports::HOST_UNREACHABLE,
            ports::PORT_UNREACHABLE,
        ] {
            for host in [IpAddr::from(FAR_V4), FAR_V6.into()] {
                attempted.push(attempt((host, port)));
            }
        }
        attempted.push(Attempted::begin(&tcp(accepts), (FAR_V4, ports::SILENT)));
        attempted.len()
    });
    let lines = live.endings(&scene, scene.value);
    let labels: Vec<_> = lines
        .iter()
        .map(|line| line["label"].as_str().unwrap())
        .collect();
    assert_eq!(
        labels
            .iter()
            .filter(|&&label| label == "port_exhausted")
            .count(),
        1
    );
    assert!(
        !labels.contains(&"failed") && !labels.contains(&"denied"),
        "{labels:?}"
    );
}

/// A connect by `io_uring` makes no system call and may end on a kernel thread. The line still
/// names the caller.
fn no_route_io_uring(remote: SocketAddr) {
    let live = live();
    let scene = live.play(|_| {
        let mut uring = Uring::new().unwrap();
        [
            uring.connect(&tcp(remote), remote),
            uring.connect_by_worker(&tcp(remote), remote),
        ]
    });
    let [own, by_worker] = live.endings(&scene, 2).try_into().unwrap();
    unsent("unreachable", Errno::ENETUNREACH, &scene.value[0]).assert_is(&own, scene.netns);
    assert_failed(
        &by_worker,
        process::id(),
        remote,
        "unreachable",
        "ENETUNREACH",
    );
}

/// Connects by the system call, and by `io_uring` if the parent asks for it.
fn connects_in_vain() -> ExitCode {
    let denied = |errno: i32| assert_eq!(Errno::from_raw(errno), Errno::EPERM);
    for host in FAR {
        let remote = SocketAddr::new(host, ports::ACCEPTS);
        denied(attempt(remote).errno);
        if env::var_os(BY_URING).is_some() {
            let mut uring = Uring::new().unwrap();
            denied(uring.connect(&tcp(remote), remote).errno);
        }
    }
    ExitCode::SUCCESS
}

/// Starts a child in this role. Returns true if it connects by `io_uring` as well, which only
/// hooked kernel functions can show.
fn child(role: &str) -> (Command, bool) {
    let mut child = in_role(role);
    let by_uring = is_covered("icmp6_detail") && lacks_uring().is_none();
    if by_uring {
        child.env(BY_URING, "1");
    }
    (child, by_uring)
}

fn denied_by_its_cgroup() -> ExitCode {
    std::io::stdin().read_line(&mut String::new()).unwrap();
    connects_in_vain()
}

fn denied_by_lsm_of_its_own() -> ExitCode {
    let _denial = Denial::new().unwrap();
    connects_in_vain()
}

/// A BPF program at the caller's cgroup denies connect.
fn denied_by_cgroup() {
    let live = live();
    let name = format!("conntrace-denied-{}", process::id());
    let cgroup = Cgroup::new(&name);
    cgroup
        .deny_connects()
        .expect("the kernel has programs at cgroups");
    let (mut child, by_uring) = child(BY_CGROUP);
    let scene = live.play(|_| cgroup.run(&mut child));
    for line in &denied(&live, &scene, by_uring) {
        assert_eq!(line["process"]["cgroup"], format!("/{name}"), "{line:#}");
    }
}

/// A BPF security module denies connect.
fn denied_by_lsm() {
    let live = live();
    let (mut child, by_uring) = child(BY_LSM);
    let scene = live.play(|_| {
        let mut child = child.spawn().unwrap();
        assert!(child.wait().unwrap().success());
        child.id()
    });
    denied(&live, &scene, by_uring);
}

/// Checks that every attempt of the child was denied, and returns the lines.
fn denied(live: &Live, scene: &PlayedScenario<u32>, by_uring: bool) -> Vec<Value> {
    let each = 1 + usize::from(by_uring);
    let lines = live.endings(scene, each * FAR.len());
    for (lines, host) in lines.chunks(each).zip(FAR) {
        let remote = SocketAddr::new(host, ports::ACCEPTS);
        for line in lines {
            assert_failed(line, scene.value, remote, "denied", "EPERM");
        }
    }
    lines
}

fn assert_failed(line: &Value, pid: u32, remote: SocketAddr, label: &str, errno: &str) {
    assert_eq!(line["label"], label, "{line:#}");
    assert_eq!(line["errno"], errno, "{line:#}");
    assert_eq!(line["process"]["pid"], pid, "{line:#}");
    assert_eq!(line["remote"], remote_end(remote), "{line:#}");
}

/// An MPTCP subflow without a route fails as plain TCP does.
fn mptcp_gets_no_further() {
    let remote = SocketAddr::from((ELSEWHERE_V4, PORT));
    let live = live();
    let scene = live.play(|_| {
        let socket = mptcp(remote);
        [
            attempt_on(&socket, remote),
            attempt_on(&socket, (FAR_V4, ports::RESETS)),
        ]
    });
    let [unreachable, refused] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            unsent("unreachable", Errno::ENETUNREACH, unreachable),
            ExpectedLine::refused(refused),
        ],
    );
}

/// Failed calls that are not TCP connection attempts leave no line.
fn no_attempts() {
    let live = live();
    let scene = live.play(|_| {
        let elsewhere = SocketAddr::from((ELSEWHERE_V4, PORT));
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        udp.connect(elsewhere).unwrap_err();
        UdpSocket::bind(elsewhere).unwrap_err();
        UnixStream::connect("/there/is/no/such/socket").unwrap_err();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listening = Socket::from(listener);
        assert_eq!(
            Errno::from_raw(attempt_on(&listening, elsewhere).errno),
            Errno::EISCONN
        );
        Attempted::abandon(&tcp(elsewhere));
        let v6 = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        assert_eq!(
            Errno::from_raw(attempt_on(&v6, elsewhere).errno),
            Errno::EINVAL
        );
    });
    live.endings(&scene, 0);
}
