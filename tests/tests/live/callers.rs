//! Attribution of an attempt to the process that called connect, even if another process holds or
//! closes the socket.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Attempted, Cgroup, ExpectedLine, HostTest, Ia32, Live, Partner, PlayedScenario, attempt,
    attempt_on, connect_as_ia32, expect_child, has_ia32, in_role, in_role_to, live_test,
    own_cgroup, own_netns, pass_on, program_comm, receive, remote_of_role, role, run, say_and_wait,
    tcp, unless, wait_for_syn_sent,
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::{Uid, setuid},
};
use serde_json::{Value, json};
use socket2::Socket;

/// Environment variable with the cgroup that a child moves to.
const CGROUP: &str = "CONNTRACE_TEST_CGROUP";
/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = Duration::from_millis(200);
/// Time before the first SYN retransmission at 1 s, less a margin for an early timer.
const BEFORE_STALL: Duration = Duration::from_millis(990);
/// Program that holds a socket for longer than the tracer's patience.
const HOLDER: [&str; 2] = ["sleep", "0.3"];
const THREADS: usize = 8;

pub(crate) fn main() -> ExitCode {
    if let Some(role) = role() {
        play(&role);
        return ExitCode::SUCCESS;
    }
    let mut tests = Vec::new();
    let hosts: [(&str, IpAddr); 2] = [("v4", FAR_V4.into()), ("v6", FAR_V6.into())];
    for (name, host) in hosts {
        let scenarios: [HostTest; 10] = [
            ("exits", exits),
            ("killed", killed),
            ("executes_another_program", executes_another_program),
            ("child_inherits", child_inherits),
            ("parent_is_gone", parent_is_gone),
            ("passed_on_and_closed", passed_on_and_closed),
            ("passed_on_and_connected", passed_on_and_connected),
            ("many_threads", many_threads),
            ("thread_is_gone", thread_is_gone),
            ("thread_in_another_netns", thread_in_another_netns),
        ];
        for (scenario, play) in scenarios {
            tests.push(live_test(&format!("{scenario}_{name}"), move || play(host)));
        }
    }
    tests.extend([
        live_test("pid_namespace", pid_namespace),
        live_test("user_namespace", user_namespace),
        live_test("cgroup_of_who_is_gone", cgroup_of_who_is_gone),
    ]);
    let lacks = (!runs_ia32()).then_some("needs 32-bit system calls (CONFIG_IA32_EMULATION)");
    for (name, by) in [("connect", Ia32::Connect), ("socketcall", Ia32::Socketcall)] {
        let trial = live_test(&format!("ia32_{name}"), move || ia32(by));
        tests.push(unless(lacks, trial));
    }
    run(tests)
}

/// Plays a child's role instead of running the tests.
fn play(role: &str) {
    match role {
        "exit" => {
            static NEVER_CLOSED: OnceLock<Socket> = OnceLock::new();
            NEVER_CLOSED.get_or_init(|| begin(remote_of_role()));
        }
        "connect" => drop(attempt(remote_of_role())),
        "exec" => {
            let _closed_by_exec = begin(remote_of_role());
            panic!("{}", Command::new(HOLDER[0]).arg(HOLDER[1]).exec());
        }
        "hand_on" => drop(hold(begin_in_cgroup(remote_of_role()))),
        "say_pid" => {
            attempt(remote_of_role());
            say_and_wait(&std::process::id().to_string());
        }
        "become_user" => {
            unshare(CloneFlags::CLONE_NEWUSER).unwrap();
            say_and_wait("mapped?");
            setuid(Uid::from_raw(INNER_UID)).unwrap();
            attempt(remote_of_role());
        }
        "ia32" => assert!(has_ia32()),
        "close_received" => drop(receive()),
        "connect_received" => drop(attempt_on(&receive(), remote_of_role())),
        other => panic!("no such role: {other}"),
    }
}

fn silent(host: IpAddr) -> SocketAddr {
    (host, ports::SILENT).into()
}

fn refusing(host: IpAddr) -> SocketAddr {
    (host, ports::RESETS).into()
}

/// Begins an attempt, and returns its socket in `SYN_SENT`.
fn begin(remote: SocketAddr) -> Socket {
    let socket = tcp(remote);
    let attempted = Attempted::begin(&socket, remote);
    assert_eq!(Errno::from_raw(attempted.errno), Errno::EINPROGRESS);
    socket
}

