//! MPTCP connections: one line for each TCP subflow, and none for the MPTCP socket.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, HostTest, Live, assert_has, attempt_on, lacks_mptcp,
    live_test, mptcp, nft, own_netns, run, unless, with_nft,
};
use nix::errno::Errno;
use serde_json::{Value, json};
use socket2::Socket;

/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = Duration::from_millis(200);
/// Wait that exceeds the tracer's patience, so that the attempt counts as timed out.
const OVER_PATIENCE: Duration = Duration::from_millis(300);
/// Time before the first SYN retransmission at 1 s, less a margin for an early timer.
const BEFORE_STALL: Duration = Duration::from_millis(990);
/// Time allowed for the server's side to try to join as well.
const SETTLE: Duration = Duration::from_millis(300);
/// Second address of `lo`.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

pub(crate) fn main() -> ExitCode {
    let mut tests = Vec::new();
    let hosts: [(&str, IpAddr); 2] = [("v4", FAR_V4.into()), ("v6", FAR_V6.into())];
    let lacks = lacks_mptcp();
    for (name, host) in hosts {
        let scenarios: [HostTest; 5] = [
            ("fallback", fallback),
            ("refused", refused),
            ("timed_out", timed_out),
            ("given_up", given_up),
            ("cancelled", cancelled),
        ];
        for (scenario, play) in scenarios {
            let trial = live_test(&format!("{scenario}_{name}"), move || play(host));
            tests.push(unless(lacks, trial));
        }
    }
    let both_ends = live_test("both_ends", both_ends);
    let connects = live_test("kernel_thread_connects", kernel_thread_connects);
    let refused = with_nft("kernel_thread_is_refused", kernel_thread_is_refused);
    tests.push(unless(lacks, both_ends));
    let lacks = lacks.or(lacks_ip());
    tests.extend([connects, refused].map(|trial| unless(lacks, trial)));
    run(tests)
}

fn lacks_ip() -> Option<&'static str> {
    let ip = Command::new("ip")
        .args(["mptcp", "limits", "show"])
        .output();
    let works = ip.is_ok_and(|it| it.status.success());
    (!works).then_some("needs `ip mptcp` of iproute2")
}

/// The far end does not support MPTCP.
fn fallback(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|_| attempt_on(&mptcp(remote), remote));
    live.expect(&scene, &[ExpectedLine::established(&scene.value)]);
}

fn refused(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::RESETS));
    let live = Live::get();
    let scene = live.play(|_| attempt_on(&mptcp(remote), remote));
    live.expect(&scene, &[ExpectedLine::refused(&scene.value)]);
}

fn timed_out(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play(|testnet| {
        testnet.set_sysctl("net/ipv4/tcp_syn_retries", "1").unwrap();
        // Linux 6.5 and later add these retransmissions to `tcp_syn_retries`.
        if let Err(error) = testnet.set_sysctl("net/ipv4/tcp_syn_linear_timeouts", "0") {
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        attempt_on(&mptcp(remote), remote)
    });
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::ETIMEDOUT);
    let expected = ExpectedLine {
        syn_sent: 2,
        syn_retransmitted: 1,
        timeout_by: Some("kernel"),
        ..ExpectedLine::new("timed_out", &scene.value)
    };
    let lines = live.expect(&scene, std::slice::from_ref(&expected));
    let stall = live.only_stall(&scene);
    expected.assert_stall(&stall, &lines[0], ExpectedReply::None);
}

fn given_up(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |_| {
        Attempted::within(OVER_PATIENCE, &mptcp(remote), remote)
    });
    live.expect(&scene, &[ExpectedLine::gave_up("timed_out", &scene.value)]);
}

fn cancelled(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| Attempted::begin(&mptcp(remote), remote));
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}

/// Opens an MPTCP listener at an address of this host.
fn mptcp_listener(host: IpAddr) -> (Socket, SocketAddr) {
    let listener = mptcp(SocketAddr::new(host, 0));
    listener.bind(&SocketAddr::new(host, 0).into()).unwrap();
    listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    (listener, address)
}

