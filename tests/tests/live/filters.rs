//! Filters of attempts. Attempts that pass are traced and counted; all others leave no trace.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    process::{self, Command, ExitCode},
    thread,
    time::Duration,
};

use conntrace_testnet::{self, FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Cgroup, TracerProcess, assert_adds_up, attempt, conntrace, kernel_version, live_test, run,
    unless,
};
use serde_json::Value;

/// Environment variable that makes this program wait for a line on stdin, and then play its
/// attempts instead of running its tests.
const CHILD: &str = "CONNTRACE_TEST_CHILD";
/// Time in which an unexpected line would appear.
const SETTLE: Duration = Duration::from_millis(100);
/// Destinations of a scenario's attempts.
const REMOTES: [&str; 5] = [
    "192.0.2.2:81",
    "[2001:db8:0:1::2]:81",
    "[::ffff:192.0.2.2]:83",
    "192.0.2.77:81",
    "127.0.0.1:9",
];
/// Destinations of [`REMOTES`] as the lines print them.
const ALL: [&str; 5] = [
    "192.0.2.2:81",
    "2001:db8:0:1::2:81",
    "192.0.2.2:83",
    "192.0.2.77:81",
    "127.0.0.1:9",
];

/// Test name, options, and the indices in [`ALL`] of the attempts that pass.
type FilterCase = (&'static str, &'static [&'static str], &'static [usize]);

const CASES: [FilterCase; 22] = [
    ("none", &[], &[0, 1, 2, 3, 4]),
    ("to_network_v4", &["--to", "192.0.2.0/24"], &[0, 2, 3]),
    ("to_host_v4", &["--to", "192.0.2.2"], &[0, 2]),
    (
        "to_bits_beyond_are_ignored",
        &["--to", "192.0.2.99/30"],
        &[],
    ),
    ("to_network_v6", &["--to", "2001:db8::/32"], &[1]),
    ("to_mapped_network", &["--to", "::ffff:127.0.0.0/104"], &[4]),
    ("to_every_v4", &["--to", "0.0.0.0/0"], &[0, 2, 3, 4]),
    ("to_everywhere", &["--to", "::/0"], &[0, 1, 2, 3, 4]),
    (
        "to_either",
        &["--to", "127.0.0.1", "--to", "2001:db8::/32"],
        &[1, 4],
    ),
    ("port", &["--port", "81"], &[0, 1, 3]),
    ("port_range", &["--port", "82-65535"], &[2]),
    ("port_ranges", &["--port", "1-9", "--port", "83"], &[2, 4]),
    ("port_and_to", &["--port", "81", "--to", "192.0.2.2"], &[0]),
    ("port_unused", &["--port", "5432"], &[]),
    ("comm", &["--comm", "filtered"], &[0, 1, 2, 3, 4]),
    ("comm_other", &["--comm", "filter"], &[]),
    (
        "comm_or_other",
        &["--comm", "nginx", "--comm", "filtered"],
        &[0, 1, 2, 3, 4],
    ),
    ("uid", &["--uid", "0"], &[0, 1, 2, 3, 4]),
    ("uid_other", &["--uid", "65534"], &[]),
    ("uid_and_port", &["--uid", "0", "--port", "9"], &[4]),
    ("pid_other", &["--pid", "1"], &[]),
    ("netns_other", &["--netns", "1"], &[]),
];

pub(crate) fn main() -> ExitCode {
    if env::var_os(CHILD).is_some() {
        return child();
    }
    let mut tests: Vec<_> = CASES
        .into_iter()
        .map(|(name, options, passing)| {
            live_test(name, move || {
                let alone = name == "netns_other";
                check(options, alone, passing, play);
            })
        })
        .collect();
    tests.push(live_test("pid", || {
        let pid = process::id().to_string();
        check(
            &["--pid", &pid, "--pid", "1"],
            false,
            &[0, 1, 2, 3, 4],
            play,
        );
    }));
    tests.push(live_test("comm_of_the_leader", || {
        let leader = fs::read_to_string("/proc/self/comm").unwrap();
        check(&["--comm", leader.trim()], false, &[0, 1, 2, 3, 4], play);
    }));
    tests.push(live_test("netns_by_path", || {
        conntrace_testnet::run("filtered", |testnet| {
            let inode = testnet.netns.to_string();
            // The filter needs this thread's path, because the tracer is another thread.
            let own = format!(
                "/proc/{}/task/{}/ns/net",
                process::id(),
                nix::unistd::gettid()
            );
            let tracer = TracerProcess::start(&["--all", "--netns", &own, "--netns", &inode]);
            play();
            assert_passed(tracer, &[0, 1, 2, 3, 4]);
        })
        .unwrap();
    }));
    let untold = kernel_version() < CGROUPS_TOLD_SINCE;
    if untold {
        tests.push(live_test("cgroup_is_refused", cgroup_is_refused));
    }
    let needs = "needs a kernel that tells programs the cgroups above a process's";
    let lacks = untold.then_some(needs).or_else(Cgroup::lacks);
    tests.push(unless(lacks, live_test("cgroup_with_descendants", cgroup)));
    run(tests)
}

/// First kernel version known to report cgroups of attempts; Linux 5.10 does not.
const CGROUPS_TOLD_SINCE: (u32, u32) = (6, 1);

fn cgroup_is_refused() {
    let path = Cgroup::own_path();
    let output = conntrace().arg("--cgroup").arg(path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), said.lines().count()),
        (Some(4), 1),
        "{said}"
    );
    assert!(
        said.contains("which --cgroup needs; filter by --comm"),
        "{said}"
    );
}

