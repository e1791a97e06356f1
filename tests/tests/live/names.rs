//! Names of processes and programs, which may contain any bytes.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::ffi::OsStrExt as _,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_LOCAL_V4, FAR_V4, ports};
use conntrace_tests::{
    Dir, LinesFile, Partner, attempt, check, copy_program, live_test, matching, run, say_and_wait,
};
use nix::sys::signal::Signal;

/// Environment variable that makes this program take the name of that number and connect instead of
/// running its tests.
const NAME: &str = "CONNTRACE_TEST_NAME";

/// Environment variable that makes this program listen on a port of 127.0.0.1, and connect to it at
/// another address.
const LISTEN: &str = "CONNTRACE_TEST_LISTEN";
/// Ports of the two tests of causes.
const PORTS: [u16; 2] = [7401, 7402];
/// Time limit for a busy machine to find the listener's process.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(300);

/// Names with line ends, quotes, terminal sequences in C0 and C1, DEL, a change of text direction,
/// and invalid UTF-8. The kernel keeps at most 15 bytes.
const NAMES: [&[u8]; 6] = [
    b"\n{\"type\":\"stop",
    b"\"\\\r\t\x0b\x00",
    b"\x1b]0;x\x07\x1b[2J",
    b"\xc2\x9b2J\x7f\xe2\x80\xae",
    b"\xff\xfe\xc3(\xe2\x82",
    b"%s${x}`id`'",
];

pub(crate) fn main() -> ExitCode {
    if let Ok(number) = env::var(NAME) {
        let name = NAMES[number.parse::<usize>().unwrap()];
        fs::write("/proc/self/comm", name).unwrap();
        if let Ok(port) = env::var(LISTEN) {
            let port = port.parse().unwrap();
            let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
            TcpStream::connect((FAR_LOCAL_V4, port)).unwrap_err();
            say_and_wait("connected");
            return ExitCode::SUCCESS;
        }
        let _ = TcpStream::connect((FAR_V4, ports::RESETS));
        return ExitCode::SUCCESS;
    }
    run(vec![
        live_test("json", json),
        live_test("text", text),
        live_test("in_causes_json", in_causes_json),
        live_test("in_causes_text", in_causes_text),
    ])
}

/// Cuts a name at its first NUL, as the kernel does.
fn comm(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap()
}

/// Runs programs with these names, which connect while an agent writes to a file. Returns the bytes
/// written.
fn lines_of(dir: &Dir, options: &[&str]) -> Vec<u8> {
    let file = LinesFile::new(&dir.0);
    conntrace_testnet::run("names", |testnet| {
        let filter = ["--netns", &testnet.netns.to_string()];
        let agent = file.run(&[&filter, options].concat());
        for (number, name) in NAMES.into_iter().enumerate() {
            let program = dir.0.join(OsStr::from_bytes(comm(name)));
            copy_program(&env::current_exe().unwrap(), &program);
            let mut command = Command::new(&program);
            let status = command.env(NAME, number.to_string()).status().unwrap();
            assert!(status.success());
        }
        // This attempt comes last: its line shows that all others are written.
        attempt((FAR_V4, ports::PORT_UNREACHABLE));
        agent.stop(Signal::SIGTERM);
    })
    .unwrap();
    file.bytes()
}

/// JSON has one object per line, with every name unchanged except for invalid UTF-8.
fn json() {
    let dir = Dir::new("names-json");
    let bytes = lines_of(&dir, &[]);
    assert!(bytes.iter().all(|byte| *byte >= b' ' || *byte == b'\n'));
    let lines = String::from_utf8(bytes).unwrap();
    let lines: Vec<_> = lines.lines().map(|line| check(line).unwrap()).collect();
    let outcomes: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "outcome")
        .collect();
    assert_eq!(outcomes.len(), NAMES.len() + 1);
    for (line, name) in outcomes.iter().zip(NAMES) {
        let name = String::from_utf8_lossy(comm(name));
        assert_eq!(line["process"]["comm"], *name);
        assert_eq!(line["process"]["leader_comm"], *name);
        let message = line["message"].as_str().unwrap();
        assert!(message.starts_with(&*name), "{message:?}");
        // The path is null if the process exited before the agent read /proc.
        let exe = &line["process"]["exe"];
        let path = dir.0.join(&*name);
        assert!(exe.is_null() || *exe == path.to_str().unwrap(), "{exe}");
    }
}

