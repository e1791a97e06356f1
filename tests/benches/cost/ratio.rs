//! Overhead of tracing on an attempt, on a successful connection and on a system call.

use super::{
    measured::{Figure, Section},
    traced::{TracedAgent, lost},
    work::{
        ROUNDS, Workload, closed_loop, forget_closed, getppid_loop, paired, per_round,
        refused_loop, reset_loop, timed,
    },
};

/// Options of each measurement, and their meaning.
const OPTIONS: [(&[&str], &str); 3] = [
    (&[], "failures only"),
    (&["--all"], "`--all`"),
    (&["--port", "1"], "a filter that matches nothing"),
];

const TRACE_SYSCALLS: &[&str] = &["--trace-syscalls"];

/// Workload with its name, its ends on this host, and its close.
type Loop = (Workload, &'static str, &'static str);

const LOOPS: [Loop; 3] = [
    (refused_loop, "refused on loopback", "both ends, refused"),
    (
        reset_loop,
        "connect + accept + close by RST",
        "both ends, RST",
    ),
    (
        closed_loop,
        "connect + accept + ordinary close",
        "both ends, FIN",
    ),
];

pub(crate) fn connects() -> Section {
    let mut rows = Vec::new();
    for (work, name, ends) in LOOPS {
        for threads in [1, 2] {
            for (options, meaning) in OPTIONS {
                let plural = if threads == 1 { "thread" } else { "threads" };
                let name = format!("{name}, {threads} {plural}, {meaning}");
                rows.extend(loop_rows(&name, ends, options, work, threads));
            }
        }
    }
    let about = format!(
        "{ROUNDS} paired rounds each, of about a tenth of a second; every line goes to a file in \
         memory. Both ends of a connection are on this host, so that each costs twice. Where a \
         difference is within its interval, it is noise."
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
    let works: [Loop; 2] = [
        (getppid_loop, "20 system calls (getppid)", "no connection"),
        (refused_loop, "refused on loopback", "both ends, refused"),
    ];
    let rows = works
        .into_iter()
        .flat_map(|(work, name, ends)| loop_rows(name, ends, TRACE_SYSCALLS, work, 1))
        .collect();
    let about = format!("{ROUNDS} paired rounds each, with `--trace-syscalls`.");
    Section::new("What `--trace-syscalls` adds", about, rows)
}

/// Rows of a loop: the overhead, its ratio, the untraced time, and the losses.
fn loop_rows(
    name: &str,
    ends: &str,
    options: &[&str],
    work: Workload,
    threads: u32,
) -> Vec<Figure> {
    let (mut missing, mut tier) = (0, String::new());
    let paired = conntrace_testnet::run("bench", |testnet| {
        forget_closed(testnet);
        let count = per_round(work, threads);
        let untraced = || timed(work, threads, count);
        paired(ROUNDS, untraced, || {
            let mut tracer = TracedAgent::start(options);
            let ns = untraced();
            missing += lost(&tracer.stop());
            tier = tracer.tier();
            ns
        })
    })
    .unwrap();
    let ran = format!("{ends}, `{tier}`");
    let rows = [
        Figure::spread(name, "ns added", 0, paired.added_ns),
        Figure::spread(name, "traced / untraced", 3, paired.ratio),
        Figure::spread(name, "ns untraced", 0, paired.untraced_ns),
        Figure::number(name, "lost", 0, missing as f64).at_most(0.0),
    ];
    rows.map(|row| row.ran(&ran)).into()
}
