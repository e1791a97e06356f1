//! Highest rate of failures that is reported without loss, and the cost of a million.

use std::time::{Duration, Instant};

use super::{
    measured::{Figure, Section},
    memory::{Memory, MemoryWatch},
    traced::{TracedAgent, counted, cpu_seconds, lost},
    work::refused_loop,
};

/// Duration of each try.
const LASTS: Duration = Duration::from_secs(5);
/// Failures between two checks of the clock.
const PIECE: u32 = 100;
/// Percentage of the rate that the next try makes after lines were lost.
const SLOWER: u64 = 85;
/// Lowest rate that is tried, in failures per second.
const RATE_MIN: u64 = 1_000;

/// Limit of memory in proportion (PSS) at default sizes, in MB.
const PSS_MB_MAX: f64 = 20.0;
/// Interval between two looks at the memory.
const LOOKS: Duration = Duration::from_millis(50);

/// Result of one try.
struct Tried {
    attempts: u64,
    per_second: u64,
    lost: u64,
    cpu_seconds: f64,
    most: Memory,
    bytes: u64,
    causes_unknown: u64,
}

pub(crate) fn failures() -> Section {
    let about = format!(
        "Refused on loopback for {} s, every line with its cause into a file in memory. `one \
         thread` is what one CPU can produce; where lines were lost, the rate was lowered until \
         none was.",
        LASTS.as_secs()
    );
    let rows = [(1, "one thread"), (2, "two threads")];
    let rows = rows
        .into_iter()
        .flat_map(|(threads, name)| load_rows(threads, name));
    Section::new("Failures without loss", about, rows.collect())
}

fn load_rows(threads: u32, name: &str) -> Vec<Figure> {
    let unpaced = attempted(threads, None);
    let mut rows = vec![
        Figure::number(
            format!("{name}, as fast as it can"),
            "a second",
            0,
            unpaced.per_second as f64,
        ),
        Figure::number(
            format!("{name}: lost at that rate"),
            "lost",
            0,
            unpaced.lost as f64,
        )
        .at_most(0.0),
    ];
    let mut most = unpaced.per_second;
    let mut lossless = (unpaced.lost == 0).then_some(unpaced.per_second);
    while lossless.is_none() && most > RATE_MIN {
        most = most * SLOWER / 100;
        let paced = attempted(threads, Some(most));
        lossless = (paced.lost == 0).then_some(paced.per_second);
    }
    rows.push(match lossless {
        Some(rate) => Figure::number(
            format!("{name}: most without loss"),
            "a second",
            0,
            rate as f64,
        ),
        None => Figure::not_run(
            format!("{name}: most without loss"),
            "lines were lost at every rate",
        ),
    });
    let million = unpaced.attempts as f64 / 1e6;
    let written = (unpaced.attempts - unpaced.lost) as f64;
    let unknown = unpaced.causes_unknown as f64;
    let [pss, private] = unpaced.most.rows(&format!("{name}: most memory"));
    rows.extend([
        Figure::number(
            format!("{name}: CPU of the agent per million"),
            "s",
            2,
            unpaced.cpu_seconds / million,
        ),
        pss.at_most(PSS_MB_MAX),
        private,
        Figure::number(
            format!("{name}: output per event"),
            "bytes",
            0,
            unpaced.bytes as f64 / written,
        ),
        Figure::number(format!("{name}: `undiagnosed`"), "", 0, unknown),
    ]);
    rows
}

/// Makes failures on this many threads, with the given limit of their total rate.
fn attempted(threads: u32, rate: Option<u64>) -> Tried {
    conntrace_testnet::run("bench", |_| {
        let mut tracer = TracedAgent::start(&[]);
        let watch = MemoryWatch::start(tracer.pid(), LOOKS);
        let before = (cpu_seconds(tracer.pid()), tracer.bytes());
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| paced(rate.map(|rate| rate / u64::from(threads))));
            }
        });
        let took = began.elapsed().as_secs_f64();
        // What is still in the ring is written within some naps.
        std::thread::sleep(Duration::from_millis(500));
        let (pid, bytes) = (tracer.pid(), tracer.bytes());
        let (cpu_seconds, most) = (cpu_seconds(pid) - before.0, watch.most());
        let stop = tracer.stop();
        let lost = lost(&stop);
        // Activity of the rest of the host is not counted.
        let attempts = stop["outcomes"]["refused"].as_u64().unwrap() + lost;
        Tried {
            attempts,
            per_second: whole(attempts as f64 / took),
            lost,
            cpu_seconds,
            most,
            bytes: bytes - before.1,
            causes_unknown: counted(&stop["undiagnosed"]),
        }
    })
    .unwrap()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate: positive, and far from the limits"
)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

fn paced(rate: Option<u64>) {
    let began = Instant::now();
    let mut made = 0u32;
    while began.elapsed() < LASTS {
        refused_loop(PIECE);
        made += PIECE;
        let Some(rate) = rate else { continue };
        let due = began + Duration::from_secs_f64(f64::from(made) / rate as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}
