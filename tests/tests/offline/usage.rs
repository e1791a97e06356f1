//! Messages and exit statuses of conntrace when it is used wrongly. Nothing here needs root.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    process::{Command, ExitCode},
};

use conntrace::{record::Label, recording};
use conntrace_tests::{
    Dir, binary, conntrace, conntrace_as_nobody, plain_test, run_with_replay, sample, stderr,
    stdout,
};

// Each table row has the arguments, the wrong word, and the expected remedy in the message. An
// empty argument is written as two quotes.

const COMMANDS: &str = "\
--nonsense             | '--nonsense' | --help
run --nonsense         | '--nonsense' | Usage: conntrace run
nonsense               | 'nonsense' | conntrace <COMMAND>
docter                 | 'docter' | similar subcommand exists: 'doctor'
--all demo             | 'demo' cannot be used with '--all'
--pid 1 doctor         | 'doctor' cannot be used with '--pid <PID>'
--all replay x         | 'replay' cannot be used with '--all'
schema --all           | '--all' | Usage: conntrace schema
explain refusd         | 'refusd' | similar: refused | conntrace explain
explain no such words  | 'no such words' | conntrace explain
explain ''             | '' | conntrace explain
doctor --format xml    | 'xml' | json, text
replay                 | not provided | <FILE>
replay ''              | a value is required for '<FILE>'
replay one two         | 'two' | replay [OPTIONS] <FILE>
replay one --pid 1     | '--pid' | replay <FILE>";

const OPTIONS: &str = "\
--all --all                    | '--all' cannot be used multiple times
--format xml                   | 'xml' | json, text
--summary x                    | 'x' | whole number of seconds, at most 31536000
--summary -1                   | '-1' | whole number of seconds, at most 31536000
--summary 1.5                  | '1.5' | whole number of seconds
--summary 18446744073709551615 | '18446744073709551615' | at most 31536000
--limit -1                     | '-1' | whole number of lines
--limit many                   | 'many' | whole number of lines
--patience -1                  | '-1' | whole number of milliseconds
--patience soon                | 'soon' | whole number of milliseconds
--patience 200ms               | '200ms' | whole number of milliseconds
--patience                     | a value is required for '--patience <MS>'
--record                       | a value is required for '--record <FILE>'
--label                        | a value is required for '--label <LABEL>'
replay x --limit -5            | '-5' | whole number of lines
run --patience soon            | 'soon' | milliseconds";

const FILTERS: &str = "\
--to 10.0.0.0/33           | '10.0.0.0/33' | the prefix of 10.0.0.0 has 0 to 32 bits
--to ::1/129               | '::1/129' | the prefix of ::1 has 0 to 128 bits
--to 10.0.0.0/             | '10.0.0.0/' | has 0 to 32 bits
--to nonsense              | 'nonsense' | write 10.0.0.0/8 or fd00::/8
--to db-1.example:5432     | 'db-1.example:5432' | write 10.0.0.0/8
--to ''                    | --to <CIDR> | write 10.0.0.0/8
--port 70000               | '70000' | a port is a number from 0 to 65535; for several write 8000-8099
--port -80                 | '-80' | a port is a number from 0 to 65535; for several write 8000-8099
--port 80-                 | '80-' | a port is a number from 0 to 65535; for several write 8000-8099
--port 80,x                | 'x' | a port is a number from 0 to 65535; for several write 8000-8099
--port http                | 'http' | a port is a number from 0 to 65535; for several write 8000-8099
--port ''                  | --port <N[-M]> | a port is a number from 0 to 65535; for several write 8000-8099
--port 9-3                 | '9-3' | ends before it begins; write 3-9
--pid 0                    | '0' | a process id is a whole number from 1 to 4194304
--pid -1                   | '-1' | a process id is a whole number from 1 to 4194304
--pid 4194305              | '4194305' | a process id is a whole number from 1 to 4194304
--pid 99999999999          | '99999999999' | a process id is a whole number from 1 to 4194304
--pid init                 | 'init' | a process id is a whole number from 1 to 4194304
--uid root                 | 'root' | a user id is a whole number from 0 to 4294967294; `id -u NAME`
--uid -1                   | '-1' | a user id is a whole number from 0 to 4294967294; `id -u NAME`
--uid 4294967295           | '4294967295' | a user id is a whole number from 0 to 4294967294; `id -u NAME`
--comm ''                  | --comm <NAME> | a name of at least one character
--cgroup /no/such          | '/no/such' | cgroup
--cgroup /etc/passwd       | '/etc/passwd' | cgroup
--cgroup /proc             | '/proc' | cgroup
--cgroup ''                | --cgroup <PATH> | /proc/PID/cgroup
--netns /run/netns/no-such | '/run/netns/no-such' | No such file | such as /run/netns/NAME or /proc/PID/ns/net
--netns /etc/passwd        | '/etc/passwd' | no file of a namespace | such as /run/netns/NAME or /proc/PID/ns/net
--netns /                  | '/' | no file of a namespace | such as /run/netns/NAME or /proc/PID/ns/net
--netns /proc/self/ns/uts  | ns/uts' | none of the network | such as /run/netns/NAME or /proc/PID/ns/net
--netns ''                 | --netns <INODE|PATH> | such as /run/netns/NAME or /proc/PID/ns/net
--netns 0                  | '0' | from 1 to 4294967295
--netns 4294967296         | '4294967296' | from 1 to 4294967295
--netns -1                 | '-1' | such as /run/netns/NAME or /proc/PID/ns/net
run --pid 0                | '0' | a process id is a whole number from 1 to 4194304
--pid 1 --port x           | 'x' | a port is a number from 0 to 65535; for several write 8000-8099";

