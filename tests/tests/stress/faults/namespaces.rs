//! Network namespaces with a lifetime of milliseconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_V4, Testnet, ports};
use conntrace_tests::{
    Agent, Attempted, Dir, LinesFile, Partner, attempt, checked, in_role, is_slow, program_comm,
    say_and_wait, tcp,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Namespaces, and from which one on the agent is to have all the memory and open files
/// that it needs: with its `start` line it may not have them yet.
const NAMESPACES: usize = 160;
const WARM: usize = 60;
const NAMESPACES_SLOW: usize = 24;
/// Limit of the memory growth after the warm-up, in kB.
const GROWTH_MAX_KB: u64 = 1024;
/// Port without a listener on the address that is connected to.
const PORT: u16 = 7_070;
/// Address of a listener in every other namespace.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Time limit for a namespace to be freed when no process needs it.
const FREED_MAX: Duration = Duration::from_secs(5);

/// Attempts of one process in its own namespace.
struct NamespaceAttempts {
    netns: u32,
    listens: bool,
    pid: u32,
}

/// Makes three attempts, as the child process.
pub(crate) fn connect() -> ExitCode {
    attempt((Ipv4Addr::LOCALHOST, PORT));
    attempt((FAR_V4, ports::RESETS));
    let remote = (FAR_V4, ports::SILENT).into();
    Attempted::begin(&tcp(remote), remote);
    say_and_wait("done");
    ExitCode::SUCCESS
}

/// Every attempt has its line with the right namespace, and a cause that was true there or none.
/// The agent holds no namespace, and its memory does not grow.
pub(crate) fn come_and_go() {
    let namespaces = if is_slow().is_some() {
        NAMESPACES_SLOW
    } else {
        NAMESPACES
    };
    let dir = Dir::new("come-and-go");
    let file = LinesFile::new(&dir.0);
    let comm = program_comm();
    let options = ["--comm", &comm, "--all", "--no-stalls", "--summary", "1"];
    let agent = file.run(&options);
    let (mut warm_kb, mut descriptors) = (0, 0);
    let began = Instant::now();
    let play = |number: usize| {
        if number == WARM.min(namespaces / 2) {
            (warm_kb, descriptors) = (memory_kb(&agent), self::descriptors(&agent));
        }
        conntrace_testnet::run("come-and-go", |testnet| act(testnet, number, &file)).unwrap()
    };
    let played: Vec<_> = (0..namespaces).map(play).collect();
    let took = began.elapsed();
    file.wait_for("\"type\":\"outcome\"", 3 * namespaces);
    wait_until_none_is_held(&agent);
    let (memory_kb, held) = (memory_kb(&agent), self::descriptors(&agent));
    agent.stop(Signal::SIGTERM);
    let lines = checked(&file.lines());
    let causes = compare(&lines, &played);
    let different: BTreeSet<_> = played.iter().map(|it| it.netns).collect();
    println!(
        "{namespaces} namespaces of {} numbers in {took:?}, causes {causes:?}; the agent had {warm_kb} kB, then {memory_kb} kB, and {descriptors} open files, then {held}; {}",
        different.len(),
        lines.last().unwrap(),
    );
    // Its own namespace once more, where the first hint of port pressure came since.
    assert!(held <= descriptors + 1, "{held}, before {descriptors}");
    assert!(memory_kb <= warm_kb + GROWTH_MAX_KB);
    // A number is free again when its namespace is.
    assert!(different.len() < namespaces / 2, "{}", different.len());
}

/// Makes a process connect. The process and its namespace end at once, or when its lines are there.
fn act(testnet: &Testnet, number: usize, file: &LinesFile) -> NamespaceAttempts {
    let listens = number.is_multiple_of(2);
    let _listener = listens.then(|| TcpListener::bind((ELSEWHERE, PORT)).unwrap());
    let process = Partner::start(in_role("namespaces"));
    // A check that comes after the listener is gone reports that.
    if listens || number % 4 == 1 {
        file.wait_for("\"type\":\"outcome\"", 3 * (number + 1));
    }
    let pid = process.pid();
    assert!(process.finish().success());
    NamespaceAttempts {
        netns: testnet.netns,
        listens,
        pid,
    }
}

/// Compares each line with its attempt, and counts the causes.
fn compare(lines: &[Value], played: &[NamespaceAttempts]) -> BTreeMap<String, usize> {
    let mut causes = BTreeMap::new();
    let mut left = outcomes_by_process(lines);
    for NamespaceAttempts {
        netns,
        listens,
        pid,
    } in played
    {
        let lines = left.remove(pid).unwrap_or_default();
        let said: Vec<_> = lines
            .iter()
            .map(|line| {
                (
                    line["netns"].as_u64().unwrap(),
                    line["label"].as_str().unwrap(),
                )
            })
            .collect();
        let labels = ["refused", "refused", "cancelled"];
        assert_eq!(said, labels.map(|label| (u64::from(*netns), label)));
        let local = match listens {
            true => "listening_elsewhere",
            false => "nothing_listening",
        };
        for (line, cause) in lines.iter().zip([local, "nothing_listening", ""]) {
            let said = line["cause"]["code"].as_str().unwrap_or("none");
            assert!(said == "none" || said == cause, "not {cause}: {line:#}");
            *causes.entry(said.to_owned()).or_default() += 1;
        }
    }
    assert!(left.is_empty(), "{left:#?}");
    causes
}

fn outcomes_by_process(lines: &[Value]) -> BTreeMap<u32, Vec<&Value>> {
    let mut by_process = BTreeMap::<_, Vec<_>>::new();
    for line in lines.iter().filter(|line| line["type"] == "outcome") {
        let pid = line["process"]["pid"].as_u64().unwrap();
        let pid = u32::try_from(pid).unwrap();
        by_process.entry(pid).or_default().push(line);
    }
    for lines in by_process.values_mut() {
        // One that waits for its cause is overtaken by others.
        lines.sort_by(|one, other| one["time"].as_str().cmp(&other["time"].as_str()));
    }
    by_process
}

fn memory_kb(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

fn descriptors(agent: &Agent) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
    open.count()
}

/// Its threads are where they began, and it has no other namespace open.
fn wait_until_none_is_held(agent: &Agent) {
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let holds_other = || {
        let process = format!("/proc/{}", agent.pid());
        let links = |folder: &str, below: &str| -> Vec<_> {
            let entries = fs::read_dir(Path::new(&process).join(folder)).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path().join(below));
            paths.filter_map(|path| fs::read_link(path).ok()).collect()
        };
        let mut held = links("task", "ns/net");
        held.extend(links("fd", ""));
        let is_other =
            |link: &std::path::PathBuf| link.to_string_lossy().starts_with("net:[") && *link != own;
        held.into_iter().any(|link| is_other(&link))
    };
    let began = Instant::now();
    while holds_other() {
        assert!(began.elapsed() < FREED_MAX, "it holds a namespace");
        thread::sleep(Duration::from_millis(10));
    }
}
