//! Attempts that do not come from a plain connect: `io_uring`, MPTCP, TCP repair,
//! and a socket that somebody else kills.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process::{self, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use conntrace::stage::{self, FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Attempted, Expected, Live, Reply, Uring, assert_has, attempt_on, is_root, live_test, run, tcp,
    wait_for_syn_sent,
};
use libtest_mimic::Trial;
use nix::{
    errno::Errno,
    libc::IPPROTO_MPTCP,
    sys::socket::{setsockopt, sockopt::TcpRepair},
};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

/// An application that gives up before this cancels.
const PATIENCE: Duration = ms(200);
/// Longer, so that it times out.
const OVER_PATIENCE: Duration = ms(300);
/// Before the kernel sends a SYN again, with room for a timer that is early.
const BEFORE_STALL: Duration = ms(990);
/// How long MPTCP has for another subflow.
const JOINS: Duration = ms(500);

/// Its name, and what plays and checks it with a far host.
type Scenario = (&'static str, fn(IpAddr));

fn main() -> ExitCode {
    let mut tests = Vec::new();
    let (uring, mptcp, kill) = (lacks_uring(), lacks_mptcp(), lacks_kill());
    let hosts: [(&str, IpAddr); 2] = [("v4", FAR_V4.into()), ("v6", FAR_V6.into())];
    for (name, host) in hosts {
        let mut add = |lacks: Option<&str>, scenarios: &[Scenario]| {
            for &(scenario, play) in scenarios {
                let trial = live_test(&format!("{scenario}_{name}"), move || play(host));
                tests.push(unless(lacks, trial));
            }
        };
        add(
            uring,
            &[
                ("uring_established", uring_established),
                ("uring_refused", uring_refused),
                ("uring_refused_by_worker", uring_refused_by_worker),
                ("uring_refused_polled", uring_refused_polled),
                ("uring_linked_timeout", uring_linked_timeout),
            ],
        );
        add(
            mptcp,
            &[
                ("mptcp_fallback", mptcp_fallback),
                ("mptcp_refused", mptcp_refused),
                ("mptcp_timed_out", mptcp_timed_out),
                ("mptcp_given_up", mptcp_given_up),
                ("mptcp_cancelled", mptcp_cancelled),
            ],
        );
        add(kill, &[("killed_by_ss", killed_by_ss)]);
        add(None, &[("repair", repair)]);
    }
    tests.push(unless(mptcp, live_test("mptcp_both_ends", mptcp_both_ends)));
    tests.push(unless(
        mptcp.or(lacks_ip()),
        live_test("kernel_thread_connects", kernel_thread_connects),
    ));
    run(tests)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Listed as ignored where this host lacks what it needs.
fn unless(lacks: Option<&str>, trial: Trial) -> Trial {
    match lacks {
        Some(needs) => trial.with_kind(needs).with_ignored_flag(true),
        None => trial,
    }
}

fn lacks_uring() -> Option<&'static str> {
    let refused = Uring::new().is_err();
    refused.then_some("needs io_uring (CONFIG_IO_URING, kernel.io_uring_disabled=0)")
}

fn lacks_mptcp() -> Option<&'static str> {
    let refused = mptcp_socket(Domain::IPV4).is_err();
    refused.then_some("needs MPTCP (CONFIG_MPTCP, net.mptcp.enabled=1)")
}

fn lacks_ip() -> Option<&'static str> {
    let ip = Command::new("ip")
        .args(["mptcp", "limits", "show"])
        .output();
    let works = ip.is_ok_and(|it| it.status.success());
    (!works).then_some("needs `ip mptcp` of iproute2")
}

/// Whether `ss -K` can kill: tried on a listener.
fn lacks_kill() -> Option<&'static str> {
    if !is_root() {
        return None;
    }
    let killed = stage::run("kill", |_| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        kill("sport", listener.local_addr().unwrap().port());
        let sockets = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        sockets.lines().count() == 1
    });
    let killed = killed.unwrap();
    (!killed).then_some("needs `ss -K` of iproute2 and CONFIG_INET_DIAG_DESTROY")
}

/// Kills every TCP socket of this thread's namespace with that port.
fn kill(which: &str, port: u16) {
    // Without ss nothing is killed, and the caller sees that.
    let _ = Command::new("ss")
        .args(["-Kat", which, "=", &format!(":{port}")])
        .stdout(Stdio::null())
        .status();
}

