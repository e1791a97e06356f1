//! Every byte that the kernel allows in the name of a process, of its program and of its
//! cgroup.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write as _},
    net::TcpStream,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    process::{Command, ExitCode, Stdio},
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    Cgroup, Dir, LinesFile, checked, copy_program, in_role, live_test, of_type, unless,
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Role of the child process.
pub(crate) const ROLE: &str = "names";
/// Maximum length of a task's comm in bytes.
const COMM_MAX: usize = 15;

/// Returns every byte except NUL and those in `without`.
fn bytes_but(without: &[u8]) -> Vec<u8> {
    (1..=u8::MAX)
        .filter(|byte| !without.contains(byte))
        .collect()
}

/// Returns names that together contain every byte.
fn comms() -> Vec<Vec<u8>> {
    let bytes = bytes_but(b"");
    bytes.chunks(COMM_MAX).map(<[u8]>::to_vec).collect()
}

/// The child: connects by every name, and waits for a line before each and in the end:
/// what a process is called now must be what it was called then.
pub(crate) fn connect_by_every_name() -> ExitCode {
    let wait = || io::stdin().read_line(&mut String::new()).unwrap();
    for comm in comms() {
        wait();
        fs::write("/proc/self/comm", comm).unwrap();
        let _ = TcpStream::connect((FAR_V4, ports::RESETS));
    }
    wait();
    ExitCode::SUCCESS
}

pub(crate) fn every_byte_test() -> Trial {
    unless(
        Cgroup::lacks(),
        live_test("names_of_every_byte", every_byte),
    )
}

/// Checks that a path of these bytes is truncated in a line and marked so.
fn assert_begins_as(path: &Value, whole: &str) {
    let kept = path.as_str().unwrap().strip_suffix('…').unwrap();
    assert!(whole.starts_with(kept) && kept.len() > 200, "{kept}");
}

fn every_byte() {
    // A line's end would make /proc/PID/cgroup two: the kernel refuses it.
    let of_cgroup = OsString::from_vec(bytes_but(b"/\n"));
    let cgroup = Cgroup::new(&of_cgroup);
    let dir = Dir::new("every-byte");
    let program = dir.0.join(OsStr::from_bytes(&bytes_but(b"/")));
    copy_program(&env::current_exe().unwrap(), &program);
    let file = LinesFile::new(&dir.0);
    conntrace_testnet::run("names", |testnet| {
        let agent = file.run(&["--netns", &testnet.netns.to_string()]);
        let mut child = Command::new(&program);
        child.envs(
            in_role(ROLE)
                .get_envs()
                .map(|(name, value)| (name, value.unwrap())),
        );
        let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
        fs::write(cgroup.path().join("cgroup.procs"), child.id().to_string()).unwrap();
        for told in 1..=comms().len() {
            child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            file.wait_for("\"type\":\"outcome\"", told);
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        agent.stop(Signal::SIGTERM);
    })
    .unwrap();
    let bytes = file.bytes();
    let is_visible = |byte: &u8| *byte >= b' ' && *byte != 0x7f || *byte == b'\n';
    assert!(bytes.iter().all(is_visible));
    let lines = checked(str::from_utf8(&bytes).unwrap());
    let outcomes: Vec<_> = of_type(&lines, "outcome").collect();
    assert_eq!(outcomes.len(), comms().len());
    for (line, comm) in outcomes.iter().zip(comms()) {
        let process = &line["process"];
        let comm = String::from_utf8_lossy(&comm);
        assert_eq!(process["comm"], *comm);
        assert_eq!(process["leader_comm"], *comm);
        assert_begins_as(&process["exe"], &program.to_string_lossy());
        let below = format!("/{}", of_cgroup.to_string_lossy());
        assert_begins_as(&process["cgroup"], &below);
    }
    println!(
        "{} names of {COMM_MAX} bytes, a path of {} and a cgroup of {}, every byte the kernel allows: {} lines, the longest has {} bytes",
        comms().len(),
        program.as_os_str().len(),
        of_cgroup.len() + 1,
        lines.len(),
        bytes
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::len)
            .max()
            .unwrap(),
    );
}
