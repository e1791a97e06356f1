//! Overhead of tracing on an attempt, on a successful connection and on a system call.

use super::{
    measured::{Figure, Section},
    traced::{TracedAgent, lost},
    work::{ROUNDS, Workload, accepted_loop, getppid_loop, paired, per_round, refused_loop, timed},
};

/// Options of each measurement, and their meaning.
const OPTIONS: [(&[&str], &str); 3] = [
    (&[], "failures only"),
    (&["--all"], "`--all`"),
    (&["--port", "1"], "a filter that matches nothing"),
];

/// Paired rounds of a figure that has a target: more, for a ratio near 1 drowns in what
/// else a shared machine does.
const ROUNDS_OF_TARGET: usize = 4 * ROUNDS;

/// Limit of the default overhead, as traced / untraced time of one thread.
const REFUSED_RATIO_MAX: f64 = 1.08;
const ACCEPTED_RATIO_MAX: f64 = 1.03;

const TRACE_SYSCALLS: &[&str] = &["--trace-syscalls"];

pub(crate) fn connects() -> Section {
    let works: [(Workload, &str, f64); 2] = [
        (refused_loop, "refused on loopback", REFUSED_RATIO_MAX),
        (
            accepted_loop,
            "connect + accept + close",
            ACCEPTED_RATIO_MAX,
        ),
    ];
    let mut rows = Vec::new();
    for (work, name, ratio_max) in works {
        for threads in [1, 2] {
            for (options, meaning) in OPTIONS {
                let plural = if threads == 1 { "thread" } else { "threads" };
                let name = format!("{name}, {threads} {plural}, {meaning}");
                let target = (threads == 1 && options.is_empty()).then_some(ratio_max);
                rows.extend(loop_rows(&name, options, work, threads, target));
            }
        }
    }
    let about = format!(
        "{ROUNDS} paired rounds each, {ROUNDS_OF_TARGET} of what has a target, of about a tenth \
         of a second; every line goes to a file in memory. Both ends of a connection are on this \
         host, so that each costs twice."
    );
    Section {
        plotted: Some("ns added"),
        ..Section::new(
            "Added per attempt and per successful connection",
            about,
            rows,
        )
    }
}

pub(crate) fn syscalls() -> Section {
    let works: [(Workload, &str); 2] = [
        (getppid_loop, "20 system calls (getppid)"),
        (refused_loop, "refused on loopback"),
    ];
    let rows = works
        .into_iter()
        .flat_map(|(work, name)| loop_rows(name, TRACE_SYSCALLS, work, 1, None))
        .collect();
    let about = format!("{ROUNDS} paired rounds each, with `--trace-syscalls`.");
    Section::new("What `--trace-syscalls` adds", about, rows)
}

/// Rows of a loop: the overhead, its ratio, the untraced time, and the losses.
fn loop_rows(
    name: &str,
    options: &[&str],
    work: Workload,
    threads: u32,
    ratio_max: Option<f64>,
) -> Vec<Figure> {
    let mut missing = 0;
    let rounds = ratio_max.map_or(ROUNDS, |_| ROUNDS_OF_TARGET);
    let paired = conntrace_testnet::run("bench", |_| {
        let count = per_round(work, threads);
        let untraced = || timed(work, threads, count);
        paired(rounds, untraced, || {
            let mut tracer = TracedAgent::start(options);
            let ns = untraced();
            missing += lost(&tracer.stop());
            ns
        })
    })
    .unwrap();
    let ratio = Figure::spread(name, "traced / untraced", 3, paired.ratio);
    vec![
        Figure::spread(name, "ns added", 0, paired.added_ns),
        match ratio_max {
            Some(limit) => ratio.at_most(limit),
            None => ratio,
        },
        Figure::spread(name, "ns untraced", 0, paired.untraced_ns),
        Figure::number(name, "lost", 0, missing as f64).at_most(0.0),
    ]
}