/// Passes the socket to another process as its standard input, and closes it here.
fn hold(socket: Socket) -> Child {
    let mut holder = Command::new(HOLDER[0]);
    holder
        .arg(HOLDER[1])
        .stdin(Stdio::from(OwnedFd::from(socket)));
    holder.spawn().unwrap()
}

fn gave_up(label: &str) -> Value {
    let by = (label == "timed_out").then_some("application");
    json!({ "label": label, "errno": null, "timeout_by": by, "reply": { "kind": "none" } })
}

fn refused() -> Value {
    json!({
        "label": "refused", "errno": "ECONNREFUSED", "timeout_by": null,
        "reply": { "kind": "rst" },
    })
}

fn exits(host: IpAddr) {
    let remote = silent(host);
    let scene = Live::get().play_lasting(..PATIENCE, |_| {
        let mut exiting = in_role_to("exit", remote).spawn().unwrap();
        assert!(exiting.wait().unwrap().success());
        exiting.id()
    });
    expect_child(&scene, remote, &gave_up("cancelled"));
}

/// SIGKILL ends the process during connect.
fn killed(host: IpAddr) {
    let remote = silent(host);
    let scene = Live::get().play_lasting(..PATIENCE, |_| {
        let mut stuck = in_role_to("connect", remote).spawn().unwrap();
        wait_for_syn_sent();
        stuck.kill().unwrap();
        stuck.wait().unwrap();
        stuck.id()
    });
    expect_child(&scene, remote, &gave_up("cancelled"));
}

/// Exec closes the socket. The line has the process name from before, and not the path of the next
/// program.
fn executes_another_program(host: IpAddr) {
    let remote = silent(host);
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |_| {
        let mut process = in_role_to("exec", remote).spawn().unwrap();
        // The agent reads /proc while the next program runs.
        live.tracer().wait_for_endings(own_netns(), 1);
        assert!(process.wait().unwrap().success());
        process.id()
    });
    let line = expect_child(&scene, remote, &gave_up("cancelled"));
    assert!(line["process"]["exe"].is_null(), "{line:#}");
}

/// A child process inherits the socket and closes it last.
fn child_inherits(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |_| {
        let socket = tcp(silent(host));
        let attempted = Attempted::begin(&socket, silent(host));
        assert!(hold(socket).wait().unwrap().success());
        attempted
    });
    live.expect(&scene, &[ExpectedLine::gave_up("timed_out", &scene.value)]);
}

/// The process that called connect has exited long before another closes the socket.
fn parent_is_gone(host: IpAddr) {
    let remote = silent(host);
    let mut expected = gave_up("timed_out");
    expected["process"] = json!({ "exe": null, "cgroup": own_cgroup() });
    let scene = hand_on(in_role_to("hand_on", remote));
    expect_child(&scene, remote, &expected);
}

/// Plays a child that passes its socket to another process and exits.
fn hand_on(mut calling: Command) -> PlayedScenario<u32> {
    let live = Live::get();
    live.play(|_| {
        let mut calling = calling.spawn().unwrap();
        assert!(calling.wait().unwrap().success());
        // The testnet is removed with the scene, so wait for the line here.
        live.tracer().wait_for_endings(own_netns(), 1);
        calling.id()
    })
}

/// Moves to the given cgroup, begins an attempt there, and moves away.
fn begin_in_cgroup(remote: SocketAddr) -> Socket {
    let enter = |cgroup: &Path| fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    let Some(other) = env::var_os(CGROUP) else {
        return begin(remote);
    };
    let home = Cgroup::own_path();
    enter(other.as_ref());
    let socket = begin(remote);
    enter(&home);
    socket
}

fn passed_on_and_closed(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        let socket = tcp(silent(host));
        let attempted = Attempted::begin(&socket, silent(host));
        let mut closing = pass_on(&socket, in_role("close_received"));
        drop(socket);
        assert!(closing.wait().unwrap().success());
        attempted
    });
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}

/// One process creates the socket, another connects it.
fn passed_on_and_connected(host: IpAddr) {
    let remote = refusing(host);
    let scene = Live::get().play(|_| {
        let socket = tcp(remote);
        let mut connecting = pass_on(&socket, in_role_to("connect_received", remote));
        assert!(connecting.wait().unwrap().success());
        connecting.id()
    });
    expect_child(&scene, remote, &refused());
}

