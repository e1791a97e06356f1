use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use serde_json::Value;

use crate::{
    output::{
        Destination, Json, Output,
        event::{Event, tests::start_line},
    },
    pipeline::*,
    record::{Comm, Counters, Holding, Label, WireRecord, decode::tests::refused},
    sys::{Backlog, MissedAnswers, MissedDrops},
};

/// Number of records that fit the ring, while their lines exceed a pipe.
const MANY: usize = 40_000;

/// Ring filled by a test.
struct Ring {
    records: Arc<Mutex<Vec<Vec<u8>>>>,
    filled: EventFd,
    counters: Arc<Mutex<Counters>>,
    detached: Arc<AtomicBool>,
    holders: Vec<Holding>,
}

impl Ring {
    fn of(records: Vec<Vec<u8>>) -> Self {
        let counters = Counters {
            attempts: records.len() as u64,
            endings: records.len() as u64,
            ..Counters::default()
        };
        // Stays readable until the reader has emptied the ring.
        let filled = EventFd::from_value_and_flags(1, EfdFlags::EFD_NONBLOCK).unwrap();
        Self {
            records: Arc::new(Mutex::new(records)),
            filled,
            counters: Arc::new(Mutex::new(counters)),
            detached: Arc::default(),
            holders: Vec::new(),
        }
    }
}

impl Source for Ring {
    fn drain(&mut self, max: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut records = self.records.lock().unwrap();
        let taken = records.len().min(max);
        records.drain(..taken).for_each(|record| each(&record));
        if records.is_empty() {
            let _ = self.filled.read();
        }
        taken
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [Some(self.filled.as_fd()), None]
    }

    fn backlog(&self) -> Backlog {
        Backlog::default()
    }

    fn missed_answers(&self) -> MissedAnswers {
        MissedAnswers::none()
    }

    fn missed_drops(&self) -> MissedDrops {
        MissedDrops::default()
    }

    fn set_sleeping(&self, _sleeps: bool) {}

    fn counters(&mut self) -> io::Result<Counters> {
        Ok(*self.counters.lock().unwrap())
    }

    fn in_map(&self) -> io::Result<u64> {
        Ok(self.holders.len() as u64)
    }

    fn holders(&self) -> io::Result<Vec<Holding>> {
        Ok(self.holders.clone())
    }

    fn detach(&mut self) {
        self.detached.store(true, Ordering::Relaxed);
    }
}

fn config() -> Config {
    let Event::Start(start) = start_line().event else {
        panic!("a start line");
    };
    Config {
        start,
        labelling: Labelling {
            patience_ms: 200,
            labels: vec![Label::Refused],
            stalls: true,
            limit: None,
            causes: false,
            explained: true,
            taken_ports: true,
        },
        diagnosis_timeout: Duration::from_secs(1),
        drops_privileges: false,
        summary_every: None,
        recorder: None,
        service: None,
    }
}

/// Record of a refused attempt as the kernel side writes it.
fn wire() -> Vec<u8> {
    refused()[..size_of::<WireRecord>()].to_vec()
}

fn many() -> Vec<Vec<u8>> {
    (0..MANY).map(|_| wire()).collect()
}

/// Runs until the ring is drained and `then` has finished.
fn run_until(ring: Ring, to: File, then: impl Future<Output = ()>) -> Result<Totals, AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let left = Arc::clone(&ring.records);
    let detached = Arc::clone(&ring.detached);
    let stop = async {
        while !left.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        then.await;
        "test"
    };
    let destination = Destination::open_file(to).unwrap();
    let way = Output::queued(Box::new(Json::default()), destination);
    let totals = runtime.block_on(run(ring, way, config(), stop));
    assert!(detached.load(Ordering::Relaxed));
    totals
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of_type<'a>(lines: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["type"] == kind)
}

async fn nothing() {}

/// Returns all lines, as a reader that keeps up gets them, and the totals.
fn read_all(ring: Ring) -> (Vec<Value>, Totals) {
    let (mut reader, writer) = io::pipe().unwrap();
    let read = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    let totals = run_until(
        ring,
        File::from(std::os::fd::OwnedFd::from(writer)),
        nothing(),
    );
    (lines(&read.join().unwrap()), totals.unwrap())
}

#[test]
fn a_full_ring_becomes_lines_and_none_is_lost() {
    let (lines, totals) = read_all(Ring::of(many()));
    assert_eq!(of_type(&lines, "outcome").count(), MANY);
    assert_eq!(totals.outcomes[&Label::Refused], MANY as u64);
    assert_eq!(totals.undelivered.output, 0);
    assert_eq!(lines.first().unwrap()["type"], "start");
    assert_eq!(lines.last().unwrap()["type"], "stop");
}

