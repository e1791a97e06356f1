//! Processes may call themselves and their programs what they like.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    process::{Command, ExitCode},
};

use conntrace::stage::{self, FAR_V4, ports};
use conntrace_tests::{Dir, LinesFile, attempt, check, copy_program, live_test, run};
use nix::sys::signal::Signal;

/// Makes this program take the name of that number and connect instead of
/// running its tests.
const NAME: &str = "CONNTRACE_TEST_NAME";

/// Line ends, quotes, escapes, terminal sequences in C0 and C1, DEL, a change of
/// direction, and what is no UTF-8. At most 15 bytes are a name.
const NAMES: [&[u8]; 6] = [
    b"\n{\"type\":\"stop",
    b"\"\\\r\t\x0b\x00",
    b"\x1b]0;x\x07\x1b[2J",
    b"\xc2\x9b2J\x7f\xe2\x80\xae",
    b"\xff\xfe\xc3(\xe2\x82",
    b"%s${x}`id`'",
];

fn main() -> ExitCode {
    if let Ok(number) = env::var(NAME) {
        let name = NAMES[number.parse::<usize>().unwrap()];
        fs::write("/proc/self/comm", name).unwrap();
        let _ = std::net::TcpStream::connect((FAR_V4, ports::RESETS));
        return ExitCode::SUCCESS;
    }
    run(vec![live_test("json", json), live_test("text", text)])
}

/// A name without its NUL and what follows.
fn comm(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap()
}

/// Programs with these names, called by them, connect while an agent writes to a
/// file with these options. What was written.
fn lines_of(dir: &Dir, options: &[&str]) -> Vec<u8> {
    let file = LinesFile::new(&dir.0);
    stage::run("names", |stage| {
        let filter = ["--netns", &stage.netns.to_string()];
        let agent = file.run(&[&filter, options].concat());
        for (number, name) in NAMES.into_iter().enumerate() {
            let program = dir.0.join(OsStr::from_bytes(comm(name)));
            copy_program(&env::current_exe().unwrap(), &program);
            let mut command = Command::new(&program);
            let status = command.env(NAME, number.to_string()).status().unwrap();
            assert!(status.success());
        }
        // After them, so that theirs are there when it is.
        attempt((FAR_V4, ports::PORT_UNREACHABLE));
        agent.stop(Signal::SIGTERM);
    })
    .unwrap();
    file.bytes()
}

/// One object per line, in which everything is as it was but what is no UTF-8.
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
        // Null where the process was gone before it was looked at.
        let exe = &line["process"]["exe"];
        let path = dir.0.join(&*name);
        assert!(exe.is_null() || *exe == path.to_str().unwrap(), "{exe}");
    }
}

/// One line each, and nothing in it that a terminal would act upon.
fn text() {
    let dir = Dir::new("names-text");
    let bytes = lines_of(&dir, &["--format", "text", "--summary", "0"]);
    let text = String::from_utf8(bytes).unwrap();
    let visible = |c: char| !c.is_control() && c != '\u{202e}';
    assert!(text.chars().all(|c| visible(c) || c == '\n'), "{text:?}");
    // A start, the attempts, a last summary and the stop.
    assert_eq!(text.lines().count(), NAMES.len() + 4, "{text}");
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
