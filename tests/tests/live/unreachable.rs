//! Attempts that a router or the neighbour's silence ends.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, NEAR_V4, NEAR_V6, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, Live, PlayedScenario, attempt, attempt_on, live_test,
    run, tcp,
};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt::Ipv6RecvErr},
};
use socket2::Socket;

/// Upper bound for every attempt in this group.
const LONG: Duration = Duration::from_secs(10);
/// Upper bound for an answer to the first SYN, below the 1 s until it is retransmitted.
const PROMPT: Duration = Duration::from_millis(900);

/// Name of an ICMP error, and the port that provokes it. Then type, code and the application's
/// errno, for `ICMPv4` and for `ICMPv6`.
type Reason = (&'static str, u16, (u8, u8, Errno), (u8, u8, Errno));

const REASONS: [Reason; 4] = [
    (
        "host",
        ports::HOST_UNREACHABLE,
        (3, 1, Errno::EHOSTUNREACH),
        (1, 3, Errno::EHOSTUNREACH),
    ),
    (
        "net",
        ports::NET_UNREACHABLE,
        (3, 0, Errno::ENETUNREACH),
        (1, 0, Errno::ENETUNREACH),
    ),
    (
        "prohibited",
        ports::ADMIN_PROHIBITED,
        (3, 13, Errno::EHOSTUNREACH),
        (1, 1, Errno::EACCES),
    ),
    (
        "ttl",
        ports::TTL_EXCEEDED,
        (11, 0, Errno::EHOSTUNREACH),
        (3, 0, Errno::EHOSTUNREACH),
    ),
];

pub(crate) fn main() -> ExitCode {
    let mut tests = vec![
        live_test("neighbour_v4", || {
            neighbour_fails(NEAR_V4.into(), ExpectedReply::Local(3, 1));
        }),
        live_test("neighbour_mapped", || {
            neighbour_fails(NEAR_V4.to_ipv6_mapped().into(), ExpectedReply::Local(3, 1));
        }),
        live_test("neighbour_v6", || {
            neighbour_fails(NEAR_V6.into(), ExpectedReply::Local6(1, 3));
        }),
        live_test("neighbour_v6_recverr", neighbour_fails_v6_recverr),
    ];
    for (name, port, (type4, code4, errno4), (type6, code6, errno6)) in REASONS {
        let (reply4, reply6) = (
            ExpectedReply::Icmp(type4, code4),
            ExpectedReply::Icmp(type6, code6),
        );
        let v4 = SocketAddr::from((FAR_V4, port));
        let mapped = SocketAddr::from((FAR_V4.to_ipv6_mapped(), port));
        let v6 = SocketAddr::from((FAR_V6, port));
        tests.extend([
            live_test(&format!("{name}_v4"), move || {
                unreachable(v4, |_| {}, errno4, reply4);
            }),
            live_test(&format!("{name}_mapped"), move || {
                unreachable(mapped, |_| {}, errno4, reply4);
            }),
            // Without IPV6_RECVERR the kernel keeps only the errno.
            live_test(&format!("{name}_v6"), move || {
                unreachable(v6, |_| {}, errno6, ExpectedReply::Icmp6(type6, code6));
            }),
            live_test(&format!("{name}_v6_recverr"), move || {
                unreachable(v6, keep_errors, errno6, reply6);
            }),
        ]);
    }
    run(tests)
}

/// A router rejects the SYN, for a blocking application and for one that polls.
fn unreachable(remote: SocketAddr, prepare: fn(&Socket), errno: Errno, reply: ExpectedReply) {
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
    let expected = scene.value.each_ref().map(|attempted| {
        assert_eq!(Errno::from_raw(attempted.errno), errno);
        told_unreachable(attempted, reply)
    });
    live.expect(&scene, &expected);
    assert!(live.stalls(&scene).is_empty());
}

/// The neighbour answers neither ARP nor neighbour discovery, so the kernel reports an error itself
/// after about 3 s. The one SYN still waits for the address, so none is retransmitted.
fn neighbour_fails(host: IpAddr, reply: ExpectedReply) {
    let live = Live::get();
    let scene = live.play(|_| attempt((host, ports::ACCEPTS)));
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::EHOSTUNREACH);
    assert_neighbour_failed(&live, &scene, reply);
}

fn assert_neighbour_failed(live: &Live, scene: &PlayedScenario<Attempted>, reply: ExpectedReply) {
    let line = live.endings(scene, 1).remove(0);
    let expected = told_unreachable(&scene.value, reply).waiting_for_neighbour(&line);
    expected.assert_is(&line, scene.netns);
    let stalls = live.stalls(scene).len();
    assert_eq!(stalls, usize::try_from(expected.syn_retransmitted).unwrap());
}

fn neighbour_fails_v6_recverr() {
    let remote = SocketAddr::from((NEAR_V6, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(remote);
        keep_errors(&socket);
        attempt_on(&socket, remote)
    });
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::EHOSTUNREACH);
    assert_neighbour_failed(&live, &scene, ExpectedReply::Local(1, 3));
}

fn told_unreachable(attempted: &Attempted, reply: ExpectedReply) -> ExpectedLine {
    ExpectedLine {
        reply,
        ..ExpectedLine::new("unreachable", attempted)
    }
}

fn keep_errors(socket: &Socket) {
    setsockopt(socket, Ipv6RecvErr, &true).unwrap();
}
