//! Shared parts of the tests that run many attempts at once.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use socket2::Socket;

use crate::each_line;

/// Network namespace and number of a thread.
pub type Thread = (u32, u32);

/// Outcome line of an attempt, reduced to the fields that are compared.
#[derive(Debug)]
pub struct StormOutcome {
    /// Start of the attempt from its id. The clock of the lines may be corrected between two of
    /// them.
    pub began: u64,
    /// Remote address, if the line has one.
    pub remote: Option<SocketAddr>,
    /// Label, errno and the side that timed out, with a dash for none.
    pub told: String,
    /// True if a SYN was sent.
    pub syn_sent: bool,
}

/// Output of an agent, parsed.
pub struct AgentOutput {
    /// Outcomes by thread, in the order they began. Thread number 0 marks an attempt whose start
    /// was not seen.
    pub outcomes: HashMap<Thread, Vec<StormOutcome>>,
    /// Number of loss lines.
    pub losses: usize,
    /// Parsed `stop` line.
    pub stop: Value,
}

impl AgentOutput {
    /// Parses a file of lines.
    pub fn read(path: &Path) -> Self {
        let mut written = Self {
            outcomes: HashMap::new(),
            losses: 0,
            stop: Value::Null,
        };
        for value in each_line(path) {
            match value["type"].as_str().unwrap() {
                "outcome" => written.outcome(&value),
                "loss" => written.losses += 1,
                _ => {}
            }
            written.stop = value;
        }
        assert_eq!(written.stop["type"], "stop", "the last line");
        for lines in written.outcomes.values_mut() {
            lines.sort_by_key(|line| line.began);
        }
        written
    }

    fn outcome(&mut self, line: &Value) {
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let netns = id(&line["netns"]).unwrap();
        let tid = id(&line["process"]["tid"]).unwrap_or(0);
        let word = |name: &str| line[name].as_str().unwrap_or("-");
        let (began, _) = word("attempt_id").split_once('-').unwrap();
        let addr = line["remote"]["addr"].as_str();
        let addr: Option<IpAddr> = addr.map(|addr| addr.parse().unwrap());
        let port = line["remote"]["port"].as_u64();
        let port = port.map(|port| u16::try_from(port).unwrap());
        let ended = StormOutcome {
            began: u64::from_str_radix(began, 16).unwrap(),
            remote: addr.zip(port).map(SocketAddr::from),
            told: [word("label"), word("errno"), word("timeout_by")].join(" "),
            // Null of another's attempt that was under way before the agent was.
            syn_sent: line["syn"]["sent"].as_u64().is_some_and(|sent| sent > 0),
        };
        self.outcomes.entry((netns, tid)).or_default().push(ended);
    }

    /// Counts the endings that no program saw.
    pub fn missed(&self) -> usize {
        let missed = self.stop["lost"]["ending_missed"].as_u64().unwrap();
        usize::try_from(missed).unwrap()
    }
}

/// Number of threads of [`at_rate`], and of calls that each makes without a pause.
const RATE_THREADS: u32 = 4;
const RATE_BATCH: u32 = 50;

/// Calls `act` with each number below `count`, from several threads, so many times a second.
pub fn at_rate(count: u32, per_second: u32, act: impl Fn(u32) + Sync) {
    let began = Instant::now();
    let act = &act;
    thread::scope(|scope| {
        for thread in 0..RATE_THREADS {
            scope.spawn(move || {
                for number in 0..count {
                    let batch = number / RATE_BATCH;
                    if batch % RATE_THREADS != thread {
                        continue;
                    }
                    if number % RATE_BATCH == 0 {
                        let due =
                            Duration::from_secs_f64(f64::from(number) / f64::from(per_second));
                        thread::sleep(due.saturating_sub(began.elapsed()));
                    }
                    act(number);
                }
            });
        }
    });
}

/// Reads `TcpActiveOpens` of the calling thread's namespace, the kernel's own count.
pub fn active_opens() -> u64 {
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let at = names
        .split(' ')
        .position(|name| name == "ActiveOpens")
        .unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// Returns true if the attempt is over. An application that reads `SO_ERROR` before poll reports
/// the ending can take the errno away while the kernel is still ending the attempt.
pub fn has_ended(socket: &Socket) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    let events = fds[0].revents().unwrap();
    events.contains(PollFlags::POLLHUP)
}

/// Makes close reset the connection, so that a socket with unsent data releases its port at once.
pub fn without_linger(socket: Socket) -> Socket {
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket
}