/// Text has one row per attempt, without any sequence that a terminal would act upon.
fn text() {
    let dir = Dir::new("names-text");
    let bytes = lines_of(&dir, &["--format", "text", "--summary", "0"]);
    let text = String::from_utf8(bytes).unwrap();
    let visible = |c: char| !c.is_control() && c != '\u{202e}';
    assert!(text.chars().all(|c| visible(c) || c == '\n'), "{text:?}");
    assert_eq!(
        matching(&text, "  ECONNREFUSED  "),
        NAMES.len() + 1,
        "{text}"
    );
    assert_shown(&text);
}

/// Checks that every name appears in escaped form.
fn assert_shown(text: &str) {
    for shown in [
        r#"\n{"type":"stop["#,
        r#""\\r\t\u{b}["#,
        r"\u{1b}]0;x\u{7}\u{1b}[2J[",
        r"\u{9b}2J\u{7f}\u{202e}[",
        "\u{fffd}\u{fffd}\u{fffd}(\u{fffd}[",
        "%s${x}`id`'[",
    ] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
}

/// Runs processes with these names that listen on a port of 127.0.0.1, and connect to it at another
/// address. The cause names them. Returns the bytes written.
fn causes(port: u16, dir: &Dir, options: &[&str]) -> Vec<u8> {
    let file = LinesFile::new(&dir.0);
    let filter = ["--summary", "0", "--port", &port.to_string()];
    let agent = file.run(&[&filter, options].concat());
    let began = Instant::now();
    let mut refused = 0;
    let mut namespaces = Vec::new();
    for number in 0..NAMES.len() {
        while matching(&file.lines(), &format!("127.0.0.1:{port} (")) <= number {
            assert!(began.elapsed() < PATIENCE, "{}", file.lines());
            thread::sleep(PAUSE);
            refused += 1;
            // Each process runs on a new testnet whose namespace conntrace has not yet read.
            // Holding it keeps a later one from getting its number.
            let held = conntrace_testnet::run("names", |_| {
                let mut command = Command::new(env::current_exe().unwrap());
                command.env(NAME, number.to_string());
                command.env(LISTEN, port.to_string());
                let process = Partner::start(command);
                file.wait_for("ECONNREFUSED", refused);
                assert!(process.finish().success());
                File::open("/proc/thread-self/ns/net").unwrap()
            });
            namespaces.push(held.unwrap());
        }
    }
    agent.stop(Signal::SIGTERM);
    file.bytes()
}

fn in_causes_json() {
    let dir = Dir::new("names-causes-json");
    let lines = String::from_utf8(causes(PORTS[0], &dir, &[])).unwrap();
    let lines: Vec<_> = lines.lines().map(|line| check(line).unwrap()).collect();
    let listeners = lines
        .iter()
        .map(|line| &line["cause"]["evidence"]["listeners"][0]);
    let named: Vec<_> = listeners
        .filter_map(|listener| listener["process"]["comm"].as_str())
        .collect();
    assert_eq!(named, NAMES.map(|name| String::from_utf8_lossy(comm(name))));
}

fn in_causes_text() {
    let dir = Dir::new("names-causes-text");
    let text = String::from_utf8(causes(PORTS[1], &dir, &["--format", "text"])).unwrap();
    let visible = |c: char| !c.is_control() && c != '\u{202e}';
    assert!(text.chars().all(|c| visible(c) || c == '\n'), "{text:?}");
    assert_shown(&text);
}
