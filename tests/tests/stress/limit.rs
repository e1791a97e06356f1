//! Suppression of repeated lines by `--limit`, and the count of suppressed lines.

use std::{collections::HashMap, fs, net::IpAddr, process::ExitCode, thread, time::Duration};

use conntrace_testnet::{self, FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Attempted, Dir, Recording, TracerProcess, assert_adds_up, attempt, live_test, replay,
    run_one_by_one_with_replay, stderr, stdout, tcp,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Attempts of a storm.
const STORM: u64 = 500;
const THREADS: u64 = 2;
/// Length of a rate window.
const WINDOW: SignedDuration = SignedDuration::from_secs(1);

pub(crate) fn main() -> ExitCode {
    // One storm in one process: its limit is for all its threads.
    run_one_by_one_with_replay(vec![
        live_test("storm_v4", || storm(FAR_V4.into())),
        live_test("storm_v6", || storm(FAR_V6.into())),
        live_test("each_kind_on_its_own", each_kind_on_its_own),
        live_test("stalls_are_limited", stalls_are_limited),
        live_test("replayed", replayed),
    ])
}

/// Refused from several threads of this process, all within one limit.
fn refuse_many(to: IpAddr) {
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..STORM / THREADS).for_each(|_| drop(attempt((to, ports::RESETS)))));
        }
    });
}

fn number(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap()
}

fn outcomes(lines: &[Value]) -> impl Iterator<Item = &Value> {
    lines.iter().filter(|line| line["type"] == "outcome")
}

/// Lines that are like one another, in the order they came.
fn of_kind<'a>(lines: &'a [Value], netns: u32, port: u16) -> Vec<&'a Value> {
    let is = |line: &&'a Value| line["netns"] == netns && line["remote"]["port"] == port;
    outcomes(lines).filter(is).collect()
}

/// Checks that no window exceeds the limit of lines.
fn assert_within(lines: &[&Value], limit: usize) {
    let at = |line: &Value| line["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let mut windows: Vec<(Timestamp, usize)> = Vec::new();
    for line in lines {
        match windows.last_mut() {
            Some((began, count)) if at(line).duration_since(*began) < WINDOW => *count += 1,
            _ => windows.push((at(line), 1)),
        }
    }
    assert!(
        windows.iter().all(|(_, count)| *count <= limit),
        "{windows:?}"
    );
}

/// Checks for the whole host that an outcome was either printed or counted. Returns the number of
/// those only counted.
fn assert_counted(lines: &[Value]) -> u64 {
    let stop = lines.last().unwrap();
    assert_adds_up(stop);
    let labelled = stop["outcomes"].as_object().unwrap().iter();
    let printable =
        labelled.filter(|(label, _)| !["established", "cancelled"].contains(&&***label));
    let printable: u64 = printable.map(|(_, count)| count.as_u64().unwrap()).sum();
    let printed = outcomes(lines).count() as u64;
    assert_eq!(printed + number(stop, "suppressed"), printable);
    let summary = lines
        .iter()
        .rfind(|line| line["type"] == "summary")
        .unwrap();
    assert_eq!(summary["suppressed"], stop["suppressed"]);
    number(stop, "suppressed")
}

fn storm(to: IpAddr) {
    let tracer = TracerProcess::start(&["--limit", "5", "--no-stalls"]);
    let netns = conntrace_testnet::run("storm", |testnet| {
        refuse_many(to);
        thread::sleep(Duration::from_millis(1_100));
        attempt((to, ports::RESETS));
        testnet.netns
    })
    .unwrap();
    let lines = tracer.stop();
    let ours = of_kind(&lines, netns, ports::RESETS);
    assert_within(&ours, 5);
    let told: u64 = ours.iter().map(|line| number(line, "suppressed")).sum();
    assert_eq!(
        ours.len() as u64 + told,
        STORM + 1,
        "every one is accounted"
    );
    assert!(ours[..5].iter().all(|line| number(line, "suppressed") == 0));
    assert!(number(ours.last().unwrap(), "suppressed") > 0);
    assert!(assert_counted(&lines) >= told);
}

/// A storm does not suppress lines of another remote or label.
fn each_kind_on_its_own() {
    let tracer = TracerProcess::start(&["--limit", "1", "--no-stalls"]);
    let netns = conntrace_testnet::run("storm", |testnet| {
        refuse_many(FAR_V4.into());
        attempt((FAR_V6, ports::RESETS));
        attempt((FAR_V4, ports::PORT_UNREACHABLE));
        attempt((FAR_V4, ports::HOST_UNREACHABLE));
        testnet.netns
    })
    .unwrap();
    let lines = tracer.stop();
    let ours = outcomes(&lines).filter(|line| line["netns"] == netns);
    let mut kinds: HashMap<String, u64> = HashMap::new();
    for line in ours {
        let kind = format!("{} {}", line["label"], line["remote"]);
        *kinds.entry(kind).or_default() += 1;
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    // The storm's own may have lasted into a second second.
    let once = kinds.values().filter(|count| **count == 1).count();
    assert!(once >= 3, "{kinds:?}");
    // Outcomes without a line are still in the totals.
    assert!(assert_counted(&lines) >= STORM - 5);
}

/// Stalls of one service to one destination are one warning.
fn stalls_are_limited() {
    let silent = (FAR_V4, ports::SILENT).into();
    let tracer = TracerProcess::start(&["--limit", "1"]);
    let netns = conntrace_testnet::run("stalling", |testnet| {
        let sockets = [0; 3].map(|_| {
            let socket = tcp(silent);
            Attempted::begin(&socket, silent);
            socket
        });
        thread::sleep(Duration::from_millis(1_500));
        drop(sockets);
        testnet.netns
    })
    .unwrap();
    let lines = tracer.stop();
    let is_stall = |line: &&Value| line["type"] == "stall" && line["netns"] == netns;
    let stalls: Vec<_> = lines.iter().filter(is_stall).collect();
    // They are not all in the same second on a busy machine.
    let told: u64 = stalls.iter().map(|stall| number(stall, "suppressed")).sum();
    assert!((1..3).contains(&stalls.len()), "{stalls:?}");
    assert_eq!(told, 0, "the next one would tell");
    assert_eq!(of_kind(&lines, netns, ports::SILENT).len(), 1);
    let left_out = 3 - stalls.len() as u64 + 2;
    assert!(number(lines.last().unwrap(), "suppressed") >= left_out);
}

/// A replay suppresses the same lines or none, because the recording has them all.
fn replayed() {
    let dir = Dir::new("limit");
    let recording = Recording::start(&dir.0, &["--limit", "3", "--no-stalls"]);
    conntrace_testnet::run("storm", |_| refuse_many(FAR_V4.into())).unwrap();
    let (lines, errors) = recording.stop();
    assert_eq!(errors, "");
    let bytes = fs::read(dir.file("recording")).unwrap();
    let lines_of = |options: &[&str]| {
        let output = replay(&bytes, options);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
        stdout(&output).to_owned()
    };
    assert_eq!(
        lines_of(&["--limit", "3", "--no-stalls"]),
        lines,
        "byte for byte"
    );
    let parsed = |lines: &str| -> Vec<Value> {
        let lines = lines.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let suppressed = assert_counted(&parsed(&lines));
    assert!(suppressed > 0);
    let unlimited = parsed(&lines_of(&["--no-stalls"]));
    assert_eq!(assert_counted(&unlimited), 0);
    let limited = outcomes(&parsed(&lines)).count() as u64;
    assert_eq!(outcomes(&unlimited).count() as u64, limited + suppressed);
}
