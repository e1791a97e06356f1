//! Handshakes other than SYN, SYN-ACK, ACK. The socket connects to itself, SYNs cross, an answer
//! belongs to another SYN, or the listener's queue is full.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, Testnet, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, Live, PlayedScenario, TracerProcess, assert_adds_up,
    attempt, attempt_on, kernel_version, live_test, run, tcp,
};
use nix::errno::Errno;
use socket2::Socket;

/// Upper bound for every attempt in this group.
const LONG: Duration = Duration::from_secs(10);
/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = Duration::from_millis(200);
/// Wait that exceeds the tracer's patience, so that the attempt counts as timed out.
const OVER_PATIENCE: Duration = Duration::from_millis(300);
/// Upper bound for an answer to the first SYN, below the 1 s until it is retransmitted.
const PROMPT: Duration = Duration::from_millis(900);
/// Time of the retransmission after an answer to another SYN, with room for a late timer. The
/// kernel waits two ticks of its clock (`TCP_TIMEOUT_MIN`).
const AT_ONCE_US: std::ops::Range<u64> = 0..500_000;
/// Local port of the tests' own sockets.
const OWN_PORT: u16 = 45_678;

/// Scenario name, and the function that plays and checks it with a far host.
type FarScenario = (&'static str, fn(IpAddr));
/// Scenario name, and the function that plays and checks it with an address and port of this host.
type OwnScenario = (&'static str, fn(SocketAddr));

pub(crate) fn main() -> ExitCode {
    let mut tests = Vec::new();
    let hosts: [(&str, IpAddr); 3] = [
        ("v4", FAR_V4.into()),
        ("v6", FAR_V6.into()),
        ("mapped", FAR_V4.to_ipv6_mapped().into()),
    ];
    for (name, host) in hosts {
        let scenarios: [FarScenario; 10] = [
            ("crossed", crossed),
            ("crossed_then_reset", crossed_then_reset),
            ("crossed_then_reset_polled", crossed_then_reset_polled),
            ("crossed_then_kernel_timeout", crossed_then_kernel_timeout),
            ("crossed_then_abandoned", crossed_then_abandoned),
            ("crossed_then_closed", crossed_then_closed),
            ("crossed_then_shut_down", crossed_then_shut_down),
            ("wrong_syn_ack", wrong_syn_ack),
            ("wrong_reset", wrong_reset),
            ("second_syn_reset", second_syn_reset),
        ];
        for (scenario, play) in scenarios {
            tests.push(live_test(&format!("{scenario}_{name}"), move || play(host)));
        }
    }
    let own: [(&str, IpAddr); 5] = [
        ("v4", FAR_LOCAL_V4.into()),
        ("v6", FAR_LOCAL_V6.into()),
        ("mapped", FAR_LOCAL_V4.to_ipv6_mapped().into()),
        ("loopback_v4", Ipv4Addr::LOCALHOST.into()),
        ("loopback_v6", Ipv6Addr::LOCALHOST.into()),
    ];
    for (name, own) in own {
        let own = SocketAddr::new(own, OWN_PORT);
        let scenarios: [OwnScenario; 4] = [
            ("to_itself", to_itself),
            ("to_own_listener", to_own_listener),
            ("to_full_listener", to_full_listener),
            ("with_syn_cookies", with_syn_cookies),
        ];
        for (scenario, play) in scenarios {
            tests.push(live_test(&format!("{scenario}_{name}"), move || play(own)));
        }
    }
    tests.push(live_test("to_itself_is_printed", to_itself_is_printed));
    run(tests)
}

/// Counts the SYN-ACK that answers a crossing SYN as one more SYN.
fn crossing(expected: ExpectedLine) -> ExpectedLine {
    ExpectedLine {
        syn_sent: expected.syn_sent + 1,
        ..expected
    }
}

/// Expects one retransmission of the SYN.
fn sent_again(expected: ExpectedLine) -> ExpectedLine {
    ExpectedLine {
        syn_sent: expected.syn_sent + 1,
        syn_retransmitted: 1,
        ..expected
    }
}

/// A simultaneous open completes.
fn crossed(host: IpAddr) {
    let remote = SocketAddr::new(host, ports::SYN_THEN_ACCEPTS);
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        [
            attempt(remote),
            Attempted::within(LONG, &tcp(remote), remote),
        ]
    });
    let established = scene.value.each_ref().map(ExpectedLine::established);
    live.expect(&scene, &established.map(crossing));
    assert!(live.stalls(&scene).is_empty());
}

