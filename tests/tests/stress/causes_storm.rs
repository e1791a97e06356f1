//! Diagnosis in a storm: no line lost, little time spent, few queries to the host.

use std::{
    fs,
    net::SocketAddr,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_LOCAL_V4, FAR_V4, ports};
use conntrace_tests::{
    Dir, LinesFile, assert_adds_up, at_rate, attempt, cpu_time, live_test, matching, number,
    replay, run_one_by_one_with_replay, stdout,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Number of failures of one kind.
const FAILURES: u32 = 100_000;
/// Number of failures a second: fewer than fill the ring buffer beside a busy agent.
const PER_SECOND: u32 = 20_000;
/// Number of failures whose program the kernel may skip, and count.
const LOST_MAX: u64 = 10;
/// Time that the agent has for the last causes: each line waits a second for its cause at most.
const SETTLE: Duration = Duration::from_secs(2);
/// Number of failure kinds, each with its own remote host.
const KINDS: u8 = 200;
/// Port without a listener on the test network.
const PORT: u16 = 5432;

pub(crate) fn main() -> ExitCode {
    run_one_by_one_with_replay(vec![
        live_test("of_one_kind", of_one_kind),
        live_test("looks_of_one_kind", looks_of_one_kind),
        live_test("of_many_kinds", of_many_kinds),
    ])
}

/// Returns the lines of a storm and the CPU time that they took.
fn storm(name: &str, options: &[&str]) -> (String, Duration) {
    let dir = Dir::new(name);
    let file = LinesFile::new(&dir.0);
    let spent = conntrace_testnet::run("storm", |testnet| {
        let netns = testnet.netns.to_string();
        let agent = file.run(&[&["--netns", &netns, "--summary", "0"], options].concat());
        let before = cpu_time(agent.pid());
        at_rate(FAILURES, PER_SECOND, |_| {
            attempt((FAR_LOCAL_V4, PORT));
        });
        thread::sleep(SETTLE);
        let spent = cpu_time(agent.pid()) - before;
        agent.stop(Signal::SIGTERM);
        spent
    })
    .unwrap();
    (file.lines(), spent)
}

fn of_one_kind() {
    let (without, spent_without) = storm("causes-storm-without", &["--no-diagnosis"]);
    let (with, spent_with) = storm("causes-storm", &[]);
    eprintln!("CPU time of the agent: {spent_with:?}, without diagnosis {spent_without:?}");
    // Now and then a busy machine leaves no time for all that is asked: the cause is
    // less sure then, or there is none, which is counted.
    let cause = "\"cause\":{\"code\":\"nothing_listening\",\"certainty\":";
    let (known, certain) = (
        matching(&with, cause),
        matching(&with, &format!("{cause}\"certain\"")),
    );
    for lines in [&with, &without] {
        let stop: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        eprintln!("{certain} of {known} causes are certain: {stop}");
        assert_adds_up(&stop);
        let told = matching(lines, "\"type\":\"outcome\"");
        assert_eq!(stop["outcomes"]["refused"], told, "{stop:#}");
        assert_eq!(stop["attempts"], FAILURES, "{stop:#}");
        assert!(u64::from(FAILURES) <= told as u64 + LOST_MAX, "{stop:#}");
        let undiagnosed = |reason: &str| {
            let said = matching(lines, &format!("\"undiagnosed\":\"{reason}\""));
            let counted = stop["undiagnosed"].get(reason).map_or(0, number);
            assert_eq!(said, counted, "{reason}: {stop:#}");
            counted
        };
        if lines == &with {
            assert!(undiagnosed("no_time") >= told - known, "{stop:#}");
        } else {
            assert_eq!(undiagnosed("off"), told, "{stop:#}");
            assert_eq!(matching(lines, "\"cause\":null"), told);
        }
    }
    assert!(certain >= known / 2, "{certain} of {known} are certain");
    assert!(
        2 * spent_with <= 5 * spent_without,
        "{spent_with:?}, without diagnosis {spent_without:?}"
    );
}

/// However many failures there are, the host is queried once a second for them. Each kind of query
/// stays within that limit.
fn looks_of_one_kind() {
    let dir = Dir::new("causes-looks");
    let recording = dir.file("recording");
    let began = Instant::now();
    storm(
        "causes-storm-recorded",
        &["--record", recording.to_str().unwrap()],
    );
    // In the second that it begins in, and in each that begins while it lasts.
    let looks_max = 2 + usize::try_from(began.elapsed().as_secs()).unwrap();
    let bytes = fs::read(&recording).unwrap();
    let recorded = String::from_utf8_lossy(&bytes);
    for question in [
        "route",
        "listeners",
        "listeners_elsewhere",
        "proxy",
        "firewall",
    ] {
        let looks = looks(&recorded, question);
        eprintln!("{question}: {looks} looks, at most {looks_max}");
        assert!((1..=looks_max).contains(&looks), "{question}: {looks}");
    }
}

/// Counts the recorded answers to this question.
fn looks(recorded: &str, question: &str) -> usize {
    let told = recorded.split("{\"told\":").skip(1).map(|rest| {
        let mut told = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        told.next().unwrap().unwrap()
    });
    told.filter(|told| {
        told["question"].get(question).is_some() && told["found"].get("answer").is_some()
    })
    .count()
}

/// Every destination is another case, which exceeds the limit of queries. Failures beyond it have
/// no cause and are counted, and a replay agrees.
fn of_many_kinds() {
    let dir = Dir::new("causes-kinds");
    let file = LinesFile::new(&dir.0);
    let recording = dir.file("recording");
    let path = recording.to_str().unwrap();
    let options = conntrace_testnet::run("kinds", |testnet| {
        let netns = testnet.netns.to_string();
        let agent = file.run(&["--netns", &netns, "--summary", "0", "--record", path]);
        for _ in 0..3 {
            for host in 2..KINDS {
                let [a, b, c, _] = FAR_V4.octets();
                attempt(SocketAddr::from(([a, b, c, host], ports::RESETS)));
            }
            thread::sleep(Duration::from_millis(300));
        }
        file.wait_for("\"type\":\"outcome\"", 3 * usize::from(KINDS - 2));
        agent.stop(Signal::SIGTERM);
    });
    options.unwrap();
    let lines = file.lines();
    let stop: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_adds_up(&stop);
    assert_eq!(stop["undelivered"]["output"], 0, "{stop:#}");
    eprintln!("undiagnosed: {}", stop["undiagnosed"]);
    let replayed = replay(&fs::read(&recording).unwrap(), &[]);
    assert_eq!(stdout(&replayed), lines);
}
