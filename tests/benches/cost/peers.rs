//! Other programs that show connects, measured on the same loop.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::in_private_mounts;
use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
};

use super::{
    measured::{Figure, Section},
    traced::{TracedAgent, interrupt, lost, temporary},
    work::{Paired, ROUNDS, paired, refused_loop, timed},
};

/// Attempts in a round. One-time work, such as the first search for a cause, then hardly counts.
/// strace gets fewer, because it takes a third of a millisecond for each.
const ATTEMPTS: u32 = 20_000;
const ATTEMPTS_STRACE: u32 = 2_000;
/// Time limit until a peer shows its first attempt.
const READY_MAX: Duration = Duration::from_secs(20);
/// Time limit for a peer to end on request, and the interval between requests. bpftrace 0.17 keeps
/// waiting after the first one.
const END_MAX: Duration = Duration::from_secs(5);
const ASKED_EVERY: Duration = Duration::from_millis(50);
/// Length limit of a peer's error in characters.
const COMPLAINT_MAX: usize = 240;
/// Pause after a peer has become ready, and interval between two checks.
const SETTLED: Duration = Duration::from_millis(100);

const OUT: &str = "OUT";
const OWN_PID: &str = "PID";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/cost/state.bt");

/// Program that reports connects, for comparison.
struct Peer {
    name: &'static str,
    /// Command line. `OUT` is its output file, else its stdout is; `PID` is the process that
    /// connects.
    command: &'static [&'static str],
    /// Substrings of the line of a refused attempt.
    line: &'static [&'static str],
    /// True if it reports how an attempt ended, even if connect did not wait for the ending.
    reports_endings: bool,
    /// Attempts in a round.
    attempts: u32,
}

const PEERS: [Peer; 6] = [
    Peer {
        name: "bpftrace, state tracepoint + printf",
        command: &["bpftrace", SCRIPT],
        line: &["bench", ":9"],
        reports_endings: true,
        attempts: ATTEMPTS,
    },
    Peer {
        name: "libbpf-tools tcpstates",
        command: &["tcpstates"],
        line: &["SYN_SENT", "-> CLOSE"],
        reports_endings: true,
        attempts: ATTEMPTS,
    },
    Peer {
        name: "libbpf-tools tcpconnlat",
        command: &["tcpconnlat"],
        line: &["bench"],
        reports_endings: false,
        attempts: ATTEMPTS,
    },
    Peer {
        name: "libbpf-tools tcptracer",
        command: &["tcptracer"],
        line: &["bench"],
        reports_endings: false,
        attempts: ATTEMPTS,
    },
    Peer {
        name: "perf trace",
        command: &[
            "perf",
            "trace",
            "--all-cpus",
            "--event",
            "connect",
            "--output",
            OUT,
        ],
        line: &["bench/", "ECONNREFUSED"],
        reports_endings: false,
        attempts: ATTEMPTS,
    },
    Peer {
        name: "strace",
        command: &[
            "strace",
            "--follow-forks",
            "--quiet=all",
            "--trace=connect",
            "--output",
            OUT,
            "--attach",
            OWN_PID,
        ],
        line: &["ECONNREFUSED"],
        reports_endings: false,
        attempts: ATTEMPTS_STRACE,
    },
];

pub(crate) fn peers() -> Section {
    let mut rows = own_rows();
    let own = rows[0].value().unwrap();
    let mut best: Option<f64> = None;
    for peer in &PEERS {
        let of_peer = in_private_mounts(|| {
            mount_debugfs();
            peer_rows(peer)
        });
        let added = of_peer[0].value().filter(|_| peer.reports_endings);
        best = best.into_iter().chain(added).reduce(f64::min);
        rows.extend(of_peer);
    }
    let times = "what the best peer that reports endings adds, as often as conntrace";
    rows.push(match best {
        Some(best) if own > 0.0 => Figure::number(times, "times", 1, best / own),
        Some(_) => Figure::not_run(times, "what conntrace adds is less than the noise"),
        None => Figure::not_run(times, "no such peer ran"),
    });
    let about = format!(
        "{ROUNDS} paired rounds of {ATTEMPTS} attempts ({ATTEMPTS_STRACE} of strace) refused on \
         loopback by one thread, output to a file in memory. bpftrace (a script of ours) and tcpstates report endings; perf trace \
         and strace report what connect returns."
    );
    Section {
        plotted: Some("ns added"),
        ..Section::new("Other programs", about, rows)
    }
}

fn untraced(attempts: u32) -> f64 {
    timed(refused_loop, 1, attempts)
}

