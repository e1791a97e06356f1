//! Users that fill the table of attempts: others have their place, and a line names who fills it.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{self, Command, ExitCode},
    thread,
    time::Duration,
};

use conntrace_common::table::{SLOTS, SPILLED_MAX};
use conntrace_testnet::enter_bare;
use conntrace_tests::{
    Attempted, Partner, TracerProcess, assert_adds_up, attempt, in_role, is_slow, live_test,
    number, of_type, role, run_one_by_one, say_and_wait, tcp, told_without_place, unless,
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// User that fills the table, and another one.
const FILLER: u32 = 65_534;
const OTHER: u32 = 65_533;
/// Environment variable with the user of a child, its number of processes, and the number of
/// attempts of each.
const PLAN: &str = "CONNTRACE_TEST_SHARE";
/// Program of the processes that hold the attempts, whose folder the user need not be able to
/// enter, and its name.
const HOLDER_PROGRAM: &str = "/proc/self/exe";
const HOLDER: &str = "exe";
/// Port of a listener that accepts nothing, and number of connections that fill its queue.
const FULL: u16 = 81;
const QUEUE: usize = 4;
/// Connects to one address: few of its ports, or the search for one takes its time.
const PER_REMOTE: usize = 2000;
/// Number of refused attempts of others.
const OTHERS: usize = 10;
/// Time that the agent has for the last lines.
const SETTLE: Duration = Duration::from_millis(500);

pub(crate) fn main() -> ExitCode {
    if let Some(role) = role() {
        play(&role);
        return ExitCode::SUCCESS;
    }
    run_one_by_one(vec![
        unless(is_slow(), live_test("one_namespace", one_namespace)),
        unless(is_slow(), live_test("many_namespaces", many_namespaces)),
    ])
}

/// Plays a child's role instead of running the tests.
fn play(role: &str) {
    let plan = env::var(PLAN).unwrap();
    let numbers: Vec<u32> = plan.split(' ').map(|it| it.parse().unwrap()).collect();
    let &[uid, processes, each] = &numbers[..] else {
        panic!("{PLAN}={plan}");
    };
    match role {
        "fill" => fill(uid, processes, each),
        "hold" => hold(processes, each),
        "refused" => {
            enter_own_namespace(uid);
            say_and_wait(&refuse().to_string());
        }
        other => panic!("no such role: {other}"),
    }
}

fn child(program: &str, role: &str, [uid, processes, each]: [u32; 3]) -> Partner {
    let mut command = Command::new(program);
    let in_role = in_role(role);
    command.envs(
        in_role
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command.env(PLAN, format!("{uid} {processes} {each}"));
    Partner::start(command)
}

fn of_user(role: &str, plan: [u32; 3]) -> Partner {
    child(env::current_exe().unwrap().to_str().unwrap(), role, plan)
}

/// Becomes this user, in a user and a network namespace of its own.
fn enter_own_namespace(uid: u32) {
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(uid)).unwrap();
    setuid(Uid::from_raw(uid)).unwrap();
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    enter_bare().unwrap();
}

/// Holds attempts under way to a listener whose queue is full, in several processes: one may not
/// have so many files open.
fn fill(uid: u32, processes: u32, each: u32) {
    enter_own_namespace(uid);
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, FULL).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let local = (Ipv4Addr::LOCALHOST, FULL).into();
    let _queued: Vec<_> = (0..QUEUE).map(|_| begin(local)).collect();
    let start = |number| child(HOLDER_PROGRAM, "hold", [uid, number, each]);
    let children: Vec<_> = (0..processes).map(start).collect();
    say_and_wait("full");
    for child in children {
        assert!(child.finish().success());
    }
}

fn hold(number: u32, each: u32) {
    let begin_one = |at: usize| {
        let host = u8::try_from(1 + at / PER_REMOTE).unwrap();
        let addr = Ipv4Addr::new(127, 1, u8::try_from(number).unwrap(), host);
        begin((addr, FULL).into())
    };
    let _held: Vec<_> = (0..each as usize).map(begin_one).collect();
    say_and_wait("full");
}

fn begin(remote: SocketAddr) -> Socket {
    let socket = tcp(remote);
    let attempted = Attempted::begin(&socket, remote);
    assert_eq!(Errno::from_raw(attempted.errno), Errno::EINPROGRESS);
    socket
}

