//! Cost with many attempts in flight at once, and with many addresses.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, ports};
use nix::{
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use socket2::{Domain, Socket, Type};

use super::{
    measured::{Figure, Section},
    memory::{Memory, MemoryWatch},
    traced::TracedAgent,
    work::paired,
};

const ROUNDS: usize = 5;
/// Interval between two looks at the memory.
const LOOKS: Duration = Duration::from_millis(50);
const IN_FLIGHT: [usize; 3] = [1_000, 10_000, 100_000];
const ADDRESSES: u32 = 100_000;
/// Sockets of each thread, which has its own descriptor table.
const PER_THREAD: usize = 10_000;
/// Number of far hosts. Each has its own set of local ports.
const HOSTS: usize = 200;

/// Resource use of the agent, as a sum or a maximum.
#[derive(Default)]
struct AgentPeak {
    most: Memory,
    /// Losses by reason, as in the stop line.
    lost: BTreeMap<String, u64>,
    untracked: usize,
}

impl AgentPeak {
    fn learn(&mut self, mut tracer: TracedAgent, watch: MemoryWatch) {
        self.most = self.most.max(watch.most());
        for (reason, count) in tracer.stop()["lost"].as_object().unwrap() {
            *self.lost.entry(reason.clone()).or_default() += count.as_u64().unwrap();
        }
        self.untracked = self.untracked.max(tracer.count("\"seen\":\"untracked\""));
    }
}

pub(crate) fn growth() -> Section {
    let mut rows = Vec::new();
    for count in IN_FLIGHT {
        let name = format!("{count} attempts in flight at once");
        let mut of_count = grown(&name, "--all", || in_flight(count));
        rows.append(&mut of_count);
    }
    rows.extend(grown(
        &format!("{ADDRESSES} refusals by one address"),
        "--no-stalls",
        || refused(|_| Ipv4Addr::LOCALHOST),
    ));
    rows.extend(grown(
        &format!("refusals by {ADDRESSES} addresses"),
        "--no-stalls",
        // All of 127.0.0.0/8 is this host.
        || refused(|at| Ipv4Addr::from_bits(0x7f01_0000 + at)),
    ));
    let about = format!(
        "{ROUNDS} paired rounds each. In flight: to a silent far end, and closed together, every \
         ending with its line (`--all`). 32,768 or more have an entry; more are `untracked` and have \
         their line all the same."
    );
    Section::new("Growth", about, rows)
}

/// Runs `act` traced and untraced in turn, and returns the nanoseconds of each.
fn grown(name: &str, option: &str, act: impl Fn() -> f64 + Sync) -> Vec<Figure> {
    let mut agent = AgentPeak::default();
    let paired = conntrace_testnet::run("bench", |testnet| {
        // Tens of thousands that end at once leave no room for what others do.
        let netns = testnet.netns.to_string();
        paired(ROUNDS, &act, || {
            let tracer = TracedAgent::start(&[option, "--netns", &netns]);
            let watch = MemoryWatch::start(tracer.pid(), LOOKS);
            let ns = act();
            agent.learn(tracer, watch);
            ns
        })
    })
    .unwrap();
    let reasons = agent.lost.iter().filter(|(_, count)| **count > 0);
    let reasons: Vec<_> = reasons
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let lost = agent.lost.values().sum::<u64>() as f64;
    let lost_row = match reasons.is_empty() {
        true => format!("{name}: lost, in all rounds"),
        false => format!("{name}: lost, in all rounds ({})", reasons.join(", ")),
    };
    let [pss, private] = agent.most.rows(&format!("{name}: most memory"));
    vec![
        Figure::spread(name, "ns untraced", 0, paired.untraced_ns),
        Figure::spread(name, "ns added", 0, paired.added_ns),
        pss,
        private,
        Figure::number(
            format!("{name}: `untracked`, at most in a round"),
            "",
            0,
            agent.untracked as f64,
        ),
        Figure::number(lost_row, "lost", 0, lost).at_most(0.0),
    ]
}

/// Returns the nanoseconds per socket that is opened and closed again.
fn in_flight(count: usize) -> f64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let threads = count.div_ceil(PER_THREAD);
    let all_open = Barrier::new(threads);
    let began = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let all_open = &all_open;
            let share = PER_THREAD.min(count - thread * PER_THREAD);
            scope.spawn(move || {
                unshare(CloneFlags::CLONE_FILES).unwrap();
                let open: Vec<_> = (0..share)
                    .map(|at| under_way(thread * PER_THREAD + at))
                    .collect();
                all_open.wait();
                drop(open);
            });
        }
    });
    began.elapsed().as_secs_f64() * 1e9 / count as f64
}

fn under_way(at: usize) -> Socket {
    let host = u8::try_from(2 + at % HOSTS).unwrap();
    let remote = SocketAddr::from(([192, 0, 2, host], ports::SILENT));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&remote.into()).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(nix::libc::EINPROGRESS),
        "{error}"
    );
    socket
}

/// Returns the nanoseconds per refused attempt.
fn refused(address: impl Fn(u32) -> Ipv4Addr) -> f64 {
    let began = Instant::now();
    for at in 0..ADDRESSES {
        let _ = TcpStream::connect((address(at), 9));
    }
    let took = began.elapsed();
    // So that the most memory is that of all of them.
    thread::sleep(Duration::from_millis(300));
    took.as_secs_f64() * 1e9 / f64::from(ADDRESSES)
}
