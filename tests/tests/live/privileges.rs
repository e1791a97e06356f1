//! Looks at other processes that the agent's worker cannot take.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitCode},
};

use caps::{CapSet, Capability, CapsHashSet};
use conntrace_tests::{
    Partner, TracerProcess, in_role, live_test, role, run_one_by_one, say_and_wait, tasks,
};
use nix::errno::Errno;

/// Environment variables with the capabilities of a child as bits, and the process to look at.
const CAPABILITIES: &str = "CONNTRACE_TEST_CAPABILITIES";
const TARGET: &str = "CONNTRACE_TEST_TARGET";
/// User of another process.
const NOBODY: u32 = 65_534;
/// Result of a look that nothing forbids.
const OPENED: &str = "opened";
/// Name of the agent's thread that makes lines.
const WORKER: &str = "conntrace-work";
/// Capability to look at every process.
const SYS_PTRACE: Capability = Capability::CAP_SYS_PTRACE;

pub(crate) fn main() -> ExitCode {
    if role().is_some() {
        look();
        return ExitCode::SUCCESS;
    }
    run_one_by_one(vec![live_test("worker_cannot_look", worker_cannot_look)])
}

/// Takes the capabilities that the environment names, as the child process, and tells the results
/// of looks at another process.
fn look() {
    let bits: u64 = env::var(CAPABILITIES).unwrap().parse().unwrap();
    let kept: CapsHashSet = caps::all()
        .into_iter()
        .filter(|capability| bits & (1 << capability.index()) != 0)
        .collect();
    caps::set(None, CapSet::Effective, &kept).unwrap();
    caps::set(None, CapSet::Permitted, &kept).unwrap();
    let target = env::var(TARGET).unwrap();
    let process = Path::new(&target);
    let results = [
        File::open(process.join("environ")).map(drop),
        File::open(process.join("maps")).map(drop),
        fs::read_link(process.join("exe")).map(drop),
        fs::read_link(process.join("ns/net")).map(drop),
        File::open(process.join("ns/net")).map(drop),
        fs::read_link(process.join("fd/0")).map(drop),
        fs::read_link(process.join("root")).map(drop),
    ];
    say_and_wait(&results.map(errno).join(" "));
}

fn errno(result: io::Result<()>) -> String {
    let error = result.err().and_then(|error| error.raw_os_error());
    error.map_or(OPENED.to_owned(), |error| {
        format!("{:?}", Errno::from_raw(error))
    })
}

/// Returns the results of looks at a process with these capabilities.
fn looks(capabilities: u64, target: &Child) -> Vec<String> {
    let mut command = in_role("look");
    command.env(CAPABILITIES, capabilities.to_string());
    command.env(TARGET, format!("/proc/{}", target.id()));
    let child = Partner::start(command);
    let said = child.said.clone();
    assert!(child.finish().success());
    said.split(' ').map(str::to_owned).collect()
}

/// Returns the effective capabilities of a thread; it can raise no others.
fn capabilities(pid: u32, tid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    };
    assert_eq!(set("CapPrm:"), set("CapEff:"), "{status}");
    set("CapEff:")
}

/// Process that does nothing, of this user. Killed when dropped.
struct Target(Child);

impl Target {
    fn of(uid: u32) -> Self {
        let mut sleep = Command::new("sleep");
        Self(sleep.arg("60").uid(uid).gid(uid).spawn().unwrap())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process with the worker's capabilities can open nothing of another user's process, nor of one
/// of root's that has more capabilities. It is the missing `CAP_SYS_PTRACE` that forbids it.
fn worker_cannot_look() {
    let tracer = TracerProcess::start(&[]);
    let mut tasks = tasks(tracer.pid()).into_iter();
    let worker = tasks.find(|task| task.comm == WORKER).expect("a worker");
    let of_worker = capabilities(tracer.pid(), worker.tid);
    assert_eq!(of_worker & SYS_PTRACE.bitmask(), 0, "{of_worker:x}");
    for uid in [NOBODY, 0] {
        let target = Target::of(uid);
        let results = looks(of_worker, &target.0);
        let is_forbidden = |result: &String| ["EACCES", "EPERM"].contains(&result.as_str());
        assert!(
            results.iter().all(is_forbidden),
            "of uid {uid}: {results:?}"
        );
        let results = looks(of_worker | SYS_PTRACE.bitmask(), &target.0);
        let is_opened = |result: &String| result == OPENED;
        assert!(results.iter().all(is_opened), "of uid {uid}: {results:?}");
    }
    tracer.stop();
}