pub(crate) fn main() -> ExitCode {
    run_with_replay(vec![
        plain_test("commands", || check_usage(COMMANDS)),
        plain_test("environment", environment),
        plain_test("nobody_can_be_told", nobody_can_be_told),
        plain_test("options", || check_usage(OPTIONS)),
        plain_test("filters", || check_usage(FILTERS)),
        plain_test("labels", labels),
        plain_test("not_utf8", not_utf8),
        plain_test("replay_of_no_recording", replay_of_no_recording),
        plain_test(
            "replay_of_what_may_not_be_read",
            replay_of_what_may_not_be_read,
        ),
        plain_test("replay_of_a_bad_recording", replay_of_a_bad_recording),
        plain_test("replay_of_a_good_recording", replay_of_a_good_recording),
    ])
}

/// Runs the command; returns its exit status, stdout and stderr. Checks that stderr has no panic or
/// debug output.
fn told(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.env("RUST_BACKTRACE", "1").output().unwrap();
    let said = stderr(&output).to_owned();
    for inner in ["panicked", "stack backtrace", "Err(", "Os {", "Error {"] {
        assert!(!said.contains(inner), "{command:?}: {said}");
    }
    assert!(
        said.is_empty() || said.ends_with('\n'),
        "{command:?}: {said}"
    );
    (output.status.code(), stdout(&output).to_owned(), said)
}

/// Checks for a usage error: exit status 2, an empty stdout, and a short message that contains all
/// of `wanted`.
fn assert_usage_error(args: &[&str], wanted: &[&str]) {
    let (status, written, said) = told(conntrace().args(args));
    assert_eq!(
        (status, written.as_str()),
        (Some(2), ""),
        "{args:?}: {said}"
    );
    assert!(said.starts_with("error: "), "{args:?}: {said}");
    assert_eq!(said.matches("error: ").count(), 1, "{args:?}: {said}");
    assert!(said.lines().count() <= 8, "{args:?}: {said}");
    for words in wanted {
        assert!(said.contains(words), "{args:?}: no {words} in {said}");
    }
}

fn check_usage(table: &str) {
    for case in table.lines() {
        let mut columns = case.split(" | ").map(str::trim);
        let words = columns.next().unwrap().split(' ');
        let args: Vec<_> = words.map(|word| word.trim_matches('\'')).collect();
        assert_usage_error(&args, &columns.collect::<Vec<_>>());
    }
}

