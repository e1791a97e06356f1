//! Sockets that make several attempts: data of one must not appear in the next.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, NEAR_V4, Testnet, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, HostTest, Live, attempt_on, live_test, run, tcp,
};
use nix::{
    errno::Errno,
    libc::MSG_ERRQUEUE,
    sys::socket::{setsockopt, sockopt::Ipv6RecvErr},
};
use socket2::Socket;

/// Maximum number of plays of a scenario that depends on the kernel's memory allocation.
const TRIES: usize = 3;
/// Upper bound for every attempt in this group.
const LONG: Duration = Duration::from_secs(10);
/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = Duration::from_millis(200);
/// Wait that exceeds the tracer's patience, so that the attempt counts as timed out.
const OVER_PATIENCE: Duration = Duration::from_millis(300);
/// Upper bound for an answer to the first SYN, below the 1 s until it is retransmitted.
const PROMPT: Duration = Duration::from_millis(900);

pub(crate) fn main() -> ExitCode {
    let mut tests = vec![
        live_test("icmp_read_while_connecting", icmp_read_while_connecting),
        live_test("icmp_v6_recverr_then_reset", icmp_v6_recverr_then_reset),
        live_test("icmp_then_other_icmp", icmp_then_other_icmp),
    ];
    let hosts: [(&str, IpAddr); 3] = [
        ("v4", FAR_V4.into()),
        ("v6", FAR_V6.into()),
        ("mapped", FAR_V4.to_ipv6_mapped().into()),
    ];
    for (name, host) in hosts {
        let scenarios: [HostTest; 11] = [
            ("refused_twice", refused_twice),
            ("refused_then_established", refused_then_established),
            (
                "refused_polled_then_established",
                refused_polled_then_established,
            ),
            ("refused_then_timed_out", refused_then_timed_out),
            ("icmp_then_reset", icmp_then_reset),
            ("icmp_then_established", icmp_then_established),
            ("icmp_then_timed_out", icmp_then_timed_out),
            ("icmp_then_cancelled", icmp_then_cancelled),
            ("refused_then_exhausted", refused_then_exhausted),
            ("icmp_then_exhausted", icmp_then_exhausted),
            ("abandoned_then_established", abandoned_then_established),
        ];
        for (scenario, play) in scenarios {
            tests.push(live_test(&format!("{scenario}_{name}"), move || play(host)));
        }
    }
    tests.push(live_test(
        "stalled_then_established",
        stalled_then_established,
    ));
    run(tests)
}

/// Creates a socket for this host, and the addresses that it connects to.
fn socket_to<const N: usize>(host: IpAddr, ports: [u16; N]) -> (Socket, [SocketAddr; N]) {
    let remotes = ports.map(|port| SocketAddr::new(host, port));
    (tcp(SocketAddr::new(host, 0)), remotes)
}

/// Makes blocking attempts on one socket, one after the other.
fn attempts<const N: usize>(host: IpAddr, ports: [u16; N]) -> [Attempted; N] {
    let (socket, remotes) = socket_to(host, ports);
    remotes.map(|remote| attempt_on(&socket, remote))
}

fn refused_twice(host: IpAddr) {
    let live = Live::get();
    let scene = live.play(|_| attempts(host, [ports::RESETS; 2]));
    live.expect(&scene, &scene.value.each_ref().map(ExpectedLine::refused));
}

fn refused_then_established(host: IpAddr) {
    let live = Live::get();
    let scene = live.play(|_| attempts(host, [ports::RESETS, ports::ACCEPTS]));
    let [first, second] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::refused(first),
            ExpectedLine::established(second),
        ],
    );
}

/// After poll has reported a refusal, Linux answers the next connect with ECONNABORTED, which is no
/// attempt.
fn refused_polled_then_established(host: IpAddr) {
    let live = Live::get();
    let scene = live.play(|_| {
        let (socket, [resets, accepts]) = socket_to(host, [ports::RESETS, ports::ACCEPTS]);
        let first = Attempted::within(LONG, &socket, resets);
        let none = attempt_on(&socket, accepts);
        assert_eq!(Errno::from_raw(none.errno), Errno::ECONNABORTED);
        [first, attempt_on(&socket, accepts)]
    });
    let [first, second] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::refused(first),
            ExpectedLine::established(second),
        ],
    );
}

