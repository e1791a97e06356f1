//! Attempts whose start was not seen: they began before tracing, or while the table had no place.

use std::{
    env,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    process::{self, Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use conntrace_common::table::{SLOTS, SPILLED_MAX};
use conntrace_testnet::{self, FAR_V4, FAR_V6, Testnet, ports};
use conntrace_tests::{
    Attempted, TracerProcess, assert_adds_up, is_slow, live_test, number, remote_end,
    run_one_by_one, tcp, told_lost, told_without_place, unless,
};
use serde_json::{Value, json};
use socket2::Socket;

/// Makes this program begin attempts, from this one on to that one, instead of
/// running its tests.
const FILL: &str = "CONNTRACE_TEST_FILL";

/// Interval longer than the default patience.
const OVER_PATIENCE: Duration = Duration::from_millis(300);
/// Time that a line has to appear.
const SETTLE: Duration = Duration::from_millis(200);
/// Number of attempts that exceeds the ring's records.
const AT_ONCE: usize = 40_000;
/// Number of processes that fill the table.
const FILLERS: usize = 4;
/// Attempts under way in total, and the first ones, for which a namespace always has room.
const UNDER_WAY: usize = 100_000;
const FIRST: usize = 40_000;
/// Places in the map for one namespace. Each CPU may take one more at the same time.
const SHARE: usize = SPILLED_MAX as usize / 2;
const AT_ONCE_MORE: usize = 64;
/// Connects to one address: few of its ports, or the search for one takes its time.
const PER_REMOTE: usize = 2_000;

pub(crate) fn main() -> ExitCode {
    if let Ok(range) = env::var(FILL) {
        let (first, end) = range.split_once(' ').unwrap();
        return Fillers::fill(first.parse().unwrap()..end.parse().unwrap());
    }
    // What floods the machine is not to meet the others.
    run_one_by_one(vec![
        live_test("joined_late_v4", || joined_late(FAR_V4.into())),
        live_test("joined_late_v6", || joined_late(FAR_V6.into())),
        unless(
            is_slow(),
            live_test("joined_late_then_established", joined_late_then_established),
        ),
        live_test("joined_late_filtered", joined_late_filtered),
        unless(is_slow(), live_test("full_map", full_map)),
        unless(is_slow(), live_test("closed_at_once", closed_at_once)),
    ])
}

fn on_stage<T: Send>(act: impl FnOnce(&Testnet) -> T + Send) -> T {
    conntrace_testnet::run("late", act).unwrap()
}

/// Begins an attempt and returns its socket.
fn begin(remote: impl Into<SocketAddr>) -> Socket {
    let remote = remote.into();
    let socket = tcp(remote);
    Attempted::begin(&socket, remote);
    socket
}

fn outcomes(lines: &[Value]) -> Vec<&Value> {
    let outcomes = lines.iter().filter(|line| line["type"] == "outcome");
    outcomes.collect()
}

/// One is closed, the other is still under way in the end.
fn joined_late(host: IpAddr) {
    let (lines, port, netns) = on_stage(|testnet| {
        let silent = SocketAddr::new(host, ports::SILENT);
        let (closed, kept) = (begin(silent), begin(silent));
        let port = closed.local_addr().unwrap().as_socket().unwrap().port();
        let tracer = TracerProcess::start(&["--netns", &testnet.netns.to_string(), "--no-stalls"]);
        thread::sleep(OVER_PATIENCE);
        drop(closed);
        thread::sleep(SETTLE);
        let lines = tracer.stop();
        drop(kept);
        (lines, port, testnet.netns)
    });
    let [line] = outcomes(&lines)[..] else {
        panic!("one ending, got {lines:#?}");
    };
    let leader = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(line["seen"], "joined_late");
    assert_eq!(line["label"], "timed_out");
    assert_eq!(line["timeout_by"], "application");
    assert_eq!(line["netns"], netns);
    assert_eq!(line["local"]["port"], port);
    assert_eq!(line["remote"], remote_end((host, ports::SILENT)));
    assert_eq!(
        line["process"],
        json!({
            "pid": process::id(), "tid": null, "comm": leader.trim(), "leader_comm": leader.trim(),
            "exe": env::current_exe().unwrap(), "uid": 0, "cgroup": null,
        })
    );
    for unknown in ["started", "elapsed_us", "container"] {
        assert!(line[unknown].is_null(), "{unknown}");
    }
    assert_eq!(line["syn"], json!({ "sent": null, "retransmitted": null }));
    let totals = lines.last().unwrap();
    assert_eq!(
        (&totals["attempts"], &totals["in_flight"]),
        (&json!(2), &json!(1))
    );
    assert_adds_up(totals);
}

fn joined_late_then_established() {
    let lines = on_stage(|testnet| {
        let socket = begin((FAR_V4, ports::ACCEPTS_SECOND_SYN));
        let tracer = TracerProcess::start(&["--all", "--netns", &testnet.netns.to_string()]);
        tracer.wait_for_endings(testnet.netns, 1);
        drop(socket);
        tracer.stop()
    });
    let [line] = outcomes(&lines)[..] else {
        panic!("one ending, got {lines:#?}");
    };
    assert_eq!(
        (&line["seen"], &line["label"]),
        (&json!("joined_late"), &json!("established"))
    );
    assert_adds_up(lines.last().unwrap());
}

/// Filters also apply to attempts that began before tracing.
fn joined_late_filtered() {
    let pid = process::id().to_string();
    for (options, attempts) in [
        (["--pid", "1"], 0),
        (["--pid", &pid], 1),
        (["--port", "81"], 0),
        (["--uid", "0"], 1),
    ] {
        let lines = on_stage(|testnet| {
            let _socket = begin((FAR_V4, ports::SILENT));
            let netns = testnet.netns.to_string();
            TracerProcess::start(&[&["--netns", &netns], &options[..]].concat()).stop()
        });
        let totals = lines.last().unwrap();
        assert_eq!(totals["in_flight"], attempts, "{options:?}");
        assert_adds_up(totals);
    }
}

/// Attempts of a namespace beyond its share still get their lines. If a filter depends on the
/// caller, they are counted as lost.
fn full_map() {
    let ((lines, _), (by_process, _)) = on_stage(|testnet| {
        let netns = testnet.netns.to_string();
        let options = [
            "--netns",
            &netns,
            "--no-stalls",
            "--label",
            "cancelled,timed_out",
        ];
        let tracer = TracerProcess::start(&options);
        let by_process = TracerProcess::start(&[&options[..], &["--uid", "0"]].concat());
        let fillers = Fillers::start(0..FIRST);
        let surplus = Fillers::start(FIRST..UNDER_WAY);
        // No more at once than the queue takes.
        surplus.end(|ended| tracer.wait_for_endings(testnet.netns, ended));
        thread::sleep(SETTLE);
        let lines = (tracer.stop_and_hear(), by_process.stop_and_hear());
        drop(fillers);
        lines
    });
    // Of the others some find a slot of the table free, or a place in the map.
    let (kept, untracked): (Vec<_>, Vec<_>) = outcomes(&lines)
        .into_iter()
        .partition(|line| line["seen"] == "whole");
    assert_eq!(kept.len() + untracked.len(), UNDER_WAY - FIRST);
    assert_share(kept.len());
    assert!(kept.iter().all(|line| line["process"]["pid"].is_u64()));
    for line in &untracked {
        assert_eq!(line["seen"], "untracked");
        for unknown in ["pid", "tid", "comm", "leader_comm", "exe", "uid", "cgroup"] {
            assert!(line["process"][unknown].is_null(), "{unknown}");
        }
        assert!(line["started"].is_null() && line["syn"]["sent"].is_null());
        assert_eq!(line["remote"]["port"], ports::SILENT);
    }
    let totals = lines.last().unwrap();
    let without_place = untracked.len();
    println!("{UNDER_WAY} under way: {without_place} untracked; {totals}");
    assert_eq!(told_without_place(&lines), without_place);
    assert_eq!(totals["attempts"], UNDER_WAY);
    assert_eq!(totals["in_flight"], FIRST);
    assert_adds_up(totals);

    let kept = outcomes(&by_process);
    assert_share(kept.len());
    assert!(kept.iter().all(|line| line["seen"] == "whole"));
    let totals = by_process.last().unwrap();
    println!("where only the caller tells whether they are wanted: {totals}");
    let without_place = UNDER_WAY - FIRST - kept.len();
    assert_eq!(totals["lost"]["untracked"], without_place);
    assert_eq!(told_without_place(&by_process), without_place);
    assert_eq!(told_lost(&by_process, "untracked"), without_place);
    assert_eq!(totals["in_flight"], FIRST);
    assert_adds_up(totals);
}

/// Checks that a namespace has its share of the map and nearly all slots, when this many attempts
/// have a place beside the first ones.
fn assert_share(kept: usize) {
    let slots = SLOTS as usize;
    let most = SHARE + slots + AT_ONCE_MORE;
    let places = SHARE + slots / 10 * 9..=most;
    assert!(places.contains(&(FIRST + kept)), "{FIRST} and {kept} kept");
}

/// Each has its line, with its cause or the reason for which there is none, although they end
/// faster than lines are made. A debug build makes lines so slowly that the ring can overflow:
/// of it what is lost is counted. `.ci/run` has the test run with a release build as well.
fn closed_at_once() {
    let lines = on_stage(|testnet| {
        let netns = testnet.netns.to_string();
        let options = ["--netns", &netns, "--no-stalls", "--all", "--summary", "1"];
        let tracer = TracerProcess::start(&options);
        let fillers = Fillers::start(0..AT_ONCE);
        fillers.end_at_once();
        let is_over = |line: &Value| {
            line["type"] == "summary" && line["attempts"] == AT_ONCE && line["in_flight"] == 0
        };
        let began = Instant::now();
        while tracer.lines(is_over).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "they end");
            thread::sleep(SETTLE);
        }
        tracer.stop()
    });
    let stop = lines.last().unwrap();
    println!("{AT_ONCE} closed at once: {stop}");
    let lost = if is_debug_build() {
        number(&stop["lost"]["ring_full"])
    } else {
        0
    };
    assert_eq!(outcomes(&lines).len() + lost, AT_ONCE);
    assert_eq!(told_lost(&lines, "ring_full"), lost);
    assert_eq!(stop["attempts"], AT_ONCE);
    assert_eq!(stop["in_flight"], 0);
    assert_eq!(stop["undelivered"]["output"], 0);
    assert_adds_up(stop);
}