/// The error for an unknown label lists all labels.
fn labels() {
    let all = Label::ALL.map(Label::as_str);
    for (args, wrong) in [
        (&["--label", "nonsense"][..], "'nonsense'"),
        (&["run", "--label", "refused,nonsense"], "'nonsense'"),
        (&["--label", "Refused"], "'Refused'"),
        (&["--label", ""], "--label <LABEL>"),
        (&["replay", "x", "--label", "nonsense"], "'nonsense'"),
        (&["explain", "nonsense"], "'nonsense'"),
    ] {
        assert_usage_error(args, &[&all[..], &[wrong]].concat());
    }
}

fn not_utf8() {
    let bytes = std::ffi::OsStr::from_bytes(b"\xff");
    let (status, written, said) = told(conntrace().arg("--comm").arg(bytes));
    assert_eq!((status, written.as_str()), (Some(2), ""), "{said}");
    assert!(said.starts_with("error: invalid UTF-8"), "{said}");
}

/// Checks that a replay fails before its first line, with exit status 1 and one line on stderr.
fn assert_no_replay(command: &mut Command, expected: &str) {
    let (status, written, said) = told(command);
    assert_eq!((status, written.as_str()), (Some(1), ""), "{said}");
    assert_eq!(said, format!("conntrace: {expected}\n"));
}

fn replay_of_no_recording() {
    let dir = Dir::new("usage-none");
    let in_dir = |file: &str| {
        let mut command = conntrace();
        command.current_dir(&dir.0).args(["replay", file]);
        command
    };
    fs::write(dir.file("empty"), "").unwrap();
    fs::write(dir.file("short"), "conn").unwrap();
    fs::write(dir.file("lines"), "{\"time\":1,\"type\":\"start\"}\n").unwrap();
    fs::create_dir(dir.file("folder")).unwrap();
    let foreign = "it is not a recording: `conntrace run --record FILE` makes one";
    let program = binary().to_str().unwrap();
    for (file, why) in [
        (
            "missing",
            "cannot open missing: No such file or directory (os error 2)",
        ),
        (
            "folder",
            "cannot replay folder: cannot read it: Is a directory (os error 21)",
        ),
        (
            "empty",
            "cannot replay empty: it is empty: `conntrace run --record FILE` makes recordings",
        ),
        (
            "short",
            "cannot replay short: it is damaged at byte 0: \
             the file ends in the middle of what begins there",
        ),
        ("lines", &format!("cannot replay lines: {foreign}")),
        (program, &format!("cannot replay {program}: {foreign}")),
    ] {
        assert_no_replay(&mut in_dir(file), why);
    }
}

