//! Lines of an agent that cannot keep up, or whose reader or disk cannot, and leftovers of an agent
//! after every kind of end.

use std::{
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_V4, Testnet, ports};
use conntrace_tests::{
    Agent, Dir, LinesFile, assert_adds_up, attempt, check, checked, count, in_private_mounts,
    is_slow, live_test, number, of_type, run_one_by_one, told_lost, told_undelivered, unless,
};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
};
use serde_json::Value;

const THREADS: usize = 4;
/// Number of records that exceeds the ring: 8 MiB of 240 bytes and a header of 8.
const OVER_RING: usize = 60_000;
const RING: usize = (8 << 20) / 248;
/// Number of lines that exceeds the output queue: 32 MiB of lines of about 900 bytes.
const OVER_QUEUE: usize = 70_000;
/// Number of timed attempts, fewer than the others.
const TIMED: usize = 10_000;

pub(crate) fn main() -> ExitCode {
    run_one_by_one(vec![
        unless(is_slow(), live_test("stopped_agent", stopped_agent)),
        unless(is_slow(), live_test("stuck_reader", stuck_reader)),
        live_test("closed_before_the_first_line", closed_before_the_first_line),
        live_test("closed_in_a_storm", closed_in_a_storm),
        live_test("disk_fills_in_a_storm", disk_fills_in_a_storm),
        live_test("sigterm_in_a_storm", || signal_in_a_storm(Signal::SIGTERM)),
        live_test("sigint_in_a_storm", || signal_in_a_storm(Signal::SIGINT)),
        live_test("two_in_a_storm", two_in_a_storm),
    ])
}

fn refusing() -> SocketAddr {
    (FAR_V4, ports::RESETS).into()
}

/// Makes refused attempts from several threads on the calling thread's test network.
fn refuse(count: usize) {
    let refuse_some = || (0..count / THREADS).for_each(|_| drop(attempt(refusing())));
    thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(refuse_some)));
    });
}

/// Makes refused attempts while `act` runs, and counts them.
fn refuse_while<T>(act: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let refuse_on = || {
        while !over.load(Ordering::Relaxed) {
            attempt(refusing());
        }
    };
    thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(refuse_on)));
        thread::sleep(Duration::from_millis(300));
        let value = act();
        over.store(true, Ordering::Relaxed);
        value
    })
}

/// Runs on a test network. The options limit an agent to that network.
fn on_stage<T: Send>(act: impl FnOnce(&Testnet, &[&str]) -> T + Send) -> T {
    let play = |testnet: &Testnet| {
        testnet.far.as_ref().unwrap();
        act(
            testnet,
            &["--netns", &testnet.netns.to_string(), "--summary", "1"],
        )
    };
    conntrace_testnet::run("pressure", play).unwrap()
}

/// When the ring overflows, the loss is reported and counted in every total. Later attempts have
/// their lines.
fn stopped_agent() {
    let dir = Dir::new("stopped-agent");
    let file = LinesFile::new(&dir.0);
    on_stage(|_, options| {
        let agent = file.run(options);
        agent.signal(Signal::SIGSTOP);
        refuse(OVER_RING);
        agent.signal(Signal::SIGCONT);
        file.wait_for("\"type\":\"loss\"", 1);
        file.wait_for("\"type\":\"summary\"", 2);
        attempt((FAR_V4, ports::PORT_UNREACHABLE));
        file.wait_for("\"port\":83}", 1);
        file.wait_for("\"type\":\"summary\"", 4);
        agent.stop(Signal::SIGTERM);
    });
    let lines = checked(&file.lines());
    // Quiet from the loss on.
    let loss = lines
        .iter()
        .rposition(|line| line["type"] == "loss")
        .unwrap();
    of_type(&lines[loss..], "summary").for_each(assert_adds_up);
    let stop = lines.last().unwrap();
    let lost = number(&stop["lost"]["ring_full"]);
    println!("{OVER_RING} endings while stopped, {lost} lost in the ring; {stop}");
    assert_eq!(lost, told_lost(&lines, "ring_full"));
    assert!(
        (OVER_RING - RING..OVER_RING - RING / 2).contains(&lost),
        "{lost}"
    );
    assert_eq!(
        number(&stop["undelivered"]["output"]),
        0,
        "the reader is not slow"
    );
    assert_eq!(number(&stop["attempts"]), OVER_RING + 1);
    assert_eq!(count(&lines, "outcome"), OVER_RING + 1 - lost);
}