fn crossed_then_reset(host: IpAddr) {
    reset_in_syn_recv(host, attempt);
}

fn crossed_then_reset_polled(host: IpAddr) {
    reset_in_syn_recv(host, |remote| Attempted::within(LONG, &tcp(remote), remote));
}

/// In `SYN_RECV` a RST returns ECONNRESET, and the label is still `refused`.
fn reset_in_syn_recv(host: IpAddr, attempt: fn(SocketAddr) -> Attempted) {
    let remote = SocketAddr::new(host, ports::SYN_THEN_RESETS);
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| attempt(remote));
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::ECONNRESET);
    let expected = ExpectedLine {
        reply: ExpectedReply::Rst,
        ..ExpectedLine::new("refused", &scene.value)
    };
    live.expect(&scene, &[crossing(expected)]);
    assert!(live.stalls(&scene).is_empty());
}

/// The kernel retransmits the SYN-ACK. It is counted, but is no stall, because the peer has
/// answered.
fn crossed_then_kernel_timeout(host: IpAddr) {
    let remote = SocketAddr::new(host, ports::SYN_THEN_SILENT);
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(remote);
        let limit = Duration::from_millis(1500);
        socket.set_tcp_user_timeout(Some(limit)).unwrap();
        attempt_on(&socket, remote)
    });
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::ETIMEDOUT);
    let expected = ExpectedLine {
        timeout_by: Some("kernel"),
        ..ExpectedLine::new("timed_out", &scene.value)
    };
    live.expect(&scene, &[sent_again(crossing(expected))]);
    assert!(live.stalls(&scene).is_empty());
}

fn crossed_then_abandoned(host: IpAddr) {
    crossed_then_given_up(host, Attempted::abandon);
}

/// Closing a socket in `SYN_RECV` moves it to `FIN_WAIT1`.
fn crossed_then_closed(host: IpAddr) {
    crossed_then_given_up(host, |_| {});
}

fn crossed_then_shut_down(host: IpAddr) {
    crossed_then_given_up(host, |socket| {
        let _ = socket.shutdown(std::net::Shutdown::Both);
    });
}

fn crossed_then_given_up(host: IpAddr, end: fn(&Socket)) {
    let remote = SocketAddr::new(host, ports::SYN_THEN_SILENT);
    let live = Live::get();
    let scene = give_up(&live, remote, OVER_PATIENCE, end);
    let expected = ExpectedLine::gave_up("timed_out", &scene.value);
    live.expect(&scene, &[crossing(expected)]);
    assert!(live.stalls(&scene).is_empty());
}

/// Begins an attempt, and ends it by `end` after this time.
fn give_up(
    live: &Live,
    remote: SocketAddr,
    after: Duration,
    end: fn(&Socket),
) -> PlayedScenario<Attempted> {
    live.play_lasting(..PROMPT, |_| {
        let socket = tcp(remote);
        let attempted = Attempted::begin(&socket, remote);
        assert_eq!(Errno::from_raw(attempted.errno), Errno::EINPROGRESS);
        thread::sleep(after);
        end(&socket);
        attempted
    })
}

fn wrong_syn_ack(host: IpAddr) {
    answer_to_another(SocketAddr::new(host, ports::WRONG_SYN_ACK));
}

fn wrong_reset(host: IpAddr) {
    answer_to_another(SocketAddr::new(host, ports::WRONG_RESET));
}

/// An answer that acknowledges another SYN does not count, but makes the kernel retransmit its own.
/// The stall comes much earlier than after silence. The label is `timed_out`, although the
/// attempt ends within the tracer's patience.
fn answer_to_another(remote: SocketAddr) {
    let live = Live::get();
    let scene = give_up(&live, remote, PATIENCE / 2, |_| {});
    let expected = sent_again(ExpectedLine::gave_up("timed_out", &scene.value));
    let lines = live.expect(&scene, std::slice::from_ref(&expected));
    let stall = live.only_stall(&scene);
    expected.assert_stall_within(AT_ONCE_US, &stall, &lines[0], ExpectedReply::None);
}