fn child() -> ExitCode {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    play();
    ExitCode::SUCCESS
}

fn play() {
    for remote in REMOTES {
        attempt(remote.parse::<SocketAddr>().unwrap());
    }
}

/// Traces `act` on a testnet with these options. Other network namespaces are excluded, unless the
/// options name one.
fn check(options: &[&str], names_netns: bool, passing: &[usize], act: impl FnOnce() + Send) {
    conntrace_testnet::run("filtered", |testnet| {
        let netns = testnet.netns.to_string();
        let mut options = [&["--all"], options].concat();
        if !names_netns {
            options.extend(["--netns", &netns]);
        }
        let tracer = TracerProcess::start(&options);
        act();
        assert_passed(tracer, passing);
    })
    .unwrap();
}

/// Checks that exactly these attempts have lines, and that the totals count no others.
fn assert_passed(tracer: TracerProcess, passing: &[usize]) {
    thread::sleep(SETTLE);
    let lines = tracer.stop();
    let remote = |line: &Value| {
        let remote = &line["remote"];
        format!("{}:{}", remote["addr"].as_str().unwrap(), remote["port"])
    };
    let outcomes = lines.iter().filter(|line| line["type"] == "outcome");
    let passed: Vec<_> = outcomes.map(remote).collect();
    let expected: Vec<_> = passing.iter().map(|&index| ALL[index]).collect();
    assert_eq!(passed, expected);
    let totals = lines.last().unwrap();
    assert_eq!(totals["attempts"], passing.len());
    assert_adds_up(totals);
}

/// Creates three cgroups: the second contains the first, and the third is beside it.
fn cgroups() -> [Cgroup; 3] {
    let name = format!("conntrace-test-{}", process::id());
    let group = Cgroup::new(&name);
    let below = Cgroup::new(format!("{name}/below"));
    [below, group, Cgroup::new(format!("{name}-beside"))]
}

fn cgroup() {
    let [below, group, beside] = &cgroups();
    let option = group.path().to_str().unwrap();
    for (home, passing) in [
        (group, &[0, 1, 2, 3, 4][..]),
        (below, &[0, 1, 2, 3, 4]),
        (beside, &[]),
    ] {
        check(&["--cgroup", option], false, passing, || play_in(home));
    }
    // Lines print a cgroup's path from the root of its filesystem.
    let short = format!("/{}", group.path().file_name().unwrap().to_str().unwrap());
    check(&["--cgroup", &short], false, &[0, 1, 2, 3, 4], || {
        play_in(below);
    });
}

/// Plays the attempts in a process in this cgroup.
fn play_in(group: &Cgroup) {
    group.run(Command::new(env::current_exe().unwrap()).env(CHILD, "1"));
}

/// Checks that the addresses above are those of the testnet.
const _: () = assert!(FAR_V4.to_bits() == Ipv4Addr::new(192, 0, 2, 2).to_bits());
const _: () = assert!(FAR_V6.segments()[7] == 2 && ports::RESETS == 81);
