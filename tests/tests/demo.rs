//! `conntrace demo`: every scene as expected, and nothing left behind.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

use std::{
    env, fs,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::{binary, conntrace, live_test, run, stderr, stdout};
use serde_json::Value;

fn main() -> ExitCode {
    run(vec![
        live_test("as_expected", as_expected),
        live_test("killed", killed),
    ])
}

fn as_expected() {
    // Which may have to be built first.
    let mut demo = conntrace();
    let began = Instant::now();
    let output = demo.arg("demo").output().unwrap();
    let table = stderr(&output);
    assert!(output.status.success(), "{table}");
    assert!(began.elapsed() < Duration::from_secs(15));
    assert!(
        table.ends_with("54 scenes as expected, 0 different, 0 skipped\n"),
        "{table}"
    );
    for line in stdout(&output).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(["outcome", "stall"].contains(&line["type"].as_str().unwrap()));
    }
}

/// Its namespaces end with it, and so does the process that it started.
fn killed() {
    // A program of its own tells its processes from those of other tests.
    let copy = env::temp_dir().join(format!("conntrace-demo-{}", std::process::id()));
    fs::copy(binary(), &copy).unwrap();
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
    let until = Instant::now() + Duration::from_secs(10);
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
