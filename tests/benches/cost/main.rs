//! What tracing costs, and how soon a line is there: `cargo xtask bench`.
//!
//! Needs root. Shared machines are noisy: ratios are of paired rounds, with
//! their median, its 95 % interval, least and most.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark: what goes wrong ends it, and it prints its figures"
)]

mod kernel;

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use conntrace::stage::{self, FAR_V4, ports};
use conntrace_tests::{conntrace, is_root, mount_tracefs};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Paired rounds of the end-to-end ratio.
const ROUNDS: usize = 40;
/// Attempts in a round: about a tenth of a second.
const ROUND_ATTEMPTS: u32 = 20_000;
/// Samples of the first failure after quiet, and how long the quiet lasts.
const LATENCY_SAMPLES: usize = 100;
const QUIET: Duration = Duration::from_secs(2);
/// Attempts whose timeouts meet the opening of others.
const TIMERS: usize = 2_000;
const TIMER_ROUNDS: usize = 10;

fn main() {
    if !is_root() {
        println!("not run: needs root");
        return;
    }
    mount_tracefs().expect("a tracefs, for --trace-syscalls");
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    if asked == ["child"] {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return refused_loop(kernel::ATTEMPTS);
    }
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    if wanted("kernel") {
        kernel::cost();
    }
    if wanted("loop") {
        loop_ratio("refused loop, every line to a file", &[], refused_loop);
        loop_ratio(
            "connect + accept + close loop, failures only",
            &[],
            accepted_loop,
        );
    }
    if wanted("syscalls") {
        loop_ratio(
            "20 system calls (getppid) with --trace-syscalls",
            TRACE_SYSCALLS,
            getppid_loop,
        );
        loop_ratio(
            "refused loop with --trace-syscalls",
            TRACE_SYSCALLS,
            refused_loop,
        );
    }
    if wanted("second") {
        second_attachment();
    }
    if wanted("latency") {
        latency();
    }
}

/// A traced program whose lines go to a file.
struct Traced {
    child: Child,
    lines: PathBuf,
}

impl Traced {
    fn start(options: &[&str]) -> Self {
        let lines = std::env::temp_dir().join(format!("conntrace-bench-{}", std::process::id()));
        let child = conntrace()
            .args(["--format", "json", "--summary", "0"])
            .args(options)
            .stdout(File::create(&lines).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        while !fs::read_to_string(&lines).unwrap().contains('\n') {
            thread::sleep(Duration::from_millis(5));
        }
        Self { child, lines }
    }

    /// Stops it; returns the stop line.
    fn stop(mut self) -> Value {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let stop = last_line(&self.lines);
        fs::remove_file(&self.lines).unwrap();
        serde_json::from_str(&stop).unwrap()
    }
}

fn last_line(path: &Path) -> String {
    let mut file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(len.saturating_sub(16_384)))
        .unwrap();
    BufReader::new(file).lines().last().unwrap().unwrap()
}

/// One thread connects to a closed port of its own host.
fn refused_loop(count: u32) {
    for _ in 0..count {
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, 9));
    }
}

/// One thread makes a system call that does next to nothing, 20 for one of `count`.
fn getppid_loop(count: u32) {
    for _ in 0..20 * count {
        nix::unistd::getppid();
    }
}

