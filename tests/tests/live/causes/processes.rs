//! Data read from the process that connected, and from no other.

use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    os::unix::ffi::OsStrExt as _,
    process::{self, Command, ExitCode},
    thread,
    time::Duration,
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    Dir, LinesFile, Partner, attempt, in_role, in_role_to, live_test, remote_of_role, say_and_wait,
    unless,
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::causes::{CERTAIN, live};

/// Number of environment entries of 96 kB each. conntrace reads a mebibyte of an environment.
const ENTRIES: usize = 12;

/// Lists the tests of this group.
pub(super) fn tests() -> Vec<Trial> {
    vec![
        live_test("proxy_in_path", proxy_in_path),
        live_test("process_is_gone", process_is_gone),
        unless(
            cannot_choose_pids(),
            live_test("pid_is_anothers", pid_is_anothers),
        ),
    ]
}

/// Connects, and keeps the process running until its line has been printed.
pub(super) fn connect_and_wait() -> ExitCode {
    attempt(remote_of_role());
    say_and_wait("connected");
    ExitCode::SUCCESS
}

/// A proxy's user and password, and other secrets of the environment, appear in no line.
fn proxy_in_path() {
    let remote = SocketAddr::from((FAR_V4, ports::RESETS));
    let evidence = json!({ "variable": "https_proxy", "proxy": remote });
    let live = live();
    let line = live.expect_cause(1, ("proxy_in_path", CERTAIN), &evidence, |_| {
        let mut command = in_role_to("connect", remote);
        secretive(&mut command, remote);
        Partner::start(command)
    });
    assert_ne!(line["process"]["pid"], process::id());
    let secrets = live
        .tracer()
        .lines(|line| line.to_string().contains("hunter2"));
    assert_eq!(secrets, Vec::<Value>::new());
}

/// Gives a process a hostile environment: more than conntrace reads, and bytes that are not text.
fn secretive(command: &mut Command, proxy: SocketAddr) {
    for number in 0..ENTRIES {
        command.env(format!("HUGE{number}"), "hunter2\n\u{1b}[2J".repeat(8000));
    }
    command
        .env(
            "ALL_PROXY",
            OsStr::from_bytes(b"\xff\n\x1b[2J\x9b\xc3(hunter2"),
        )
        .env("TOKEN", "hunter2")
        .env("HTTPS_PROXY", format!("http://hunter2:hunter2@{proxy}/"))
        .env("http_proxy", "http://hunter2.example:3128");
}

/// The process has exited, so its environment and its namespace can no longer be read. The line
/// claims nothing about them.
fn process_is_gone() {
    let remote = SocketAddr::from((FAR_V4, ports::RESETS));
    let line = live().last_line(1, |_| {
        let mut command = in_role_to("connect", remote);
        secretive(&mut command, remote);
        assert!(Partner::start(command).finish().success());
    });
    let cause = &line["cause"];
    match line["undiagnosed"].as_str() {
        // The agent read the environment before the process exited.
        None => assert_eq!(cause["code"], "proxy_in_path", "{line:#}"),
        Some(reason) => {
            assert_eq!(reason, "no_access", "{line:#}");
            assert!(
                cause.is_null() || cause["code"] == "nothing_listening",
                "{line:#}"
            );
        }
    }
}

/// Sysctl with the last pid assigned; the kernel assigns the next one after it.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Maximum number of processes started until one has the wanted pid, because others may take it.
const SPAWNS_MAX: usize = 100;

fn cannot_choose_pids() -> Option<&'static str> {
    let is_there = std::path::Path::new(LAST_PID).exists();
    (!is_there).then_some("needs a kernel that lets root choose pids (CHECKPOINT_RESTORE)")
}

/// Waits until the test is over.
pub(super) fn wait() -> ExitCode {
    say_and_wait("waits");
    ExitCode::SUCCESS
}

/// Starts a process with the pid of an earlier one, and this proxy in its environment.
fn successor(pid: u32, proxy: SocketAddr) -> Partner {
    for _ in 0..SPAWNS_MAX {
        fs::write(LAST_PID, (pid - 1).to_string()).unwrap();
        let mut command = in_role("wait");
        command.env("https_proxy", format!("http://{proxy}/"));
        let successor = Partner::start(command);
        if successor.pid() == pid {
            return successor;
        }
        assert!(successor.finish().success());
    }
    panic!("somebody else has pid {pid}");
}

/// Another process has taken the pid before the agent reads /proc. Neither its environment nor its
/// program is used.
fn pid_is_anothers() {
    let remote = SocketAddr::from((FAR_V4, ports::RESETS));
    let dir = Dir::new("pid-is-anothers");
    let file = LinesFile::new(&dir.0);
    let pid = conntrace_testnet::run("pid", |testnet| {
        let netns = testnet.netns.to_string();
        let agent = file.run(&["--netns", &netns, "--summary", "0"]);
        agent.signal(Signal::SIGSTOP);
        let process = Partner::start(in_role_to("connect", remote));
        let pid = process.pid();
        // Start times of processes have a resolution of 10 ms.
        thread::sleep(Duration::from_millis(20));
        assert!(process.finish().success());
        let successor = successor(pid, remote);
        agent.signal(Signal::SIGCONT);
        file.wait_for("\"type\":\"outcome\"", 1);
        assert!(successor.finish().success());
        agent.stop(Signal::SIGTERM);
        pid
    })
    .unwrap();
    let lines = file.lines();
    let outcome = lines.lines().find(|line| line.contains("\"outcome\""));
    let line: Value = serde_json::from_str(outcome.unwrap()).unwrap();
    assert_eq!(line["process"]["pid"], pid, "{line:#}");
    assert!(line["process"]["exe"].is_null(), "{line:#}");
    assert_eq!(line["cause"]["code"], "nothing_listening", "{line:#}");
}
