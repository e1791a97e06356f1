//! Runs live tests: as root for real, otherwise listed as ignored.

use std::{
    collections::HashMap,
    fs::{self, File},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use conntrace_testnet::{self, Testnet, set_local_port_range};
use jiff::Timestamp;
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::{
    ExpectedLine, TracerProcess,
    group::{full_name, is_list},
};

/// Prefix of the failure message of a test with missing or extra endings.
const ENDINGS: &str = "endings, got";
/// Prefix of the failure message of a test without a stall although its SYN was retransmitted.
const NO_STALL: &str = "no stall";
/// Limit of runs of a test.
const TRIES: usize = 3;
/// Time that an extra line has to appear after the last expected one.
const SETTLE: Duration = Duration::from_millis(50);

/// Name of a test, and the function that plays it with this far host and checks its line.
pub type HostTest = (&'static str, fn(IpAddr));

/// Returns true if the live tests have the privileges that they need.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Creates a test that needs root. `test` panics when it fails. It runs again if the tracer reports
/// that no program saw an ending (docs/limitations.md), or if the kernel counted a retransmission
/// without tracing it.
pub fn live_test(name: &str, test: impl Fn() + Send + 'static) -> Trial {
    let trial = plain_test(name, move || again_if_untraced(&test));
    if is_root() {
        trial
    } else {
        trial.with_kind("needs root").with_ignored_flag(true)
    }
}

/// Creates a test that any user can run. `test` panics when it fails.
pub fn plain_test(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(full_name(name), move || {
        test();
        Ok(())
    })
}

/// Returns major and minor version of the running kernel.
pub fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Returns the missing requirement if this machine is too slow for a test. The environment then
/// sets a smaller storm, as an emulated machine needs, and a smaller storm does not exceed the
/// agent's capacity.
pub fn is_slow() -> Option<&'static str> {
    let slow = std::env::var_os("CONNTRACE_STORM").is_some();
    slow.then_some(
        "needs a machine as fast as a real one, which one with CONNTRACE_STORM set is not",
    )
}

/// Returns the missing requirement if a socket cannot have its own port range
/// (`IP_LOCAL_PORT_RANGE`).
pub fn lacks_port_range() -> Option<&'static str> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let lacks = set_local_port_range(&socket, 40_000, 40_001).is_err();
    lacks.then_some("needs Linux 6.3, from which a socket can have a port range of its own")
}

/// Returns the missing requirement if this kernel does not list sockets that are only bound.
pub fn lacks_bound_sockets() -> Option<&'static str> {
    let lacks = kernel_version() < (6, 8);
    lacks.then_some("needs Linux 6.8, from which the kernel tells of sockets that are only bound")
}

/// Returns the missing requirement if this kernel gives no reason for a dropped packet.
pub fn lacks_drop_reasons() -> Option<&'static str> {
    let lacks = kernel_version() < (5, 17);
    lacks.then_some("needs Linux 5.17, from which the kernel says why it drops a packet")
}

/// Lists a test as ignored if this host lacks a requirement.
pub fn unless(lacks: Option<impl Into<String>>, trial: Trial) -> Trial {
    match lacks {
        Some(needs) => trial.with_kind(needs).with_ignored_flag(true),
        None => trial,
    }
}

/// Lists all these tests as ignored if this host lacks a requirement.
pub fn unless_all(lacks: Option<&str>, tests: Vec<Trial>) -> Vec<Trial> {
    let marked = tests.into_iter().map(|it| unless(lacks, it));
    marked.collect()
}

fn again_if_untraced(test: &impl Fn()) {
    for _ in 1..TRIES {
        let before = untraced();
        let Err(failure) = panic::catch_unwind(AssertUnwindSafe(test)) else {
            return;
        };
        let message = failure.downcast_ref::<String>().map_or("", String::as_str);
        let lacks_ending = message.contains(ENDINGS) && untraced() != before;
        let lacks_stall = message.starts_with(NO_STALL);
        if !lacks_ending && !lacks_stall {
            panic::resume_unwind(failure);
        }
        PLAYED_AGAIN.fetch_or(lacks_ending, Relaxed);
        eprintln!("the kernel did not trace what its timer did: once more");
    }
    test();
}