/// One thread connects to itself, accepts, closes both.
fn accepted_loop(count: u32) {
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

/// Nanoseconds an attempt takes, once caches and branch predictors know the way.
fn timed(work: fn(u32), count: u32) -> f64 {
    work(count / 10);
    let began = Instant::now();
    work(count);
    began.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}

/// Traced against untraced, in turn, each first in every other round.
fn loop_ratio(name: &str, options: &[&str], work: fn(u32)) {
    stage::run("bench", |_| {
        timed(work, ROUND_ATTEMPTS);
        let mut ratios = Vec::new();
        let mut untraced_ns = Vec::new();
        let mut lost = 0;
        for round in 0..ROUNDS {
            let mut traced = || {
                let tracer = Traced::start(options);
                let ns = timed(work, ROUND_ATTEMPTS);
                lost += tracer.stop()["lost"]
                    .as_object()
                    .unwrap()
                    .values()
                    .map(|count| count.as_u64().unwrap())
                    .sum::<u64>();
                ns
            };
            let (with, without) = if round % 2 == 0 {
                let with = traced();
                (with, timed(work, ROUND_ATTEMPTS))
            } else {
                let without = timed(work, ROUND_ATTEMPTS);
                (traced(), without)
            };
            ratios.push(with / without);
            untraced_ns.push(without);
        }
        println!("\n{name}: {ROUNDS} paired rounds of {ROUND_ATTEMPTS}");
        println!(
            "  untraced, ns                {}",
            Spread::of(untraced_ns).show(0)
        );
        println!(
            "  traced / untraced           {}",
            Spread::of(ratios).show(3)
        );
        println!("  lost                        {lost}");
    })
    .unwrap();
}

/// Median, its 95 % interval by order statistics, least and most.
struct Spread {
    sorted: Vec<f64>,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { sorted: values }
    }

    fn median(&self) -> f64 {
        let n = self.sorted.len();
        f64::midpoint(self.sorted[(n - 1) / 2], self.sorted[n / 2])
    }

    /// Ranks n/2 ± 0.98 √n hold the median in 95 of 100 cases.
    fn interval(&self) -> (f64, f64) {
        let n = self.sorted.len();
        let half_width = (0..n)
            .take_while(|k| (k * k) as f64 <= 0.98 * 0.98 * n as f64)
            .count();
        let low = (n / 2).saturating_sub(half_width);
        (self.sorted[low], self.sorted[n - 1 - low])
    }

    fn show(&self, digits: usize) -> String {
        let (low, high) = self.interval();
        format!(
            "median {:.digits$} (95 %: {low:.digits$} to {high:.digits$}), min {:.digits$}, max {:.digits$}",
            self.median(),
            self.sorted[0],
            self.sorted[self.sorted.len() - 1],
        )
    }
}

const TRACE_SYSCALLS: &[&str] = &["--trace-syscalls"];

/// Whether the second attachment earns its cost: kernel timeouts (timer softirqs)
/// interrupt the opening and refusing of other attempts.
fn second_attachment() {
    let (mut skipped, mut taken_over, mut unseen, mut attempts) = (0, 0, 0, 0);
    for _ in 0..TIMER_ROUNDS {
        let tracer = Traced::start(&[]);
        stage::run("bench", |_| timeouts_meet_opens()).unwrap();
        let stop = tracer.stop();
        let count = |value: &Value| value.as_u64().unwrap();
        skipped += count(&stop["missed_hooks"]);
        taken_over += count(&stop["second_attachment"]);
        unseen += count(&stop["lost"]["ending_missed"]);
        attempts += count(&stop["attempts"]);
    }
    println!("\nsecond attachment: {attempts} attempts, timeouts among them");
    println!("  runs the kernel skipped     {skipped}");
    println!("  taken over by the second    {taken_over}");
    println!("  endings no program saw      {unseen}");
}

fn timeouts_meet_opens() {
    let silent = SocketAddr::from((FAR_V4, ports::SILENT)).into();
    let waiting: Vec<_> = (0..TIMERS)
        .map(|i| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let after = Duration::from_millis(500 + (i as u64 % 500));
            socket.set_tcp_user_timeout(Some(after)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&silent);
            socket
        })
        .collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(2_500) {
                    refused_loop(1_000);
                }
            });
        }
    });
    drop(waiting);
}

/// From the errno reaching the application to the line being readable.
fn latency() {
    let mut child = conntrace()
        .args(["--format", "json", "--summary", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let samples = stage::run("bench", |stage| {
        let own = format!("\"netns\":{}", stage.netns);
        (0..LATENCY_SAMPLES)
            .map(|_| {
                thread::sleep(QUIET);
                refused_loop(1);
                let told = Instant::now();
                while !lines.next().unwrap().unwrap().contains(&own) {}
                told.elapsed().as_secs_f64() * 1e3
            })
            .collect()
    })
    .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    println!(
        "\nfirst failure after {} s of quiet, ms until its line is readable",
        QUIET.as_secs()
    );
    println!(
        "  {LATENCY_SAMPLES} samples                 {}",
        Spread::of(samples).show(3)
    );
}
