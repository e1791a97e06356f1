//! Network namespaces of a user with so many sockets or rules that a look at them lasts.

use std::{
    env,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::{
    Dir, LinesFile, Partner, attempt, cpu_time, enter_own_namespaces, in_role_again, private_kb,
    say_and_wait, tcp,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use super::{ClosedPort, USER, assert_nothing_listening, assert_refused, stop, wait_for_outcomes};

/// Environment variable with the number of a process that binds sockets.
const NUMBER: &str = "CONNTRACE_TEST_NUMBER";
/// Processes that bind sockets, and number of each: one may not have so many files open.
const PROCESSES: u8 = 4;
const BOUND_EACH: u16 = 15_000;
/// First port of the bound sockets.
const BOUND_FIRST: u16 = 5000;
/// Number of rules. The kernel takes some hundred at a time of a user.
const RULES: usize = 50_000;
const RULES_AT_ONCE: usize = 400;

/// Ports that the user connects to in turn, and the interval of his attempts.
const HIS_FIRST: u16 = 20_000;
const HIS_LAST: u16 = 29_999;
const HIS_INTERVAL: Duration = Duration::from_millis(100);
/// Least number of his attempts while others connect, on a busy machine.
const HIS_MIN: usize = 50;
/// Refused attempts of others, and their interval.
const OTHERS: usize = 10;
const OTHERS_INTERVAL: Duration = Duration::from_secs(1);

/// Part of a processor that the agent may use beside many sockets. A debug build needs 0.03 for
/// these questions without any, and 0.2 if it reads every socket for each.
const CPU_OF_SOCKETS_MAX: f64 = 0.1;
/// Part of a processor that the agent may use beside many rules, all of which have to be read: 0.25
/// of a user's looks, and as much for all others.
const CPU_OF_RULES_MAX: f64 = 0.5;
/// Limit of the memory that only the agent has. One that kept the sockets had 78 MB.
const PRIVATE_MAX_KB: u64 = 40_000;

/// Binds many sockets in several processes, then connects until it may end.
pub(super) fn bind_in_processes() {
    enter_own_namespaces();
    let children = (1..=PROCESSES).map(|number| {
        let mut command = in_role_again("bound");
        command.env(NUMBER, number.to_string());
        Partner::start(command)
    });
    let children: Vec<_> = children.collect();
    connect_until_told("bound");
    for child in children {
        assert!(child.finish().success());
    }
}

/// Binds many sockets, and holds them.
pub(super) fn bind() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let number: u8 = env::var(NUMBER).unwrap().parse().unwrap();
    let bind_one = |at: u16| {
        let local = SocketAddr::from((Ipv4Addr::new(127, 0, 1, number), BOUND_FIRST + at));
        let socket = tcp(local);
        socket.bind(&local.into()).unwrap();
        socket
    };
    let _held: Vec<_> = (0..BOUND_EACH).map(bind_one).collect();
    say_and_wait("bound");
}

/// Loads many rules, none of which is about its attempts, then connects until it may end.
pub(super) fn load_rules() {
    enter_own_namespaces();
    load("table inet t { chain c { type filter hook input priority 0; }; }");
    let rules: Vec<_> = (0..RULES)
        .map(|at| {
            format!(
                "add rule inet t c ip saddr 10.{}.{}.0/24 drop\n",
                at / 256,
                at % 256
            )
        })
        .collect();
    for rules in rules.chunks(RULES_AT_ONCE) {
        load(&rules.concat());
    }
    connect_until_told("loaded");
}

fn load(rules: &str) {
    let mut nft = Command::new("nft");
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = nft.stdin.take().unwrap();
    input.write_all(rules.as_bytes()).unwrap();
    drop(input);
    assert!(nft.wait().unwrap().success());
}

/// Connects to one closed port after the other, and ends when this process may.
fn connect_until_told(word: &str) {
    thread::spawn(|| {
        for port in (HIS_FIRST..=HIS_LAST).cycle() {
            attempt((Ipv4Addr::LOCALHOST, port));
            thread::sleep(HIS_INTERVAL);
        }
    });
    say_and_wait(word);
}

/// Runs the agent beside a user in this role, and checks that each attempt of others has its cause
/// and that the agent stays within its limits. Returns the user's lines.
fn beside(role: &str, cpu_max: f64) -> Vec<Value> {
    let (dir, closed) = (Dir::new(role), ClosedPort::new());
    let file = LinesFile::new(&dir.0);
    let (his, others) = (format!("{HIS_FIRST}-{HIS_LAST}"), closed.port().to_string());
    let agent = file.run(&["--port", &his, "--port", &others, "--summary", "0"]);
    let before_kb = private_kb(agent.pid());
    let mut user = in_role_again(role);
    user.uid(USER).gid(USER);
    let user = Partner::start(user);
    let (began, cpu_before) = (Instant::now(), cpu_time(agent.pid()));
    for _ in 0..OTHERS {
        thread::sleep(OTHERS_INTERVAL);
        closed.refuse(1);
    }
    wait_for_outcomes(&file, closed.port(), OTHERS);
    let spent = cpu_time(agent.pid()) - cpu_before;
    let cpu = spent.as_secs_f64() / began.elapsed().as_secs_f64();
    let private_kb = private_kb(agent.pid());
    assert!(user.finish().success());
    let (lines, errors) = stop(agent, &file);
    let stop = lines.last().unwrap();
    println!(
        "the agent used {cpu:.3} of a processor, had {before_kb} kB for itself, then {private_kb} \
         kB; undiagnosed: {}",
        stop["undiagnosed"],
    );
    assert_eq!((&*errors, &stop["inspectors_abandoned"]), ("", &0.into()));
    assert_refused(&lines, closed.port(), OTHERS, 0);
    assert!(cpu < cpu_max, "{cpu:.3} of a processor");
    assert!(private_kb < PRIVATE_MAX_KB, "{private_kb} kB");
    let is_his = |line: &Value| line["type"] == "outcome" && line["process"]["uid"] == USER;
    lines.into_iter().filter(is_his).collect()
}

/// The user's attempts have their causes as well: a question about one port costs the same however
/// many sockets there are.
pub(super) fn sockets() {
    let his = beside("bind", CPU_OF_SOCKETS_MAX);
    let with_cause = assert_his(&his, &["certain"]);
    assert!(with_cause >= his.len() * 9 / 10, "{with_cause}");
}

/// The user's attempts may lack their causes, or the certainty: not all of his rules can be read in
/// time, and one of them may have led the attempt elsewhere.
pub(super) fn rules() {
    let his = beside("rules", CPU_OF_RULES_MAX);
    assert_his(&his, &["certain", "likely"]);
}

/// Checks that the user's attempts have their lines, and no other cause or certainty. Returns the
/// number of causes.
fn assert_his(lines: &[Value], certainties: &[&str]) -> usize {
    assert!(lines.len() >= HIS_MIN, "{}", lines.len());
    for line in lines {
        assert_eq!(line["label"], "refused", "{line:#}");
        assert_nothing_listening(line, certainties);
    }
    let with_cause = lines.iter().filter(|line| !line["cause"].is_null());
    let with_cause = with_cause.count();
    println!(
        "{with_cause} of {} attempts of the user have a cause",
        lines.len()
    );
    with_cause
}