fn refused_then_timed_out(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        let (socket, [resets, silent]) = socket_to(host, [ports::RESETS, ports::SILENT]);
        [
            attempt_on(&socket, resets),
            give_up(socket, silent, OVER_PATIENCE),
        ]
    });
    let [first, second] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::refused(first),
            ExpectedLine::gave_up("timed_out", second),
        ],
    );
}

fn icmp_then_reset(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        attempts(host, [ports::HOST_UNREACHABLE, ports::RESETS])
    });
    let [first, second] = scene.value.each_ref();
    live.expect(&scene, &[unreachable(first), ExpectedLine::refused(second)]);
}

fn icmp_then_established(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        attempts(host, [ports::HOST_UNREACHABLE, ports::ACCEPTS])
    });
    let [first, second] = scene.value.each_ref();
    live.expect(
        &scene,
        &[unreachable(first), ExpectedLine::established(second)],
    );
}

/// Both attempts leave an entry in the error queue, and the line must show the second one's.
fn icmp_then_other_icmp() {
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        attempts(
            FAR_V4.into(),
            [
                ports::HOST_UNREACHABLE,
                ports::PORT_UNREACHABLE,
                ports::ADMIN_PROHIBITED,
            ],
        )
    });
    let [first, second, third] = scene.value.each_ref();
    let refused = ExpectedLine {
        reply: ExpectedReply::Icmp(3, 3),
        ..ExpectedLine::refused(second)
    };
    let prohibited = ExpectedLine {
        reply: ExpectedReply::Icmp(3, 13),
        ..unreachable(third)
    };
    live.expect(&scene, &[unreachable(first), refused, prohibited]);
}

fn icmp_v6_recverr_then_reset() {
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        let far = [ports::HOST_UNREACHABLE, ports::RESETS];
        let (socket, remotes) = socket_to(FAR_V6.into(), far);
        setsockopt(&socket, Ipv6RecvErr, &true).unwrap();
        remotes.map(|remote| attempt_on(&socket, remote))
    });
    let [first, second] = scene.value.each_ref();
    let unreachable = ExpectedLine {
        reply: ExpectedReply::Icmp(1, 3),
        ..unreachable(first)
    };
    live.expect(&scene, &[unreachable, ExpectedLine::refused(second)]);
}

fn icmp_then_timed_out(host: IpAddr) {
    icmp_then_given_up(host, ..PROMPT, OVER_PATIENCE, "timed_out");
}

fn icmp_then_cancelled(host: IpAddr) {
    icmp_then_given_up(host, ..PATIENCE, Duration::ZERO, "cancelled");
}

fn icmp_then_given_up(
    host: IpAddr,
    lasting: std::ops::RangeTo<Duration>,
    after: Duration,
    label: &'static str,
) {
    let live = Live::get();
    let scene = live.play_lasting(lasting, |_| {
        let far = [ports::HOST_UNREACHABLE, ports::SILENT];
        let (socket, [unreachable, silent]) = socket_to(host, far);
        [
            attempt_on(&socket, unreachable),
            give_up(socket, silent, after),
        ]
    });
    let [first, second] = scene.value.each_ref();
    live.expect(
        &scene,
        &[unreachable(first), ExpectedLine::gave_up(label, second)],
    );
}

/// Connects, sleeps and closes. Poll would return at once, because of the old entry in the error
/// queue.
fn give_up(socket: Socket, remote: SocketAddr, after: Duration) -> Attempted {
    let attempted = Attempted::begin(&socket, remote);
    assert_eq!(Errno::from_raw(attempted.errno), Errno::EINPROGRESS);
    thread::sleep(after);
    drop(socket);
    attempted
}

fn refused_then_exhausted(host: IpAddr) {
    then_exhausted(host, ports::RESETS, ExpectedLine::refused);
}

fn icmp_then_exhausted(host: IpAddr) {
    then_exhausted(host, ports::HOST_UNREACHABLE, unreachable);
}

/// The socket still holds the first attempt's port when the second finds no free one.
fn then_exhausted(host: IpAddr, first_port: u16, first: fn(&Attempted) -> ExpectedLine) {
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |testnet: &Testnet| {
        testnet
            .set_sysctl("net/ipv4/ip_local_port_range", "40000 40001")
            .unwrap();
        let (socket, [fails, accepts]) = socket_to(host, [first_port, ports::ACCEPTS]);
        let failed = attempt_on(&socket, fails);
        let holders = [tcp(accepts), tcp(accepts)];
        let [one, other] = holders.each_ref().map(|holder| attempt_on(holder, accepts));
        [failed, one, other, attempt_on(&socket, accepts)]
    });
    let [failed, one, other, exhausted] = scene.value.each_ref();
    assert_eq!(Errno::from_raw(exhausted.errno), Errno::EADDRNOTAVAIL);
    live.expect(
        &scene,
        &[
            first(failed),
            ExpectedLine::established(one),
            ExpectedLine::established(other),
            ExpectedLine {
                syn_sent: 0,
                has_port: false,
                ..ExpectedLine::new("port_exhausted", exhausted)
            },
        ],
    );
}