/// If nobody reads, the ring is emptied all the same. The queue is bounded, and connects are not
/// delayed.
fn stuck_reader() {
    let (lines, flowing, stuck) = on_stage(|_, options| {
        let (reader, writer) = io::pipe().unwrap();
        let agent = Agent::run(options, writer);
        let mut lines = BufReader::new(reader);
        let mut text = String::new();
        lines.read_line(&mut text).unwrap();
        let flowing = thread::scope(|scope| {
            let until_told = scope.spawn(|| {
                let mut line = String::new();
                while !line.contains("\"port\":83}") {
                    line.clear();
                    lines.read_line(&mut line).unwrap();
                    text.push_str(&line);
                }
            });
            let took = time_of_refusing(TIMED);
            attempt((FAR_V4, ports::PORT_UNREACHABLE));
            until_told.join().unwrap();
            took
        });
        refuse(OVER_QUEUE);
        let stuck = time_of_refusing(TIMED);
        let rest = thread::scope(|scope| {
            let rest = scope.spawn(|| io::read_to_string(lines).unwrap());
            thread::sleep(Duration::from_millis(2_500));
            attempt(refusing());
            thread::sleep(Duration::from_millis(100));
            agent.stop(Signal::SIGTERM);
            rest.join().unwrap()
        });
        (text + &rest, flowing, stuck)
    });
    let lines = checked(&lines);
    let stop = lines.last().unwrap();
    let lost = number(&stop["undelivered"]["output"]);
    println!("{TIMED} refusals took {flowing:?} while lines were read, {stuck:?} when not; {stop}");
    assert_eq!(number(&stop["lost"]["ring_full"]), 0);
    assert!(
        lost > 0 && lost == told_undelivered(&lines, "output"),
        "{lost}"
    );
    let attempts = OVER_QUEUE + 2 * TIMED + 2;
    assert_eq!(number(&stop["attempts"]), attempts);
    assert_eq!(count(&lines, "outcome"), attempts - lost);
    // The last one came when lines were read again.
    let last = of_type(&lines, "outcome").next_back().unwrap();
    let loss = of_type(&lines, "loss").next_back().unwrap();
    assert!(last["time"].as_str() > loss["time"].as_str());
    assert!(stuck < 2 * flowing, "{stuck:?}, {flowing:?}");
}

/// All processors are busy meanwhile: what wakes an idle one takes longer than the
/// rest, and differs from one time to the next.
fn time_of_refusing(count: usize) -> Duration {
    let began = Instant::now();
    refuse(count);
    began.elapsed()
}

/// The reader of the lines is gone from the start.
fn closed_before_the_first_line() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    Agent::run(&[], writer).assert_ends_cleanly();
}

fn closed_in_a_storm() {
    on_stage(|_, options| {
        let (reader, writer) = io::pipe().unwrap();
        let agent = Agent::run(options, writer);
        let mut lines = BufReader::new(reader).lines();
        lines.next().unwrap().unwrap();
        refuse_while(|| {
            lines
                .by_ref()
                .take(100)
                .for_each(|line| drop(line.unwrap()));
            drop(lines);
            agent.assert_ends_cleanly();
        });
    });
}

/// The disk with the lines fills up before the end. The loss is reported, and no line is
/// incomplete.
fn disk_fills_in_a_storm() {
    let dir = Dir::new("disk-fills");
    in_private_mounts(|| {
        let tmpfs = Some("tmpfs");
        mount(tmpfs, &dir.0, tmpfs, MsFlags::empty(), Some("size=256k")).unwrap();
        let file = LinesFile::new(&dir.0);
        let (status, errors) = on_stage(|_, options| {
            let agent = file.run(options);
            refuse_while(|| thread::sleep(Duration::from_secs(1)));
            agent.signal(Signal::SIGTERM);
            agent.wait()
        });
        let said = "No space left on device (os error 28); they are kept while there is room";
        assert!(errors.contains(said), "{errors}");
        let last = errors.lines().last().unwrap();
        assert!(
            last.starts_with("conntrace: cannot write the last "),
            "{errors}"
        );
        assert!(last.ends_with(" lines to stdout: No space left on device (os error 28)"));
        assert_eq!(status.code(), Some(1));
        let text = file.lines();
        assert!(text.len() > 250 << 10, "as much as there was room for");
        assert!(text.ends_with('\n'));
        text.lines().for_each(|line| drop(check(line).unwrap()));
    });
}

/// The agent stops while attempts go on: the stop line is the last one, and exact.
fn signal_in_a_storm(signal: Signal) {
    let dir = Dir::new("signal");
    let file = LinesFile::new(&dir.0);
    on_stage(|_, options| {
        let agent = file.run(&[options, &["--all"]].concat());
        refuse_while(|| agent.stop(signal));
    });
    let text = file.lines();
    let lines: Vec<_> = text.lines().map(|line| check(line).unwrap()).collect();
    let stop = lines.last().unwrap();
    assert_eq!(
        (&stop["type"], &stop["reason"]),
        (&"stop".into(), &signal.as_str().into())
    );
    assert_adds_up(stop);
    let outcomes: usize = stop["outcomes"]
        .as_object()
        .unwrap()
        .values()
        .map(number)
        .sum();
    assert!(outcomes > 100, "{stop:#}");
    assert_eq!(count(&lines, "outcome"), outcomes);
}

/// Both see every attempt, and the sums of each are right.
fn two_in_a_storm() {
    const ATTEMPTS: usize = 20_000;
    let dirs = [Dir::new("one"), Dir::new("other")];
    let files = dirs.each_ref().map(|dir| LinesFile::new(&dir.0));
    on_stage(|_, options| {
        let agents = files.each_ref().map(|file| file.run(options));
        refuse(ATTEMPTS);
        agents
            .into_iter()
            .for_each(|agent| agent.stop(Signal::SIGTERM));
    });
    // Times, and so ids, are each agent's own.
    let [one, other] = files.map(|file| {
        let lines = checked(&file.lines());
        let stop = lines.last().unwrap();
        println!("one of two, {ATTEMPTS} attempts: {stop}");
        assert_eq!(count(&lines, "loss"), 0);
        assert_eq!(count(&lines, "outcome"), ATTEMPTS);
        assert_eq!(number(&stop["attempts"]), ATTEMPTS);
        let which = |line: &Value| [&line["process"]["tid"], &line["local"]["port"]].map(number);
        let mut seen: Vec<_> = of_type(&lines, "outcome").map(which).collect();
        seen.sort_unstable();
        seen
    });
    assert!(one == other, "both saw the same");
}
