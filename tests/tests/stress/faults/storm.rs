//! Attempts that continue in the background of a test.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    process,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use conntrace_testnet::{self, FAR_V4, Testnet, ports};
use conntrace_tests::{attempt, check};
use serde_json::Value;

pub(crate) const THREADS: usize = 4;
/// Limit of phases of a storm.
const PHASES_MAX: usize = 8;
/// The last byte of the far host of the first phase's attempts.
const FIRST_HOST: u8 = 100;
/// Attempts before a thread pauses. A storm of some seconds then has a readable number of lines.
const IN_A_ROW: usize = 16;
const PAUSE: Duration = Duration::from_millis(4);
/// Interval of lines that are validated by the schema, because validation takes longer than all the
/// rest.
const SCHEMA_EVERY: usize = 16;
/// Destination ports of the attempts, and the expected label, errno and reply kind.
const KINDS: [(u16, [&str; 3]); 3] = [
    (ports::RESETS, ["refused", "ECONNREFUSED", "rst"]),
    (
        ports::NET_UNREACHABLE,
        ["unreachable", "ENETUNREACH", "icmp"],
    ),
    (ports::ACCEPTS, ["established", "", "syn_ack"]),
];

/// Attempts of several threads and every kind. Those of each phase go to a host of
/// their own.
#[derive(Default)]
pub(crate) struct Storm {
    phase: AtomicUsize,
    is_over: AtomicBool,
    counts: [AtomicUsize; PHASES_MAX],
}

impl Storm {
    /// Makes attempts on the calling thread's test network while `act` runs, and returns its value.
    pub(crate) fn during<T>(&self, act: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(|| self.attempt_on())));
            // Also when it panics.
            let over = Over(self);
            let value = act();
            drop(over);
            value
        })
    }

    fn attempt_on(&self) {
        for number in 0.. {
            if self.is_over.load(SeqCst) {
                return;
            }
            let phase = self.phase.load(SeqCst);
            let (port, _) = KINDS[number % KINDS.len()];
            self.counts[phase].fetch_add(1, SeqCst);
            attempt((host(phase), port));
            if number % IN_A_ROW == 0 {
                thread::sleep(PAUSE);
            }
        }
    }

    /// Begins the next phase and returns its number. An attempt or two of the last one can still be
    /// under way.
    pub(crate) fn next_phase(&self) -> usize {
        self.phase.fetch_add(1, SeqCst) + 1
    }

    /// Counts all attempts.
    pub(crate) fn attempts(&self) -> usize {
        (0..PHASES_MAX).map(|phase| self.attempts_of(phase)).sum()
    }

    /// Counts the attempts of this phase.
    pub(crate) fn attempts_of(&self, phase: usize) -> usize {
        self.counts[phase].load(SeqCst)
    }
}

struct Over<'a>(&'a Storm);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, SeqCst);
    }
}

/// Returns the far host of this phase's attempts.
fn host(phase: usize) -> Ipv4Addr {
    let [a, b, c, _] = FAR_V4.octets();
    Ipv4Addr::new(a, b, c, FIRST_HOST + u8::try_from(phase).unwrap())
}

/// Runs on a test network. The options limit an agent to that network, of which it sees everything.
pub(crate) fn on_stage<T: Send>(act: impl FnOnce(&Testnet, &[&str]) -> T + Send) -> T {
    let play = |testnet: &Testnet| {
        testnet.far.as_ref().unwrap();
        let netns = testnet.netns.to_string();
        let options = ["--netns", &netns, "--all", "--no-stalls", "--summary", "1"];
        act(testnet, &options)
    };
    conntrace_testnet::run("faults", play).unwrap()
}

/// Parses every line as JSON, and validates some by the schema.
pub(crate) fn parsed(lines: &str) -> Vec<Value> {
    let parse = |(number, line): (usize, &str)| match number % SCHEMA_EVERY {
        0 => check(line).unwrap(),
        _ => serde_json::from_str(line).unwrap(),
    };
    lines.lines().enumerate().map(parse).collect()
}

/// Counts the lines for the storm's attempts of this phase. Each agrees with the application, and
/// no attempt has two.
pub(crate) fn lines_of(lines: &[Value], phase: usize, netns: u32) -> usize {
    let host = host(phase).to_string();
    let mut ids = HashSet::new();
    let to_host =
        |line: &&Value| line["type"] == "outcome" && line["remote"]["addr"] == host.as_str();
    for line in lines.iter().filter(to_host) {
        assert!(
            ids.insert(line["attempt_id"].as_str().unwrap()),
            "twice: {line:#}"
        );
        assert_right(line, netns);
    }
    ids.len()
}

fn assert_right(line: &Value, netns: u32) {
    let kind = KINDS
        .iter()
        .find(|(port, _)| line["remote"]["port"] == *port);
    let (_, [label, errno, reply]) = kind.unwrap();
    let said = [&line["label"], &line["errno"], &line["reply"]["kind"]];
    let said = said.map(|it| it.as_str().unwrap_or_default());
    assert_eq!(said, [*label, *errno, *reply], "{line:#}");
    assert_eq!(line["netns"], netns);
    // Unknown of one that ended while the agent looked for those under way.
    let pid = &line["process"]["pid"];
    let unknown = pid.is_null() && line["seen"] == "joined_late";
    assert!(unknown || *pid == process::id(), "{line:#}");
}

/// Returns the whole lines of an agent that was killed, without an incomplete last line.
pub(crate) fn whole_lines(text: &str) -> &str {
    text.rsplit_once('\n').map_or("", |(whole, _)| whole)
}
