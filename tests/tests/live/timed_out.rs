//! Attempts without an answer, which the kernel or the application gives up.

use std::{
    env,
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, Testnet, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, Live, PlayedScenario, Unless, attempt, attempt_on,
    has_syn_sent, live_test, nft, remote_end, run, tcp, with_nft,
};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{setsockopt, sockopt::SetStruct},
};
use serde_json::{Value, json};

/// `TCP_SYNCNT` in the form of a nix socket option.
#[derive(Clone)]
struct TcpSynCnt;

nix::setsockopt_impl!(
    TcpSynCnt,
    libc::IPPROTO_TCP,
    libc::TCP_SYNCNT,
    libc::c_int,
    SetStruct<libc::c_int>
);

/// Environment variable that makes this program connect to a silent port instead of running its
/// tests.
const CONNECT: &str = "CONNTRACE_TEST_CONNECT";

/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = ms(200);
/// Time before the first SYN retransmission at 1 s, less a margin for an early timer.
const BEFORE_STALL: Duration = ms(990);
/// Time before the second SYN retransmission (at 2 s from Linux 6.5 on), less a margin for an early
/// timer.
const BEFORE_SECOND_STALL: Duration = ms(1990);

pub(crate) fn main() -> ExitCode {
    if env::var_os(CONNECT).is_some() {
        attempt(silent_v4());
        return ExitCode::SUCCESS;
    }
    let mapped = SocketAddr::from((FAR_V4.to_ipv6_mapped(), ports::SILENT));
    run(vec![
        live_test("user_timeout_v4", || user_timeout(silent_v4())),
        live_test("user_timeout_v6", || user_timeout(silent_v6())),
        live_test("user_timeout_mapped", move || user_timeout(mapped)),
        live_test("syn_count_v4", || syn_count(silent_v4())),
        live_test("syn_count_v6", || syn_count(silent_v6())),
        live_test("retries_v4", || retries_used_up(silent_v4())),
        live_test("retries_v6", || retries_used_up(silent_v6())),
        live_test("deadline_v4", || deadline(silent_v4(), ms(300))),
        live_test("deadline_v6", || deadline(silent_v6(), ms(300))),
        live_test("deadline_mapped", move || deadline(mapped, ms(300))),
        live_test("deadline_just_over_patience", || {
            deadline(silent_v4(), ms(250));
        }),
        live_test("deadline_under_patience", deadline_under_patience),
        live_test(
            "deadline_at_first_retransmission",
            deadline_at_first_retransmission,
        ),
        live_test("deadline_after_stall_v4", || {
            deadline_after_stall(silent_v4());
        }),
        live_test("deadline_after_stall_v6", || {
            deadline_after_stall(silent_v6());
        }),
        with_nft("dropped_here_v4", || dropped_here(silent_v4())),
        with_nft("dropped_here_v6", || dropped_here(silent_v6())),
        with_nft("dropped_here_at_first", dropped_here_at_first),
        live_test("connect_timeout_of_std", connect_timeout_of_std),
        live_test("killed", killed),
        live_test("answered_late_v4", || {
            answered_late((FAR_V4, ports::ACCEPTS_SECOND_SYN).into());
        }),
        live_test("answered_late_v6", || {
            answered_late((FAR_V6, ports::ACCEPTS_SECOND_SYN).into());
        }),
    ])
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn silent_v4() -> SocketAddr {
    (FAR_V4, ports::SILENT).into()
}

fn silent_v6() -> SocketAddr {
    (FAR_V6, ports::SILENT).into()
}

fn user_timeout(remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(remote);
        socket.set_tcp_user_timeout(Some(ms(1500))).unwrap();
        attempt_on(&socket, remote)
    });
    let line = expect_stalled(&live, &scene, by_kernel(&scene.value));
    assert_early_because("the socket's option TCP_USER_TIMEOUT is 1500 ms", &line);
}

/// Linux 6.5 and later send further SYNs within the time that one retransmission would last.
fn syn_count(remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(remote);
        setsockopt(&socket, TcpSynCnt, &1).unwrap();
        attempt_on(&socket, remote)
    });
    assert_eq!(Errno::from_raw(scene.value.errno), Errno::ETIMEDOUT);
    let line = &live.endings(&scene, 1)[0];
    assert_eq!(line["timeout_by"], "kernel", "{line:#}");
    assert_early_because("the socket's option TCP_SYNCNT is 1", line);
}

fn assert_early_because(setting: &str, line: &Value) {
    let message = line["message"].as_str().unwrap();
    let because = format!(" s, early because {setting}: ");
    assert!(message.contains(&because), "{message}");
}

/// The kernel sends SYNs at 0 and 1 s, and gives up at 3 s.
fn retries_used_up(remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|testnet: &Testnet| {
        testnet.set_sysctl("net/ipv4/tcp_syn_retries", "1").unwrap();
        // Linux 6.5 and later add these retransmissions to `tcp_syn_retries`.
        if let Err(error) = testnet.set_sysctl("net/ipv4/tcp_syn_linear_timeouts", "0") {
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        attempt(remote)
    });
    let line = expect_stalled(&live, &scene, by_kernel(&scene.value));
    assert_early_because("net.ipv4.tcp_syn_retries is 1 here, by default 6", &line);
}

