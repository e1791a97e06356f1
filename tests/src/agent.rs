//! Running `conntrace run` with its output redirected by the test.

use std::{
    fs,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{as_under_test, conntrace, matching};

/// Time limit for an operation that normally takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A running `conntrace`. Killed when dropped.
pub struct Agent {
    child: Child,
}

impl Agent {
    /// Starts `conntrace run` with these options.
    pub fn run(options: &[&str], stdout: impl Into<Stdio>) -> Self {
        let mut command = conntrace();
        command.arg("run").args(options);
        as_under_test(&mut command);
        Self::spawn(command.stdout(stdout))
    }

    /// Starts a command.
    pub fn spawn(command: &mut Command) -> Self {
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        Self { child }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The reading end of its output, where that is a pipe.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// Returns the peak memory in kB since the start, or since the last call.
    pub fn memory_max_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        // From now on.
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
        number.parse().unwrap()
    }

    /// Waits for the agent's end up to a time limit, and returns its status and stderr.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            thread::sleep(POLL);
        };
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut errors).unwrap();
        (status, errors)
    }

    /// Ends the agent with this signal. It must exit cleanly with an empty stderr.
    pub fn stop(self, signal: Signal) {
        self.signal(signal);
        self.assert_ends_cleanly();
    }

    /// Checks that the agent ends by itself with status 0 and an empty stderr.
    pub fn assert_ends_cleanly(self) {
        let (status, errors) = self.wait();
        assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file that takes an agent's lines.
pub struct LinesFile(PathBuf);

impl LinesFile {
    /// Creates the file in this folder.
    pub fn new(dir: &Path) -> Self {
        Self(dir.join("lines"))
    }

    /// Starts `conntrace run` with its output to this file and waits until it is
    /// live.
    pub fn run(&self, options: &[&str]) -> Agent {
        let agent = Agent::run(options, File::create(&self.0).unwrap());
        self.wait_for("", 1);
        agent
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the whole file.
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }

    /// Reads the lines written so far.
    pub fn lines(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    /// Waits until that many lines contain this text.
    pub fn wait_for(&self, text: &str, count: usize) {
        let began = Instant::now();
        while matching(&self.lines(), text) < count {
            assert!(began.elapsed() < PATIENCE, "{count} lines with {text:?}");
            thread::sleep(POLL);
        }
    }
}
