//! Lines in `--output FILE`: rotation under load, a full disk, and files that must not be followed.

use std::{
    collections::HashSet,
    fs::{self, File, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    Agent, Dir, as_under_test, attempt, binary, check, checked, conntrace, in_private_mounts,
    live_test, matching, number, of_type, run_one_by_one,
};
use nix::{
    mount::{MsFlags, mount},
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use serde_json::Value;

/// Number of rotations of the file.
const ROTATIONS: usize = 20;
/// Generous upper bound for an operation that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn main() -> ExitCode {
    run_one_by_one(vec![
        live_test("appends_for_its_readers", appends_for_its_readers),
        live_test("rotated_under_load", rotated_under_load),
        live_test("hangup_without_a_file", hangup_without_a_file),
        live_test("only_regular_files", only_regular_files),
        live_test("cannot_be_opened_anew", cannot_be_opened_anew),
        live_test("begins_on_a_line_of_its_own", begins_on_a_line_of_its_own),
        live_test("redirected_to_a_full_disk", redirected_to_a_full_disk),
        live_test("may_not_grow", may_not_grow),
        live_test("disk_full_and_free_again", disk_full_and_free_again),
        live_test(
            "rotated_away_from_a_full_disk",
            rotated_away_from_a_full_disk,
        ),
    ])
}

/// Starts an agent that writes to this file and traces one testnet.
fn run(file: &Path, netns: u32) -> Agent {
    let netns = netns.to_string();
    let options = [
        "--netns",
        &netns,
        "--output",
        file.to_str().unwrap(),
        "--summary",
        "1",
    ];
    // The agent must write nothing to stdout.
    let agent = Agent::run(&options, Stdio::null());
    wait_for(file, "\"type\":\"start\"");
    agent
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn wait_for(file: &Path, text: &str) {
    let began = Instant::now();
    while matching(&read(file), text) == 0 {
        assert!(began.elapsed() < PATIENCE, "{text:?} in {}", file.display());
        thread::sleep(Duration::from_millis(5));
    }
}

fn refuse() {
    drop(attempt((FAR_V4, ports::RESETS)));
}

/// Makes refused attempts on other threads until `act` has returned.
fn refuse_while(act: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    refuse();
                    thread::sleep(Duration::from_micros(200));
                }
            });
        }
        act();
        over.store(true, Ordering::Relaxed);
    });
}

/// Appends to the file, gives it the mode of a log, and leaves stdout empty.
fn appends_for_its_readers() {
    let dir = Dir::new("appends");
    let file = dir.file("lines");
    conntrace_testnet::run("appends", |testnet| {
        run(&file, testnet.netns).stop(Signal::SIGTERM);
        let first = read(&file);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let netns = testnet.netns.to_string();
        let mut command = conntrace();
        command.args(["--netns", &netns, "--output"]).arg(&file);
        as_under_test(&mut command);
        let mut agent = Agent::spawn(command.stdout(Stdio::piped()));
        let stdout = agent.stdout();
        while matching(&read(&file), "\"type\":\"start\"") < 2 {
            thread::sleep(Duration::from_millis(5));
        }
        agent.stop(Signal::SIGTERM);
        assert_eq!(std::io::read_to_string(stdout).unwrap(), "");
        let both = read(&file);
        let second = both.strip_prefix(&first).unwrap();
        checked(&first);
        checked(second);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(
            mode & 0o777,
            0o600,
            "an existing file's mode is its owner's affair"
        );
    })
    .unwrap();
}

/// Rotation under load puts each outcome into exactly one of the files.
fn rotated_under_load() {
    let dir = Dir::new("rotated");
    let file = dir.file("lines");
    let rotated = |n: usize| dir.file(&format!("lines.{n}"));
    conntrace_testnet::run("rotated", |testnet| {
        let agent = run(&file, testnet.netns);
        refuse_while(|| {
            for n in 0..ROTATIONS {
                thread::sleep(Duration::from_millis(50));
                fs::rename(&file, rotated(n)).unwrap();
                agent.signal(Signal::SIGHUP);
                wait_for(&file, "\"type\":\"outcome\"");
            }
        });
        agent.stop(Signal::SIGTERM);
    })
    .unwrap();
    let mut files: Vec<PathBuf> = (0..ROTATIONS).map(rotated).collect();
    files.push(file);
    let all: String = files.iter().map(|file| read(file)).collect();
    let lines = checked(&all);
    let ids: Vec<_> = of_type(&lines, "outcome")
        .map(|line| &line["attempt_id"])
        .collect();
    let different: HashSet<_> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    let stop = lines.last().unwrap();
    println!("{} outcomes in {} files; {stop}", ids.len(), files.len());
    assert_eq!(ids.len(), different.len());
    assert_eq!(ids.len(), number(&stop["outcomes"]["refused"]));
    assert_eq!(stop["undelivered"]["output"], 0);
}

