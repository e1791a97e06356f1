//! Program paths of processes, on every kind of filesystem. Another program is never named.

use std::{
    env, fs,
    io::Write as _,
    net::SocketAddr,
    os::{
        fd::AsRawFd as _,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, ports};
use conntrace_tests::{
    Dir, Live, Partner, attempt, copy_program, in_private_mounts, in_role_to, is_root, live_test,
    remote_of_role, role, run_one_by_one, say_and_wait, unless,
};
use jiff::Timestamp;
use nix::{
    mount::{MsFlags, mount},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::Signal,
    },
};
use serde_json::Value;

/// File name of every program, so that all processes have one name.
const NAME: &str = "connector";
/// Environment variables with the program that a child executes next, and with its role.
const NEXT: &str = "CONNTRACE_TEST_NEXT";
const NEXT_ROLE: &str = "CONNTRACE_TEST_NEXT_ROLE";
/// Environment variable with the program that is replaced.
const REPLACED: &str = "CONNTRACE_TEST_REPLACED";
/// Minimum age of a program. One that changed less than a tick of the kernel's clock before the
/// attempt is not named.
const SETTLED: Duration = Duration::from_millis(50);
/// Maximum number of files created until one has the wanted inode number.
const FILES_MAX: usize = 1000;

pub(crate) fn main() -> ExitCode {
    match role().as_deref() {
        Some("connect") => return connect(),
        Some("delete") => {
            fs::remove_file(env::current_exe().unwrap()).unwrap();
            thread::sleep(SETTLED);
            return connect();
        }
        Some("become") => return become_next(),
        Some("replace") => return replace(),
        Some("wait") => {
            say_and_wait("waits");
            return ExitCode::SUCCESS;
        }
        Some(other) => panic!("no role: {other}"),
        None => {}
    }
    run_one_by_one(vec![
        live_test("tmpfs", || assert_named(on_tmpfs)),
        live_test("overlay_on_one_filesystem", || {
            assert_named(on_one_filesystem);
        }),
        live_test("overlay_lower_layer", || assert_named(in_lower_layer)),
        live_test("overlay_upper_layer", || assert_named(in_upper_layer)),
        unless(
            lacks_btrfs(),
            live_test("btrfs", || assert_named(|dir| on_btrfs(dir).unwrap())),
        ),
        live_test("memfd", memfd),
        live_test("deleted", deleted),
        live_test("another_program_after_exec", another_program_after_exec),
        unless(
            lacks_reuse(),
            live_test("inode_number_used_again", inode_number_used_again),
        ),
    ])
}

fn refusing() -> SocketAddr {
    (FAR_V4, ports::RESETS).into()
}

/// Connects as the child of a test.
fn connect() -> ExitCode {
    attempt(remote_of_role());
    say_and_wait("connected");
    ExitCode::SUCCESS
}

/// Connects, then executes another program.
fn become_next() -> ExitCode {
    attempt(remote_of_role());
    let next = env::var_os(NEXT).unwrap();
    let role = env::var(NEXT_ROLE).unwrap();
    panic!("{}", in_role_of(Path::new(&next), &role).exec());
}

/// Replaces its former program by one with the same inode number, and executes that.
fn replace() -> ExitCode {
    let program = PathBuf::from(env::var_os(REPLACED).unwrap());
    let (copy, old) = (fs::read(&program).unwrap(), fs::metadata(&program).unwrap());
    fs::remove_file(&program).unwrap();
    let anew = with_inode(old.ino(), program.parent().unwrap()).unwrap();
    fs::write(&anew, copy).unwrap();
    fs::set_permissions(&anew, old.permissions()).unwrap();
    fs::rename(anew, &program).unwrap();
    panic!("{}", in_role_of(&program, "wait").exec());
}

