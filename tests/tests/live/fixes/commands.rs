//! Commands of a fix, as they are printed, and their execution in the host's network namespace.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    process::{Command, Output},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// Network namespace of the main thread, which no test leaves.
const HOST: &str = "/proc/self/ns/net";
/// Time limit in seconds for a command that an operator waits for.
const PATIENCE_S: &str = "20";
/// Programs whose output does not depend on the network namespace.
const OF_THE_MACHINE: [&str; 4] = ["ausearch", "bpftool", "grep", "journalctl"];

/// Command of a fix, printed between backquotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quoted {
    pub(crate) text: String,
    /// True if the words before the command say that it is for another machine.
    pub(crate) is_elsewhere: bool,
}

/// Extracts all commands of a fix.
pub(crate) fn of(fix: &str) -> Vec<Quoted> {
    let pieces: Vec<_> = fix.split('`').collect();
    assert_eq!(pieces.len() % 2, 1, "a backquote is not closed: {fix}");
    let mut step = String::new();
    let mut all = Vec::new();
    for (at, piece) in pieces.into_iter().enumerate() {
        if at % 2 == 1 {
            all.push(Quoted {
                text: piece.to_owned(),
                is_elsewhere: step.trim_start().starts_with("on "),
            });
        } else if let Some((_, last)) = piece.rsplit_once(';') {
            last.clone_into(&mut step);
        } else {
            step.push_str(piece);
        }
    }
    all
}

/// Fails if the command has a placeholder for the reader to fill in.
pub(crate) fn assert_complete(command: &str) {
    let unfinished = ["...", "\u{2026}", "<", "?"];
    let is_placeholder =
        |word: &str| word.len() > 2 && word.chars().all(|it| it.is_ascii_uppercase() || it == '_');
    let words = command.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let placeholders: Vec<_> = words.filter(|word| is_placeholder(word)).collect();
    assert!(
        placeholders.is_empty() && !unfinished.iter().any(|it| command.contains(it)),
        "{placeholders:?} in {command}"
    );
}

/// Fails if the command would run in a network namespace that the cause is not about.
pub(crate) fn assert_inside(command: &str, netns: &[u64]) {
    let mut words = command.split(' ');
    let first = words.next().unwrap();
    if OF_THE_MACHINE.contains(&first) {
        return;
    }
    assert_eq!(first, "nsenter", "for another namespace: {command}");
    let path = match words.next().unwrap() {
        "-t" => format!("/proc/{}/ns/net", words.next().unwrap()),
        mounted => mounted.strip_prefix("--net=").unwrap().to_owned(),
    };
    let inode = fs::metadata(&path).unwrap().ino();
    assert!(netns.contains(&inode), "{command}: {inode} of {netns:?}");
}

/// Finds the first program of the command that is not installed.
pub(crate) fn missing(command: &str) -> Option<String> {
    let programs = command.split(" | ").flat_map(|part| {
        let words: Vec<_> = part.split(' ').collect();
        let inner = match words.as_slice() {
            ["nsenter", "-t", _, "-n", inner, ..] | ["nsenter", _, inner, ..] => Some(*inner),
            _ => None,
        };
        [words.first().copied(), inner].into_iter().flatten()
    });
    programs.map(str::to_owned).find(|program| !exists(program))
}

fn exists(program: &str) -> bool {
    let mut shell = Command::new("sh");
    let found = shell.args(["-c", &format!("command -v {program}")]);
    found.output().unwrap().status.success()
}

/// Runs a command as an operator would who is logged in to the host.
pub(crate) fn run(command: &str) -> Output {
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            setns(File::open(HOST).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let mut limited = Command::new("timeout");
            limited.args([PATIENCE_S, "sh", "-c", command]).output()
        });
        host.join().unwrap().unwrap()
    })
}

/// Checks how commands are found in a fix, and which of them are for another machine.
pub(crate) fn tells_commands_apart() {
    let fix = "look with `a | b` or `c`; on 192.0.2.2: `d` and `e` show it; else `f`";
    let told: Vec<_> = of(fix)
        .into_iter()
        .map(|it| (it.text, it.is_elsewhere))
        .collect();
    let expected = [
        ("a | b", false),
        ("c", false),
        ("d", true),
        ("e", true),
        ("f", false),
    ];
    assert_eq!(
        told,
        expected.map(|(text, is_elsewhere)| (text.to_owned(), is_elsewhere))
    );
    for placeholder in [
        "ip route add 10.0.0.0/8 via GATEWAY",
        "ss ...",
        "ping <host>",
    ] {
        let caught = std::panic::catch_unwind(|| assert_complete(placeholder));
        assert!(caught.is_err(), "{placeholder}");
    }
    assert_complete("ss -tanpo 'sport = :5432'");
    assert_eq!(
        missing("nsenter -t 1 -n no-such-program -x"),
        Some("no-such-program".to_owned())
    );
    assert_eq!(missing("nsenter -t 1 -n ip route show"), None);
}