fn second_syn_reset(host: IpAddr) {
    let remote = SocketAddr::new(host, ports::RESETS_SECOND_SYN);
    let live = Live::get();
    let scene = live.play(|_| attempt(remote));
    let expected = sent_again(ExpectedLine::refused(&scene.value));
    let lines = live.expect(&scene, std::slice::from_ref(&expected));
    let stall = live.only_stall(&scene);
    expected.assert_stall(&stall, &lines[0], ExpectedReply::None);
}

/// A socket connects to its own address and port, so its SYN crosses itself.
fn to_itself(own: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(own);
        socket.bind(&own.into()).unwrap();
        attempt_on(&socket, own)
    });
    assert_eq!(scene.value.local_port, Some(OWN_PORT));
    let expected = crossing(ExpectedLine::established(&scene.value));
    // Linux 5.10 counts one more SYN-ACK than 6.1.
    let more = u32::from(kernel_version() < (6, 1));
    let expected = ExpectedLine {
        syn_sent: expected.syn_sent + more,
        ..expected
    };
    live.expect(&scene, &[expected]);
}

/// Without --all only a connection with a cause is printed, unless --label says which.
fn to_itself_is_printed() {
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, OWN_PORT));
    for (options, printed) in [(&[][..], 1), (&["--label", "refused"], 0)] {
        let tracer = TracerProcess::start(options);
        conntrace_testnet::run("itself", |testnet| {
            let range = format!("{OWN_PORT} {OWN_PORT}");
            testnet
                .set_sysctl("net/ipv4/ip_local_port_range", &range)
                .unwrap();
            assert_eq!(attempt(own).errno, 0);
        })
        .unwrap();
        let lines = tracer.stop();
        let outcomes = lines.iter().filter(|line| {
            line["type"] == "outcome" && line["remote"]["port"] == u64::from(OWN_PORT)
        });
        let outcomes: Vec<_> = outcomes.collect();
        assert_eq!(outcomes.len(), printed, "{lines:#?}");
        for line in outcomes {
            assert_eq!(line["label"], "established", "{line:#}");
            assert_eq!(line["cause"]["code"], "connected_to_itself", "{line:#}");
            assert_eq!(line["cause"]["certainty"], "certain", "{line:#}");
            let evidence = &line["cause"]["evidence"];
            assert_eq!(evidence["in_ephemeral_range"], true, "{line:#}");
        }
        assert_adds_up(lines.last().unwrap());
    }
}

/// This process has both ends; the listener's side is no attempt.
fn to_own_listener(own: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| {
        let listener = listen(own, 8);
        let client = tcp(own);
        let attempted = attempt_on(&client, own);
        listener.accept().unwrap();
        attempted
    });
    live.expect(&scene, &[ExpectedLine::established(&scene.value)]);
}

/// The accept queue is full, so the kernel drops further SYNs silently.
fn to_full_listener(own: SocketAddr) {
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..PROMPT, |_| {
        let _listener = listen(own, 0);
        let (first, second) = (tcp(own), tcp(own));
        [
            attempt_on(&first, own),
            Attempted::within(OVER_PATIENCE, &second, own),
        ]
    });
    let [first, second] = scene.value.each_ref();
    assert_eq!(Errno::from_raw(second.errno), Errno::EINPROGRESS);
    live.expect(
        &scene,
        &[
            ExpectedLine::established(first),
            ExpectedLine::gave_up("timed_out", second),
        ],
    );
}

/// A listener with SYN cookies keeps no state for a SYN.
fn with_syn_cookies(own: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|testnet: &Testnet| {
        testnet.set_sysctl("net/ipv4/tcp_syncookies", "2").unwrap();
        let listener = listen(own, 8);
        let client = tcp(own);
        let attempted = attempt_on(&client, own);
        listener.accept().unwrap();
        attempted
    });
    live.expect(&scene, &[ExpectedLine::established(&scene.value)]);
}

/// Opens a listener whose queue has room for `backlog` + 1 connections.
fn listen(own: SocketAddr, backlog: i32) -> Socket {
    let listener = tcp(own);
    listener.bind(&own.into()).unwrap();
    listener.listen(backlog).unwrap();
    listener
}