fn own_rows() -> Vec<Figure> {
    let (mut missing, mut attempts) = (0, 0);
    let paired = conntrace_testnet::run("bench", |_| {
        let untraced = || untraced(ATTEMPTS);
        paired(ROUNDS, untraced, || {
            let mut tracer = TracedAgent::start(&[]);
            let ns = untraced();
            let stop = tracer.stop();
            missing += lost(&stop);
            attempts += stop["attempts"].as_u64().unwrap();
            ns
        })
    })
    .unwrap();
    rows("conntrace", paired, missing as f64 / attempts as f64)
}

fn rows(name: &str, paired: Paired, missing: f64) -> Vec<Figure> {
    let rows = [
        Figure::spread(name, "ns added", 0, paired.added_ns),
        Figure::spread(name, "traced / untraced", 3, paired.ratio),
        Figure::number(format!("{name}: lines missing"), "%", 1, 100.0 * missing),
    ];
    rows.map(|row| row.ran("both ends, refused")).into()
}

/// Mounts debugfs, in which bpftrace searches for tracepoints.
fn mount_debugfs() {
    let path = "/sys/kernel/debug";
    if !Path::new(path).join("tracing/events").exists() {
        let none: Option<&str> = None;
        // A peer that misses it will say so.
        let _ = mount(
            Some("debugfs"),
            path,
            Some("debugfs"),
            MsFlags::empty(),
            none,
        );
    }
}

fn peer_rows(peer: &Peer) -> Vec<Figure> {
    let ran = conntrace_testnet::run("bench", |_| {
        // The first start shows if the peer runs at all.
        Running::start(peer)?.stop();
        let mut missing = 0.0;
        let untraced = || untraced(peer.attempts);
        let paired = paired(ROUNDS, untraced, || {
            let mut running = Running::start(peer).unwrap();
            let ns = untraced();
            missing += running.stop();
            ns
        });
        Ok::<_, String>((paired, missing / ROUNDS as f64))
    })
    .unwrap();
    match ran {
        Ok((paired, missing)) => rows(peer.name, paired, missing),
        Err(why) => vec![Figure::not_run(peer.name, why)],
    }
}

/// Running peer that shows this thread's attempts.
struct Running<'a> {
    peer: &'a Peer,
    child: Child,
    lines: PathBuf,
    /// Lines written before the measurement.
    before: usize,
}

impl<'a> Running<'a> {
    fn start(peer: &'a Peer) -> Result<Self, String> {
        let lines = temporary("peer");
        let out = File::create(&lines).unwrap();
        let own_pid = std::process::id().to_string();
        let arguments = peer.command[1..].iter().map(|argument| match *argument {
            OUT => lines.to_str().unwrap(),
            OWN_PID => &own_pid,
            other => other,
        });
        let child = Command::new(peer.command[0])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(File::create(temporary("peer-errors")).unwrap())
            .spawn()
            .map_err(|error| format!("`{}` is not installed: {error}", peer.command[0]))?;
        let mut running = Self {
            peer,
            child,
            lines,
            before: 0,
        };
        running.wait_until_ready()?;
        running.before = running.count();
        Ok(running)
    }

    /// Waits until it shows an attempt of this process.
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let until = Instant::now() + READY_MAX;
        while self.count() == 0 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(format!("it ended ({status}): {}", self.complaint()));
            }
            if Instant::now() >= until {
                return Err(format!("it showed nothing in {} s", READY_MAX.as_secs()));
            }
            refused_loop(20);
            thread::sleep(SETTLED);
        }
        thread::sleep(SETTLED);
        Ok(())
    }

    /// Returns its stderr as a single line.
    fn complaint(&self) -> String {
        let errors = fs::read(temporary("peer-errors")).unwrap();
        let errors = String::from_utf8_lossy(&errors);
        let lines: Vec<_> = errors.lines().collect();
        lines.join("; ").chars().take(COMPLAINT_MAX).collect()
    }

    fn count(&self) -> usize {
        let lines = BufReader::new(File::open(&self.lines).unwrap()).split(b'\n');
        let shown = |line: &Vec<u8>| {
            let line = String::from_utf8_lossy(line);
            self.peer.line.iter().all(|part| line.contains(part))
        };
        lines.map(Result::unwrap).filter(shown).count()
    }

    /// Ends the peer and returns the fraction of measured attempts that it did not show.
    fn stop(&mut self) -> f64 {
        thread::sleep(SETTLED);
        self.end();
        // With those that went before, as `timed` does them.
        let made = f64::from(self.peer.attempts + self.peer.attempts / 10);
        let shown = (self.count() - self.before) as f64;
        (1.0 - shown / made).max(0.0)
    }
}

impl Running<'_> {
    /// Sends requests to end until the peer ends. Otherwise the drop kills it.
    fn end(&mut self) {
        let until = Instant::now() + END_MAX;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < until {
            interrupt(&self.child, Signal::SIGINT);
            thread::sleep(ASKED_EVERY);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.lines);
        let _ = fs::remove_file(temporary("peer-errors"));
    }
}