/// What is expected of an attempt that the far end refuses.
fn expect_refused(play: impl FnOnce(&Socket, SocketAddr) -> Attempted + Send, host: IpAddr) {
    let remote = SocketAddr::from((host, ports::RESETS));
    let live = Live::get();
    let scene = live.play(|_| play(&tcp(remote), remote));
    live.expect(&scene, &[Expected::refused(&scene.value)]);
}

fn uring_established(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(remote);
        Uring::new().unwrap().connect(&socket, remote)
    });
    live.expect(&scene, &[Expected::established(&scene.value)]);
}

fn uring_refused(host: IpAddr) {
    expect_refused(|it, remote| Uring::new().unwrap().connect(it, remote), host);
}

fn uring_refused_by_worker(host: IpAddr) {
    let connect = |it: &Socket, remote| Uring::new().unwrap().connect_by_worker(it, remote);
    refused_in_kernel_thread(connect, "iou-wrk-", host);
}

fn uring_refused_polled(host: IpAddr) {
    let connect = |it: &Socket, remote| Uring::polled().unwrap().connect(it, remote);
    refused_in_kernel_thread(connect, "iou-sqp-", host);
}

/// A thread that the kernel keeps for this process calls connect: the process is
/// ours, the thread is its own.
fn refused_in_kernel_thread(
    connect: impl FnOnce(&Socket, SocketAddr) -> Attempted + Send,
    comm: &str,
    host: IpAddr,
) {
    let remote = SocketAddr::from((host, ports::RESETS));
    let live = Live::get();
    let scene = live.play(|_| connect(&tcp(remote), remote));
    let line = &live.endings(&scene, 1)[0];
    let of = &line["process"];
    assert!(of["comm"].as_str().unwrap().starts_with(comm), "{line:#}");
    let tid = u32::try_from(of["tid"].as_u64().unwrap()).unwrap();
    assert!(tid != process::id() && tid != scene.value.tid, "{line:#}");
    // Its process, and everything else, is as of any other thread's connect.
    let attempted = Attempted {
        tid,
        comm: of["comm"].as_str().unwrap().to_owned(),
        ..scene.value
    };
    Expected::refused(&attempted).assert_is(line, scene.netns);
}

/// The timeout takes the request back, the socket stays in `SYN_SENT` until it is
/// closed.
fn uring_linked_timeout(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |_| {
        let mut ring = Uring::new().unwrap();
        ring.connect_within(OVER_PATIENCE, &tcp(remote), remote)
    });
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::ECANCELED);
    live.expect(&scene, &[Expected::gave_up("timed_out", &scene.value)]);
}

fn mptcp_socket(domain: Domain) -> std::io::Result<Socket> {
    Socket::new(domain, Type::STREAM, Some(Protocol::from(IPPROTO_MPTCP)))
}

fn mptcp(remote: SocketAddr) -> Socket {
    mptcp_socket(Domain::for_address(remote)).unwrap()
}

/// The far end knows no MPTCP.
fn mptcp_fallback(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|_| attempt_on(&mptcp(remote), remote));
    live.expect(&scene, &[Expected::established(&scene.value)]);
}

fn mptcp_refused(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::RESETS));
    let live = Live::get();
    let scene = live.play(|_| attempt_on(&mptcp(remote), remote));
    live.expect(&scene, &[Expected::refused(&scene.value)]);
}

fn mptcp_timed_out(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play(|stage| {
        stage.set_sysctl("net/ipv4/tcp_syn_retries", "1").unwrap();
        // From Linux 6.5 these come on top.
        if let Err(error) = stage.set_sysctl("net/ipv4/tcp_syn_linear_timeouts", "0") {
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        attempt_on(&mptcp(remote), remote)
    });
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::ETIMEDOUT);
    let expected = Expected {
        syn_sent: 2,
        syn_retransmitted: 1,
        timeout_by: Some("kernel"),
        ..Expected::new("timed_out", &scene.value)
    };
    let lines = live.expect(&scene, std::slice::from_ref(&expected));
    let stalls = live.stalls(&scene);
    assert_eq!(stalls.len(), 1);
    expected.assert_stall(&stalls[0], &lines[0], Reply::None);
}

fn mptcp_given_up(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |_| {
        Attempted::within(OVER_PATIENCE, &mptcp(remote), remote)
    });
    live.expect(&scene, &[Expected::gave_up("timed_out", &scene.value)]);
}

fn mptcp_cancelled(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| Attempted::begin(&mptcp(remote), remote));
    live.expect(&scene, &[Expected::gave_up("cancelled", &scene.value)]);
}

