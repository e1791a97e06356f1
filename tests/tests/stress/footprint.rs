//! Resource use of the agent on an idle host, and its leftovers after a kill.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    process::{ExitCode, Stdio},
    thread,
    time::Duration,
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    Agent, Dir, LinesFile, attempt, conntrace, held_by, live_test, loaded, namespaces,
    run_one_by_one, wait_until_freed,
};
use nix::sys::signal::Signal;

/// Duration of the idle period.
const IDLE: Duration = Duration::from_secs(60);
/// Interval of the summaries in the idle period.
const SUMMARY_SECONDS: u64 = 20;
/// Turns of its threads per summary: the drain's timer, the worker, and the drain
/// once more to see that the worker took it.
const TURNS_PER_SUMMARY: u64 = 5;

pub(crate) fn main() -> ExitCode {
    run_one_by_one(vec![
        live_test("killed", killed),
        live_test("killed_in_a_storm", killed_in_a_storm),
        live_test("killed_demo", killed_demo),
        live_test("idle", idle),
    ])
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// Kills the agent and waits until everything that it held is freed.
fn kill(agent: Agent) {
    let (held, before) = (held_by(agent.pid()), loaded());
    for (kind, least) in [("prog", 5), ("map", 3), ("link", 4)] {
        let count = held.iter().filter(|(of, _)| *of == kind).count();
        assert!(count >= least, "{count} of {kind} in {held:?}");
    }
    assert!(held.is_subset(&before));
    agent.signal(Signal::SIGKILL);
    agent.wait();
    wait_until_freed(&held, loaded);
}

fn killed() {
    let dir = Dir::new("killed");
    let mounted = mounts();
    kill(LinesFile::new(&dir.0).run(&[]));
    assert_eq!(mounts(), mounted);
}

fn killed_in_a_storm() {
    let dir = Dir::new("killed");
    let agent = LinesFile::new(&dir.0).run(&["--all"]);
    conntrace_testnet::run("killed", |_| {
        thread::scope(|scope| {
            let refuse = || (0..10_000).for_each(|_| drop(attempt((FAR_V4, ports::RESETS))));
            scope.spawn(refuse);
            thread::sleep(Duration::from_millis(200));
            kill(agent);
        });
    })
    .unwrap();
}

/// A killed demo leaves no test network behind.
fn killed_demo() {
    let (mounted, before) = (mounts(), namespaces());
    let mut demo = conntrace();
    demo.args(["demo", "--format", "json"]);
    let mut demo = Agent::spawn(demo.stdout(Stdio::piped()));
    let mut lines = BufReader::new(demo.stdout()).lines();
    lines.next().unwrap().unwrap();
    let meanwhile = namespaces();
    let staged = &meanwhile - &before;
    assert!(!staged.is_empty(), "a stage");
    kill(demo);
    wait_until_freed(&staged, namespaces);
    assert_eq!(mounts(), mounted);
}

/// Counts how often the threads of this process have gone to sleep, which equals the number of
/// wakeups. Preemption by another process is not counted.
fn turns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: fs::DirEntry| -> u64 {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let switches = status
            .lines()
            .filter(|line| line.starts_with("voluntary_ctxt_switches:"));
        switches
            .map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    tasks.map(|task| of_task(task.unwrap())).sum()
}

/// Waits until its threads have not run for three seconds.
fn wait_until_at_rest(pid: u32) {
    let at_rest = (0..20).any(|_| {
        let before = turns(pid);
        thread::sleep(Duration::from_secs(3));
        turns(pid) == before
    });
    assert!(at_rest, "it does not come to rest");
}

/// Nothing happens in the only namespace that is watched: no thread runs but for
/// a summary.
fn idle() {
    conntrace_testnet::run("idle", |testnet| {
        let filter = ["--netns", &testnet.netns.to_string()];
        let every = SUMMARY_SECONDS.to_string();
        let run = |options: [&str; 2]| {
            let null = File::options().write(true).open("/dev/null").unwrap();
            Agent::run(&[filter, options].concat(), null)
        };
        let (silent, regular) = (run(["--summary", "0"]), run(["--summary", &every]));
        wait_until_at_rest(silent.pid());
        let before = [turns(silent.pid()), turns(regular.pid())];
        thread::sleep(IDLE);
        let silent_turns = turns(silent.pid()) - before[0];
        let regular_turns = turns(regular.pid()) - before[1];
        println!(
            "turns in {} s: {silent_turns} without summaries, {regular_turns} with one every {every} s",
            IDLE.as_secs()
        );
        assert_eq!(silent_turns, 0);
        assert!(regular_turns > 0, "it is measured");
        assert!(regular_turns <= IDLE.as_secs() / SUMMARY_SECONDS * TURNS_PER_SUMMARY);
        silent.stop(Signal::SIGTERM);
        regular.stop(Signal::SIGTERM);
    })
    .unwrap();
}