/// Makes attempts that this host refuses, and returns their port.
fn refuse() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // Bound and not listening: nobody else gets the port.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    drop(listener);
    bound.bind(&address.into()).unwrap();
    for _ in 0..OTHERS {
        let attempted = attempt(address);
        assert_eq!(Errno::from_raw(attempted.errno), Errno::ECONNREFUSED);
    }
    address.port()
}

/// Checks that each attempt of this process has its line, with all that is known of it.
fn assert_whole(lines: &[Value], port: u16, pid: u32, uid: u32) {
    let of_port = of_type(lines, "outcome")
        .filter(|line| line["remote"]["port"] == port && line["process"]["uid"] == uid);
    let of_port: Vec<_> = of_port.collect();
    assert_eq!(of_port.len(), OTHERS, "of uid {uid}");
    for line in of_port {
        assert_eq!(line["seen"], "whole", "{line:#}");
        assert_eq!(line["label"], "refused", "{line:#}");
        assert_eq!(line["process"]["pid"], pid, "{line:#}");
    }
}

/// Checks that lines and stderr name the user that fills the table, and that the totals add up.
fn assert_named(lines: &[Value], errors: &str, at_least: u32) {
    let tables = of_type(lines, "loss").filter(|line| line["table"].is_object());
    let tables: Vec<_> = tables.map(|line| &line["table"]).collect();
    let last = tables.last().expect("a line names the holder");
    println!("{last}, {} in all", told_without_place(lines));
    for table in &tables {
        let top = &table["top"];
        assert_eq!(top["uid"], FILLER, "{table}");
        assert_eq!(top["comm"], HOLDER, "{table}");
        assert!(number(&table["not_admitted"]) > 0, "{table}");
        assert!(number(&top["attempts"]) <= number(&table["held"]));
        assert!(number(&top["of_process"]) <= number(&top["attempts"]));
    }
    assert!(
        number(&last["top"]["attempts"]) >= at_least as usize,
        "{last}"
    );
    let said: Vec<_> = errors.lines().collect();
    assert_eq!(said.len(), tables.len(), "{errors}");
    let name = format!("of uid {FILLER}, ");
    assert!(said.iter().all(|line| line.contains(&name)), "{errors}");
    assert_adds_up(lines.last().unwrap());
}

/// A user keeps more attempts under way in a namespace than slots and share allow. Another
/// namespace, of whatever user, has room.
fn one_namespace() {
    const PROCESSES: u32 = 5;
    const EACH: u32 = 18_750;
    const _: () = assert!(PROCESSES * EACH > SLOTS + SPILLED_MAX);
    let tracer = TracerProcess::start(&["--limit", "20"]);
    let filler = of_user("fill", [FILLER, PROCESSES, EACH]);
    let port = refuse();
    let same_user = of_user("refused", [FILLER, 0, 0]);
    let other_user = of_user("refused", [OTHER, 0, 0]);
    thread::sleep(SETTLE);
    let (lines, errors) = tracer.stop_and_hear();
    assert_whole(&lines, port, process::id(), 0);
    for (child, uid) in [(&same_user, FILLER), (&other_user, OTHER)] {
        assert_whole(&lines, child.said.parse().unwrap(), child.pid(), uid);
    }
    assert_named(&lines, &errors, SPILLED_MAX / 2);
    end([filler, same_user, other_user]);
}

/// A user has so many namespaces that their shares are more than the table. Another user has room.
fn many_namespaces() {
    const NAMESPACES: u32 = 24;
    const EACH: u32 = 4000;
    const _: () = assert!(NAMESPACES * EACH > SLOTS + SPILLED_MAX);
    let tracer = TracerProcess::start(&["--limit", "20", "--no-stalls"]);
    let fillers: Vec<_> = (0..NAMESPACES)
        .map(|_| of_user("fill", [FILLER, 1, EACH]))
        .collect();
    let port = refuse();
    let other_user = of_user("refused", [OTHER, 0, 0]);
    thread::sleep(SETTLE);
    let (lines, errors) = tracer.stop_and_hear();
    assert_whole(&lines, port, process::id(), 0);
    let other_port = other_user.said.parse().unwrap();
    assert_whole(&lines, other_port, other_user.pid(), OTHER);
    assert_named(&lines, &errors, SPILLED_MAX / 4 * 3);
    end(fillers.into_iter().chain([other_user]));
}

fn end(children: impl IntoIterator<Item = Partner>) {
    for child in children {
        assert!(child.finish().success());
    }
}
