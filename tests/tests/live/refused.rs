//! Attempts that the peer, or a firewall on its behalf, refuses.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, Live, PlayedScenario, Unless, attempt, attempt_on,
    is_covered, live_test, nft, run, tcp, with_nft,
};
use libtest_mimic::Trial;
use nix::{
    errno::Errno,
    libc::MSG_ERRQUEUE,
    sys::socket::{
        setsockopt,
        sockopt::{Ipv4RecvErr, Ipv6RecvErr},
    },
};
use socket2::Socket;

/// Upper bound for every attempt in this group.
const LONG: Duration = Duration::from_secs(10);
/// Time between an immediate answer and one to the SYN retransmitted after 1 s.
const PROMPT: Duration = Duration::from_millis(900);
/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = Duration::from_millis(200);
/// Port on which no testnet has a listener.
const LOOPBACK_PORT: u16 = 7777;
const LOOPBACK_V4: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, LOOPBACK_PORT);
const LOOPBACK_V6: (Ipv6Addr, u16) = (Ipv6Addr::LOCALHOST, LOOPBACK_PORT);

pub(crate) fn main() -> ExitCode {
    let mut tests = port_unreachable();
    tests.extend(resets());
    tests.extend(rejections());
    run(tests)
}

fn port_unreachable() -> Vec<Trial> {
    vec![
        live_test("port_unreachable_v4", || {
            unreachable_port(FAR_V4, |_| {}, ExpectedReply::Icmp(3, 3));
        }),
        live_test("port_unreachable_mapped", || {
            unreachable_port(FAR_V4.to_ipv6_mapped(), |_| {}, ExpectedReply::Icmp(3, 3));
        }),
        live_test("port_unreachable_v4_recverr", || {
            unreachable_port(FAR_V4, keep_errors_v4, ExpectedReply::Icmp(3, 3));
        }),
        // Without IPV6_RECVERR the kernel queues nothing.
        live_test("port_unreachable_v6", || {
            unreachable_port(FAR_V6, |_| {}, ExpectedReply::Icmp6(1, 4));
        }),
        live_test("port_unreachable_v6_recverr", || {
            unreachable_port(FAR_V6, keep_errors_v6, ExpectedReply::Icmp(1, 4));
        }),
    ]
}

fn resets() -> Vec<Trial> {
    let mut tests = Vec::new();
    for (name, remote) in [
        ("v4", SocketAddr::from((FAR_V4, ports::RESETS))),
        ("v6", (FAR_V6, ports::RESETS).into()),
        ("mapped", (FAR_V4.to_ipv6_mapped(), ports::RESETS).into()),
        ("loopback_v4", LOOPBACK_V4.into()),
        ("loopback_v6", LOOPBACK_V6.into()),
        (
            "loopback_mapped",
            (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), LOOPBACK_PORT).into(),
        ),
    ] {
        tests.push(live_test(&format!("reset_{name}"), move || reset(remote)));
        tests.push(live_test(&format!("reset_{name}_polled"), move || {
            reset_polled(remote);
        }));
    }
    tests
}

fn rejections() -> Vec<Trial> {
    vec![
        with_nft("rejected_at_input_v4", || {
            rejected_by_retry(LOOPBACK_V4, AT_INPUT, |_| {}, ExpectedReply::Local(3, 3));
        }),
        with_nft("rejected_at_input_v6_recverr", || {
            rejected_by_retry(
                LOOPBACK_V6,
                AT_INPUT,
                keep_errors_v6,
                ExpectedReply::Local(1, 4),
            );
        }),
        with_nft("rejected_at_output_v4", || {
            rejected_at_output((FAR_V4, ports::SILENT), |_| {}, ExpectedReply::Local(3, 3));
        }),
        with_nft("rejected_at_output_v6_recverr", || {
            rejected_at_output(
                (FAR_V6, ports::SILENT),
                keep_errors_v6,
                ExpectedReply::Local(1, 4),
            );
        }),
        with_nft("rejected_early_v4", || {
            rejected_early(LOOPBACK_V4, AT_INPUT, |_| {}, ExpectedReply::Local(3, 3));
        }),
        with_nft("rejected_early_mapped", || {
            let remote = (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), LOOPBACK_PORT);
            rejected_early(remote, AT_INPUT, |_| {}, ExpectedReply::Local(3, 3));
        }),
        with_nft("rejected_early_at_output_v4", || {
            let remote = (FAR_V4, ports::SILENT);
            rejected_early(remote, AT_OUTPUT, |_| {}, ExpectedReply::Local(3, 3));
        }),
        with_nft("rejected_early_v6_recverr", || {
            rejected_early(
                LOOPBACK_V6,
                AT_INPUT,
                keep_errors_v6,
                ExpectedReply::Local(1, 4),
            );
        }),
        with_nft("rejected_early_v6_unread", rejected_early_v6_unread),
        with_nft("rejected_early_v6_read", rejected_early_v6_read),
        with_nft("error_queue_read_early", error_queue_read_early),
        with_nft("rejected_by_reset", rejected_by_reset),
    ]
}

