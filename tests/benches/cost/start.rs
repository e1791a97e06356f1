//! Duration of the start, and its memory.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::conntrace;

use super::{
    measured::{Figure, Section, Spread},
    traced::{maps_mb, peak_mb, resident_mb},
    work::ROUNDS,
};

/// Limit from exec to the `start` line, in milliseconds.
const START_MS_MAX: f64 = 100.0;
/// Limit of resident memory at default sizes, in MB.
const RESIDENT_MB_MAX: f64 = 20.0;
/// Pause until the start has settled.
const SETTLED: Duration = Duration::from_millis(300);

/// Results of a start: milliseconds until the line, peak and settled resident memory, and memory of
/// the maps.
type Started = [f64; 4];

pub(crate) fn start() -> Section {
    let all: Vec<Started> = (0..ROUNDS).map(|_| started()).collect();
    let spread = |at: usize| Spread::of(all.iter().map(|it| it[at]).collect());
    let rows = vec![
        Figure::spread("until the `start` line is readable", "ms", 1, spread(0))
            .at_most(START_MS_MAX),
        Figure::spread("most resident memory", "MB", 1, spread(1)).at_most(RESIDENT_MB_MAX),
        Figure::spread("resident memory, once started", "MB", 1, spread(2))
            .at_most(RESIDENT_MB_MAX),
        Figure::spread("memory of the kernel's for its maps", "MB", 1, spread(3)),
    ];
    let about = format!("{ROUNDS} starts with default options, output to a pipe.");
    Section::new("The start", about, rows)
}

fn started() -> Started {
    let mut command = conntrace();
    command.args(["--format", "json"]).stdout(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    let took = began.elapsed();
    assert!(line.contains("\"type\":\"start\""), "{line}");
    thread::sleep(SETTLED);
    let pid = child.id();
    let memory = [peak_mb(pid), resident_mb(pid), maps_mb(pid)];
    child.kill().unwrap();
    child.wait().unwrap();
    let [peak, settled, maps] = memory;
    [took.as_secs_f64() * 1e3, peak, settled, maps]
}
