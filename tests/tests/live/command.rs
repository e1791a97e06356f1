//! Behaviour of the command itself: lines around the outcomes, and exit statuses.

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitCode, Output, Stdio},
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    TracerProcess, accounted, assert_adds_up, attempt, binary, conntrace, copy_program, live_test,
    plain_test, run_one_by_one,
};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

pub(crate) fn main() -> ExitCode {
    // Each of these tests traces the whole host, and so the attempts of the others.
    run_one_by_one(vec![
        plain_test("schema", schema),
        live_test("without_privilege", without_privilege),
        live_test("start_and_stop", start_and_stop),
        live_test("gives_up_capabilities", gives_up_capabilities),
        live_test("summaries_add_up", summaries_add_up),
        live_test("failures_only_by_default", failures_only_by_default),
        live_test("no_stalls", no_stalls),
        live_test("first_failure_after_quiet", first_failure_after_quiet),
        live_test("closed_stdout", closed_stdout),
        live_test("full_disk", full_disk),
        live_test("debug_lines", debug_lines),
        live_test("text", text),
        live_test("two_at_once", two_at_once),
    ])
}

fn refusing() -> SocketAddr {
    (FAR_V4, ports::RESETS).into()
}

/// Makes this number of refused attempts on a testnet of its own; returns its network namespace.
fn refuse(count: usize) -> u32 {
    refuse_as("scenario", count)
}

fn refuse_as(comm: &str, count: usize) -> u32 {
    conntrace_testnet::run(comm, |testnet| {
        for _ in 0..count {
            attempt(refusing());
        }
        testnet.netns
    })
    .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn schema() {
    let output = conntrace().arg("schema").output().unwrap();
    assert!(output.status.success());
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
}

/// An unprivileged user gets exit status 3, and the missing capabilities with a remedy.
fn without_privilege() {
    // An unprivileged user may have no access to the build directory.
    let copy = env::temp_dir().join(format!("conntrace-{}", std::process::id()));
    copy_program(binary(), &copy);
    let nobody = |args: &[&str]| {
        let output = Command::new(&copy)
            .args(args)
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap();
        (output.status.code(), stderr(&output))
    };
    let expected = "conntrace: tracing needs root, or the capabilities CAP_BPF and \
                    CAP_PERFMON: run with sudo, or give them to the service\n";
    for args in [&[][..], &["run"], &["demo"]] {
        assert_eq!(nobody(args), (Some(3), expected.to_owned()), "{args:?}");
    }
    assert_eq!(nobody(&["schema"]).0, Some(0));
    fs::remove_file(&copy).unwrap();
}

fn start_and_stop() {
    let tracer = TracerProcess::start(&[]);
    let pid = tracer.pid();
    let lines = tracer.stop();
    let start = &lines[0];
    assert_eq!(start["type"], "start");
    assert_eq!(start["pid"], pid);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(start["kernel"], release.trim());
    let hooks = start["hooks"].as_array().unwrap();
    // The tests of the tiers check which hooks are attached and what they cover.
    assert_eq!(hooks[0]["name"], "inet_sock_set_state");
    for hook in hooks {
        assert_eq!(hook["attached"], hook["reason"].is_null(), "{hook}");
    }
    let [summary, stop] = &lines[lines.len() - 2..] else {
        panic!("two lines at the end");
    };
    assert_eq!(
        (&summary["type"], &stop["type"]),
        (&"summary".into(), &"stop".into())
    );
    assert_eq!(stop["reason"], "SIGTERM");
    assert_adds_up(stop);
}

/// Every thread keeps only the capabilities that it needs, and cannot regain others.
fn gives_up_capabilities() {
    let (dac_read_search, net_admin, sys_ptrace, sys_admin, bpf) = (2, 12, 19, 21, 39);
    let of_looks = [dac_read_search, sys_ptrace, bpf];
    keeps_capabilities(&["--no-diagnosis"], &of_looks);
    keeps_capabilities(&[], &[&of_looks[..], &[net_admin, sys_admin]].concat());
}

fn keeps_capabilities(options: &[&str], of_looks: &[u32]) {
    let (dac_read_search, bpf) = (2, 39);
    let tracer = TracerProcess::start(options);
    let set = |bits: &[u32]| bits.iter().map(|bit| 1_u64 << bit).sum::<u64>();
    let tasks = fs::read_dir(format!("/proc/{}/task", tracer.pid())).unwrap();
    let mut threads = Vec::new();
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        let name = field("Name:");
        let kept = match name.as_str() {
            "conntrace" | "conntrace-write" => 0,
            "conntrace-work" => set(&[dac_read_search, bpf]),
            "conntrace-look" | "conntrace-spawn" => set(of_looks),
            other => panic!("a thread called {other}"),
        };
        for (name, expected) in [
            ("CapEff:", kept),
            ("CapPrm:", kept),
            ("CapInh:", 0),
            ("CapBnd:", 0),
        ] {
            let found = u64::from_str_radix(&field(name), 16).unwrap();
            assert_eq!(found, expected, "{name} {status}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        threads.push(name);
    }
    threads.sort();
    let expected = "conntrace conntrace-look conntrace-look conntrace-look conntrace-spawn \
                    conntrace-work conntrace-write";
    assert_eq!(threads.join(" "), expected);
    tracer.stop();
}

fn summaries_add_up() {
    let tracer = TracerProcess::start(&["--summary", "1"]);
    // The process name is unique, because the tracer sees other tests' attempts as well.
    let netns = refuse_as("three-hundred", 300);
    tracer.wait_for_endings(netns, 300);
    std::thread::sleep(Duration::from_millis(2_500));
    let lines = tracer.stop();
    let summaries: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "summary")
        .collect();
    assert!(summaries.len() >= 3, "two by the clock and the final one");
    // Other tests may begin attempts at the same time.
    let (last, running) = summaries.split_last().unwrap();
    for summary in running {
        assert!(accounted(summary) <= summary["attempts"].as_u64().unwrap());
    }
    assert_adds_up(last);
    // A summary line may come in between.
    let tops = summaries
        .iter()
        .flat_map(|summary| summary["top"].as_array().unwrap());
    let ours = tops.filter(|top| {
        top["label"] == "refused"
            && top["remote"]["port"] == ports::RESETS
            && top["comm"] == "three-hundred"
    });
    let counts = ours.map(|top| top["count"].as_u64().unwrap());
    assert_eq!(
        counts.sum::<u64>(),
        300,
        "each counted once, since the last one"
    );
}

fn failures_only_by_default() {
    let tracer = TracerProcess::start(&[]);
    // Another test may have the namespace's number by the time the tracer stops.
    let name = "by-default";
    let netns = conntrace_testnet::run(name, |testnet| {
        attempt((FAR_V4, ports::ACCEPTS));
        attempt(refusing());
        testnet.netns
    })
    .unwrap();
    tracer.wait_for_endings(netns, 1);
    let lines = tracer.stop();
    let ours = |line: &&Value| line["process"]["comm"] == name;
    let outcomes: Vec<_> = lines.iter().filter(ours).collect();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0]["label"], "refused");
    let established = &lines.last().unwrap()["outcomes"]["established"];
    assert!(established.as_u64().unwrap() >= 1, "counted all the same");
}