fn replay_of_what_may_not_be_read() {
    let dir = Dir::new("usage-closed");
    let file = dir.file("closed");
    fs::write(&file, sample()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = conntrace_as_nobody();
    command.current_dir(&dir.0).args(["replay", "closed"]);
    assert_no_replay(
        &mut command,
        "cannot open closed: Permission denied (os error 13)",
    );
}

/// Replays these bytes with `replay --all`; returns exit status, stdout and stderr.
fn replayed(name: &str, bytes: &[u8]) -> (Option<i32>, String, String) {
    let dir = Dir::new(&format!("usage-{name}"));
    fs::write(dir.file("recording"), bytes).unwrap();
    let mut command = conntrace();
    told(
        command
            .current_dir(&dir.0)
            .args(["replay", "recording", "--all"]),
    )
}

fn replay_of_a_good_recording() {
    let (status, written, said) = replayed("good", &sample());
    assert_eq!((status, said.as_str()), (Some(0), ""));
    assert_eq!(written.lines().count(), 6, "{written}");
}

fn replay_of_a_bad_recording() {
    let good = sample();
    let (_, lines, _) = replayed("whole", &good);
    let with = |at: usize, mask: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= mask;
        bytes
    };
    let version = recording::VERSION;
    let mut newer = good.clone();
    newer[8..12].copy_from_slice(&(version + 1).to_le_bytes());
    let near_the_end = good.len() - 20;
    for (name, bytes, why, has_lines) in [
        (
            "cut",
            good[..near_the_end].to_vec(),
            "the file ends in the middle",
            true,
        ),
        (
            "flipped",
            with(near_the_end, 1),
            "the checksum does not fit",
            true,
        ),
        (
            "header",
            with(13, 1),
            "it is damaged at byte 0: the checksum does not fit\n",
            false,
        ),
        (
            "longer",
            [&good[..], b"more"].concat(),
            "something follows the stop",
            true,
        ),
        (
            "newer",
            newer,
            &format!(
                "its format is version {}, and this conntrace knows version {version}: \
                 replay it with the version of conntrace that made it\n",
                version + 1
            ),
            false,
        ),
    ] {
        let (status, written, said) = replayed(name, &bytes);
        assert_eq!(status, Some(1), "{name}: {said}");
        assert!(
            said.starts_with("conntrace: cannot replay recording: "),
            "{said}"
        );
        assert!(said.contains(why), "{name}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(said.contains("the lines before it were written"), has_lines);
        assert!(lines.starts_with(&written), "{name}: {written}");
        assert_eq!(!written.is_empty(), has_lines, "{name}");
    }
}

/// An environment variable sets its option, with and without the word `run`. The error for an
/// invalid value names the variable.
fn environment() {
    let said = |variables: &[(&str, &str)], words: &[&str]| {
        let mut command = conntrace();
        command.args(words).envs(variables.iter().copied());
        let output = command.output().unwrap();
        (output.status.code(), stderr(&output).to_owned())
    };
    for words in [&[][..], &["run"]] {
        let (status, errors) = said(&[("CONNTRACE_LIMIT", "many")], words);
        assert_eq!(status, Some(2), "{words:?}: {errors}");
        let named = "error: the environment variable CONNTRACE_LIMIT makes no sense\n";
        assert!(errors.starts_with(named), "{errors}");
        assert!(errors.contains("'many' for '--limit <N>'"), "{errors}");
    }
    for (name, value, wanted) in [
        ("CONNTRACE_PORT", "80,x", "'x' for '--port <N[-M]>'"),
        ("CONNTRACE_PID", "1,-1", "'-1' for '--pid <PID>'"),
        ("CONNTRACE_UID", "root", "'root' for '--uid <UID>'"),
        (
            "CONNTRACE_TO",
            "10.0.0.0/8,host",
            "'host' for '--to <CIDR>'",
        ),
        (
            "CONNTRACE_LABEL",
            "refused,late",
            "'late' for '--label <LABEL>'",
        ),
        (
            "CONNTRACE_NO_STALLS",
            "perhaps",
            "'perhaps' for '--no-stalls'",
        ),
        (
            "CONNTRACE_TRACE_SYSCALLS",
            "2",
            "'2' for '--trace-syscalls'",
        ),
        ("CONNTRACE_SUMMARY", "-1", "'-1' for '--summary <SECONDS>'"),
    ] {
        let (status, errors) = said(&[(name, value)], &[]);
        assert_eq!(status, Some(2), "{name}: {errors}");
        assert!(errors.contains(wanted), "{name}: {errors}");
    }
    // Arguments override variables, and an empty variable is ignored.
    let (status, errors) = said(
        &[
            ("CONNTRACE_LIMIT", "many"),
            ("CONNTRACE_PORT", ""),
            ("CONNTRACE_ALL", "yes"),
        ],
        &["run", "--limit", "1", "--output", "/nowhere/at/all"],
    );
    // Without root the command fails earlier.
    assert!(matches!(status, Some(1 | 3 | 4)), "{errors}");
    // Other commands ignore variables of options that they do not have.
    for words in [&["schema"][..], &["explain", "refused"]] {
        let (status, errors) = said(
            &[("CONNTRACE_LIMIT", "many"), ("CONNTRACE_ALL", "1")],
            words,
        );
        assert_eq!((status, errors.as_str()), (Some(0), ""), "{words:?}");
    }
}

/// The exit status is that of the error, even if its message cannot be written.
fn nobody_can_be_told() {
    for (words, expected) in [
        (&["replay", "/nowhere"][..], 1),
        (&["explain", "zzzzz"], 2),
        (&["--limit", "many"], 2),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let status = conntrace().args(words).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(expected), "{words:?}");
    }
}