/// Several threads connect at the same time, each with its own thread name.
fn many_threads(host: IpAddr) {
    let live = Live::get();
    let scene = live.play(|_| {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|number| {
                    let named = thread::Builder::new().name(format!("caller-{number}"));
                    named
                        .spawn_scoped(scope, || attempt(refusing(host)))
                        .unwrap()
                })
                .collect();
            let attempted = threads.into_iter().map(|thread| thread.join().unwrap());
            attempted.collect::<Vec<_>>()
        })
    });
    let lines = live.endings(&scene, THREADS);
    for attempted in &scene.value {
        let of_thread = |line: &&Value| line["process"]["tid"] == attempted.tid;
        let of_thread: Vec<_> = lines.iter().filter(of_thread).collect();
        assert_eq!(of_thread.len(), 1, "thread {}", attempted.tid);
        ExpectedLine::refused(attempted).assert_is(of_thread[0], scene.netns);
        assert!(attempted.comm.starts_with("caller-"));
        assert_eq!(of_thread[0]["process"]["leader_comm"], program_comm());
    }
}

/// The thread that called connect has exited when another closes the socket.
fn thread_is_gone(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        let socket = tcp(silent(host));
        thread::scope(|scope| {
            let beginning = thread::Builder::new()
                .name("short-lived".to_owned())
                .spawn_scoped(scope, || Attempted::begin(&socket, silent(host)));
            beginning.unwrap().join().unwrap()
        })
    });
    assert_eq!(scene.value.comm, "short-lived");
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}

/// A socket stays in the network namespace where it was created, even if its thread moves.
fn thread_in_another_netns(host: IpAddr) {
    let live = Live::get();
    let scene = live.play(|_| {
        let moving = thread::spawn(move || {
            let socket = tcp(refusing(host));
            let before = own_netns();
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            assert_ne!(own_netns(), before);
            attempt_on(&socket, refusing(host))
        });
        moving.join().unwrap()
    });
    live.expect(&scene, &[ExpectedLine::refused(&scene.value)]);
}

/// The process has pid 1 in its own pid namespace.
fn pid_namespace() {
    let remote = refusing(FAR_V4.into());
    let live = Live::get();
    let scene = live.play(|_| {
        // Children get the new pid namespace; this process can start no more threads.
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let inside = Partner::start(in_role_to("say_pid", remote));
        assert_eq!(inside.said, "1");
        let pid = inside.pid();
        live.tracer().wait_for_endings(own_netns(), 1);
        assert!(inside.finish().success());
        pid
    });
    let line = expect_child(&scene, remote, &refused());
    assert_eq!(
        line["process"]["exe"],
        env::current_exe().unwrap().to_str().unwrap()
    );
}

/// User id inside a user namespace, and the host's user id that it maps to.
const INNER_UID: u32 = 1000;
const OUTER_UID: u32 = 71_000;

fn user_namespace() {
    let remote = refusing(FAR_V4.into());
    let scene = Live::get().play(|_| {
        let inside = Partner::start(in_role_to("become_user", remote));
        let pid = inside.pid();
        let map = format!("0 0 1\n{INNER_UID} {OUTER_UID} 1");
        fs::write(format!("/proc/{pid}/uid_map"), map).unwrap();
        assert!(inside.finish().success());
        pid
    });
    let mut expected = refused();
    expected["process"] = json!({ "uid": OUTER_UID });
    expect_child(&scene, remote, &expected);
}

/// The caller leaves its container after connect, passes the socket on, and has exited when the
/// socket is closed.
fn cgroup_of_who_is_gone() {
    let remote = silent(FAR_V4.into());
    let id = format!("{:064x}", std::process::id());
    let name = format!("docker-{id}.scope");
    let cgroup = Cgroup::new(&name);
    let mut calling = in_role_to("hand_on", remote);
    calling.env(CGROUP, cgroup.path());
    let scene = hand_on(calling);
    let mut expected = gave_up("timed_out");
    expected["process"] = json!({ "exe": null, "cgroup": format!("/{name}") });
    expected["container"] = json!({ "id": id, "runtime": "docker" });
    expect_child(&scene, remote, &expected);
}

/// Returns true if the kernel has 32-bit system calls. A child tries one, because a kernel without
/// them kills the caller.
fn runs_ia32() -> bool {
    in_role("ia32").status().unwrap().success()
}

fn ia32(by: Ia32) {
    let SocketAddr::V4(remote) = refusing(FAR_V4.into()) else {
        unreachable!();
    };
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(remote.into());
        let errno = connect_as_ia32(by, &socket, remote);
        Attempted::on(&socket, remote, errno)
    });
    live.expect(&scene, &[ExpectedLine::refused(&scene.value)]);
}
