//! `conntrace demo`: every scene as expected, and nothing left behind.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

use std::{
    collections::BTreeSet,
    env, fs,
    process::{Command, ExitCode, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::{
    binary, conntrace, copy_program, kernel_version, live_test, matching, mount_tracefs,
    run_one_by_one, stderr, stdout, without_tracefs,
};
use serde_json::Value;

fn main() -> ExitCode {
    let as_expected = match mount_tracefs() {
        Ok(()) => live_test("as_expected", as_expected),
        Err(error) => live_test("as_expected", || {})
            .with_kind(format!("needs tracefs: {error}"))
            .with_ignored_flag(true),
    };
    run_one_by_one(vec![
        as_expected,
        live_test("without_tracefs", scenes_without_tracefs),
        live_test("killed", killed),
    ])
}

fn as_expected() {
    let output = play(&[]);
    let table = stderr(&output);
    assert_played(table, &[]);
    let mut codes = BTreeSet::new();
    for line in stdout(&output).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(["outcome", "stall"].contains(&line["type"].as_str().unwrap()));
        codes.extend(line["cause"]["code"].as_str().map(str::to_owned));
    }
    assert_told(table, &codes);
    assert!(!stdout(&output).contains("password"), "of a proxy");
    assert!(!table.contains("password"), "of a proxy");
}

/// Runs the demo with these options. It is played again where a busy machine left no
/// time to look for a cause, and the tracer says so.
fn play(options: &[&str]) -> Output {
    // Which may have to be built first.
    let mut demo = conntrace();
    demo.arg("demo").args(options);
    let mut tries = 0;
    loop {
        tries += 1;
        let began = Instant::now();
        let output = demo.output().unwrap();
        let table = stderr(&output);
        if tries == TRIES || !table.contains("no time to look") {
            assert!(output.status.success(), "{table}");
            let in_time = began.elapsed() < Duration::from_secs(15);
            assert!(in_time);
            return output;
        }
        eprintln!("there was no time to look for a cause: once more");
    }
}

/// Of every scene with one of these causes it is told why, and what to do.
fn assert_told(table: &str, codes: &BTreeSet<String>) {
    let rows = table.lines().filter(|line| line.contains(" ok"));
    let has_cause = |row: &&str| row.contains(", ") && codes.iter().any(|code| row.contains(code));
    let causes = rows.filter(has_cause).count();
    assert!(causes >= codes.len(), "{table}");
    for sentence in ["  why: ", "  fix: "] {
        assert_eq!(matching(table, sentence), causes, "{table}");
    }
}

/// How often it is played at most.
const TRIES: usize = 3;
/// Scenes there are.
const SCENES: usize = 79;
/// Since when a kernel has what a scene needs, and how the demo says that it has not.
const SINCE: [((u32, u32), &str); 3] = [
    ((5, 17), "this kernel does not say why it drops a packet"),
    ((6, 3), "Protocol not available"),
    ((6, 5), "tcp_syn_linear_timeouts"),
];

/// Every scene was, but for those that were skipped for one of these reasons, for want
/// of something that the kernel has only later, or for an ending that it did not trace.
fn assert_played(table: &str, reasons: &[&str]) {
    let since = SINCE.iter().filter(|(since, _)| kernel_version() < *since);
    let reasons: Vec<_> = since
        .map(|(_, reason)| *reason)
        .chain(reasons.iter().copied())
        .collect();
    let skips = table
        .lines()
        .filter(|line| line.contains(" skipped") && !line.contains("different"));
    let allowed = |line: &&str| {
        let untraced = "the kernel traced no ending";
        line.contains(untraced) || reasons.iter().any(|reason| line.contains(reason))
    };
    let skipped = skips.clone().filter(allowed).count();
    assert_eq!(skipped, skips.count(), "{table}");
    let played = SCENES - skipped;
    let sum = format!("{played} scenes as expected, 0 different, {skipped} skipped\n");
    assert!(table.ends_with(&sum), "{table}");
}

/// What only system calls show is skipped, and why is said.
fn scenes_without_tracefs() {
    let output = without_tracefs(|| play(&["--tier", "tracepoint"]));
    let table = stderr(&output);
    let no_tracefs = "mount -t tracefs";
    assert_played(table, &[no_tracefs]);
    assert_eq!(matching(table, no_tracefs), 8, "{table}");
}

/// Its namespaces end with it, and so does the process that it started.
fn killed() {
    // A program of its own tells its processes from those of other tests.
    let copy = env::temp_dir().join(format!("conntrace-demo-{}", std::process::id()));
    copy_program(binary(), &copy);
    let running = || {
        let processes = fs::read_dir("/proc").unwrap();
        let exes = processes.map(|entry| fs::read_link(entry.unwrap().path().join("exe")));
        exes.filter(|exe| exe.as_ref().is_ok_and(|exe| *exe == copy))
            .count()
    };
    let mut demo = Command::new(&copy)
        .arg("demo")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while running() < 2 {
        assert!(Instant::now() < until, "it starts a process");
        thread::sleep(Duration::from_millis(1));
    }
    demo.kill().unwrap();
    demo.wait().unwrap();
    while running() > 0 {
        assert!(Instant::now() < until, "nothing is left");
        thread::sleep(Duration::from_millis(1));
    }
    fs::remove_file(&copy).unwrap();
}