fn no_stalls() {
    let tracer = TracerProcess::start(&["--all", "--no-stalls"]);
    let netns = conntrace_testnet::run("scenario", |testnet| {
        attempt((FAR_V4, ports::ACCEPTS_SECOND_SYN));
        testnet.netns
    })
    .unwrap();
    tracer.wait_for_endings(netns, 1);
    let lines = tracer.stop();
    assert!(
        !lines
            .iter()
            .any(|line| line["type"] == "stall" && line["netns"] == netns)
    );
}

/// The first failure after a quiet period is readable at once. `cargo xtask bench` measures the
/// delay.
fn first_failure_after_quiet() {
    let mut child = to_pipe(&["--format", "json", "--summary", "0"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let mut waits: Vec<Duration> = conntrace_testnet::run("scenario", |testnet| {
        let mut waits = Vec::new();
        for _ in 0..7 {
            std::thread::sleep(Duration::from_millis(300));
            attempt(refusing());
            let told = Instant::now();
            let own = format!("\"netns\":{}", testnet.netns);
            while !lines.next().unwrap().unwrap().contains(&own) {}
            waits.push(told.elapsed());
        }
        waits
    })
    .unwrap();
    waits.sort();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(waits[3] < Duration::from_millis(5), "median of {waits:?}");
}

fn to_pipe(args: &[&str]) -> Child {
    conntrace()
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A reader that closes the pipe stops the tracer cleanly.
fn closed_stdout() {
    let mut child = to_pipe(&["--format", "json"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    refuse(1);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), stderr(&output)),
        (Some(0), String::new())
    );
}

fn full_disk() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = conntrace().stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = stderr(&output);
    assert!(
        errors.starts_with("conntrace: cannot write lines to stdout: No space left"),
        "{errors}"
    );
}

fn debug_lines() {
    // The filter leaves only its own attempt, because nothing reads stderr in the meantime.
    let mut child = to_pipe(&["--format", "json", "-vv", "--comm", "debugged"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let netns = refuse_as("debugged", 1);
    while !read_line(&mut stdout).contains(&format!("\"netns\":{netns}")) {}
    interrupt(&child);
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let errors = stderr(&child.wait_with_output().unwrap());
    assert!(
        errors.contains(&format!("opens in netns {netns}")),
        "{errors}"
    );
    assert!(errors.contains("an attempt ends in state 7"), "{errors}");
}

fn read_line(from: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    assert!(from.read_line(&mut line).unwrap() > 0, "no more lines");
    line
}

fn interrupt(child: &Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
}

fn text() {
    let mut child = to_pipe(&["--format", "text"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let started = read_line(&mut stdout);
    assert!(started.contains(" kernel "), "{started}");
    refuse(1);
    let line = loop {
        let line = read_line(&mut stdout);
        if line.contains("192.0.2.2:81") {
            break line;
        }
    };
    assert!(
        line.contains("  refused         scenario[") && line.contains("  ECONNREFUSED  "),
        "{line}"
    );
    interrupt(&child);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(
        rest.lines().last().unwrap().contains("stopped (SIGINT)"),
        "{rest}"
    );
    assert!(child.wait().unwrap().success());
}

fn two_at_once() {
    let (one, other) = (TracerProcess::start(&[]), TracerProcess::start(&[]));
    // An earlier namespace may have had the same number.
    let began = format!("{:.9}", jiff::Timestamp::now());
    let netns = refuse(50);
    let is_own = |line: &&Value| {
        let since = line["started"].as_str() >= Some(began.as_str());
        line["type"] == "outcome" && line["netns"] == netns && since
    };
    for tracer in [one, other] {
        tracer.wait_for_endings_since(&began, netns, 50);
        let lines = tracer.stop();
        let own = lines.iter().filter(is_own);
        assert_eq!(own.count(), 50);
        assert_adds_up(lines.last().unwrap());
    }
}
