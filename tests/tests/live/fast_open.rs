//! Attempts with TCP Fast Open: data in the SYN, and a connect that sends none until there is data.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process::ExitCode,
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, Testnet, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, HostTest, Live, PlayedScenario, attempt_on, live_test,
    run, tcp,
};
use nix::{
    errno::Errno,
    libc::MSG_FASTOPEN,
    sys::socket::{setsockopt, sockopt::TcpFastOpenConnect},
};
use socket2::Socket;

/// Value of `net.ipv4.tcp_fastopen` that enables client and server, for every listener
/// (`TFO_SERVER_WO_SOCKOPT1`).
const WITH_COOKIES: &str = "1027";
/// Value that lets a client send data in the SYN without a cookie (`TFO_CLIENT_NO_COOKIE`).
const WITHOUT_COOKIES: &str = "5";
/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = Duration::from_millis(200);
/// Wait that exceeds the tracer's patience, so that the attempt counts as timed out.
const OVER_PATIENCE: Duration = Duration::from_millis(300);
/// Time before the first SYN retransmission at 1 s, less a margin for an early timer.
const BEFORE_STALL: Duration = Duration::from_millis(990);
/// Port on which no testnet has a listener.
const CLOSED_PORT: u16 = 7777;
const DATA: &[u8] = b"hello";

pub(crate) fn main() -> ExitCode {
    let mut tests = Vec::new();
    let own: [(&str, IpAddr, IpAddr); 2] = [
        ("v4", Ipv4Addr::LOCALHOST.into(), FAR_V4.into()),
        ("v6", Ipv6Addr::LOCALHOST.into(), FAR_V6.into()),
    ];
    for (name, own, far) in own {
        let at_own: [HostTest; 4] = [
            ("sent_with_cookie", sent_with_cookie),
            ("deferred_with_cookie", deferred_with_cookie),
            ("sent_refused", sent_refused),
            ("deferred_refused", deferred_refused),
        ];
        let at_far: [HostTest; 6] = [
            ("without_cookie", without_cookie),
            ("never_written_under_patience", never_written_under_patience),
            ("never_written_over_patience", never_written_over_patience),
            ("written_then_given_up", written_then_given_up),
            ("written_then_timed_out", written_then_timed_out),
            ("written_then_unreachable", written_then_unreachable),
        ];
        for (host, scenarios) in [(own, &at_own[..]), (far, &at_far[..])] {
            for &(scenario, play) in scenarios {
                tests.push(live_test(&format!("{scenario}_{name}"), move || play(host)));
            }
        }
    }
    run(tests)
}

fn set_fast_open(testnet: &Testnet, value: &str) {
    testnet.set_sysctl("net/ipv4/tcp_fastopen", value).unwrap();
}

/// `sendto` with `MSG_FASTOPEN`: connects and writes.
fn send(socket: &Socket, remote: SocketAddr) -> Attempted {
    let sent = socket.send_to_with_flags(DATA, &remote.into(), MSG_FASTOPEN);
    attempted(socket, remote, sent.err().as_ref())
}

/// `connect` after `TCP_FASTOPEN_CONNECT`: returns at once, no SYN leaves.
fn defer(socket: &Socket, remote: SocketAddr) -> Attempted {
    setsockopt(socket, TcpFastOpenConnect, &true).unwrap();
    let attempted = attempt_on(socket, remote);
    assert_eq!(attempted.errno, 0);
    attempted
}

/// Writes the data that lets the SYN leave.
fn write(mut socket: &Socket, remote: SocketAddr) -> Attempted {
    let written = socket.write(DATA);
    attempted(socket, remote, written.err().as_ref())
}

fn attempted(socket: &Socket, remote: SocketAddr, error: Option<&std::io::Error>) -> Attempted {
    let errno = error.map_or(0, |error| error.raw_os_error().unwrap());
    Attempted::on(socket, remote, errno)
}

/// Gets a cookie from the host's listener; returns the listener and the attempt.
fn granted(testnet: &Testnet, host: IpAddr) -> (TcpListener, Attempted) {
    set_fast_open(testnet, WITH_COOKIES);
    let listener = TcpListener::bind((host, 0)).unwrap();
    let remote = listener.local_addr().unwrap();
    let socket = tcp(remote);
    let asked = send(&socket, remote);
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.read_exact(&mut [0; DATA.len()]).unwrap();
    (listener, asked)
}

/// Connects to the host's listener, which must have the data with the SYN.
fn with_cookie(host: IpAddr, connect: fn(&Socket, SocketAddr) -> Attempted) {
    let live = Live::get();
    let scene = live.play(|testnet| {
        let (listener, asked) = granted(testnet, host);
        let remote = listener.local_addr().unwrap();
        let socket = tcp(remote);
        let attempted = connect(&socket, remote);
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.read_exact(&mut [0; DATA.len()]).unwrap();
        assert_eq!(tfo_accepted(), 1, "data came in a SYN");
        [asked, attempted]
    });
    live.expect(
        &scene,
        &scene.value.each_ref().map(ExpectedLine::established),
    );
}

/// Reads `TCPFastOpenPassive`: SYNs with data that this namespace's listeners accepted.
fn tfo_accepted() -> u64 {
    let counters = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs
        .find(|(name, _)| *name == "TCPFastOpenPassive")
        .unwrap();
    value.parse().unwrap()
}