/// SIGHUP without `--output` is ignored.
fn hangup_without_a_file() {
    let dir = Dir::new("hangup");
    let file = dir.file("lines");
    conntrace_testnet::run("hangup", |testnet| {
        let netns = testnet.netns.to_string();
        let agent = Agent::run(&["--netns", &netns], File::create(&file).unwrap());
        wait_for(&file, "\"type\":\"start\"");
        agent.signal(Signal::SIGHUP);
        thread::sleep(Duration::from_millis(100));
        refuse();
        wait_for(&file, "\"type\":\"outcome\"");
        agent.stop(Signal::SIGTERM);
    })
    .unwrap();
    checked(&read(&file));
}

/// Symbolic links, pipes, devices, folders and sockets are refused, and nothing is written.
fn only_regular_files() {
    let dir = Dir::new("kinds");
    let target = dir.file("target");
    let place = |name: &str| dir.file(name);
    symlink(&target, place("link")).unwrap();
    symlink("/nowhere/at/all", place("dangling")).unwrap();
    mkfifo(&place("fifo"), Mode::S_IRWXU).unwrap();
    fs::create_dir(place("folder")).unwrap();
    let _socket = UnixListener::bind(place("socket")).unwrap();
    let regular = "not a regular file; for a pipe or device redirect stdout to it";
    let link = "it is a symbolic link, which is not followed";
    for (path, said) in [
        (place("link"), link),
        (place("dangling"), link),
        (place("fifo"), regular),
        (place("socket"), regular),
        ("/dev/null".into(), regular),
        (place("folder"), "Is a directory"),
        (place("no/such/folder"), "No such file"),
    ] {
        let mut command = conntrace();
        command.arg("--output").arg(&path);
        as_under_test(&mut command);
        let (status, errors) = Agent::spawn(command.stdout(Stdio::null())).wait();
        assert_eq!(status.code(), Some(1), "{errors}");
        let begin = format!("conntrace: cannot write lines to {}: ", path.display());
        assert!(
            errors.starts_with(&begin) && errors.contains(said),
            "{errors}"
        );
    }
    assert!(!target.exists());
}

/// A file that cannot be reopened is reported once. The agent writes to the old one until reopening
/// succeeds.
fn cannot_be_opened_anew() {
    let dir = Dir::new("anew");
    let (file, old) = (dir.file("lines"), dir.file("old"));
    let errors = conntrace_testnet::run("anew", |testnet| {
        let agent = run(&file, testnet.netns);
        fs::rename(&file, &old).unwrap();
        symlink("/etc/hostname", &file).unwrap();
        agent.signal(Signal::SIGHUP);
        thread::sleep(Duration::from_millis(100));
        refuse();
        wait_for(&old, "\"type\":\"outcome\"");
        fs::remove_file(&file).unwrap();
        thread::sleep(Duration::from_millis(100));
        refuse();
        wait_for(&file, "\"type\":\"outcome\"");
        agent.signal(Signal::SIGTERM);
        let (status, errors) = agent.wait();
        assert_eq!(status.code(), Some(0), "{errors}");
        errors
    })
    .unwrap();
    assert_eq!(
        matching(&errors, "it is a symbolic link, which is not followed"),
        1,
        "{errors}"
    );
    let lines = checked(&(read(&old) + &read(&file)));
    assert_eq!(of_type(&lines, "outcome").count(), 2);
}

/// The first line starts on a new line, because an agent killed on a full disk may have left half a
/// line.
fn begins_on_a_line_of_its_own() {
    let dir = Dir::new("half-line");
    let file = dir.file("lines");
    fs::write(&file, "{\"time\":\"20").unwrap();
    conntrace_testnet::run("half-line", |testnet| {
        run(&file, testnet.netns).stop(Signal::SIGTERM);
    })
    .unwrap();
    let text = read(&file);
    let (half, rest) = text.split_once('\n').unwrap();
    assert_eq!(half, "{\"time\":\"20");
    checked(rest);
}

/// With stdout redirected to a full disk SIGHUP is ignored, and truncation leaves no hole in the
/// file.
fn redirected_to_a_full_disk() {
    let dir = Dir::new("redirected");
    let file = dir.file("lines");
    in_private_mounts(|| {
        tmpfs(&dir.0, MsFlags::empty(), "128k");
        conntrace_testnet::run("redirected", |testnet| {
            let netns = testnet.netns.to_string();
            let agent = Agent::run(&["--netns", &netns], File::create(&file).unwrap());
            wait_for(&file, "\"type\":\"start\"");
            (0..1_000).for_each(|_| refuse());
            thread::sleep(Duration::from_millis(300));
            agent.signal(Signal::SIGHUP);
            thread::sleep(Duration::from_millis(600));
            tmpfs(&dir.0, MsFlags::MS_REMOUNT, "256m");
            thread::sleep(Duration::from_millis(600));
            agent.signal(Signal::SIGTERM);
            let (status, errors) = agent.wait();
            assert_eq!(status.code(), Some(0), "{errors}");
        })
        .unwrap();
        let stop = assert_accounted(&read(&file));
        assert_eq!(number(&stop["outcomes"]["refused"]), 1_000);
    });
}