/// Counts the endings that the shared tracer reports as seen by no program.
fn untraced() -> u64 {
    let live = LIVE.lock().unwrap().clone();
    let losses = live.map(|live| live.tracer.lines(|line| line["type"] == "loss"));
    let missed = |loss: &Value| loss["lost"]["ending_missed"].as_u64();
    losses.iter().flatten().filter_map(missed).sum()
}

/// Shared state of all scenarios of a test program: one tracer that sees everything.
pub struct Live {
    tracer: TracerProcess,
    /// Start and expected number of endings of each scenario, by namespace.
    endings: Mutex<HashMap<u32, (String, usize)>>,
    /// Namespaces of all scenarios. While they are held, their inode numbers are not reused.
    namespaces: Mutex<Vec<File>>,
}

/// True after a test ran again because an ending was missing.
static PLAYED_AGAIN: AtomicBool = AtomicBool::new(false);

static LIVE: Mutex<Option<Arc<Live>>> = Mutex::new(None);

/// Returns true if the shared tracer reports this kind of coverage (`coverage` in its start line).
///
/// # Panics
/// If there is no tracer yet, or no such key.
pub fn is_covered(key: &str) -> bool {
    let live = LIVE.lock().unwrap().clone().expect("a tracer");
    let start = live.tracer.lines(|line| line["type"] == "start");
    start[0]["coverage"][key]
        .as_bool()
        .expect("a key of coverage")
}

/// Returns the missing requirement if a group's tests have no function hooks to test: those of this
/// tier, or any. Listing the tests skips this check, because it takes an agent.
pub fn lacks_functions(tier: Option<&str>) -> Option<String> {
    if is_list() {
        return None;
    }
    let options = tier.map(|tier| ["--tier", tier]);
    let tracer = TracerProcess::start(options.as_ref().map_or(&[][..], |options| &options[..]));
    let start = tracer.lines(|line| line["type"] == "start").remove(0);
    tracer.stop();
    let hooks = start["hooks"].as_array().unwrap();
    let hook = hooks.iter().find(|hook| hook["name"] == "tcp_v4_connect");
    match hook {
        Some(hook) if hook["attached"] == true => None,
        Some(_) | None => {
            Some("needs hooks of functions; `conntrace doctor` says why not".to_owned())
        }
    }
}

/// Finished scenario: its namespace, and the value of `act`.
pub struct PlayedScenario<T> {
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Start of the scenario in the format of lines. Earlier lines belong to another namespace that
    /// had the same number, because the tracer sees the whole host.
    pub began: String,
    /// Value that its act returned.
    pub value: T,
}

impl Live {
    /// Returns the tracer of the test program. The first call starts it.
    pub fn get() -> Arc<Self> {
        Self::with(&[])
    }

    /// Returns the tracer with these options, which must be the same for all tests of a program.
    pub fn with(options: &[&str]) -> Arc<Self> {
        let mut live = LIVE.lock().unwrap();
        let live = live.get_or_insert_with(|| {
            Arc::new(Self {
                // With a summary every second, a loss is reported within one second.
                tracer: TracerProcess::start(&[&["--all", "--summary", "1"], options].concat()),
                endings: Mutex::default(),
                namespaces: Mutex::default(),
            })
        });
        Arc::clone(live)
    }

    /// Returns the shared tracer.
    pub fn tracer(&self) -> &TracerProcess {
        &self.tracer
    }

    /// Runs a scenario on its own test network.
    pub fn play<T: Send>(&self, act: impl FnOnce(&Testnet) -> T + Send) -> PlayedScenario<T> {
        let began = format!("{:.9}", Timestamp::now());
        let (netns, value) = conntrace_testnet::run("scenario", |testnet| {
            testnet.far.as_ref().expect("a test network with a far end");
            let namespace = File::open("/proc/thread-self/ns/net").unwrap();
            self.namespaces.lock().unwrap().push(namespace);
            (testnet.netns, act(testnet))
        })
        .expect("a test network");
        PlayedScenario {
            netns,
            began,
            value,
        }
    }

    /// Waits for exactly as many endings in this namespace as expected, and
    /// compares each whole line, in the order they ended. Returns the lines.
    pub fn expect<T>(&self, scene: &PlayedScenario<T>, expected: &[ExpectedLine]) -> Vec<Value> {
        let lines = self.endings(scene, expected.len());
        for (line, expected) in lines.iter().zip(expected) {
            expected.assert_is(line, scene.netns);
        }
        lines
    }

