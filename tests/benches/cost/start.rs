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
    memory::{Memory, MemoryWatch},
    traced::maps_mb,
    work::ROUNDS,
};

/// Limit from exec to the `start` line, in milliseconds.
const START_MS_MAX: f64 = 80.0;
/// Limit of memory in proportion (PSS) at default sizes, in MB.
const PSS_MB_MAX: f64 = 20.0;
/// Pause until the start has settled.
const SETTLED: Duration = Duration::from_millis(300);
/// Starts at which the memory is watched, which slows them down, and the interval of the looks.
const WATCHED: usize = 5;
const LOOKS: Duration = Duration::from_millis(2);

/// Results of a start.
struct Started {
    ms: f64,
    settled: Memory,
    maps_mb: f64,
    /// None if nobody watched.
    most: Option<Memory>,
}

pub(crate) fn start() -> Section {
    let all: Vec<_> = (0..ROUNDS).map(|_| started(false)).collect();
    let watched = (0..WATCHED).filter_map(|_| started(true).most);
    let most = watched.fold(Memory::default(), Memory::max);
    let spread = |of: fn(&Started) -> f64| Spread::of(all.iter().map(of).collect());
    let mut rows = vec![
        Figure::spread(
            "until the `start` line is readable",
            "ms",
            1,
            spread(|it| it.ms),
        )
        .at_most(START_MS_MAX),
        Figure::spread(
            "memory once started, PSS",
            "MB",
            1,
            spread(|it| it.settled.pss_mb),
        )
        .at_most(PSS_MB_MAX),
        Figure::spread(
            "memory once started, private",
            "MB",
            1,
            spread(|it| it.settled.private_mb),
        ),
        Figure::spread(
            "memory of the kernel's for its maps",
            "MB",
            1,
            spread(|it| it.maps_mb),
        ),
    ];
    rows.extend(most.rows("most memory until it had settled"));
    let about = format!(
        "{ROUNDS} starts with default options, output to a pipe. The most memory is that of \
         {WATCHED} others, looked at every {} ms.",
        LOOKS.as_millis()
    );
    Section::new("The start", about, rows)
}

fn started(is_watched: bool) -> Started {
    let mut command = conntrace();
    command.args(["--format", "json"]).stdout(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let pid = child.id();
    let watch = is_watched.then(|| MemoryWatch::start(pid, LOOKS));
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    let took = began.elapsed();
    assert!(line.contains("\"type\":\"start\""), "{line}");
    thread::sleep(SETTLED);
    let started = Started {
        ms: took.as_secs_f64() * 1e3,
        settled: Memory::of(pid).unwrap(),
        maps_mb: maps_mb(pid),
        most: watch.map(MemoryWatch::most),
    };
    child.kill().unwrap();
    child.wait().unwrap();
    started
}
