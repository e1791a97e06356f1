//! Runs of `conntrace demo`: every scene ends as expected, and nothing is left behind.

use std::{
    collections::BTreeSet,
    env, fs,
    process::{Command, ExitCode, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::{
    binary, conntrace, copy_program, kernel_version, lacks_tracefs, live_test, matching,
    run_one_by_one, stderr, stdout, unless, without_tracefs,
};
use serde_json::Value;

pub(crate) fn main() -> ExitCode {
    let tracefs = lacks_tracefs();
    let with_tracefs = |name, test: fn()| unless(tracefs.clone(), live_test(name, test));
    run_one_by_one(vec![
        with_tracefs("as_expected", as_expected),
        with_tracefs("as_json", as_json),
        live_test("closed_stdout", closed_stdout),
        live_test("without_tracefs", scenes_without_tracefs),
        live_test("killed", killed),
    ])
}

/// The text report goes to stdout as a whole, even if that is a file.
fn as_expected() {
    let output = play(&[]);
    let text = stdout(&output);
    assert_eq!(stderr(&output), "");
    assert!(text.starts_with(&format!("{SCENES} scenes ")), "{text}");
    assert_played(text, &[]);
    assert_told(text);
    assert!(!text.contains("password"), "of a proxy");
}

/// With `--format json` stdout has only the lines, and the report goes to stderr.
fn as_json() {
    let output = play(&["--format", "json"]);
    let mut codes = BTreeSet::new();
    for line in stdout(&output).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(["outcome", "stall"].contains(&line["type"].as_str().unwrap()));
        codes.extend(line["cause"]["code"].as_str().map(str::to_owned));
    }
    let report = stderr(&output);
    assert_played(report, &[]);
    for code in &codes {
        assert!(
            report.contains(&format!(": {code} (")),
            "{code} in {report}"
        );
    }
    assert!(!stdout(&output).contains("password"), "of a proxy");
}

/// A reader that closes the pipe ends the demo without a failure.
fn closed_stdout() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = conntrace().arg("demo").stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

/// Runs the demo with these options. It is played again if the tracer reports that a busy machine
/// left no time to look for a cause.
fn play(options: &[&str]) -> Output {
    // The binary may have to be built first.
    let mut demo = conntrace();
    demo.arg("demo").args(options);
    let mut tries = 0;
    loop {
        tries += 1;
        let began = Instant::now();
        let output = demo.output().unwrap();
        let report = report(&output);
        let had_time = skips(report)
            .iter()
            .all(|(why, _)| !why.ends_with(": no_time"));
        if tries == TRIES || had_time {
            assert!(output.status.success(), "{report}");
            let in_time = began.elapsed() < Duration::from_secs(15);
            assert!(in_time);
            return output;
        }
        eprintln!("there was no time to look for a cause: once more");
    }
}

/// Finds the text report, on stdout or on stderr.
fn report(output: &Output) -> &str {
    [stdout(output), stderr(output)]
        .into_iter()
        .find(|text| text.contains("\nscene "))
        .unwrap_or_else(|| stderr(output))
}

/// Checks that every played scene has a block with its action and its line, and every cause a fix.
fn assert_told(text: &str) {
    let (_, table) = text.split_once("\nscene ").unwrap();
    let rows: Vec<_> = table.lines().filter(|row| row.contains(" same")).collect();
    for word in ["\n  what   ", "\n  line   "] {
        assert_eq!(text.matches(word).count(), rows.len(), "{word} in {text}");
    }
    let causes = rows.iter().filter(|row| row.contains(": ")).count();
    assert!(causes > SCENES / 2);
    assert_eq!(matching(text, "  fix    "), causes, "{text}");
    for line in table.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

/// Maximum number of times that the demo is played.
const TRIES: usize = 3;
/// Number of scenes in the demo.
const SCENES: usize = 84;
/// Kernel version that a scene needs, and the demo's reason for skipping it on an older one.
const SINCE: [((u32, u32), &str); 3] = [
    ((5, 17), "this kernel does not say why it drops a packet"),
    ((6, 3), "Protocol not available"),
    ((6, 5), "tcp_syn_linear_timeouts"),
];

/// Checks that every scene was played. Scenes may be skipped for one of these reasons, on an older
/// kernel, or if no ending was traced.
fn assert_played(text: &str, reasons: &[&str]) {
    let since = SINCE.iter().filter(|(since, _)| kernel_version() < *since);
    let allowed: Vec<_> = since
        .map(|(_, reason)| *reason)
        .chain(reasons.iter().copied())
        .chain(["the kernel traced no ending"])
        .collect();
    let mut skipped = 0;
    for (reason, scenes) in skips(text) {
        assert!(allowed.iter().any(|it| reason.contains(it)), "{text}");
        skipped += scenes;
    }
    let played = SCENES - skipped;
    let verdict =
        format!("\n\nPASSED: {played} scenes as expected, 0 different, {skipped} skipped\n");
    assert!(text.ends_with(&verdict), "{text}");
}

/// Reads the reasons for skipped scenes, and the number of scenes for each. A reason's lines are
/// indented by two columns, the scenes' names below it by four.
fn skips(text: &str) -> Vec<(String, usize)> {
    let (_, section) = text.split_once("\nSkipped:\n").unwrap_or_default();
    let mut found: Vec<(String, String)> = Vec::new();
    for line in section.lines().take_while(|line| !line.is_empty()) {
        match (line.strip_prefix("    "), found.last_mut()) {
            (Some(names), Some((_, before))) => before.push_str(names),
            (_, Some((reason, names))) if names.is_empty() => {
                reason.push(' ');
                reason.push_str(line.trim_start());
            }
            _ => found.push((line.trim_start().to_owned(), String::new())),
        }
    }
    let count = |names: String| names.matches(',').count() + 1;
    found
        .into_iter()
        .map(|(reason, names)| (reason, count(names)))
        .collect()
}

/// Scenes that only system calls can show are skipped without tracefs, with the reason printed.
fn scenes_without_tracefs() {
    let output = without_tracefs(|| play(&["--tier", "tracepoint"]));
    let text = stdout(&output);
    let no_tracefs = "mount -t tracefs";
    assert_played(text, &[no_tracefs]);
    let for_that = |(reason, _): &&(String, usize)| reason.contains(no_tracefs);
    let skips = skips(text);
    let scenes: usize = skips
        .iter()
        .filter(for_that)
        .map(|(_, scenes)| scenes)
        .sum();
    assert_eq!(scenes, 9, "{text}");
}

/// A killed demo leaves neither namespaces nor processes.
fn killed() {
    // A copy of the program tells these processes from those of other tests.
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
