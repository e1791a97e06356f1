//! A million random attempts compared with the result that each application got. Ending, family,
//! options, threads, processes and timings are all random. The matrix of results and lines must be
//! diagonal.
//!
//! `cargo xtask million` runs all of them; by itself the test makes ten thousand. The
//! seed is printed: with `CONNTRACE_SEED` the same attempts are made again.

mod application;
mod matrix;
mod order;
mod plan;
mod worker;

use std::{
    collections::HashMap,
    env,
    fs::File,
    process::{Child, ExitCode},
    thread,
    time::Instant,
};

use conntrace_testnet::{self, Testnet};
use conntrace_tests::{
    AgentOutput, Dir, LinesFile, Thread, active_opens, assert_adds_up, live_test, run,
};
use fastrand::Rng;
use nix::sys::signal::Signal;

use application::now;
use matrix::Sums;
use order::{MillionOrder, OrderKind, WORKER};
use worker::PATIENCE;

/// Environment variable with the number of attempts: more than the default, or fewer on a slow
/// machine.
const ATTEMPTS: &str = "CONNTRACE_STORM";
const ATTEMPTS_DEFAULT: usize = 10_000;
const SEED: &str = "CONNTRACE_SEED";
/// Attempts that one agent sees: their lines are a file of 300 MB.
const ROUND_MAX: usize = 250_000;
/// Processes on each test network. The last one has a narrow range of ports.
const STAGES: [u16; 4] = [2, 2, 2, 1];
const THREADS: u16 = 8;

pub(crate) fn main() -> ExitCode {
    if let Ok(order) = env::var(WORKER) {
        worker::work(order.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    run(vec![live_test("diagonal", diagonal)])
}

fn diagonal() {
    let given = |name: &str| env::var(name).ok();
    let attempts = given(ATTEMPTS).map_or(ATTEMPTS_DEFAULT, |count| count.parse().unwrap());
    let seed = given(SEED).map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("{SEED}={seed} {ATTEMPTS}={attempts}");
    let began = Instant::now();
    let mut rng = Rng::with_seed(seed);
    let mut sums = Sums::default();
    let rounds = attempts.div_ceil(ROUND_MAX);
    for number in 1..=rounds {
        round(attempts.div_ceil(rounds), &mut rng, &mut sums);
        println!("round {number} of {rounds}: {:.0?}", began.elapsed());
    }
    println!("{sums}");
    sums.assert_diagonal();
}

/// A call to connect, as a worker printed it.
pub(crate) struct PrintedCall {
    from: u64,
    to: u64,
    remote: String,
    how: String,
    told: String,
}

/// State of a test network after a run.
struct MillionRun {
    netns: u32,
    /// Keeps the namespace, so that its number is not reused.
    _namespace: File,
    /// Start of the namespace. Earlier lines belong to another one with the same number.
    began: u64,
    /// Growth of the kernel's own count of SYNs.
    active_opens: u64,
    calls: HashMap<Thread, Vec<PrintedCall>>,
}

fn round(attempts: usize, rng: &mut Rng, sums: &mut Sums) {
    let threads = usize::from(STAGES.iter().sum::<u16>() * THREADS);
    let dir = Dir::new("million");
    let lines = LinesFile::new(&dir.0);
    let patience = PATIENCE.as_millis().to_string();
    let tracer = lines.run(&["--all", "--no-stalls", "--patience", &patience]);
    let mut orders = |testnet: usize, processes| {
        let narrow = testnet + 1 == STAGES.len();
        let order = |process| MillionOrder {
            kind: if narrow {
                OrderKind::Narrow
            } else {
                OrderKind::Wide
            },
            seed: rng.u64(..),
            threads: THREADS,
            attempts: attempts.div_ceil(threads),
            first_thread: process * THREADS,
        };
        (0..processes).map(order).collect::<Vec<_>>()
    };
    let stages = STAGES.into_iter().enumerate();
    let orders: Vec<_> = stages
        .map(|(testnet, count)| orders(testnet, count))
        .collect();
    let mut played: Vec<MillionRun> = thread::scope(|scope| {
        let play = |orders| scope.spawn(move || play(orders));
        let stages: Vec<_> = orders.iter().map(|orders| play(orders)).collect();
        let played = stages.into_iter().map(|testnet| testnet.join().unwrap());
        played.collect()
    });
    tracer.stop(Signal::SIGTERM);
    compare(&mut played, AgentOutput::read(lines.path()), sums);
}

fn play(orders: &[MillionOrder]) -> MillionRun {
    let on_stage = |testnet: &Testnet| {
        testnet.far.as_ref().expect("a stage with a far end");
        // Below the ports that are bound; enough for all that are under way.
        let range = match orders[0].kind {
            OrderKind::Narrow => "40000 40001",
            OrderKind::Wide | OrderKind::Single => "1024 44999",
        };
        for (name, value) in [("ip_local_port_range", range), ("tcp_syn_retries", "1")] {
            let name = format!("net/ipv4/{name}");
            testnet.set_sysctl(&name, value).unwrap();
        }
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        let began = now();
        let before = active_opens();
        let workers: Vec<_> = orders.iter().map(|order| order.start()).collect();
        let mut calls = HashMap::new();
        for worker in workers {
            collect(worker, testnet.netns, &mut calls);
        }
        MillionRun {
            netns: testnet.netns,
            _namespace: namespace,
            began,
            active_opens: active_opens() - before,
            calls,
        }
    };
    conntrace_testnet::run("million", on_stage).expect("a stage")
}

fn collect(worker: Child, netns: u32, calls: &mut HashMap<Thread, Vec<PrintedCall>>) {
    let output = worker.wait_with_output().unwrap();
    assert!(output.status.success());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let [tid, from, to, remote, how, told] = line.splitn(6, ' ').collect::<Vec<_>>()[..] else {
            panic!("six parts, not {line:?}");
        };
        let call = PrintedCall {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            remote: remote.to_owned(),
            how: how.to_owned(),
            told: told.to_owned(),
        };
        let thread = (netns, tid.parse().unwrap());
        calls.entry(thread).or_default().push(call);
    }
}

/// Checks that every call has one line that began while it ran, in its thread.
fn compare(played: &mut [MillionRun], mut written: AgentOutput, sums: &mut Sums) {
    println!("{}", written.stop);
    let missed = written.missed();
    let mut unseen = 0;
    for testnet in played {
        unseen += testnet.active_opens;
        for (thread, calls) in &mut testnet.calls {
            calls.sort_by_key(|call| call.from);
            let lines = written.outcomes.remove(thread).unwrap_or_default();
            unseen -= lines.iter().filter(|line| line.syn_sent).count() as u64;
            sums.compare(calls, lines);
        }
        let others = written
            .outcomes
            .extract_if(|thread, _| thread.0 == testnet.netns)
            .map(|(_, lines)| lines);
        for lines in others {
            let since = lines.into_iter().filter(|line| line.began >= testnet.began);
            sums.compare(&[], since.collect());
        }
    }
    sums.missed += missed;
    assert_eq!(unseen, missed as u64, "TcpActiveOpens without a line");
    assert!(written.losses <= missed, "{} losses", written.losses);
    assert_eq!(written.stop["in_flight"], 0);
    assert_adds_up(&written.stop);
}
