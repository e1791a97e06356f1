//! Cost of a record in userspace, for each step and in total.
//!
//! A plain timed loop is enough of a harness: the steps are pure functions of recorded records, and
//! only the medians of rounds are needed.

use std::{
    fs::{self, File},
    hint::black_box,
    io::{self, BufReader},
    thread,
    time::{Duration, Instant},
};

use conntrace::{
    diagnosis::DiagnosisResult,
    host::host_name,
    output::{
        Format as _, Json, Output, Text, event,
        event::{Event, Owner},
    },
    pipeline::{Labelling, Worker},
    record,
    record::{Attempt, CompleteRecord, Label, Verdict, label},
    recording::{Entry, RecordingReader},
};
use jiff::Timestamp;

use super::{
    measured::{Figure, Section, Spread},
    traced::{TracedAgent, temporary},
    work::{ROUNDS, refused_loop},
};

/// Records of a round, as many as half a ring holds.
const RECORDS: usize = 16_384;
/// Records whose lines are handed over together.
const TURN: usize = 256;
const PATIENCE_MS: u64 = 200;
/// Target of the whole path to JSON bytes, on one CPU, in records per second.
const PER_SECOND_MIN: f64 = 400_000.0;

pub(crate) fn userspace() -> Section {
    let records = recorded();
    let mut rows = stages(&records);
    let batches = worker_ns(&records);
    let per_second = 1e9 / batches.median();
    rows.push(Figure::spread(
        "all: the worker, a record to JSON bytes",
        "ns",
        0,
        batches,
    ));
    rows.push(
        Figure::number(
            "records a second on one CPU, through to JSON bytes",
            "a second",
            0,
            per_second,
        )
        .at_least(PER_SECOND_MIN),
    );
    let about = format!(
        "{ROUNDS} rounds over {RECORDS} records of refused attempts as `--record` keeps them; \
         everything cached is warm, as in a storm of one kind. A plain timed loop."
    );
    Section {
        plotted: Some("ns"),
        ..Section::new("A record in userspace", about, rows)
    }
}

/// Returns complete records of refused attempts of this process.
fn recorded() -> Vec<CompleteRecord> {
    let path = temporary("recording");
    let to_file = path.to_str().unwrap();
    conntrace_testnet::run("bench", |_| {
        let mut tracer = TracedAgent::start(&["--record", to_file]);
        refused_loop(u32::try_from(RECORDS).unwrap());
        tracer.stop();
    })
    .unwrap();
    let mut reader = RecordingReader::new(BufReader::new(File::open(&path).unwrap())).unwrap();
    fs::remove_file(&path).unwrap();
    let mut records = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        if let Entry::Record(record) = entry {
            records.push(record);
        }
    }
    let refused = |record: &CompleteRecord| {
        let verdict = label(&record::decode(record).unwrap(), PATIENCE_MS);
        verdict.is_some_and(|verdict| verdict.label == Label::Refused)
    };
    records.retain(refused);
    assert!(records.len() >= RECORDS / 2, "{} records", records.len());
    records
}

fn stages(records: &[CompleteRecord]) -> Vec<Figure> {
    let attempts: Vec<Attempt> = records
        .iter()
        .map(|it| record::decode(it).unwrap())
        .collect();
    let labelled: Vec<(&Attempt, Verdict)> = attempts
        .iter()
        .map(|attempt| (attempt, label(attempt, PATIENCE_MS).unwrap()))
        .collect();
    let owner = Owner {
        exe: Some("/usr/bin/curl".into()),
        cgroup: Some("/system.slice/app.service".into()),
        container: None,
    };
    let host = host_name();
    let times = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    let made = |(attempt, verdict): &(&Attempt, Verdict)| {
        let (owner, undiagnosed) = (owner.clone(), DiagnosisResult::default());
        event::outcome(attempt, verdict, times, owner, undiagnosed, &host)
    };
    let lines: Vec<_> = labelled.iter().map(made).collect();
    let line = lines[0].line();
    let (mut json, mut out) = (Json::default(), Vec::new());
    // As on a terminal of the usual width. No two lines are equal, so that none is folded and
    // each has its `fix`.
    let (mut text, mut shown) = (Text::for_terminal(Some(80), true, true), Vec::new());
    let of_port = |port| {
        let mut line = line.clone();
        if let Event::Outcome(outcome) = &mut line.event {
            outcome.subject.remote.port = Some(port);
        }
        line
    };
    let others: Vec<_> = (0..u16::try_from(RECORDS).unwrap()).map(of_port).collect();
    vec![
        stage_row("decode", records, |record| {
            drop(black_box(record::decode(record)));
        }),
        stage_row("label", &attempts, |attempt| {
            black_box(label(attempt, PATIENCE_MS));
        }),
        stage_row("line's content", &labelled, |labelled| {
            drop(black_box(made(labelled)));
        }),
        stage_row("JSON, known case", &lines, |line| {
            out.clear();
            json.attempt(black_box(line), &mut out).unwrap();
        }),
        stage_row("JSON, new case", &lines, |attempt| {
            out.clear();
            json.render(&black_box(attempt).line(), &mut out).unwrap();
        }),
        stage_row("text, known case", &lines, |line| {
            shown.clear();
            text.attempt(black_box(line), &mut shown).unwrap();
        }),
        stage_row("text, of failures that differ", &others, |line| {
            shown.clear();
            text.render(black_box(line), &mut shown).unwrap();
        }),
    ]
}

/// Measures nanoseconds per item, as a median per round.
fn stage_row<T>(name: &str, all: &[T], mut each: impl FnMut(&T)) -> Figure {
    let mut round = || {
        let began = Instant::now();
        all.iter().for_each(&mut each);
        began.elapsed().as_secs_f64() * 1e9 / all.len() as f64
    };
    round();
    let spread = Spread::of((0..ROUNDS).map(|_| round()).collect());
    Figure::spread(name, "ns", 0, spread)
}

/// Measures nanoseconds per record of the worker itself, round by round.
fn worker_ns(records: &[CompleteRecord]) -> Spread {
    let labelling = Labelling {
        patience_ms: PATIENCE_MS,
        labels: vec![Label::Refused],
        stalls: true,
        limit: None,
        causes: true,
        explained: true,
        taken_ports: true,
    };
    let output = Output::direct(Box::new(Json::default()), io::sink());
    let mut worker = Worker::new(output, labelling, Duration::from_secs(1), None);
    let mut round = || {
        let began = Instant::now();
        for few in records.chunks(TURN) {
            worker.follow_clock();
            let now = Instant::now();
            for record in few {
                worker.record(record, now).unwrap();
            }
            worker.settle(Instant::now()).unwrap();
            worker.hand_over().unwrap();
        }
        began.elapsed().as_secs_f64() * 1e9 / records.len() as f64
    };
    // As it runs: a thread of its own. The first round only warms up.
    thread::scope(|scope| {
        let rounds = scope.spawn(|| {
            round();
            (0..ROUNDS).map(|_| round()).collect()
        });
        Spread::of(rounds.join().unwrap())
    })
}