    /// Waits for exactly this many endings in the scenario's namespace.
    pub fn endings<T>(&self, scene: &PlayedScenario<T>, count: usize) -> Vec<Value> {
        let PlayedScenario { netns, began, .. } = scene;
        self.tracer.wait_for_endings_since(began, *netns, count);
        thread::sleep(SETTLE);
        let lines = self.tracer.lines(|line| is_ending(line, *netns, began));
        assert_eq!(lines.len(), count, "{ENDINGS} {lines:#?}");
        let mut endings = self.endings.lock().unwrap();
        let (_, expected) = endings.entry(*netns).or_insert_with(|| (began.clone(), 0));
        *expected += count;
        lines
    }

    /// The stall lines of the scenario's namespace.
    pub fn stalls<T>(&self, scene: &PlayedScenario<T>) -> Vec<Value> {
        self.tracer
            .lines(|line| line["type"] == "stall" && is_of(line, scene.netns, &scene.began))
    }

    /// The only stall line of the scenario's namespace, whose outcome is known to have
    /// a SYN that was sent again.
    pub fn only_stall<T>(&self, scene: &PlayedScenario<T>) -> Value {
        let mut stalls = self.stalls(scene);
        assert!(stalls.len() <= 1, "one stall, got {stalls:#?}");
        let none = || panic!("{NO_STALL} in namespace {}", scene.netns);
        stalls.pop().unwrap_or_else(none)
    }

    /// Stops the tracer: every scenario must still have just its endings,
    /// nothing may be lost, and the totals must add up.
    fn finish(self) {
        let lines = self.tracer.stop();
        for (netns, (began, count)) in self.endings.into_inner().unwrap() {
            let endings = lines.iter().filter(|line| is_ending(line, netns, &began));
            let got = endings.count();
            assert_eq!(got, count, "endings of namespace {netns} at the end");
        }
        for loss in lines.iter().filter(|line| line["type"] == "loss") {
            assert!(PLAYED_AGAIN.load(Relaxed), "nothing is lost");
            let untraced = json!({ "ending_missed": loss["lost"]["ending_missed"] });
            assert_eq!(loss["lost"], untraced, "nothing else is lost");
            assert_eq!(loss["undelivered"], json!({}), "{loss:#}");
        }
        assert_adds_up(lines.last().unwrap());
    }
}

fn is_ending(line: &Value, netns: u32, since: &str) -> bool {
    line["type"] == "outcome" && is_of(line, netns, since)
}

fn is_of(line: &Value, netns: u32, since: &str) -> bool {
    line["netns"] == netns && line["started"].as_str().is_some_and(|began| began >= since)
}

/// Inode number of this thread's network namespace.
pub fn own_netns() -> u32 {
    let netns = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    netns.try_into().unwrap()
}

/// Checks `attempts = outcomes + in_flight + lost` in a summary or stop line.
pub fn assert_adds_up(totals: &Value) {
    assert_eq!(totals["attempts"], accounted(totals), "{totals:#}");
}

/// Sums `outcomes + in_flight + lost`. In a summary that was made while attempts ended, those that
/// did meanwhile are not counted at all.
pub fn accounted(totals: &Value) -> u64 {
    let sum = |name: &str| -> u64 {
        let counts = totals[name].as_object().unwrap().values();
        counts.map(|count| count.as_u64().unwrap()).sum()
    };
    sum("outcomes") + totals["in_flight"].as_u64().unwrap() + sum("lost")
}

/// Runs a group's tests, then checks the complete output of their tracer.
pub fn run(tests: Vec<Trial>) -> ExitCode {
    run_with(&Arguments::from_args(), tests)
}

/// Runs tests one by one that measure or load the machine.
pub fn run_one_by_one(tests: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    run_with(&arguments, tests)
}

fn run_with(arguments: &Arguments, tests: Vec<Trial>) -> ExitCode {
    let conclusion = libtest_mimic::run(arguments, tests);
    let live = LIVE.lock().unwrap().take();
    if !conclusion.has_failed()
        && let Some(live) = live.and_then(Arc::into_inner)
    {
        live.finish();
    }
    conclusion.exit_code()
}
