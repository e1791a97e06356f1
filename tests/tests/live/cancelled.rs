//! Attempts that the application gives up before an answer was due.

use std::{
    env,
    net::{Shutdown, SocketAddr},
    process::{Command, ExitCode},
    sync::OnceLock,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, Live, TracerProcess, assert_adds_up, attempt, live_test, remote_end,
    run, tcp,
};
use nix::errno::Errno;
use serde_json::json;
use socket2::Socket;

/// Environment variable that makes this program begin an attempt and exit instead of running its
/// tests.
const CONNECT: &str = "CONNTRACE_TEST_CONNECT";

/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = Duration::from_millis(200);

/// Name of a way to end an attempt, and the function that does it.
type AbortMethod = (&'static str, fn(&Socket));

pub(crate) fn main() -> ExitCode {
    if env::var_os(CONNECT).is_some() {
        // Never closed but by the exit.
        static HELD: OnceLock<Socket> = OnceLock::new();
        begin(HELD.get_or_init(|| tcp(silent_v4())), silent_v4());
        return ExitCode::SUCCESS;
    }
    let mut tests = vec![
        live_test("exit", exit),
        live_test("hidden_without_all", hidden_without_all),
    ];
    let mapped = SocketAddr::from((FAR_V4.to_ipv6_mapped(), ports::SILENT));
    let v6 = SocketAddr::from((FAR_V6, ports::SILENT));
    for (name, remote) in [("v4", silent_v4()), ("v6", v6), ("mapped", mapped)] {
        let ways: [AbortMethod; 3] = [
            ("close", |_| {}),
            ("shutdown", |socket| {
                // Linux ends the attempt and then says that there was none.
                let _ = socket.shutdown(Shutdown::Both);
            }),
            ("af_unspec", Attempted::abandon),
        ];
        for (way, end) in ways {
            tests.push(live_test(&format!("{way}_{name}"), move || {
                cancelled(remote, end);
            }));
        }
    }
    run(tests)
}

fn silent_v4() -> SocketAddr {
    (FAR_V4, ports::SILENT).into()
}

fn begin(socket: &Socket, remote: SocketAddr) -> Attempted {
    let attempted = Attempted::begin(socket, remote);
    assert_eq!(Errno::from_raw(attempted.errno), Errno::EINPROGRESS);
    attempted
}

/// Begins an attempt, ends it by this function, and closes the socket.
fn cancelled(remote: SocketAddr, end: fn(&Socket)) {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        let socket = tcp(remote);
        let attempted = begin(&socket, remote);
        end(&socket);
        attempted
    });
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}

fn exit() {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        let mut child = Command::new(env::current_exe().unwrap())
            .env(CONNECT, "")
            .spawn()
            .unwrap();
        assert!(child.wait().unwrap().success());
        child.id()
    });
    let lines = live.endings(&scene, 1);
    let line = &lines[0];
    assert_eq!(line["process"]["pid"], scene.value, "{line:#}");
    assert_eq!(line["label"], "cancelled", "{line:#}");
    assert!(line["errno"].is_null(), "{line:#}");
    assert!(line["timeout_by"].is_null(), "{line:#}");
    assert_eq!(line["reply"]["kind"], "none", "{line:#}");
    assert_eq!(line["syn"], json!({ "sent": 1, "retransmitted": 0 }));
    assert_eq!(line["remote"], remote_end((FAR_V4, ports::SILENT)));
}

/// Cancelled and established attempts are counted, but printed only with `--all`.
fn hidden_without_all() {
    let live = Live::get();
    let tracer = TracerProcess::start(&[]);
    let scene = live.play_lasting(..PATIENCE, |_| {
        let cancelled = begin(&tcp(silent_v4()), silent_v4());
        [
            cancelled,
            attempt((FAR_V4, ports::ACCEPTS)),
            attempt((FAR_V4, ports::RESETS)),
        ]
    });
    let [cancelled, established, refused] = scene.value.each_ref();
    let refused = ExpectedLine::refused(refused);
    // The other tracer sees them all.
    live.expect(
        &scene,
        &[
            ExpectedLine::gave_up("cancelled", cancelled),
            ExpectedLine::established(established),
            refused.clone(),
        ],
    );
    tracer.wait_for_endings(scene.netns, 1);
    let lines = tracer.stop();
    let is_printed = |label: &str| lines.iter().any(|line| line["label"] == label);
    assert!(!is_printed("cancelled") && !is_printed("established"));
    let ours: Vec<_> = lines
        .iter()
        .filter(|line| line["netns"] == scene.netns)
        .collect();
    assert_eq!(ours.len(), 1, "lines, got {ours:#?}");
    refused.assert_is(ours[0], scene.netns);
    // The totals include attempts of other tests.
    let totals = lines.last().unwrap();
    assert_adds_up(totals);
    for label in ["cancelled", "established", "refused"] {
        assert!(
            totals["outcomes"][label].as_u64().unwrap() >= 1,
            "{totals:#}"
        );
    }
}
