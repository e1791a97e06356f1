//! Identity of the process that called connect.

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    thread,
};

use conntrace_testnet::{FAR_V4, ports};
use conntrace_tests::{
    Cgroup, Dir, ExpectedLine, Live, attempt, copy_program, live_test, own_cgroup, run,
};
use serde_json::json;

/// Environment variable that makes this program connect and exit instead of running its tests.
const CONNECT: &str = "CONNTRACE_TEST_CONNECT";

pub(crate) fn main() -> ExitCode {
    if env::var_os(CONNECT).is_some() {
        attempt(refusing());
        return ExitCode::SUCCESS;
    }
    run(vec![
        live_test("thread", thread_is_told_from_process),
        live_test("hostile_name", hostile_name),
        live_test("exited", exited),
        live_test("no_other_process", no_other_process),
        live_test("cgroup_and_container", cgroup_and_container),
    ])
}

fn refusing() -> SocketAddr {
    (FAR_V4, ports::RESETS).into()
}

/// Copies this program to a path of its own, and builds a command that connects and exits.
fn child(dir: &Dir) -> (PathBuf, Command) {
    let program = dir.file("connector");
    copy_program(&env::current_exe().unwrap(), &program);
    let mut command = Command::new(&program);
    command.env(CONNECT, "1").stdin(Stdio::null());
    (program, command)
}

fn thread_is_told_from_process() {
    let live = Live::get();
    let scene = live.play(|_| {
        thread::Builder::new()
            .name("worker-7".to_owned())
            .spawn(|| attempt(refusing()))
            .unwrap()
            .join()
            .unwrap()
    });
    assert_eq!(scene.value.comm, "worker-7");
    let lines = live.expect(&scene, &[ExpectedLine::refused(&scene.value)]);
    assert_ne!(
        lines[0]["process"]["comm"],
        lines[0]["process"]["leader_comm"]
    );
}

fn hostile_name() {
    let live = Live::get();
    let scene = live.play(|_| {
        thread::spawn(|| {
            let name: &[u8] = b"\n\"\\\x1b[2J\xff\xfe{}";
            fs::write("/proc/thread-self/comm", name).unwrap();
            attempt_named()
        })
        .join()
        .unwrap()
    });
    let lines = live.endings(&scene, 1);
    assert_eq!(
        lines[0]["process"]["comm"],
        "\n\"\\\u{1b}[2J\u{fffd}\u{fffd}{}"
    );
    assert_eq!(lines[0]["label"], "refused");
    assert_eq!(lines[0]["process"]["tid"], scene.value);
}

/// Connects on a thread whose name is invalid UTF-8; returns the thread's id.
fn attempt_named() -> i32 {
    let _ = std::net::TcpStream::connect(refusing());
    nix::unistd::gettid().as_raw()
}

/// Data that the kernel side recorded outlives the process; data from /proc may be gone.
fn exited() {
    let live = Live::get();
    let dir = Dir::new("exited");
    let (program, mut command) = child(&dir);
    let scene = live.play(|_| {
        let child = command.spawn().unwrap();
        let pid = child.id();
        child.wait_with_output().unwrap();
        pid
    });
    let line = &live.endings(&scene, 1)[0];
    assert_eq!(line["process"]["pid"], scene.value);
    assert_eq!(line["process"]["comm"], "connector");
    let exe = &line["process"]["exe"];
    assert!(exe.is_null() || *exe == program.to_str().unwrap(), "{exe}");
    assert_eq!(line["process"]["cgroup"], own_cgroup());
}

/// Each of many short-lived processes gets its own path or none, never another's.
fn no_other_process() {
    let live = Live::get();
    let dirs: Vec<_> = (0..8).map(|i| Dir::new(&format!("short-{i}"))).collect();
    let children: Vec<_> = dirs.iter().map(child).collect();
    let scene = live.play(|_| {
        let mut spawned = Vec::new();
        for (program, mut command) in children {
            for _ in 0..5 {
                let mut child = command.spawn().unwrap();
                spawned.push((child.id(), program.to_str().unwrap().to_owned()));
                child.wait().unwrap();
            }
        }
        spawned
    });
    let lines = live.endings(&scene, scene.value.len());
    for (pid, program) in &scene.value {
        let of_pid: Vec<_> = lines
            .iter()
            .filter(|l| l["process"]["pid"] == *pid)
            .collect();
        assert_eq!(of_pid.len(), 1, "pid {pid}");
        let exe = &of_pid[0]["process"]["exe"];
        assert!(exe.is_null() || exe == program, "{exe} is not {program}");
    }
}

/// A process in a cgroup with a container's name is reported with that container.
fn cgroup_and_container() {
    let live = Live::get();
    let id = format!("{:064x}", std::process::id());
    let name = format!("docker-{id}.scope");
    let cgroup = Cgroup::new(&name);
    let dir = Dir::new("cgroup");
    let (program, _) = child(&dir);
    let scene = live.play(|_| {
        // The shell moves itself to the cgroup, then executes the connecting program.
        let script = format!(
            "echo $$ > '{}/cgroup.procs' && exec '{}'",
            cgroup.path().display(),
            program.display(),
        );
        let status = Command::new("sh")
            .args(["-c", &script])
            .env(CONNECT, "1")
            .status();
        assert!(status.unwrap().success());
    });
    let line = &live.endings(&scene, 1)[0];
    assert_eq!(line["process"]["cgroup"], format!("/{name}"));
    assert_eq!(
        line["container"],
        json!({ "id": id, "name": null, "runtime": "docker", "pod": null, "namespace": null })
    );
}
