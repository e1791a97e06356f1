//! Running `conntrace` and its lines.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use jsonschema::Validator;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{as_under_test, conntrace};

/// Time limit for an operation that normally takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest line in bytes, the newline included.
const LINE_LEN_MAX: usize = 7900;

/// A running `conntrace run`. Killed when dropped.
pub struct TracerProcess {
    child: Child,
    lines: Arc<TracerLines>,
    checker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct TracerLines {
    state: Mutex<TracerState>,
    changed: Condvar,
}

#[derive(Default)]
struct TracerState {
    lines: Vec<Value>,
    /// Start times of the attempts in outcome lines, by namespace.
    endings: HashMap<u64, Vec<String>>,
    started: bool,
    ended: bool,
    /// First line that is not valid JSON or that violates the schema.
    bad: Option<String>,
}

impl TracerProcess {
    /// Starts it with these options and waits for its start line.
    pub fn start(options: &[&str]) -> Self {
        let mut command = conntrace();
        command.args(["--format", "json"]).args(options);
        as_under_test(&mut command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("conntrace starts");
        let lines = Arc::new(TracerLines::default());
        let stdout = child.stdout.take().unwrap();
        // Reading must keep up with conntrace, checking need not.
        let (raw_sender, raw) = mpsc::channel();
        thread::spawn(move || read(stdout, &raw_sender));
        let checker = {
            let lines = Arc::clone(&lines);
            thread::spawn(move || {
                raw.into_iter().for_each(|line| lines.check(&line));
                lines.lock().ended = true;
                lines.changed.notify_all();
            })
        };
        let mut tracer = Self {
            child,
            lines,
            checker: Some(checker),
        };
        tracer
            .lines
            .wait_until(|state| state.started || state.ended);
        if !tracer.lines.lock().started {
            let _ = tracer.child.kill();
            let mut errors = String::new();
            let stderr = tracer.child.stderr.take().unwrap();
            let _ = BufReader::new(stderr).read_to_string(&mut errors);
            panic!("no start line; stderr: {errors}");
        }
        tracer
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits up to a time limit until this namespace has that many endings.
    pub fn wait_for_endings(&self, netns: u32, count: usize) {
        self.wait_for_endings_since("", netns, count);
    }

    /// Waits for endings of attempts that began at `since` (as in a line) or later.
    pub fn wait_for_endings_since(&self, since: &str, netns: u32, count: usize) {
        let netns = u64::from(netns);
        self.lines.wait_until(|state| {
            let began = state.endings.get(&netns).map_or(&[][..], Vec::as_slice);
            // The length first: a storm asks this for every one of its lines.
            began.len() >= count
                && began.iter().filter(|began| began.as_str() >= since).count() >= count
        });
    }

    /// Returns all lines so far that `wanted` accepts, in order of time.
    pub fn lines(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let state = self.lines.lock();
        let wanted = state.lines.iter().filter(|line| wanted(line));
        by_time(wanted.cloned().collect())
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).expect("conntrace runs");
    }

    /// Ends it with SIGTERM and returns every line it ever wrote, outcomes and stalls in order of
    /// time. The last one is its stop line; each was valid by the schema; it exited with 0.
    pub fn stop(self) -> Vec<Value> {
        let (lines, errors) = self.stop_and_hear();
        assert_eq!(errors, "", "nothing on stderr");
        lines
    }

    /// Ends it like [`stop`](Self::stop), and also returns its messages.
    pub fn stop_and_hear(mut self) -> (Vec<Value>, String) {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().unwrap();
        self.checker.take().unwrap().join().unwrap();
        let mut errors = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        assert!(status.success(), "{status}; stderr: {errors}");
        let mut state = self.lines.lock();
        assert_eq!(state.bad, None, "every line is valid");
        let lines = std::mem::take(&mut state.lines);
        assert_eq!(lines.last().unwrap()["type"], "stop");
        (by_time(lines), errors)
    }
}

/// Puts outcomes and stalls in order of time, and leaves other lines in their places: one that waits
/// for its cause is overtaken by others.
fn by_time(lines: Vec<Value>) -> Vec<Value> {
    let is_of_attempt = |line: &Value| line["type"] == "outcome" || line["type"] == "stall";
    let mut sorted: Vec<Value> = lines
        .iter()
        .filter(|it| is_of_attempt(it))
        .cloned()
        .collect();
    sorted.sort_by(|one, other| one["time"].as_str().cmp(&other["time"].as_str()));
    let mut sorted = sorted.into_iter();
    let in_order = lines.into_iter().map(|line| match is_of_attempt(&line) {
        true => sorted.next().unwrap_or(line),
        false => line,
    });
    in_order.collect()
}

impl Drop for TracerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl TracerLines {
    fn lock(&self) -> MutexGuard<'_, TracerState> {
        self.state.lock().unwrap()
    }

    /// Waits up to a time limit until `wanted` accepts the lines.
    fn wait_until(&self, wanted: impl Fn(&TracerState) -> bool) {
        let lines = self.lock();
        drop(
            self.changed
                .wait_timeout_while(lines, PATIENCE, |state| !wanted(state))
                .unwrap(),
        );
    }

    fn check(&self, line: &str) {
        let checked = check(line);
        let mut state = self.lock();
        match checked {
            Ok(value) => {
                state.started |= value["type"] == "start";
                if let ("outcome", Some(netns)) =
                    (value["type"].as_str().unwrap(), value["netns"].as_u64())
                {
                    // Null where it was not seen.
                    let began = value["started"].as_str().unwrap_or_default().to_owned();
                    state.endings.entry(netns).or_default().push(began);
                }
                state.lines.push(value);
            }
            Err(error) => {
                state.bad.get_or_insert(format!("{error}: {line}"));
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

fn read(stdout: ChildStdout, lines: &Sender<String>) {
    for line in BufReader::new(stdout).lines() {
        let line = line.expect("lines are UTF-8");
        if lines.send(line).is_err() {
            return;
        }
    }
}

/// Parses a line as JSON and validates it.
///
/// # Errors
/// Returns the first violation of JSON syntax, the schema, or the rules for lines.
pub fn check(line: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    schema().validate(&value).map_err(|e| e.to_string())?;
    if line.len() + "\n".len() > LINE_LEN_MAX {
        return Err(format!("longer than {LINE_LEN_MAX} bytes"));
    }
    if !line.starts_with(r#"{"time":""#) || !line.ends_with(r#","schema":1}"#) {
        return Err("does not begin with `time` or end with `schema`".to_owned());
    }
    Ok(value)
}

/// Validator of the schema that `conntrace schema` prints.
fn schema() -> &'static Validator {
    static SCHEMA: OnceLock<Validator> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let printed = conntrace().arg("schema").output().unwrap();
        assert!(printed.status.success());
        let schema: Value = serde_json::from_slice(&printed.stdout).unwrap();
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        jsonschema::draft202012::new(&schema).unwrap()
    })
}
