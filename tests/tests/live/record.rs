//! Content of a recording made by `run --record`, and behaviour when it cannot be written.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    process::{Command, ExitCode, Stdio},
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    Dir, Recording, assert_adds_up, attempt, binary, conntrace, in_private_mounts, live_test,
    matching, replay, run_with_replay, stderr, stdout,
};
use nix::{
    mount::{MsFlags, mount},
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use serde_json::Value;

/// Environment variable that makes this program connect to a refusing port instead of running its
/// tests.
const CONNECT: &str = "CONNTRACE_TEST_CONNECT";
/// Value of a child's environment variable that occurs nowhere else on this machine.
const SECRET: &str = "canary-5f0c7a91d2";

pub(crate) fn main() -> ExitCode {
    if env::var_os(CONNECT).is_some() {
        attempt((FAR_V4, ports::RESETS));
        // Some tests need the process alive until its line is printed.
        let _ = io::stdin().read_line(&mut String::new());
        return ExitCode::SUCCESS;
    }
    run_with_replay(vec![
        live_test("no_environment", no_environment),
        live_test("no_secrets_of_a_proxy", no_secrets_of_a_proxy),
        live_test("for_its_owner_alone", for_its_owner_alone),
        live_test("replaces_nothing", replaces_nothing),
        live_test("in_another_users_folder", in_another_users_folder),
        live_test("killed", killed),
        live_test("full_disk", full_disk),
    ])
}

/// The record of a process does not contain its environment.
fn no_environment() {
    let dir = Dir::new("no-environment");
    let recording = Recording::start(&dir.0, &[]);
    let exe = env::current_exe().unwrap();
    let (netns, child) = conntrace_testnet::run("no-environment", |testnet| {
        let mut child = Command::new(&exe);
        child.env(CONNECT, SECRET).stdin(Stdio::null());
        let mut child = child.spawn().unwrap();
        assert!(child.wait().unwrap().success());
        (testnet.netns, child.id())
    })
    .unwrap();
    recording.wait_for(&format!("\"netns\":{netns},"), 1);
    let (lines, _) = recording.stop();
    assert_eq!(matching(&lines, &format!("\"pid\":{child},")), 1);
    let bytes = fs::read(dir.file("recording")).unwrap();
    let has = |text: &str| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(has("\"owner\":{"), "there are answers in it");
    assert!(!has(SECRET) && !has(CONNECT));
    // Shorter parts may occur in a recording's numbers by chance.
    for (name, _) in env::vars().filter(|(name, _)| name.len() > 3) {
        assert!(!has(&format!("{name}=")), "{name}");
    }
}

/// A recording says that a variable names the proxy, so that a replay can. Its user and password
/// are not recorded.
fn no_secrets_of_a_proxy() {
    let dir = Dir::new("no-secrets");
    let recording = Recording::start(&dir.0, &["-v"]);
    let proxy = format!(
        "http://{SECRET}:{SECRET}@{FAR_V4}:{}/{SECRET}",
        ports::RESETS
    );
    conntrace_testnet::run("no-secrets", |testnet| {
        let mut child = Command::new(env::current_exe().unwrap());
        child.env(CONNECT, "1").env("ALL_PROXY", &proxy);
        let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
        recording.wait_for(&format!("\"netns\":{},", testnet.netns), 1);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    })
    .unwrap();
    let (lines, errors) = recording.stop();
    assert_eq!(matching(&lines, "\"code\":\"proxy_in_path\""), 1, "{lines}");
    let bytes = fs::read(dir.file("recording")).unwrap();
    let recorded = String::from_utf8_lossy(&bytes);
    assert!(recorded.contains("all_proxy"));
    for text in [&lines, &errors, &*recorded] {
        assert!(!text.contains(SECRET));
    }
    assert_eq!(stdout(&replay(&bytes, &[])), lines);
}

/// A recording works in another user's folder, where root cannot write after it drops its
/// capabilities.
fn in_another_users_folder() {
    let dir = Dir::new("another-user");
    chown(&dir.0, Some(65_534), Some(65_534)).unwrap();
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o755)).unwrap();
    let recording = Recording::start(&dir.0, &[]);
    recording.stop();
    assert!(fs::metadata(dir.file("recording")).unwrap().len() > 0);
}