/// A record of another length cannot be decoded, but its ending is counted.
#[test]
fn short_records_are_malformed() {
    let mut records = vec![vec![1, 2, 3], wire()];
    records.push(vec![7; wire().len()]);
    let (lines, totals) = read_all(Ring::of(records));
    assert_eq!(totals.lost.malformed, 2);
    assert_eq!(totals.attempts, totals.lost.sum() + 1);
    assert_eq!(totals.in_flight, 0);
    assert_eq!(lines.last().unwrap()["lost"]["malformed"], 2);
}

/// The last snapshot names who holds the table, with a name that JSON has to escape.
#[test]
fn the_holder_of_the_table_is_named() {
    let holding = |uid, pid| Holding {
        uid,
        pid,
        cgroup_id: 0,
        leader_comm: Comm::of(*b"fill\n\xff\0 not this"),
    };
    let mut ring = Ring::of(vec![wire()]);
    ring.holders = vec![holding(65_534, 7), holding(0, 1), holding(65_534, 8)];
    *ring.counters.lock().unwrap() = Counters {
        attempts: 4,
        endings: 1,
        not_admitted: 5,
        ..Counters::default()
    };
    let (lines, totals) = read_all(ring);
    let [loss] = of_type(&lines, "loss").collect::<Vec<_>>()[..] else {
        panic!("one loss, got {lines:#?}");
    };
    assert_eq!(loss["table"]["held"], 3);
    assert_eq!(loss["table"]["not_admitted"], 5);
    let top = &loss["table"]["top"];
    assert_eq!(top["uid"], 65_534);
    assert_eq!(top["attempts"], 2);
    assert_eq!(top["of_process"], 1);
    assert_eq!(top["comm"], "fill\n\u{fffd}");
    assert_eq!(loss["lost"], serde_json::json!({}));
    assert_eq!((totals.in_flight, totals.lost.sum()), (3, 0));
}

/// Without a reader of the output, the ring is drained and lines without room are counted. Once
/// somebody reads, the rest arrives, and a line reports the loss.
#[test]
fn a_blocked_output_blocks_nobody() {
    let (reader, writer) = io::pipe().unwrap();
    let ring = Ring::of(many());
    let (left, counters) = (Arc::clone(&ring.records), Arc::clone(&ring.counters));
    let began = Instant::now();
    let read = Arc::new(Mutex::new(String::new()));
    let text = Arc::clone(&read);
    let reading = async move {
        // The queue holds all of these lines, but not twice as many more.
        for _ in 0..2 {
            *counters.lock().unwrap() = Counters {
                attempts: counters.lock().map_or(0, |c| c.attempts) + MANY as u64,
                endings: 0,
                ..Counters::default()
            };
            *left.lock().unwrap() = many();
            while !left.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        thread::spawn(move || {
            let mut reader = reader;
            let mut all = String::new();
            reader.read_to_string(&mut all).unwrap();
            *text.lock().unwrap() = all;
        });
        // A loss is reported within a second of the output having room.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    };
    let to = File::from(std::os::fd::OwnedFd::from(writer));
    let totals = run_until(ring, to, reading).unwrap();
    assert!(began.elapsed() < Duration::from_secs(60));
    let until = Instant::now() + Duration::from_secs(10);
    while read.lock().unwrap().is_empty() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let lines = lines(&read.lock().unwrap());
    let undelivered = totals.undelivered.output;
    let outcomes = of_type(&lines, "outcome").count() as u64;
    assert!(undelivered > 0, "{totals:?}");
    assert_eq!(outcomes + undelivered, totals.outcomes[&Label::Refused]);
    let reported =
        of_type(&lines, "loss").map(|line| line["undelivered"]["output"].as_u64().unwrap());
    assert_eq!(reported.sum::<u64>(), undelivered);
    let stop = lines.last().unwrap();
    assert_eq!(stop["undelivered"]["output"], undelivered);
    assert_eq!(stop["type"], "stop");
}

/// A closed output ends the run without an error.
#[test]
fn a_closed_output_ends_it() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let to = File::from(std::os::fd::OwnedFd::from(writer));
    let ended = run_until(Ring::of(many()), to, std::future::pending());
    assert!(ended.unwrap_err().is_closed_output());
}

/// Writes to a full device are not retried: it is not a regular file.
#[test]
fn an_output_that_fails_ends_it_with_its_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ended = run_until(Ring::of(many()), full, std::future::pending());
    let error = anyhow::Error::from(ended.unwrap_err());
    let message = format!("{error:#}");
    assert!(
        message.contains("cannot write lines to stdout: No space"),
        "{message}"
    );
}

/// An output that is never read ends the run with an error.
#[test]
fn a_stuck_output_does_not_hold_up_the_end_for_ever() {
    let (_reader, writer) = io::pipe().unwrap();
    let to = File::from(std::os::fd::OwnedFd::from(writer));
    let began = Instant::now();
    let ended = run_until(Ring::of(many()), to, nothing());
    assert!(
        matches!(ended, Err(AgentError::OutputStuck(lines)) if lines > 39_000),
        "{ended:?}"
    );
    assert!(began.elapsed() < STOP_MAX * 2);
}