/// Builds a command for a copy of this program in that role.
fn in_role_of(program: &Path, role: &str) -> Command {
    let mut command = Command::new(program);
    for (name, value) in in_role_to(role, refusing()).get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

/// Creates a file with this inode number, and removes the other files created on the way.
fn with_inode(inode: u64, dir: &Path) -> Option<PathBuf> {
    let mut others = Vec::new();
    let found = (0..FILES_MAX).find_map(|number| {
        let path = dir.join(format!("new-{number}"));
        fs::write(&path, "").unwrap();
        if fs::metadata(&path).unwrap().ino() == inode {
            return Some(path);
        }
        others.push(path);
        None
    });
    for other in others {
        fs::remove_file(other).unwrap();
    }
    found
}

/// Returns the reason if this filesystem does not reuse inode numbers.
fn lacks_reuse() -> Option<&'static str> {
    let dir = Dir::new("exe-reuse");
    let first = dir.file("first");
    fs::write(&first, "").unwrap();
    let inode = fs::metadata(&first).unwrap().ino();
    fs::remove_file(&first).unwrap();
    with_inode(inode, &dir.0).is_none().then_some(
        "needs a folder for temporary files where inode numbers are used again, as on ext4",
    )
}

/// Returns the line of a child that connects, started by `start` in a mount namespace of its own.
fn line(start: impl FnOnce() -> Partner + Send) -> Value {
    let live = Live::get();
    let began = format!("{:.9}", Timestamp::now());
    let scene = live.play(|testnet| {
        let netns = testnet.netns;
        in_private_mounts(|| {
            let partner = start();
            live.tracer().wait_for_endings_since(&began, netns, 1);
            assert!(partner.finish().success());
        });
    });
    live.endings(&scene, 1).remove(0)
}

/// Copies this program to a path, and waits until its change time is old enough.
fn copy(to: &Path) {
    copy_program(&env::current_exe().unwrap(), to);
    thread::sleep(SETTLED);
}

/// Checks that the line names a program that `place` has put below a folder.
fn assert_named(place: impl FnOnce(&Path) -> PathBuf + Send) {
    let dir = Dir::new("exe");
    let mut program = PathBuf::new();
    let line = line(|| {
        program = place(&dir.0);
        Partner::start(in_role_of(&program, "connect"))
    });
    let exe = &line["process"]["exe"];
    assert_eq!(exe, program.to_str().unwrap(), "{line:#}");
}

/// Mounts a filesystem of this kind on a new folder.
fn mounted(kind: &str, at: PathBuf, options: &str) -> PathBuf {
    fs::create_dir(&at).unwrap();
    mount(Some(kind), &at, Some(kind), MsFlags::empty(), Some(options)).unwrap();
    at
}

fn on_tmpfs(dir: &Path) -> PathBuf {
    let program = mounted("tmpfs", dir.join("tmpfs"), "").join(NAME);
    copy(&program);
    program
}

/// Mounts an overlay with a copy of this program in its lower layer. The layers may be on two
/// filesystems.
fn overlay(dir: &Path, one: &Path, other: &Path) -> PathBuf {
    let layers = [one.join("lower"), other.join("upper"), other.join("work")];
    for layer in &layers {
        fs::create_dir(layer).unwrap();
    }
    let [lower, upper, work] = layers.each_ref().map(|layer| layer.display());
    copy(&one.join("lower").join(NAME));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    mounted("overlay", dir.join("merged"), &options)
}

fn on_one_filesystem(dir: &Path) -> PathBuf {
    let one = mounted("tmpfs", dir.join("one"), "");
    overlay(dir, &one, &one).join(NAME)
}

fn on_two_filesystems(dir: &Path) -> PathBuf {
    let [one, other] = ["one", "other"].map(|name| mounted("tmpfs", dir.join(name), ""));
    overlay(dir, &one, &other)
}

fn in_lower_layer(dir: &Path) -> PathBuf {
    on_two_filesystems(dir).join(NAME)
}

fn in_upper_layer(dir: &Path) -> PathBuf {
    let merged = on_two_filesystems(dir);
    let program = merged.join("upper").join(NAME);
    fs::create_dir(merged.join("upper")).unwrap();
    copy(&program);
    program
}