/// An MPTCP connection with one subflow has one line; the server's side has none.
fn both_ends() {
    for host in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let live = Live::get();
        let scene = live.play(|_| {
            let (listener, remote) = mptcp_listener(host);
            let socket = mptcp(remote);
            let attempted = attempt_on(&socket, remote);
            listener.accept().unwrap();
            attempted
        });
        live.expect(&scene, &[ExpectedLine::established(&scene.value)]);
    }
}

/// Configures MPTCP in this thread's network namespace.
fn ip_mptcp(arguments: &str) {
    let arguments = arguments.split(' ');
    let status = Command::new("ip").arg("mptcp").args(arguments).status();
    assert!(status.unwrap().success());
}

/// Adds a local address, from which MPTCP's path manager connects. It does so in a work item on a
/// kernel thread, and no process owns the socket. Checks the parts of the line that do not depend
/// on its ending, and returns it.
fn join(live: &Live, prepare: fn(SocketAddr)) -> Value {
    let mut endings = 0;
    let scene = live.play(|_| {
        ip_mptcp("limits set subflow 2");
        ip_mptcp(&format!("endpoint add {OTHER} subflow"));
        let (listener, remote) = mptcp_listener(Ipv4Addr::LOCALHOST.into());
        prepare(remote);
        let socket = mptcp(remote);
        let attempted = attempt_on(&socket, remote);
        let (accepted, _) = listener.accept().unwrap();
        // MPTCP adds subflows only after it has received data.
        for [from, to] in [[&socket, &accepted], [&accepted, &socket]] {
            (&*from).write_all(b"data").unwrap();
            (&*to).read_exact(&mut [0; 4]).unwrap();
        }
        live.tracer().wait_for_endings(own_netns(), 2);
        thread::sleep(SETTLE);
        let netns = own_netns();
        let is_ending = |line: &Value| line["type"] == "outcome" && line["netns"] == netns;
        endings = live.tracer().lines(is_ending).len();
        attempted
    });
    let lines = live.endings(&scene, endings);
    ExpectedLine::established(&scene.value).assert_is(&lines[0], scene.netns);
    let remote = scene.value.remote;
    // The server's side also has the other address and may connect from it, but the client's port
    // has no listener.
    let (mut joined, by_server): (Vec<_>, Vec<_>) = lines[1..]
        .iter()
        .cloned()
        .partition(|line| line["remote"]["port"] == remote.port());
    assert!(joined.len() == 1 && by_server.len() <= 1, "{lines:#?}");
    let joined = joined.remove(0);
    assert_has(
        &joined,
        &json!({
            "seen": "whole",
            "process": { "exe": null, "uid": 0 },
            "container": null,
            "local": { "addr": OTHER },
            "remote": { "addr": remote.ip(), "port": remote.port() },
            "syn": { "sent": 1, "retransmitted": 0 },
        }),
    );
    assert_is_kernel_thread(joined["process"]["pid"].as_u64().unwrap());
    let comm = joined["process"]["comm"].as_str().unwrap();
    assert!(comm.starts_with("kworker/"), "{joined:#}");
    assert_eq!(joined["process"]["pid"], joined["process"]["tid"]);
    joined
}

fn kernel_thread_connects() {
    let line = join(&Live::get(), |_| {});
    let established =
        json!({ "label": "established", "errno": null, "reply": { "kind": "syn_ack" } });
    assert_has(&line, &established);
}

fn kernel_thread_is_refused() {
    let line = join(&Live::get(), |remote| {
        let rule = format!("ip saddr {OTHER} reject with tcp reset");
        nft("output", remote, &rule);
    });
    let refused =
        json!({ "label": "refused", "errno": "ECONNREFUSED", "reply": { "kind": "local" } });
    assert_has(&line, &refused);
}

/// Checks that a pid is a kernel thread: it has no program, and its parent is `kthreadd`.
fn assert_is_kernel_thread(pid: u64) {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        // An idle kernel worker may have exited by now.
        return;
    };
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    assert_eq!(rest.split(' ').nth(1), Some("2"), "parent in {stat}");
}