/// A file size limit (`RLIMIT_FSIZE`) acts as a full disk, and its signal does not end the agent.
fn may_not_grow() {
    let dir = Dir::new("may-not-grow");
    let file = dir.file("lines");
    conntrace_testnet::run("may-not-grow", |testnet| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 64; exec \"$@\"", "sh"]);
        command
            .arg(binary())
            .args(["--netns", &testnet.netns.to_string()]);
        command.arg("--output").arg(&file);
        as_under_test(&mut command);
        let agent = Agent::spawn(command.stdout(Stdio::null()));
        wait_for(&file, "\"type\":\"start\"");
        (0..300).for_each(|_| refuse());
        thread::sleep(Duration::from_millis(500));
        agent.signal(Signal::SIGTERM);
        let (status, errors) = agent.wait();
        assert_eq!(status.code(), Some(1), "{errors}");
        assert_eq!(matching(&errors, "File too large"), 2, "{errors}");
        assert_eq!(matching(&errors, "cannot write the last "), 1, "{errors}");
    })
    .unwrap();
    let text = read(&file);
    assert!(text.ends_with('\n') && text.len() <= 64 << 10);
    text.lines().for_each(|line| drop(check(line).unwrap()));
}

fn tmpfs(on: &Path, flags: MsFlags, size: &str) {
    let options = format!("size={size}");
    mount(
        Some("tmpfs"),
        on,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )
    .unwrap();
}

/// Buffered lines are written once the disk has room, and the rest are counted. Every line is
/// whole.
fn disk_full_and_free_again() {
    let dir = Dir::new("full");
    let file = dir.file("lines");
    in_private_mounts(|| {
        tmpfs(&dir.0, MsFlags::empty(), "128k");
        let errors = conntrace_testnet::run("full", |testnet| {
            let agent = run(&file, testnet.netns);
            // The lines exceed the disk, and then the buffer of lines that wait.
            for _ in 0..4 {
                thread::scope(|scope| {
                    (0..4).for_each(|_| drop(scope.spawn(|| (0..4_000).for_each(|_| refuse()))));
                });
            }
            check_whole(&read(&file));
            tmpfs(&dir.0, MsFlags::MS_REMOUNT, "256m");
            wait_for(&file, "\"type\":\"loss\"");
            refuse();
            thread::sleep(Duration::from_millis(500));
            agent.signal(Signal::SIGTERM);
            let (status, errors) = agent.wait();
            assert_eq!(status.code(), Some(0), "{errors}");
            errors
        })
        .unwrap();
        assert_eq!(matching(&errors, "cannot write lines to"), 1, "{errors}");
        assert_eq!(matching(&errors, "lines are written to"), 1, "{errors}");
        assert_accounted(&read(&file));
    });
}

/// Checks all lines but the last, which may be incomplete.
fn check_whole(text: &str) {
    let (whole, _) = text.rsplit_once('\n').unwrap();
    whole.lines().for_each(|line| drop(check(line).unwrap()));
}

/// Checks that printed and counted lines add up to all attempts.
fn assert_accounted(text: &str) -> Value {
    assert!(text.ends_with('\n'));
    let lines = checked(text);
    let stop = lines.last().unwrap().clone();
    let outcomes = of_type(&lines, "outcome").count();
    let undelivered = number(&stop["undelivered"]["output"]);
    println!("{outcomes} outcomes, {undelivered} undelivered; {stop}");
    assert_eq!(outcomes + undelivered, number(&stop["outcomes"]["refused"]));
    stop
}

/// The full file ends with a whole line. The next file begins with the line that did not fit.
fn rotated_away_from_a_full_disk() {
    let dir = Dir::new("away");
    in_private_mounts(|| {
        let full = dir.file("full");
        let (file, old) = (full.join("lines"), full.join("lines.1"));
        fs::create_dir(&full).unwrap();
        tmpfs(&full, MsFlags::empty(), "128k");
        let mut first = String::new();
        conntrace_testnet::run("away", |testnet| {
            let agent = run(&file, testnet.netns);
            (0..1_000).for_each(|_| refuse());
            thread::sleep(Duration::from_millis(500));
            fs::rename(&file, &old).unwrap();
            agent.signal(Signal::SIGHUP);
            thread::sleep(Duration::from_secs(1));
            first = read(&old);
            assert!(first.ends_with('\n'), "cut at the end of a line");
            // An external log rotation moves the file away.
            fs::remove_file(&old).unwrap();
            thread::sleep(Duration::from_secs(1));
            tmpfs(&full, MsFlags::MS_REMOUNT, "256m");
            refuse();
            thread::sleep(Duration::from_millis(500));
            agent.signal(Signal::SIGTERM);
            let (status, errors) = agent.wait();
            assert_eq!(status.code(), Some(0), "{errors}");
        })
        .unwrap();
        let stop = assert_accounted(&(first + &read(&file)));
        assert_eq!(stop["undelivered"]["output"], 0);
        assert_eq!(number(&stop["outcomes"]["refused"]), 1_001);
    });
}
