//! Attempts that do not come from a plain connect, or continue without one: `io_uring`, TCP repair,
//! and sockets that another process kills.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::{self, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use conntrace_testnet::{self, FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, HostTest, Live, Uring, attempt_on, is_root, live_test,
    run, tcp, unless, wait_for_syn_sent,
};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt::TcpRepair},
};
use socket2::Socket;

/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = ms(200);
/// Wait that exceeds the tracer's patience, so that the attempt counts as timed out.
const OVER_PATIENCE: Duration = ms(300);
/// Time before the first SYN retransmission at 1 s, less a margin for an early timer.
const BEFORE_STALL: Duration = ms(990);

pub(crate) fn main() -> ExitCode {
    let mut tests = Vec::new();
    let (uring, kill) = (lacks_uring(), lacks_kill());
    let hosts: [(&str, IpAddr); 2] = [("v4", FAR_V4.into()), ("v6", FAR_V6.into())];
    for (name, host) in hosts {
        let mut add = |lacks: Option<&str>, scenarios: &[HostTest]| {
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
        add(kill, &[("killed_by_ss", killed_by_ss)]);
        add(None, &[("repair", repair)]);
    }
    run(tests)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn lacks_uring() -> Option<&'static str> {
    let refused = Uring::new().is_err();
    refused.then_some("needs io_uring (CONFIG_IO_URING, kernel.io_uring_disabled=0)")
}

/// Tries `ss -K` on a listener, and returns the reason if it cannot kill sockets.
fn lacks_kill() -> Option<&'static str> {
    if !is_root() {
        return None;
    }
    let killed = conntrace_testnet::run("kill", |_| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        kill("sport", listener.local_addr().unwrap().port());
        let sockets = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        sockets.lines().count() == 1
    });
    let killed = killed.unwrap();
    (!killed).then_some("needs `ss -K` of iproute2 and CONFIG_INET_DIAG_DESTROY")
}

/// Kills every TCP socket with that port in this thread's network namespace.
fn kill(which: &str, port: u16) {
    // If ss is not installed nothing is killed, and the caller finds out.
    let _ = Command::new("ss")
        .args(["-Kat", which, "=", &format!(":{port}")])
        .stdout(Stdio::null())
        .status();
}

/// Expects one line for an attempt that the far end refuses.
fn expect_refused(play: impl FnOnce(&Socket, SocketAddr) -> Attempted + Send, host: IpAddr) {
    let remote = SocketAddr::from((host, ports::RESETS));
    let live = Live::get();
    let scene = live.play(|_| play(&tcp(remote), remote));
    live.expect(&scene, &[ExpectedLine::refused(&scene.value)]);
}

fn uring_established(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(remote);
        Uring::new().unwrap().connect(&socket, remote)
    });
    live.expect(&scene, &[ExpectedLine::established(&scene.value)]);
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

/// A kernel thread of this process calls connect. The line has this process's pid and the kernel
/// thread's tid.
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
    // All other fields are those of any thread's connect.
    let attempted = Attempted {
        tid,
        comm: of["comm"].as_str().unwrap().to_owned(),
        ..scene.value
    };
    ExpectedLine::refused(&attempted).assert_is(line, scene.netns);
}

/// The timeout cancels the request, but the socket stays in `SYN_SENT` until it is closed.
fn uring_linked_timeout(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |_| {
        let mut ring = Uring::new().unwrap();
        ring.connect_within(OVER_PATIENCE, &tcp(remote), remote)
    });
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::ECANCELED);
    live.expect(&scene, &[ExpectedLine::gave_up("timed_out", &scene.value)]);
}

/// Another process kills the socket while its owner is in connect, and the line names the owner.
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
    live.expect(&scene, &[ExpectedLine::new("aborted", &scene.value)]);
}

/// A socket in repair mode connects without a packet (`tcp_connect`), as the sockets of a restored
/// container do.
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
    let expected = ExpectedLine {
        syn_sent: 0,
        reply: ExpectedReply::None,
        ..ExpectedLine::established(&scene.value)
    };
    live.expect(&scene, &[expected]);
}
