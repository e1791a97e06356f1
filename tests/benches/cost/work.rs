//! Workloads to trace, and their timing.

use std::{
    io::Read as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::Testnet;
use socket2::Socket;

use super::measured::Spread;

/// Number of paired rounds of a figure.
pub(crate) const ROUNDS: usize = 30;
/// Approximate duration of a round.
const ROUND: Duration = Duration::from_millis(100);

/// Function that does something that many times.
pub(crate) type Workload = fn(u32);

/// One thread connects to a closed port of its own host.
pub(crate) fn refused_loop(count: u32) {
    for _ in 0..count {
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, 9));
    }
}

/// One thread connects to itself, accepts, closes both: the kinder close, by RST.
pub(crate) fn reset_loop(count: u32) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    for _ in 0..count {
        let client = TcpStream::connect(addr).unwrap();
        let (server, _) = listener.accept().unwrap();
        // A reset leaves no TIME_WAIT, which would slow the port search down.
        Socket::from(client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(server);
    }
}

/// One thread connects to itself, accepts, closes the end that connected and then, at the end of
/// the stream, the other: the ordinary close.
pub(crate) fn closed_loop(count: u32) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    for _ in 0..count {
        let client = TcpStream::connect(addr).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0, "the end of the stream");
    }
}

/// Has closed connections of the calling thread's namespace, which is a test network, leave room
/// for others. With thousands of them a connect searches longer for a port.
pub(crate) fn forget_closed(testnet: &Testnet) {
    let name = "net/ipv4/tcp_max_tw_buckets";
    testnet.set_sysctl(name, "100").unwrap();
}

/// One thread makes a system call that does next to nothing, 20 for one of `count`.
pub(crate) fn getppid_loop(count: u32) {
    for _ in 0..20 * count {
        nix::unistd::getppid();
    }
}

/// Measures nanoseconds of thread time per iteration, after a warm-up of caches and branch
/// predictors.
pub(crate) fn timed(work: Workload, threads: u32, count: u32) -> f64 {
    on_threads(work, threads, count / 10);
    let began = Instant::now();
    on_threads(work, threads, count);
    began.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}

/// Runs the workload that many times on each thread.
fn on_threads(work: Workload, threads: u32, count: u32) {
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(move || work(count));
        }
        work(count);
    });
}

/// Returns the count that fills a round.
pub(crate) fn per_round(work: Workload, threads: u32) -> u32 {
    const SOME: u32 = 2_000;
    on_threads(work, threads, SOME);
    let began = Instant::now();
    on_threads(work, threads, SOME);
    let each = began.elapsed() / SOME;
    let count = ROUND.as_nanos() / each.as_nanos().max(1);
    u32::try_from(count).unwrap().clamp(1_000, 100_000)
}

/// Results of alternating rounds.
pub(crate) struct Paired {
    pub(crate) untraced_ns: Spread,
    pub(crate) added_ns: Spread,
    pub(crate) ratio: Spread,
}

/// Runs traced and untraced rounds in turn. Each is first in every other round.
pub(crate) fn paired(
    rounds: usize,
    mut untraced: impl FnMut() -> f64,
    mut traced: impl FnMut() -> f64,
) -> Paired {
    let (mut untraced_ns, mut added_ns, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (with, without) = if round % 2 == 0 {
            let with = traced();
            (with, untraced())
        } else {
            let without = untraced();
            (traced(), without)
        };
        untraced_ns.push(without);
        added_ns.push(with - without);
        ratio.push(with / without);
    }
    Paired {
        untraced_ns: Spread::of(untraced_ns),
        added_ns: Spread::of(added_ns),
        ratio: Spread::of(ratio),
    }
}
