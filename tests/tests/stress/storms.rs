//! A hundred thousand failures at once, all of one case or each of another. Every one has its line.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::{
    Dir, LinesFile, assert_adds_up, at_rate, attempt, each_line, is_slow, live_test, number,
    run_one_by_one, unless_all,
};
use nix::{errno::Errno, sys::signal::Signal};
use serde_json::Value;

/// Number of failures, of all threads.
const FAILURES: u32 = 100_000;
/// Numbers of failures a second. A debug build of the agent has to keep up with them beside the
/// threads that fail, which make 40,000 without a pause. Each of the different ones is looked into.
const EQUAL_PER_SECOND: u32 = 20_000;
const DIFFERENT_PER_SECOND: u32 = 8000;
/// Port without a listener.
const PORT: u16 = 5432;
/// Number of equal failures that may lack their cause: those of a case whose answers do not come in
/// time.
const UNDIAGNOSED_MAX: usize = 10;
/// Time that the agent has for the last causes: each line waits a second for its cause at most.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn main() -> ExitCode {
    let tests = vec![
        live_test("equal_failures", equal_failures),
        live_test("different_failures", different_failures),
    ];
    run_one_by_one(unless_all(is_slow(), tests))
}

/// Lines of a storm.
#[derive(Default)]
struct StormLines {
    /// Number of outcomes.
    outcomes: usize,
    remotes: HashSet<Ipv4Addr>,
    /// Numbers of outcomes without all answers, by reason.
    undiagnosed: BTreeMap<String, usize>,
    /// Number of outcomes with their certain cause.
    certain: usize,
    stop: Value,
}

impl StormLines {
    /// Reads the lines, each of which has the right cause, or none and a reason.
    fn read(file: &LinesFile, netns: u32) -> Self {
        let mut lines = Self::default();
        for line in each_line(file.path()) {
            if line["type"] == "outcome" {
                assert_eq!(
                    (&line["netns"], &line["label"]),
                    (&netns.into(), &"refused".into())
                );
                lines.add(&line);
            }
            lines.stop = line;
        }
        lines
    }

    fn add(&mut self, line: &Value) {
        self.outcomes += 1;
        let remote = line["remote"]["addr"].as_str().unwrap();
        self.remotes.insert(remote.parse().unwrap());
        let reason = line["undiagnosed"].as_str();
        if let Some(reason) = reason {
            *self.undiagnosed.entry(reason.to_owned()).or_default() += 1;
        }
        if line["cause"].is_null() {
            assert!(reason.is_some(), "no reason: {line:#}");
        } else {
            assert_eq!(line["cause"]["code"], "nothing_listening", "{line:#}");
        }
        self.certain += usize::from(line["cause"]["certainty"] == "certain");
    }
}

/// Traces refused attempts of several threads to the destinations that `remote` has for each
/// number. Every attempt has its line, and the totals agree.
fn storm(name: &str, per_second: u32, remote: fn(u32) -> Ipv4Addr) -> StormLines {
    let dir = Dir::new(name);
    let file = LinesFile::new(&dir.0);
    let run = conntrace_testnet::run("storm", |testnet| {
        let agent = file.run(&["--netns", &testnet.netns.to_string(), "--summary", "0"]);
        let began = Instant::now();
        at_rate(FAILURES, per_second, |number| {
            let attempted = attempt((remote(number), PORT));
            assert_eq!(Errno::from_raw(attempted.errno), Errno::ECONNREFUSED);
        });
        println!("{FAILURES} failures took {:?}", began.elapsed());
        thread::sleep(SETTLE);
        agent.stop(Signal::SIGTERM);
        testnet.netns
    });
    let lines = StormLines::read(&file, run.unwrap());
    let stop = &lines.stop;
    println!("{} certain; {stop}", lines.certain);
    assert_eq!(stop["type"], "stop");
    assert_eq!(lines.outcomes, FAILURES as usize, "each has its line");
    assert_eq!(stop["attempts"], FAILURES);
    assert_eq!(stop["outcomes"]["refused"], FAILURES);
    assert_adds_up(stop);
    for (reason, count) in stop["undiagnosed"].as_object().unwrap() {
        let said = lines.undiagnosed.get(reason).copied().unwrap_or(0);
        assert_eq!(number(count), said, "{reason}: {stop:#}");
    }
    lines
}

/// All failures of a second share one diagnosis.
fn equal_failures() {
    let lines = storm("equal-failures", EQUAL_PER_SECOND, |_| Ipv4Addr::LOCALHOST);
    let undiagnosed: usize = lines.undiagnosed.values().sum();
    assert!(undiagnosed <= UNDIAGNOSED_MAX, "{:?}", lines.undiagnosed);
    assert!(lines.certain >= FAILURES as usize - UNDIAGNOSED_MAX);
}

/// Each failure is of another destination, more than there is time to diagnose. None is lost, and
/// those without a cause are counted.
fn different_failures() {
    let remote = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
    let lines = storm("different-failures", DIFFERENT_PER_SECOND, remote);
    assert_eq!(lines.remotes.len(), FAILURES as usize, "each once");
}