/// The recording's mode gives others no access, whatever the umask. Permissions that the umask
/// takes from the owner stay taken.
fn for_its_owner_alone() {
    for (umask, mode) in [
        ("000", 0o600),
        ("022", 0o600),
        ("077", 0o600),
        ("200", 0o400),
    ] {
        let dir = Dir::new("umask");
        let file = dir.file("recording");
        let script = format!("umask {umask} && exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(binary());
        command.arg("--record").arg(&file).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        assert!(lines.read_line(&mut String::new()).unwrap() > 0);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        io::copy(&mut lines, &mut io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
        let got = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(got & 0o7777, mode, "umask {umask}");
        let output = replay(&fs::read(&file).unwrap(), &["--all"]);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    }
}

/// Existing files are left unchanged, and symbolic links are not followed.
fn replaces_nothing() {
    let dir = Dir::new("replaces-nothing");
    let file = dir.file("file");
    fs::write(&file, "precious").unwrap();
    fs::hard_link(&file, dir.file("second-name")).unwrap();
    symlink(&file, dir.file("link")).unwrap();
    symlink(dir.file("nowhere"), dir.file("dangling")).unwrap();
    symlink("loop", dir.file("loop")).unwrap();
    symlink("/dev/null", dir.file("device")).unwrap();
    fs::create_dir(dir.file("folder")).unwrap();
    mkfifo(&dir.file("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let there = [
        "file",
        "second-name",
        "link",
        "dangling",
        "loop",
        "device",
        "folder",
        "pipe",
    ];
    for name in there {
        let path = dir.file(name);
        let output = conntrace().arg("--record").arg(&path).output().unwrap();
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
        let expected = format!(
            "conntrace: cannot record to {}: it exists, and a recording replaces nothing; name a new file\n",
            path.display()
        );
        assert_eq!(stderr(&output), expected);
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let names = fs::read_dir(&dir.0).unwrap();
    assert_eq!(names.count(), there.len());
}

/// Replays all lines that a killed conntrace has printed.
fn killed() {
    let dir = Dir::new("killed");
    let recording = Recording::start(&dir.0, &[]);
    let netns = conntrace_testnet::run("killed", |testnet| {
        attempt((FAR_V4, ports::RESETS));
        testnet.netns
    });
    recording.wait_for(&format!("\"netns\":{},", netns.unwrap()), 1);
    let lines = recording.kill();
    let output = replay(&fs::read(dir.file("recording")).unwrap(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the file ends without a stop"));
    assert!(stdout(&output).starts_with(&lines));
}

/// A full disk is reported and counted while lines go on. The test has its own mount namespace, so
/// that the small disk is removed with the thread.
fn full_disk() {
    const ATTEMPTS: usize = 1000;
    let dir = Dir::new("full-disk");
    let disk = dir.file("disk");
    fs::create_dir(&disk).unwrap();
    let in_namespace = || {
        let tmpfs = Some("tmpfs");
        mount(tmpfs, &disk, tmpfs, MsFlags::empty(), Some("size=64k")).unwrap();
        symlink(dir.file("lines"), disk.join("lines")).unwrap();
        let recording = Recording::start(&disk, &[]);
        let netns = conntrace_testnet::run("full-disk", |testnet| {
            (0..ATTEMPTS).for_each(|_| drop(attempt((FAR_V4, ports::RESETS))));
            testnet.netns
        });
        recording.wait_for(&format!("\"netns\":{},", netns.unwrap()), ATTEMPTS);
        let (lines, errors) = recording.stop();
        (lines, errors, fs::read(disk.join("recording")).unwrap())
    };
    let (lines, errors, bytes) = in_private_mounts(in_namespace);
    assert_eq!(
        matching(&errors, "No space left on device"),
        1,
        "once: {errors}"
    );
    assert!(
        errors.contains("the recording ends here, the lines go on"),
        "{errors}"
    );
    let stop: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let unrecorded = usize::try_from(stop["unrecorded"].as_u64().unwrap()).unwrap();
    assert_adds_up(&stop);
    let output = replay(&bytes, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(lines.starts_with(stdout(&output)));
    let replayed = matching(stdout(&output), "\"type\":\"outcome\"");
    println!(
        "a disk of 64 kB: {ATTEMPTS} lines, {replayed} of them recorded, {unrecorded} records not"
    );
    assert!(
        replayed > 100 && replayed + unrecorded >= ATTEMPTS,
        "{replayed}, {unrecorded}"
    );
}
