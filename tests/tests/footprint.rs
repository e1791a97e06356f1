//! What the agent takes from the host while nothing happens, and what it leaves
//! behind when it is killed.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code: a panic is a failed test; figures are for whoever looks"
)]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use conntrace::stage::{self, FAR_V4, ports};
use conntrace_tests::{Agent, Dir, LinesFile, attempt, conntrace, live_test, run_one_by_one};
use nix::sys::signal::Signal;

/// How long the kernel may take to free what nobody holds any more.
const FREED_MAX: Duration = Duration::from_secs(10);
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// Between two summaries meanwhile.
const SUMMARY_SECONDS: u64 = 20;
/// Turns of its threads per summary: the drain's timer, the worker, and the drain
/// once more to see that the worker took it.
const TURNS_PER_SUMMARY: u64 = 5;

fn main() -> ExitCode {
    run_one_by_one(vec![
        live_test("killed", killed),
        live_test("killed_in_a_storm", killed_in_a_storm),
        live_test("killed_demo", killed_demo),
        live_test("idle", idle),
    ])
}

/// Something of BPF that is loaded: `prog`, `map` or `link`, and its id.
type Loaded = (&'static str, u32);

/// All that is loaded on this host.
fn loaded() -> BTreeSet<Loaded> {
    // What goes away meanwhile is an error.
    let programs = loaded_programs().flatten().map(|info| ("prog", info.id()));
    let maps = loaded_maps().flatten().map(|info| ("map", info.id()));
    let links = loaded_links().flatten().map(|info| ("link", info.id()));
    programs.chain(maps).chain(links).collect()
}

/// What this process holds of it, by its descriptors and by what its programs use.
fn held_by(pid: u32) -> BTreeSet<Loaded> {
    let mut held = BTreeSet::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let info = fs::read_to_string(fd.unwrap().path()).unwrap_or_default();
        for kind in ["prog", "map", "link"] {
            let id = info
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{kind}_id:")));
            held.extend(id.map(|id| (kind, id.trim().parse().unwrap())));
        }
    }
    for program in loaded_programs().flatten() {
        if held.contains(&("prog", program.id())) {
            let maps = program.map_ids().unwrap().unwrap_or_default();
            held.extend(maps.into_iter().map(|id| ("map", id)));
        }
    }
    held
}

/// Every network and mount namespace that a process is in or has open, or that is
/// mounted.
fn namespaces() -> BTreeSet<PathBuf> {
    let children = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let mut links = Vec::new();
    for process in children("/proc".into()) {
        for task in children(process.path().join("task")) {
            links.extend(["net", "mnt"].map(|kind| task.path().join("ns").join(kind)));
        }
        links.extend(children(process.path().join("fd")).map(|fd| fd.path()));
    }
    let is_namespace = |target: &PathBuf| {
        let target = target.to_string_lossy();
        target.starts_with("net:[") || target.starts_with("mnt:[")
    };
    let targets = links
        .into_iter()
        .filter_map(|link| fs::read_link(link).ok());
    targets.filter(is_namespace).collect()
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// Kills it with everything it holds, and waits until nothing of that is left.
fn kill(agent: Agent) {
    let (held, before) = (held_by(agent.pid()), loaded());
    for (kind, least) in [("prog", 5), ("map", 3), ("link", 5)] {
        let count = held.iter().filter(|(of, _)| *of == kind).count();
        assert!(count >= least, "{count} of {kind} in {held:?}");
    }
    assert!(held.is_subset(&before));
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let killed = Instant::now();
    while !loaded().is_disjoint(&held) {
        assert!(killed.elapsed() < FREED_MAX, "{:?}", &loaded() & &held);
        thread::sleep(Duration::from_millis(10));
    }
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
    stage::run("killed", |_| {
        thread::scope(|scope| {
            let refuse = || (0..10_000).for_each(|_| drop(attempt((FAR_V4, ports::RESETS))));
            scope.spawn(refuse);
            thread::sleep(Duration::from_millis(200));
            kill(agent);
        });
    })
    .unwrap();
}

/// Its stages are gone with it.
fn killed_demo() {
    let (mounted, before) = (mounts(), namespaces());
    let mut demo = Agent::spawn(conntrace().arg("demo").stdout(Stdio::piped()));
    let mut lines = BufReader::new(demo.stdout()).lines();
    lines.next().unwrap().unwrap();
    let meanwhile = namespaces();
    let staged = &meanwhile - &before;
    assert!(!staged.is_empty(), "a stage");
    kill(demo);
    let killed = Instant::now();
    while !namespaces().is_disjoint(&staged) {
        assert!(
            killed.elapsed() < FREED_MAX,
            "{:?}",
            &namespaces() & &staged
        );
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(mounts(), mounted);
}

/// How often the threads of this process have gone to sleep, which is how often they
/// were woken: another process that takes their CPU away in between is not theirs.
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

/// Until its threads have not run for three seconds.
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
    stage::run("idle", |stage| {
        let filter = ["--netns", &stage.netns.to_string()];
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
