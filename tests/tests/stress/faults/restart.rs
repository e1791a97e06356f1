//! Agent that is killed, and its successor.

use std::{collections::HashSet, thread, time::Duration};

use conntrace_testnet::{FAR_V4, ports};
use conntrace_tests::{
    Attempted, Dir, LinesFile, assert_adds_up, count, held_by, is_slow, loaded, number, tcp,
    wait_until_freed,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::Socket;

use crate::faults::storm::{Storm, THREADS, lines_of, on_stage, parsed, whole_lines};

/// Running time of each agent.
const RUNS: Duration = Duration::from_millis(500);
/// Interval longer than the default patience.
const OVER_PATIENCE: Duration = Duration::from_millis(300);
/// Attempts that are under way from before the last kill on.
const KEPT: usize = 50;

/// All lines of each agent are right. The last one reports every attempt that began during its run,
/// and those under way before. The others leave nothing behind.
pub(crate) fn killed_and_restarted() {
    let kills = if is_slow().is_some() { 1 } else { 3 };
    let dirs: Vec<_> = (0..=kills)
        .map(|number| Dir::new(&format!("restarted-{number}")))
        .collect();
    let files: Vec<_> = dirs.iter().map(|dir| LinesFile::new(&dir.0)).collect();
    let storm = Storm::default();
    let netns = on_stage(|testnet, options| {
        let last = storm.during(|| {
            let mut agent = files[0].run(options);
            for next in &files[1..] {
                storm.next_phase();
                thread::sleep(RUNS);
                let kept = begin_silent();
                storm.next_phase();
                let held = held_by(agent.pid());
                agent.signal(Signal::SIGKILL);
                agent.wait();
                agent = next.run(options);
                wait_until_freed(&held, loaded);
                // The others' are of no agent's lines: they end in the next one's time.
                thread::sleep(OVER_PATIENCE);
                drop(kept);
            }
            storm.next_phase();
            thread::sleep(RUNS);
            agent
        });
        last.stop(Signal::SIGTERM);
        testnet.netns
    });
    let whole = files.iter().map(LinesFile::lines);
    let lines: Vec<_> = whole.map(|text| parsed(whole_lines(&text))).collect();
    let told: Vec<_> = (0..=kills)
        .map(|agent| told_by(&lines[agent], agent, &storm, netns))
        .collect();
    let last = &lines[kills];
    let stop = last.last().unwrap();
    println!(
        "{kills} kills, {} attempts: {told:?} lines of each agent while it was live, {KEPT} joined late; {stop}",
        storm.attempts(),
    );
    assert_eq!(told[kills], storm.attempts_of(live_phase(kills)));
    assert_eq!(stop["type"], "stop");
    assert_eq!(stop["in_flight"], 0);
    assert_adds_up(stop);
    assert_eq!(count(last, "loss"), 0);
    assert_eq!(number(&stop["attempts"]), count(last, "outcome"));
}

/// Returns the phase in which only this agent was running.
fn live_phase(agent: usize) -> usize {
    2 * agent + 1
}

/// Counts an agent's lines for the attempts during its run. It has no attempt twice. It has those
/// that were under way before, and none of those that had ended.
fn told_by(lines: &[Value], agent: usize, storm: &Storm, netns: u32) -> usize {
    for phase in 0..live_phase(agent) {
        let told = lines_of(lines, phase, netns);
        // While it started there was a storm, too.
        let is_earlier = phase + 1 < live_phase(agent);
        assert!(
            told <= if is_earlier {
                THREADS
            } else {
                storm.attempts_of(phase)
            }
        );
    }
    let kept = lines
        .iter()
        .filter(|line| line["type"] == "outcome" && line["remote"]["port"] == ports::SILENT);
    let ids: HashSet<_> = kept
        .clone()
        .map(|line| line["attempt_id"].as_str())
        .collect();
    for line in kept {
        let said = [&line["seen"], &line["label"], &line["timeout_by"]];
        assert_eq!(
            said,
            ["joined_late", "timed_out", "application"],
            "{line:#}"
        );
    }
    let was_killed = agent == 0;
    assert_eq!(ids.len(), if was_killed { 0 } else { KEPT });
    let told = lines_of(lines, live_phase(agent), netns);
    assert!((1..=storm.attempts_of(live_phase(agent))).contains(&told));
    told
}

/// Begins attempts that never get an answer.
fn begin_silent() -> Vec<Socket> {
    let begin = |_| {
        let remote = (FAR_V4, ports::SILENT).into();
        let socket = tcp(remote);
        Attempted::begin(&socket, remote);
        socket
    };
    (0..KEPT).map(begin).collect()
}
