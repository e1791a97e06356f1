//! What the tests share that play many attempts at once.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    path::Path,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use socket2::Socket;

use crate::check;

/// One in so many lines is held against the schema, which takes longer than all
/// the rest. The other tests do so with every line.
const SCHEMA_EVERY: usize = 16;

/// A thread of a network namespace.
pub type Thread = (u32, u32);

/// What an outcome line says of an attempt.
#[derive(Debug)]
pub struct StormOutcome {
    /// When it began, as its id has it: the clock of the lines may be corrected
    /// between two of them.
    pub began: u64,
    /// Where to.
    pub remote: Option<SocketAddr>,
    /// Label, errno and who timed out, with a dash for none.
    pub told: String,
    /// Whether a SYN left.
    pub syn_sent: bool,
}

/// What an agent wrote.
pub struct AgentOutput {
    /// In the order they began. No thread has the number 0: an attempt that was not
    /// seen to begin.
    pub outcomes: HashMap<Thread, Vec<StormOutcome>>,
    /// Loss lines.
    pub losses: usize,
    /// The last line.
    pub stop: Value,
}

impl AgentOutput {
    /// Reads a file of lines.
    pub fn read(path: &Path) -> Self {
        let mut written = Self {
            outcomes: HashMap::new(),
            losses: 0,
            stop: Value::Null,
        };
        let lines = BufReader::new(File::open(path).unwrap()).lines();
        for (number, line) in lines.enumerate() {
            let line = line.unwrap();
            let value = if number % SCHEMA_EVERY == 0 {
                check(&line).unwrap()
            } else {
                serde_json::from_str(&line).unwrap()
            };
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

    /// Endings that no program saw.
    pub fn missed(&self) -> usize {
        let missed = self.stop["lost"]["ending_missed"].as_u64().unwrap();
        usize::try_from(missed).unwrap()
    }
}

/// `TcpActiveOpens` of the calling thread's namespace: the kernel's own count.
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

/// Whether the attempt is over. An application that reads `SO_ERROR` before it is
/// told so can take the errno away while the kernel is still ending the attempt.
pub fn has_ended(socket: &Socket) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    let events = fds[0].revents().unwrap();
    events.contains(PollFlags::POLLHUP)
}

/// A socket that is closed with data unsent may not keep its port for long.
pub fn without_linger(socket: Socket) -> Socket {
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket
}