fn reset(remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| attempt(remote));
    live.expect(&scene, &[ExpectedLine::refused(&scene.value)]);
}

fn reset_polled(remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| Attempted::within(LONG, &tcp(remote), remote));
    live.expect(&scene, &[ExpectedLine::refused(&scene.value)]);
}

/// A router rejects the SYN, for a blocking application and for one that polls.
fn unreachable_port(host: impl Into<IpAddr>, prepare: fn(&Socket), reply: ExpectedReply) {
    let remote = SocketAddr::new(host.into(), ports::PORT_UNREACHABLE);
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        let blocking = tcp(remote);
        prepare(&blocking);
        let polling = tcp(remote);
        prepare(&polling);
        [
            attempt_on(&blocking, remote),
            Attempted::within(LONG, &polling, remote),
        ]
    });
    let expected = scene.value.each_ref().map(|it| refused(it, reply));
    live.expect(&scene, &expected);
    assert!(live.stalls(&scene).is_empty());
}

/// Connect itself holds the socket's lock when the ICMP error arrives. The answer to the SYN
/// retransmitted after 1 s ends the attempt.
fn rejected_by_retry(
    remote: impl Into<SocketAddr>,
    rule: ChainRule,
    prepare: fn(&Socket),
    reply: ExpectedReply,
) {
    let live = Live::get();
    let scene = rejected(&live, remote.into(), rule, prepare);
    let expected = ExpectedLine {
        syn_sent: 2,
        syn_retransmitted: 1,
        ..refused(&scene.value, reply)
    };
    let lines = live.expect(&scene, std::slice::from_ref(&expected));
    let stall = live.only_stall(&scene);
    expected.assert_stall(&stall, &lines[0], reply);
}

/// Rejects as [`rejected_by_retry`] does, but no SYN leaves this host. Before Linux 6.17 the
/// tracepoint omits retransmissions that could not be sent, so that the stall may be missing.
fn rejected_at_output(remote: impl Into<SocketAddr>, prepare: fn(&Socket), reply: ExpectedReply) {
    let live = Live::get();
    let scene = rejected(&live, remote.into(), AT_OUTPUT, prepare);
    let expected = ExpectedLine {
        syn_sent: 2,
        syn_retransmitted: 1,
        ..refused(&scene.value, reply)
    };
    live.expect(&scene, &[expected]);
}

fn rejected(
    live: &Live,
    remote: SocketAddr,
    rule: ChainRule,
    prepare: fn(&Socket),
) -> PlayedScenario<Attempted> {
    // A late softirq delivers the ICMP error when the socket is no longer locked.
    live.play_lasting(PROMPT..2 * PROMPT, |_| {
        reject(remote, rule);
        let socket = tcp(remote);
        prepare(&socket);
        attempt_on(&socket, remote)
    })
}

/// Rejects as [`rejected_by_retry`] does. The application wakes from poll, reads `SO_ERROR` and
/// closes, so that only the error queue still has the error.
fn rejected_early(
    remote: impl Into<SocketAddr>,
    rule: ChainRule,
    prepare: fn(&Socket),
    reply: ExpectedReply,
) {
    let remote = remote.into();
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        reject(remote, rule);
        let socket = tcp(remote);
        prepare(&socket);
        Attempted::within(LONG, &socket, remote)
    });
    live.expect(&scene, &[refused(&scene.value, reply)]);
}