/// Mounts btrfs on a loop device, which is released with the mount.
fn on_btrfs(dir: &Path) -> Result<PathBuf, String> {
    let (image, at) = (dir.join("image"), dir.join("btrfs"));
    let file = fs::File::create(&image).unwrap();
    file.set_len(256 << 20).unwrap();
    fs::create_dir(&at).unwrap();
    succeeds(Command::new("mkfs.btrfs").arg("-q").arg(&image))?;
    let options = ["-t", "btrfs", "-o", "loop"];
    succeeds(Command::new("mount").args(options).args([&image, &at]))?;
    let program = at.join(NAME);
    copy(&program);
    Ok(program)
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Returns the reason if btrfs is unavailable.
fn lacks_btrfs() -> Option<String> {
    if !is_root() {
        return None;
    }
    let dir = Dir::new("exe-btrfs");
    let made = in_private_mounts(|| on_btrfs(&dir.0));
    made.err().map(|error| format!("needs btrfs: {error}"))
}

/// A program in a memfd has no path in any folder.
fn memfd() {
    let file = {
        let file = memfd_create(c"connector", MFdFlags::MFD_CLOEXEC).unwrap();
        let mut file = fs::File::from(file);
        let program = fs::read(env::current_exe().unwrap()).unwrap();
        file.write_all(&program).unwrap();
        // The kernel does not execute a file that is open for writing.
        fs::File::open(path_of(&file)).unwrap()
    };
    thread::sleep(SETTLED);
    let line = line(|| Partner::start(in_role_of(&path_of(&file), "connect")));
    let exe = &line["process"]["exe"];
    assert_eq!(exe, "/memfd:connector (deleted)", "{line:#}");
}

fn path_of(file: &fs::File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// The path of a deleted program is marked as deleted, as in /proc.
fn deleted() {
    let dir = Dir::new("exe-deleted");
    let program = dir.file(NAME);
    copy(&program);
    let line = line(|| Partner::start(in_role_of(&program, "delete")));
    let deleted = format!("{} (deleted)", program.display());
    assert_eq!(line["process"]["exe"], deleted, "{line:#}");
}

/// Returns the line of a stopped agent, which reads /proc only after the process has executed
/// another program.
fn line_of_stopped_agent(command: impl FnOnce() -> Command + Send, then: &Path) -> Value {
    let live = Live::get();
    line(|| {
        live.tracer().signal(Signal::SIGSTOP);
        let partner = Partner::start(command());
        let exe = fs::read_link(format!("/proc/{}/exe", partner.pid())).unwrap();
        live.tracer().signal(Signal::SIGCONT);
        assert_eq!(exe, then);
        partner
    })
}

fn another_program_after_exec() {
    let dir = Dir::new("exe-exec");
    let [first, second] = ["first", "second"].map(|name| {
        fs::create_dir(dir.file(name)).unwrap();
        dir.file(name).join(NAME)
    });
    copy(&first);
    copy(&second);
    let command = || {
        let mut command = in_role_of(&first, "become");
        command.env(NEXT, &second).env(NEXT_ROLE, "wait");
        command
    };
    let line = line_of_stopped_agent(command, &second);
    assert!(line["process"]["exe"].is_null(), "{line:#}");
}

/// The program is deleted, and another one gets its inode number and its name.
fn inode_number_used_again() {
    let dir = Dir::new("exe-again");
    let program = dir.file(NAME);
    copy(&program);
    let inode = || fs::metadata(&program).unwrap().ino();
    let before = inode();
    let command = || {
        let mut command = in_role_of(&program, "become");
        command
            .env(NEXT, env::current_exe().unwrap())
            .env(NEXT_ROLE, "replace")
            .env(REPLACED, &program);
        command
    };
    let line = line_of_stopped_agent(command, &program);
    assert_eq!(inode(), before);
    assert!(line["process"]["exe"].is_null(), "{line:#}");
}
