//! Test program in another role: the process that connects.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
};

use serde_json::{Value, json};

use crate::{Live, PlayedScenario};

/// Names the role in the child's environment.
pub(crate) const ROLE: &str = "CONNTRACE_TEST_ROLE";
/// Environment variable with the address to connect to, if any.
const REMOTE: &str = "CONNTRACE_TEST_REMOTE";
/// Maximum length of a task's comm in bytes.
const COMM_MAX: usize = 15;

/// Returns the role of this process, or none if it runs the tests.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Builds a command that runs this program in a role, with an empty stdin.
pub fn in_role(role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(ROLE, role).stdin(Stdio::null());
    command
}

/// Builds a command that runs this program in a role that connects to `remote`.
pub fn in_role_to(role: &str, remote: SocketAddr) -> Command {
    let mut command = in_role(role);
    command.env(REMOTE, remote.to_string());
    command
}

/// Returns the address that this child connects to.
pub fn remote_of_role() -> SocketAddr {
    env::var(REMOTE).unwrap().parse().unwrap()
}

/// Child process that prints a line, then continues on request.
pub struct Partner {
    child: Child,
    /// Line that the child printed.
    pub said: String,
    input: ChildStdin,
}

impl Partner {
    /// Starts the process and waits for its line.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        let input = child.stdin.take().unwrap();
        Self {
            child,
            said: said.trim_end().to_owned(),
            input,
        }
    }

    /// Returns the process id in this process's pid namespace.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets the process continue and waits for its end.
    pub fn finish(mut self) -> ExitStatus {
        drop(self.input);
        self.child.wait().unwrap()
    }
}

/// Prints this line in the child and waits until it may continue.
pub fn say_and_wait(line: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "{line}").unwrap();
    output.flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Returns the comm of this program's processes.
pub fn program_comm() -> String {
    let name = env::current_exe().unwrap();
    let name = name.file_name().unwrap().to_str().unwrap();
    name.chars().take(COMM_MAX).collect()
}

/// Returns the one line of a child's attempt. It must contain `part`, and no path except this
/// program's.
pub fn expect_child(scene: &PlayedScenario<u32>, remote: SocketAddr, part: &Value) -> Value {
    let line = Live::get().endings(scene, 1).remove(0);
    let comm = program_comm();
    assert_has(
        &line,
        &json!({
            "seen": "whole",
            "process": {
                "pid": scene.value, "tid": scene.value, "comm": comm, "leader_comm": comm,
            },
            "netns": scene.netns,
            "remote": { "addr": remote.ip(), "port": remote.port() },
            "syn": { "sent": 1, "retransmitted": 0 },
        }),
    );
    assert_has(&line, part);
    let exe = &line["process"]["exe"];
    let own = env::current_exe().unwrap();
    assert!(exe.is_null() || *exe == own.to_str().unwrap(), "{line:#}");
    line
}

/// Fails unless the line contains `part`, including nested objects.
pub fn assert_has(line: &Value, part: &Value) {
    for (name, wanted) in part.as_object().unwrap() {
        // One that is not there is not null.
        let got = line
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {line:#}"));
        if wanted.is_object() {
            assert_has(got, wanted);
        } else {
            assert_eq!(got, wanted, "{name} in {line:#}");
        }
    }
}