fn abandoned_then_established(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        let (socket, [silent, accepts]) = socket_to(host, [ports::SILENT, ports::ACCEPTS]);
        let abandoned = Attempted::begin(&socket, silent);
        Attempted::abandon(&socket);
        [abandoned, Attempted::within(LONG, &socket, accepts)]
    });
    let [first, second] = scene.value.each_ref();
    live.expect(
        &scene,
        &[
            ExpectedLine::gave_up("cancelled", first),
            ExpectedLine::established(second),
        ],
    );
}

/// SYNs are counted separately for each attempt.
fn stalled_then_established() {
    let live = Live::get();
    let scene = live.play_lasting(..Duration::from_millis(1990), |_| {
        let far = [ports::SILENT, ports::ACCEPTS, ports::RESETS];
        let (socket, [silent, accepts, resets]) = socket_to(FAR_V4.into(), far);
        let stalled = Attempted::begin(&socket, silent);
        thread::sleep(Duration::from_millis(1200));
        Attempted::abandon(&socket);
        socket.set_nonblocking(false).unwrap();
        let refused = attempt_on(&socket, resets);
        [stalled, refused, attempt_on(&socket, accepts)]
    });
    let [stalled, refused, established] = scene.value.each_ref();
    let stalled = ExpectedLine {
        syn_sent: 2,
        syn_retransmitted: 1,
        ..ExpectedLine::gave_up("timed_out", stalled)
    };
    let lines = live.expect(
        &scene,
        &[
            stalled.clone(),
            ExpectedLine::refused(refused),
            ExpectedLine::established(established),
        ],
    );
    let stall = live.only_stall(&scene);
    stalled.assert_stall(&stall, &lines[0], ExpectedReply::None);
}

/// The application reads the first attempt's queue entry during the second. If the kernel reuses
/// its memory, the second entry looks like the first, and the ICMP type is unknown. That depends on
/// chance, so one of several tries must report the type.
fn icmp_read_while_connecting() {
    let is_told = (0..TRIES).any(|_| is_told_what_answered());
    assert!(is_told, "not in {TRIES} tries");
}

fn is_told_what_answered() -> bool {
    let near = SocketAddr::from((NEAR_V4, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|_| {
        let (socket, [far]) = socket_to(FAR_V4.into(), [ports::HOST_UNREACHABLE]);
        let first = attempt_on(&socket, far);
        Attempted::begin(&socket, near);
        socket.recv_with_flags(&mut [], MSG_ERRQUEUE).unwrap();
        socket.set_nonblocking(false).unwrap();
        // A blocking connect waits for the attempt that is under way.
        [first, attempt_on(&socket, near)]
    });
    let [first, second] = scene.value.each_ref();
    let lines = live.endings(&scene, 2);
    let is_told = !lines[1]["reply"]["icmp_type"].is_null();
    let reply = match is_told {
        true => ExpectedReply::Local(3, 1),
        false => ExpectedReply::LocalUnknown,
    };
    let neighbour = ExpectedLine {
        reply,
        ..unreachable(second)
    };
    unreachable(first).assert_is(&lines[0], scene.netns);
    let neighbour = neighbour.waiting_for_neighbour(&lines[1]);
    neighbour.assert_is(&lines[1], scene.netns);
    is_told
}

/// Expects the far router's host unreachable. For IPv6 the kernel keeps only the errno.
fn unreachable(attempted: &Attempted) -> ExpectedLine {
    assert_eq!(Errno::from_raw(attempted.errno), Errno::EHOSTUNREACH);
    let is_v6 = attempted.remote.ip().to_canonical().is_ipv6();
    ExpectedLine {
        reply: if is_v6 {
            ExpectedReply::Icmp6(1, 3)
        } else {
            ExpectedReply::Icmp(3, 1)
        },
        ..ExpectedLine::new("unreachable", attempted)
    }
}