/// Without `IPV6_RECVERR` nothing is queued, and poll does not wake. An application that closes
/// leaves the soft error, which is only an errno. The remote address is this host's own, which
/// identifies the sender.
fn rejected_early_v6_unread() {
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        reject(LOOPBACK_V6.into(), AT_INPUT);
        let socket = tcp(LOOPBACK_V6.into());
        let attempted = Attempted::begin(&socket, LOOPBACK_V6);
        assert_eq!(attempted.errno, Errno::EINPROGRESS as i32);
        // A late softirq may still have to deliver the ICMP error.
        thread::sleep(PATIENCE / 10);
        attempted
    });
    let told = Attempted {
        errno: Errno::ECONNREFUSED as i32,
        ..scene.value.clone()
    };
    live.expect(&scene, &[refused(&told, ExpectedReply::Local6(1, 4))]);
}

/// Rejects as [`rejected_early_v6_unread`] does, but the application reads `SO_ERROR` before it
/// closes. That clears the soft error. Without hooked functions the attempt looks like any other
/// early close, so the label is `cancelled`.
fn rejected_early_v6_read() {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        reject(LOOPBACK_V6.into(), AT_INPUT);
        let socket = tcp(LOOPBACK_V6.into());
        let attempted = Attempted::begin(&socket, LOOPBACK_V6);
        match take_errno(&socket) {
            Some(errno) => assert_eq!(errno, Errno::ECONNREFUSED as i32),
            // If the softirq that delivers the ICMP error is late, wait until the scene is too long
            // and is played again.
            None => thread::sleep(PATIENCE),
        }
        drop(socket);
        attempted
    });
    let told = Attempted {
        errno: Errno::ECONNREFUSED as i32,
        ..scene.value.clone()
    };
    let expected = match is_covered("icmp6_detail") {
        true => refused(&told, ExpectedReply::Local6(1, 4)),
        false => ExpectedLine::gave_up("cancelled", &scene.value),
    };
    live.expect(&scene, &[expected]);
}

/// An application that empties the error queue before it closes leaves only the soft error. That
/// errno does not identify the sender, but the remote address is this host's own.
fn error_queue_read_early() {
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        reject(LOOPBACK_V4.into(), AT_INPUT);
        let socket = tcp(LOOPBACK_V4.into());
        let attempted = Attempted::begin(&socket, LOOPBACK_V4);
        if socket.recv_with_flags(&mut [], MSG_ERRQUEUE).is_err() {
            // The queue is still empty if the softirq is late.
            thread::sleep(PROMPT);
        }
        attempted
    });
    let told = Attempted {
        errno: Errno::ECONNREFUSED as i32,
        ..scene.value.clone()
    };
    live.expect(&scene, &[refused(&told, ExpectedReply::LocalUnknown)]);
}

/// A firewall's RST is indistinguishable from the remote host's.
fn rejected_by_reset() {
    let remote = SocketAddr::from((FAR_V4, ports::SILENT));
    let live = Live::get();
    let scene = live.play(|_| {
        nft("output", remote, "reject with tcp reset");
        attempt(remote)
    });
    live.expect(
        &scene,
        &[ExpectedLine {
            reply: ExpectedReply::Dropped(Unless::Rst),
            ..ExpectedLine::refused(&scene.value)
        }],
    );
}

/// Expects one SYN, and ECONNREFUSED from an answer other than a RST.
fn refused(attempted: &Attempted, reply: ExpectedReply) -> ExpectedLine {
    ExpectedLine {
        reply,
        ..ExpectedLine::refused(attempted)
    }
}

fn keep_errors_v4(socket: &Socket) {
    setsockopt(socket, Ipv4RecvErr, &true).unwrap();
}

fn keep_errors_v6(socket: &Socket) {
    setsockopt(socket, Ipv6RecvErr, &true).unwrap();
}

fn take_errno(socket: &Socket) -> Option<i32> {
    let error = socket.take_error().unwrap()?;
    error.raw_os_error()
}

/// Name of the netfilter chain that holds the rule.
type ChainRule = &'static str;

/// Input chain, for a SYN that arrives over `lo`.
const AT_INPUT: ChainRule = "input";
/// Output chain, for a SYN that never leaves this host.
const AT_OUTPUT: ChainRule = "output";

/// Makes this thread's namespace reject SYNs to `remote` with an ICMP port unreachable.
fn reject(remote: SocketAddr, rule: ChainRule) {
    nft(rule, remote, "reject with icmpx type port-unreachable");
}
