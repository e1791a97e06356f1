//! Latency from the application's errno to a readable line.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::conntrace;

use super::{
    measured::{Figure, Section, Spread},
    work::refused_loop,
};

/// Failures per second, and their total number.
const RATES: [(u32, u32); 3] = [(1, 60), (100, 2_000), (10_000, 100_000)];
/// Time limit for the last line to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn latency() -> Section {
    let rows = RATES
        .into_iter()
        .flat_map(|(rate, count)| latency_rows(rate, count));
    let about = "One thread is refused on loopback at this rate; the lines are read from a pipe. \
                 At one a second each is the first after quiet.";
    Section::new("Until the line is readable", about, rows.collect())
}

fn latency_rows(rate: u32, count: u32) -> Vec<Figure> {
    let name = format!("at {rate} a second");
    let Some(samples) = delays_ms(rate, count) else {
        return vec![Figure::not_run(
            name,
            "lines were lost: it is not known whose a line is",
        )];
    };
    let spread = Spread::of(samples);
    let late = spread.percentile(99);
    vec![
        Figure::spread(format!("{name}: {count} lines"), "ms", 3, spread),
        Figure::number(format!("{name}: 99 of 100 within"), "ms", 3, late),
    ]
}

/// Returns the milliseconds that each line took, or none if some are missing. One thread's lines
/// come in the order of its attempts.
fn delays_ms(rate: u32, count: u32) -> Option<Vec<f64>> {
    conntrace_testnet::run("bench", |testnet| {
        let netns = testnet.netns.to_string();
        let mut child = conntrace()
            .args(["--format", "json", "--summary", "0", "--netns", &netns])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        let reader = thread::spawn(move || {
            let readable = lines
                .map_while(Result::ok)
                .map(|line| (line, Instant::now()));
            let outcomes = readable.filter(|(line, _)| line.contains("\"type\":\"outcome\""));
            let at = outcomes.map(|(_, at)| at);
            at.take(count as usize).collect::<Vec<_>>()
        });
        let told = refusals(rate, count);
        let until = Instant::now() + PATIENCE;
        while !reader.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let readable = reader.join().unwrap();
        let ms = |(at, told): (&Instant, &Instant)| {
            at.saturating_duration_since(*told).as_secs_f64() * 1e3
        };
        (readable.len() == told.len()).then(|| readable.iter().zip(&told).map(ms).collect())
    })
    .unwrap()
}

/// Returns the time at which the application got each refusal.
fn refusals(rate: u32, count: u32) -> Vec<Instant> {
    let began = Instant::now();
    (0..count)
        .map(|made| {
            let due = began + Duration::from_secs(1) * made / rate;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            refused_loop(1);
            Instant::now()
        })
        .collect()
}
