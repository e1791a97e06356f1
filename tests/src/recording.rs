//! A running `conntrace run --record`, and replays of what it recorded.

use std::{
    env,
    fs::{self, File},
    io::Read as _,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    as_under_test, binary, conntrace, copy_program, group::is_list, is_root, run, run_one_by_one,
};

/// User id without any permissions.
const NOBODY: u32 = 65_534;
/// Time limit for an operation that normally takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// A copy of conntrace that anyone may run: the build's folder may be closed.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Runs the tests of a group that [`replay`].
pub fn run_with_replay(tests: Vec<Trial>) -> ExitCode {
    with_replay(|| run(tests))
}

/// Likewise, of tests that load the machine.
pub fn run_one_by_one_with_replay(tests: Vec<Trial>) -> ExitCode {
    with_replay(|| run_one_by_one(tests))
}

fn with_replay(run: impl FnOnce() -> ExitCode) -> ExitCode {
    let _program = (is_root() && !is_list()).then(|| {
        let dir = Dir::new("program");
        let copy = dir.file("conntrace");
        copy_program(binary(), &copy);
        PROGRAM.set(copy).unwrap();
        dir
    });
    run()
}

/// Folder that every user may read. It is deleted when dropped.
pub struct Dir(pub PathBuf);

impl Dir {
    /// Creates a folder in the folder for temporary files.
    pub fn new(name: &str) -> Self {
        let id = std::process::id();
        let path = env::temp_dir().join(format!("conntrace-{name}-{id}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A `conntrace run --record` whose lines go to a file. Killed when dropped.
pub struct Recording {
    child: Child,
    lines: PathBuf,
}

impl Recording {
    /// Records to `recording` in this folder, and waits for the start line.
    pub fn start(dir: &Path, options: &[&str]) -> Self {
        let lines = dir.join("lines");
        let mut command = conntrace();
        command.args(["--format", "json", "--record"]);
        command.arg(dir.join("recording")).args(options);
        as_under_test(&mut command);
        command.stdout(File::create(&lines).unwrap());
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let recording = Self { child, lines };
        recording.wait_for("\"type\":\"start\"", 1);
        recording
    }

    /// Reads the lines written so far.
    pub fn lines(&self) -> String {
        fs::read_to_string(&self.lines).unwrap()
    }

    /// Waits until that many lines contain this text.
    pub fn wait_for(&self, text: &str, count: usize) {
        let began = Instant::now();
        while matching(&self.lines(), text) < count {
            assert!(began.elapsed() < PATIENCE, "{text} in {}", self.lines());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the process and returns its lines.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines()
    }

    /// Ends the recording cleanly, and returns its lines and stderr.
    pub fn stop(mut self) -> (String, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut errors).unwrap();
        (self.lines(), errors)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts the lines that contain this text.
pub fn matching(lines: &str, text: &str) -> usize {
    lines.lines().filter(|line| line.contains(text)).count()
}

/// Replays a recording with these bytes as an unprivileged user.
pub fn replay(bytes: &[u8], options: &[&str]) -> Output {
    let dir = Dir::new(&format!("replay-{:?}", thread::current().id()));
    let file = dir.file("recording");
    fs::write(&file, bytes).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&file, Some(NOBODY), None).unwrap();
    let mut command = conntrace_as_nobody();
    command.current_dir(&dir.0);
    command.args(["replay", "recording"]).args(options);
    command.output().unwrap()
}

/// Builds a command of the program under test as an unprivileged user, for root's tests in
/// [`run_with_replay`]. Without root the user stays the same.
pub fn conntrace_as_nobody() -> Command {
    let Some(program) = PROGRAM.get() else {
        return conntrace();
    };
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
    command
}

/// Returns stdout as text.
pub fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

/// Returns stderr as text.
pub fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}
