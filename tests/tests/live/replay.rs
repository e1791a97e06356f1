//! Output of `replay` for a recording.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, ExitCode, Stdio},
    sync::OnceLock,
    time::Duration,
};

use conntrace_testnet::{self, FAR_V4, FAR_V6, Testnet, ports};
use conntrace_tests::{
    Attempted, Dir, Recording, assert_adds_up, attempt, attempt_on, binary, conntrace, live_test,
    matching, replay, run_with_replay, stderr, stdout, tcp,
};
use serde_json::Value;

/// Number of endings in [`play`].
const ENDINGS: usize = 7;

pub(crate) fn main() -> ExitCode {
    run_with_replay(vec![
        live_test("the_same_lines", the_same_lines),
        live_test("other_options", other_options),
        live_test("text", text),
        live_test("closed_stdout", closed_stdout),
        live_test("cut_off", cut_off),
        live_test("damaged", damaged),
    ])
}

/// Recording that the tests share, and the lines that were written beside it.
struct Recorded {
    bytes: Vec<u8>,
    mode: u32,
    lines: String,
    /// Network namespace in which [`play`] ran.
    netns: u32,
}

fn recorded() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let dir = Dir::new("record");
        let recording = Recording::start(&dir.0, &["--all"]);
        let netns = conntrace_testnet::run("recorded", play).unwrap();
        recording.wait_for(&format!("\"netns\":{netns},"), ENDINGS + 1);
        let (lines, errors) = recording.stop();
        assert_eq!(errors, "");
        let file = dir.file("recording");
        Recorded {
            bytes: fs::read(&file).unwrap(),
            mode: fs::metadata(&file).unwrap().permissions().mode(),
            lines,
            netns,
        }
    })
}

/// Plays a mix of endings, and one stall.
fn play(testnet: &Testnet) -> u32 {
    attempt((FAR_V4, ports::RESETS));
    attempt((FAR_V6, ports::RESETS));
    attempt((FAR_V4, ports::HOST_UNREACHABLE));
    attempt((FAR_V6, ports::NET_UNREACHABLE));
    attempt((FAR_V4, ports::ACCEPTS));
    let silent = (FAR_V4, ports::SILENT).into();
    let in_time = Duration::from_millis(50);
    Attempted::within(in_time, &tcp(silent), silent);
    let socket = tcp(silent);
    let timeout = Some(Duration::from_millis(1500));
    socket.set_tcp_user_timeout(timeout).unwrap();
    attempt_on(&socket, silent);
    testnet.netns
}

fn the_same_lines() {
    let recorded = recorded();
    assert_eq!(recorded.mode & 0o777, 0o600);
    for wanted in [
        "refused",
        "unreachable",
        "established",
        "cancelled",
        "timed_out",
    ] {
        let label = format!("\"label\":\"{wanted}\",\"errno\"");
        assert!(matching(&recorded.lines, &label) > 0, "{wanted}");
    }
    // Other testnets may be active on this host.
    let own = format!("\"netns\":{},", recorded.netns);
    let is_own_stall = |line: &&str| line.contains("\"type\":\"stall\"") && line.contains(&own);
    assert_eq!(recorded.lines.lines().filter(is_own_stall).count(), 1);
    let output = replay(&recorded.bytes, &["--all"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert_eq!(stdout(&output), recorded.lines, "byte for byte, every line");
}

fn other_options() {
    let recorded = recorded();
    let labels = |options: &[&str]| {
        let output = replay(&recorded.bytes, options);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
        let lines: Vec<Value> = stdout(&output)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_adds_up(lines.last().unwrap());
        let of_stage = |line: &&Value| line["netns"] == recorded.netns;
        let shown = |line: &Value| {
            let label = line["label"].as_str().unwrap_or("(stall)");
            label.to_owned()
        };
        lines.iter().filter(of_stage).map(shown).collect::<Vec<_>>()
    };
    let count = |labels: &[String], wanted: &str| labels.iter().filter(|l| *l == wanted).count();
    let all = labels(&["--all"]);
    assert_eq!(all.len(), ENDINGS + 1);
    assert_eq!((count(&all, "cancelled"), count(&all, "timed_out")), (1, 1));
    let failures = labels(&[]);
    let shown = ["established", "cancelled"].map(|label| count(&failures, label));
    assert_eq!((failures.len(), shown), (ENDINGS - 1, [0, 0]));
    assert_eq!(labels(&["--no-stalls"]).len(), ENDINGS - 2);
    let impatient = labels(&["--patience", "20"]);
    assert_eq!(count(&impatient, "timed_out"), 2, "{impatient:?}");
    // The other attempt had a SYN retransmission, so no patience makes it a cancellation.
    let patient = labels(&["--all", "--patience", "5000"]);
    assert_eq!(count(&patient, "timed_out"), 1, "{patient:?}");
}

fn text() {
    let output = replay(&recorded().bytes, &["--format", "text"]);
    assert!(output.status.success());
    assert!(stdout(&output).contains("  refused         recorded["));
    assert!(
        stdout(&output)
            .lines()
            .last()
            .unwrap()
            .contains("stopped (SIGTERM)")
    );
}

/// A closed pipe or a closed stdout ends the replay without a failure.
fn closed_stdout() {
    let dir = Dir::new("replay-closed");
    let file = dir.file("recording");
    fs::write(&file, &recorded().bytes).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = conntrace();
    let output = command
        .arg("replay")
        .arg(&file)
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$0\" replay \"$1\" >&-"])
        .arg(binary());
    assert!(shell.arg(&file).status().unwrap().success());
}

/// Reads the byte offset from an error message.
fn offset(errors: &str) -> usize {
    let (_, after) = errors.split_once("damaged at byte ").unwrap();
    after.split(':').next().unwrap().parse().unwrap()
}

fn cut_off() {
    let recorded = recorded();
    for len in (1..recorded.bytes.len()).step_by(37) {
        let output = replay(&recorded.bytes[..len], &["--all"]);
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{len}: {errors}");
        assert!(errors.starts_with("conntrace: cannot replay recording: it is damaged"));
        assert!(offset(errors) <= len, "{len}: {errors}");
        assert!(recorded.lines.starts_with(stdout(&output)), "{len}");
        assert!(stdout(&output).is_empty() || stdout(&output).ends_with('\n'));
    }
}

fn damaged() {
    let recorded = recorded();
    let mut bytes = recorded.bytes.clone();
    let behind_some = bytes.len() / 4 * 3;
    bytes[behind_some] ^= 1;
    let output = replay(&bytes, &["--all"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(offset(stderr(&output)) <= behind_some);
    assert!(stdout(&output).lines().count() > 2 && recorded.lines.starts_with(stdout(&output)));
}
