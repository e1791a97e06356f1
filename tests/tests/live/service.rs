//! Messages to a service manager (`sd_notify(3)`). `packaging/test/run` plays a real systemd.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::net::UnixDatagram,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::{Agent, Dir, as_under_test, conntrace, live_test, matching, run};
use nix::sys::signal::Signal;

/// Interval within which the service manager's watchdog expects a ping.
const WATCHDOG: Duration = Duration::from_millis(300);

pub(crate) fn main() -> ExitCode {
    run(vec![
        live_test("tells_how_it_goes", tells_how_it_goes),
        live_test("nobody_listens", nobody_listens),
        live_test("nobody_empties_the_socket", nobody_empties_the_socket),
    ])
}

/// Starts an agent that notifies this socket and writes its lines to this file.
fn start(socket: &Path, lines: &Path) -> Agent {
    let mut command = conntrace();
    command
        .args(["--comm", "nobody-at-all"])
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    as_under_test(&mut command);
    Agent::spawn(command.stdout(File::create(lines).unwrap()))
}

/// Returns the received messages up to the first that contains the text.
fn wait_for(socket: &UnixDatagram, text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    while !messages
        .last()
        .is_some_and(|message: &String| message.contains(text))
    {
        let mut bytes = [0; 4096];
        let len = socket
            .recv(&mut bytes)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let message = bytes.get(..len).unwrap();
        messages.push(String::from_utf8(message.to_vec()).unwrap());
    }
    messages
}

/// The agent reports READY after its start line, then regular watchdog pings even when idle, and
/// STOPPING at the end.
fn tells_how_it_goes() {
    let dir = Dir::new("notify");
    let (path, lines) = (dir.file("socket"), dir.file("lines"));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let agent = start(&path, &lines);
    wait_for(&socket, "READY=1");
    let deadline = Instant::now() + Duration::from_secs(2);
    let text = || fs::read_to_string(&lines).unwrap();
    while matching(&text(), "\"type\":\"start\"") == 0 {
        assert!(Instant::now() < deadline, "the start line comes with it");
    }
    assert_tells_without_capabilities(agent.pid());
    let began = Instant::now();
    for _ in 0..10 {
        wait_for(&socket, "WATCHDOG=1");
    }
    assert!(began.elapsed() < 10 * WATCHDOG, "{:?}", began.elapsed());
    // A stopped process sends no ping; it resumes after SIGCONT.
    agent.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_millis(100));
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 4096]).is_ok() {}
    thread::sleep(2 * WATCHDOG);
    assert!(socket.recv(&mut [0; 4096]).is_err(), "it is stopped");
    socket.set_nonblocking(false).unwrap();
    agent.signal(Signal::SIGCONT);
    wait_for(&socket, "WATCHDOG=1");
    let status = wait_for(&socket, "failures/s");
    let status = status.last().unwrap();
    assert!(status.contains("STATUS=tier "), "{status}");
    assert!(
        status.contains(" attempts, 0 failures, 0 lost, 0 undelivered; now "),
        "{status}"
    );
    agent.signal(Signal::SIGTERM);
    wait_for(&socket, "STOPPING=1");
    agent.assert_ends_cleanly();
    assert_eq!(matching(&text(), "\"type\":\"stop\""), 1);
}

/// Checks that the thread that sends messages has no capability.
fn assert_tells_without_capabilities(pid: u32) {
    let mut sets = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        let status = fs::read_to_string(task.join("status")).unwrap();
        let permitted = status.lines().find(|line| line.starts_with("CapPrm:"));
        let name = fs::read_to_string(task.join("comm")).unwrap();
        sets.insert(name.trim().to_owned(), permitted.unwrap().to_owned());
    }
    let none = "CapPrm:\t0000000000000000";
    assert_eq!(
        sets.get("conntrace-tell").map(String::as_str),
        Some(none),
        "{sets:?}"
    );
}

/// A missing socket is reported once, and tracing goes on.
fn nobody_listens() {
    let dir = Dir::new("notify-nobody");
    let lines = dir.file("lines");
    let agent = start(&dir.file("no-socket"), &lines);
    let text = || fs::read_to_string(&lines).unwrap();
    while matching(&text(), "\"type\":\"start\"") == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(2 * WATCHDOG);
    agent.signal(Signal::SIGTERM);
    let (status, errors) = agent.wait();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert_eq!(
        matching(&errors, "cannot notify the service manager"),
        1,
        "{errors}"
    );
}

/// A full socket does not keep the agent from ending.
fn nobody_empties_the_socket() {
    let dir = Dir::new("notify-stuck");
    let (path, lines) = (dir.file("socket"), dir.file("lines"));
    let _socket = UnixDatagram::bind(&path).unwrap();
    let agent = start(&path, &lines);
    // The pings exceed the socket's queue: `net.unix.max_dgram_qlen` is 10.
    thread::sleep(WATCHDOG * 20);
    agent.stop(Signal::SIGTERM);
}