/// An MPTCP listener at that address of this host.
fn mptcp_listener(host: IpAddr) -> (Socket, SocketAddr) {
    let listener = mptcp(SocketAddr::new(host, 0));
    listener.bind(&SocketAddr::new(host, 0).into()).unwrap();
    listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    (listener, address)
}

/// Real MPTCP has one subflow here, and one line; the server's side has none.
fn mptcp_both_ends() {
    for host in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let live = Live::get();
        let scene = live.play(|_| {
            let (listener, remote) = mptcp_listener(host);
            let socket = mptcp(remote);
            let attempted = attempt_on(&socket, remote);
            listener.accept().unwrap();
            attempted
        });
        live.expect(&scene, &[Expected::established(&scene.value)]);
    }
}

/// Sets up MPTCP in this thread's namespace.
fn ip_mptcp(arguments: &str) {
    let arguments = arguments.split(' ');
    let status = Command::new("ip").arg("mptcp").args(arguments).status();
    assert!(status.unwrap().success());
}

/// MPTCP's path manager is told of another address of ours and connects from it:
/// a work item, in a thread of the kernel, on a socket no process has.
fn kernel_thread_connects() {
    let live = Live::get();
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let scene = live.play(|_| {
        ip_mptcp("limits set subflow 1");
        ip_mptcp(&format!("endpoint add {other} subflow"));
        let (listener, remote) = mptcp_listener(Ipv4Addr::LOCALHOST.into());
        let socket = mptcp(remote);
        let attempted = attempt_on(&socket, remote);
        let (accepted, _) = listener.accept().unwrap();
        // Only when data has come back does MPTCP add subflows.
        for [from, to] in [[&socket, &accepted], [&accepted, &socket]] {
            (&*from).write_all(b"data").unwrap();
            (&*to).read_exact(&mut [0; 4]).unwrap();
        }
        thread::sleep(JOINS);
        attempted
    });
    let lines = live.endings(&scene, 2);
    Expected::established(&scene.value).assert_is(&lines[0], scene.netns);
    let joined = &lines[1];
    let remote = scene.value.remote;
    assert_has(
        joined,
        &json!({
            "label": "established", "errno": null, "seen": "whole",
            "process": { "exe": null, "uid": 0, "container": null },
            "local": { "addr": other },
            "remote": { "addr": remote.ip(), "port": remote.port() },
            "syn": { "sent": 1, "retransmitted": 0 },
            "reply": { "kind": "syn_ack" },
        }),
    );
    assert_is_kernel_thread(joined["process"]["pid"].as_u64().unwrap());
    let comm = joined["process"]["comm"].as_str().unwrap();
    assert!(comm.starts_with("kworker/"), "{joined:#}");
    assert_eq!(joined["process"]["pid"], joined["process"]["tid"]);
}

/// No program runs in it, and its parent is `kthreadd`.
fn assert_is_kernel_thread(pid: u64) {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        // A worker with nothing to do may be gone by now.
        return;
    };
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    assert_eq!(rest.split(' ').nth(1), Some("2"), "parent in {stat}");
}

/// Somebody kills the socket while its owner is in connect: the owner is named.
fn killed_by_ss(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_STALL, |_| {
        thread::scope(|scope| {
            let connecting = thread::Builder::new()
                .name("connecting".to_owned())
                .spawn_scoped(scope, || attempt_on(&tcp(remote), remote))
                .unwrap();
            wait_for_syn_sent();
            kill("dport", ports::SILENT);
            connecting.join().unwrap()
        })
    });
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::ECONNABORTED);
    assert_eq!(scene.value.comm, "connecting");
    live.expect(&scene, &[Expected::new("aborted", &scene.value)]);
}

/// A socket under repair is connected without a packet (`tcp_connect`): what a
/// restored container's sockets do.
fn repair(host: IpAddr) {
    let local: IpAddr = if host.is_ipv4() {
        FAR_LOCAL_V4.into()
    } else {
        FAR_LOCAL_V6.into()
    };
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(remote);
        setsockopt(&socket, TcpRepair, &1).unwrap();
        socket.bind(&SocketAddr::new(local, 45_678).into()).unwrap();
        attempt_on(&socket, remote)
    });
    let expected = Expected {
        syn_sent: 0,
        reply: Reply::None,
        ..Expected::established(&scene.value)
    };
    live.expect(&scene, &[expected]);
}