fn sent_with_cookie(host: IpAddr) {
    with_cookie(host, send);
}

fn deferred_with_cookie(host: IpAddr) {
    with_cookie(host, |socket, remote| {
        defer(socket, remote);
        write(socket, remote)
    });
}

/// A cookie is valid for all ports of a host.
fn refused(host: IpAddr, connect: fn(&Socket, SocketAddr) -> Attempted) {
    let live = Live::get();
    let scene = live.play(|testnet| {
        let (_listener, asked) = granted(testnet, host);
        let remote = SocketAddr::new(host, CLOSED_PORT);
        [asked, connect(&tcp(remote), remote)]
    });
    let [asked, refused] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::established(asked),
            ExpectedLine::refused(refused),
        ],
    );
}

fn sent_refused(host: IpAddr) {
    refused(host, send);
}

fn deferred_refused(host: IpAddr) {
    refused(host, |socket, remote| {
        defer(socket, remote);
        write(socket, remote)
    });
}

/// The far end grants no cookie, so both ways are a usual connect.
fn without_cookie(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|testnet| {
        set_fast_open(testnet, WITH_COOKIES);
        let (sends, connects) = (tcp(remote), tcp(remote));
        [send(&sends, remote), defer(&connects, remote)]
    });
    live.expect(
        &scene,
        &scene.value.each_ref().map(ExpectedLine::established),
    );
}

/// An attempt without data sends no SYN, so silence is no sign of a network failure.
fn never_written(
    live: &Live,
    host: IpAddr,
    lasting: impl std::ops::RangeBounds<Duration>,
    after: Duration,
) -> PlayedScenario<Attempted> {
    let remote = SocketAddr::from((host, ports::ACCEPTS));
    live.play_lasting(lasting, |testnet| {
        set_fast_open(testnet, WITHOUT_COOKIES);
        let socket = tcp(remote);
        let deferred = defer(&socket, remote);
        thread::sleep(after);
        deferred
    })
}

fn never_written_under_patience(host: IpAddr) {
    let live = Live::get();
    let scene = never_written(&live, host, ..PATIENCE, Duration::ZERO);
    let expected = ExpectedLine {
        syn_sent: 0,
        ..ExpectedLine::gave_up("cancelled", &scene.value)
    };
    live.expect(&scene, &[expected]);
}

/// The rule for timeouts uses the attempt's duration, even if no SYN was sent.
fn never_written_over_patience(host: IpAddr) {
    let live = Live::get();
    let scene = never_written(&live, host, PATIENCE.., OVER_PATIENCE);
    let expected = ExpectedLine {
        syn_sent: 0,
        ..ExpectedLine::gave_up("timed_out", &scene.value)
    };
    live.expect(&scene, &[expected]);
}

/// Writes the data, with which the SYN leaves.
fn written(socket: &Socket, remote: SocketAddr) -> Attempted {
    let deferred = defer(socket, remote);
    socket.set_nonblocking(true).unwrap();
    match (&*socket).write(DATA) {
        // The kernel accepts data for the SYN at once.
        Ok(len) => assert_eq!(len, DATA.len()),
        Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::EINPROGRESS as i32)),
    }
    deferred
}

fn written_then_given_up(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |testnet| {
        set_fast_open(testnet, WITHOUT_COOKIES);
        let socket = tcp(remote);
        let attempted = written(&socket, remote);
        thread::sleep(OVER_PATIENCE);
        attempted
    });
    live.expect(&scene, &[ExpectedLine::gave_up("timed_out", &scene.value)]);
}

/// A blocking write waits until the kernel gives up.
fn written_then_timed_out(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::SILENT));
    let live = Live::get();
    let scene = live.play(|testnet| {
        set_fast_open(testnet, WITHOUT_COOKIES);
        let socket = tcp(remote);
        let timeout = Duration::from_millis(1500);
        socket.set_tcp_user_timeout(Some(timeout)).unwrap();
        told_by_read(&socket, remote)
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
    expected.assert_stall(&stall, lines.first().unwrap(), ExpectedReply::None);
}

/// Connects, writes and reads; returns the errno of the read.
fn told_by_read(socket: &Socket, remote: SocketAddr) -> Attempted {
    defer(socket, remote);
    let error = match (&*socket).write(DATA) {
        Ok(_) => (&*socket).read(&mut [0]).unwrap_err(),
        Err(error) => error,
    };
    assert_ne!(error.kind(), ErrorKind::WouldBlock);
    attempted(socket, remote, Some(&error))
}

fn written_then_unreachable(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::HOST_UNREACHABLE));
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_STALL, |testnet| {
        set_fast_open(testnet, WITHOUT_COOKIES);
        told_by_read(&tcp(remote), remote)
    });
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::EHOSTUNREACH);
    let reply = if host.is_ipv6() {
        ExpectedReply::Icmp6(1, 3)
    } else {
        ExpectedReply::Icmp(3, 1)
    };
    let expected = ExpectedLine {
        reply,
        ..ExpectedLine::new("unreachable", &scene.value)
    };
    live.expect(&scene, &[expected]);
}