/// Another build than that of the tests is named by this variable.
fn is_debug_build() -> bool {
    cfg!(debug_assertions) && env::var_os("CONNTRACE_BIN").is_none()
}

fn begin_one(number: usize) -> Socket {
    let host = u8::try_from(10 + number / PER_REMOTE).unwrap();
    let [a, b, c, _] = FAR_V4.octets();
    begin((Ipv4Addr::new(a, b, c, host), ports::SILENT))
}

/// Processes that fill the map: one may not have so many files open.
struct Fillers {
    children: Vec<Child>,
    /// Attempts of each process.
    each: usize,
}

impl Fillers {
    /// Returns when all these attempts are under way.
    fn start(attempts: Range<usize>) -> Self {
        let each = attempts.len() / FILLERS;
        let begin = |first: usize| {
            Command::new(env::current_exe().unwrap())
                .env(FILL, format!("{first} {}", first + each))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut children: Vec<_> = attempts.step_by(each).map(begin).collect();
        for child in &mut children {
            let mut ready = [0];
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut ready)
                .unwrap();
        }
        Self { children, each }
    }

    /// Ends the processes one by one, and passes the number of ended attempts to `each_time`.
    fn end(mut self, mut each_time: impl FnMut(usize)) {
        let each = self.each;
        for (number, child) in self.children.iter_mut().enumerate() {
            end(child);
            each_time((number + 1) * each);
        }
    }

    /// Ends the processes together.
    fn end_at_once(mut self) {
        self.children
            .iter_mut()
            .for_each(|child| drop(child.stdin.take()));
    }

    /// Makes the attempts as a child process and holds them until its stdin is closed.
    fn fill(attempts: Range<usize>) -> ExitCode {
        let held: Vec<_> = attempts.map(begin_one).collect();
        std::io::stdout().write_all(&[1]).unwrap();
        std::io::stdout().flush().unwrap();
        let _ = std::io::stdin().read(&mut [0]);
        drop(held);
        ExitCode::SUCCESS
    }
}

impl Drop for Fillers {
    fn drop(&mut self) {
        self.children.iter_mut().for_each(end);
    }
}

fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}
