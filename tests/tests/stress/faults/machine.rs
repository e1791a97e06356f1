//! Faults of the whole machine, which run only on a machine that the tests own.

use std::{
    env,
    fs::{self, OpenOptions},
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, ports};
use conntrace_tests::{Attempted, Dir, LinesFile, assert_adds_up, count, number, of_type, tcp};
use jiff::Timestamp;
use nix::{
    sys::{signal::Signal, time::TimeSpec},
    time::{ClockId, clock_gettime, clock_settime},
};
use serde_json::Value;

use crate::faults::storm::{Storm, lines_of, on_stage, parsed};

const HOUR: i64 = 3_600;
/// Pause between two faults.
const MEANWHILE: Duration = Duration::from_millis(800);
/// Tolerance of a line's time in seconds. A line is made in the second of its attempt, but a slow
/// machine delays it.
const NEARLY_S: i64 = 20;
/// File that takes a processor offline.
const PROCESSOR: &str = "/sys/devices/system/cpu/cpu1/online";
const TAKEN_AWAY: usize = 5;

/// Returns the missing requirement if the tests do not own the machine.
fn is_shared() -> Option<&'static str> {
    let needs = "needs a machine of its own, and to be told so (CONNTRACE_OWN_MACHINE=1, as cargo xtask vm does): it would harm others' programs";
    env::var_os("CONNTRACE_OWN_MACHINE")
        .is_none()
        .then_some(needs)
}

/// Returns the missing requirement if the clock cannot be set.
pub(crate) fn lacks_own_clock() -> Option<&'static str> {
    is_shared()
}

/// Returns the missing requirement if no processor can be taken offline.
pub(crate) fn lacks_hotplug() -> Option<&'static str> {
    let needs = "needs a second processor that can be taken away";
    let lacks = OpenOptions::new().write(true).open(PROCESSOR).is_err();
    is_shared().or(lacks.then_some(needs))
}

/// The wall clock, an hour ahead while it is held.
struct HourAhead;

impl HourAhead {
    fn new() -> Self {
        step(HOUR);
        Self
    }
}

impl Drop for HourAhead {
    fn drop(&mut self) {
        step(-HOUR);
    }
}

fn step(seconds: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).unwrap();
}

/// The clock is set an hour ahead and back in a storm. Each line has the clock's time, durations
/// are unaffected, and totals come as before.
pub(crate) fn clock_is_set() {
    let dir = Dir::new("clock-is-set");
    let file = LinesFile::new(&dir.0);
    let storm = Storm::default();
    let silent = (FAR_V4, ports::SILENT).into();
    let (netns, times) = on_stage(|testnet, options| {
        let agent = file.run(options);
        let now = || Timestamp::now().as_second();
        let mut times = vec![now()];
        storm.during(|| {
            let across = tcp(silent);
            Attempted::begin(&across, silent);
            thread::sleep(MEANWHILE);
            let ahead = HourAhead::new();
            storm.next_phase();
            times.push(now());
            thread::sleep(MEANWHILE);
            drop(across);
            thread::sleep(MEANWHILE);
            drop(ahead);
            storm.next_phase();
            times.push(now());
            thread::sleep(MEANWHILE);
        });
        agent.stop(Signal::SIGTERM);
        (testnet.netns, times)
    });
    assert!(times[1] - times[0] >= HOUR && times[2] - times[1] < -HOUR / 2);
    let lines = parsed(&file.lines());
    let stop = lines.last().unwrap();
    let told = [0, 1, 2].map(|phase| lines_of(&lines, phase, netns));
    println!(
        "the clock was set an hour ahead and back: {told:?} lines before, meanwhile and after; {stop}"
    );
    assert_eq!(told, [0, 1, 2].map(|phase| storm.attempts_of(phase)));
    assert_adds_up(stop);
    assert_eq!(number(&stop["attempts"]), storm.attempts() + 1);
    assert!(count(&lines, "summary") > 2, "totals come as before");
    assert_times(&lines, &times);
}

/// Each line is of one of these times, the one that its neighbours have, and its attempt
/// lasted as long as it says.
fn assert_times(lines: &[Value], times: &[i64]) {
    let mut clocks = Vec::new();
    for line in of_type(lines, "outcome") {
        let at = |name: &str| line[name].as_str().unwrap().parse::<Timestamp>().unwrap();
        let (started, ended) = (at("started"), at("time"));
        let lasted_us = ended.duration_since(started).as_micros();
        let elapsed_us = i128::from(line["elapsed_us"].as_u64().unwrap());
        assert!((lasted_us - elapsed_us).abs() <= 1, "{line:#}");
        if line["remote"]["port"] == ports::SILENT {
            let meant_us = (2 * MEANWHILE).as_micros();
            assert!(elapsed_us >= i128::try_from(meant_us).unwrap(), "{line:#}");
            assert!(elapsed_us < i128::from(HOUR) * 1_000_000, "{line:#}");
        }
        let is_of = |time: &i64| (ended.as_second() - time).abs() <= NEARLY_S;
        // The first and the last are of one clock.
        let ahead = is_of(&times[1]);
        assert!(ahead || is_of(&times[0]), "{line:#}");
        clocks.push(ahead);
    }
    clocks.dedup();
    assert_eq!(clocks, [false, true, false], "in turn");
}

/// Second processor, offline while this value is held.
struct Away;

impl Away {
    fn new() -> Self {
        fs::write(PROCESSOR, "0").unwrap();
        Self
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        fs::write(PROCESSOR, "1").unwrap();
    }
}

/// Threads of an offline processor continue elsewhere, and so do their attempts.
pub(crate) fn processors_come_and_go() {
    let dir = Dir::new("processors");
    let file = LinesFile::new(&dir.0);
    let storm = Storm::default();
    let netns = on_stage(|testnet, options| {
        let agent = file.run(options);
        storm.during(|| {
            for _ in 0..TAKEN_AWAY {
                thread::sleep(MEANWHILE / 4);
                let away = Away::new();
                thread::sleep(MEANWHILE / 4);
                drop(away);
            }
        });
        agent.stop(Signal::SIGTERM);
        testnet.netns
    });
    let lines = parsed(&file.lines());
    let stop = lines.last().unwrap();
    let told = lines_of(&lines, 0, netns);
    println!(
        "a processor was taken away {TAKEN_AWAY} times: {} attempts, {told} lines; {stop}",
        storm.attempts()
    );
    assert_eq!(told, storm.attempts());
    assert_eq!(number(&stop["attempts"]), storm.attempts());
    assert_adds_up(stop);
}