fn by_kernel(attempted: &Attempted) -> ExpectedLine {
    assert_eq!(Errno::from_raw(attempted.errno), Errno::ETIMEDOUT);
    ExpectedLine {
        timeout_by: Some("kernel"),
        ..ExpectedLine::new("timed_out", attempted)
    }
}

fn deadline(remote: SocketAddr, deadline: Duration) {
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |_| give_up(remote, deadline));
    live.expect(&scene, &[ExpectedLine::gave_up("timed_out", &scene.value)]);
    assert!(live.stalls(&scene).is_empty());
}

/// This host's own firewall drops the SYN without an error to TCP.
fn dropped_here(remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |_| {
        nft("output", remote, "drop");
        give_up(remote, ms(300))
    });
    let expected = ExpectedLine {
        reply: ExpectedReply::Dropped(Unless::None),
        ..ExpectedLine::gave_up("timed_out", &scene.value)
    };
    live.expect(&scene, &[expected]);
}

/// The own firewall drops only the first SYN, and the RST comes from the peer.
fn dropped_here_at_first() {
    let remote = SocketAddr::from((FAR_V4, ports::RESETS));
    let live = Live::get();
    let scene = live.play(|_| {
        nft("output", remote, "numgen inc mod 1000 == 0 drop");
        attempt(remote)
    });
    let expected = ExpectedLine {
        syn_sent: 2,
        syn_retransmitted: 1,
        ..ExpectedLine::refused(&scene.value)
    };
    live.expect(&scene, &[expected]);
}

fn deadline_under_patience() {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| give_up(silent_v4(), ms(100)));
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}

/// The deadline and the SYN retransmission fall into the same millisecond. Usually the application
/// comes first; the line must match the actual order.
fn deadline_at_first_retransmission() {
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_SECOND_STALL, |_| give_up(silent_v4(), ms(1000)));
    let by_application = ExpectedLine::gave_up("timed_out", &scene.value);
    live.tracer().wait_for_endings(scene.netns, 1);
    if live.stalls(&scene).is_empty() {
        live.expect(&scene, &[by_application]);
    } else {
        expect_stalled(&live, &scene, by_application);
    }
}

fn deadline_after_stall(remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_SECOND_STALL, |_| give_up(remote, ms(1200)));
    expect_stalled(
        &live,
        &scene,
        ExpectedLine::gave_up("timed_out", &scene.value),
    );
}

fn give_up(remote: SocketAddr, deadline: Duration) -> Attempted {
    let attempted = Attempted::within(deadline, &tcp(remote), remote);
    assert_eq!(Errno::from_raw(attempted.errno), Errno::EINPROGRESS);
    attempted
}

fn connect_timeout_of_std() {
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_STALL, |_| {
        let error = TcpStream::connect_timeout(&silent_v4(), ms(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // The std library's socket does not expose the errno.
        let errno = Errno::EINPROGRESS as i32;
        Attempted::on(&tcp(silent_v4()), silent_v4(), errno)
    });
    live.expect(&scene, &[ExpectedLine::gave_up("timed_out", &scene.value)]);
    assert!(live.stalls(&scene).is_empty());
}

/// A process that is blocked in connect is killed.
fn killed() {
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_STALL, |_| {
        let mut child = Command::new(env::current_exe().unwrap())
            .env(CONNECT, "")
            .spawn()
            .unwrap();
        while !has_syn_sent() {
            assert!(child.try_wait().unwrap().is_none(), "it is stuck");
            thread::sleep(ms(1));
        }
        thread::sleep(ms(400));
        child.kill().unwrap();
        child.wait().unwrap();
        child.id()
    });
    let lines = live.endings(&scene, 1);
    let line = &lines[0];
    assert_eq!(line["process"]["pid"], scene.value, "{line:#}");
    assert_eq!(line["process"]["tid"], scene.value, "{line:#}");
    assert_eq!(line["label"], "timed_out", "{line:#}");
    assert_eq!(line["timeout_by"], "application", "{line:#}");
    assert!(line["errno"].is_null(), "{line:#}");
    assert_eq!(line["reply"]["kind"], "none", "{line:#}");
    assert_eq!(line["syn"], json!({ "sent": 1, "retransmitted": 0 }));
    assert_eq!(line["remote"], remote_end((FAR_V4, ports::SILENT)));
    assert!(line["elapsed_us"].as_u64().unwrap() >= 400_000, "{line:#}");
    assert!(live.stalls(&scene).is_empty());
}

fn answered_late(remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| attempt(remote));
    expect_stalled(&live, &scene, ExpectedLine::established(&scene.value));
}

/// Expects one stall line for one SYN retransmission, and this outcome. Returns its line.
fn expect_stalled(live: &Live, scene: &PlayedScenario<Attempted>, outcome: ExpectedLine) -> Value {
    let expected = ExpectedLine {
        syn_sent: 2,
        syn_retransmitted: 1,
        ..outcome
    };
    let lines = live.expect(scene, std::slice::from_ref(&expected));
    let stall = live.only_stall(scene);
    expected.assert_stall(&stall, &lines[0], ExpectedReply::None);
    lines[0].clone()
}
