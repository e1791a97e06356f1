//! Worker of the storm: its threads make attempts with prepared endings and report the result of
//! each at the end.

use std::{
    fmt::{self, Display},
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{
    FAR_V4, FAR_V6, catalogue,
    endings::{self, USER_TIMEOUT},
    ports, source_of,
};
use conntrace_tests::{attempt_on, bound, has_ended, tcp, without_linger};
use nix::{errno::Errno, unistd::gettid};
use socket2::Socket;

/// Number of threads of a worker.
pub(crate) const THREADS: usize = 8;
/// Patience that the tracer is started with, in milliseconds. A busy machine may delay an
/// application that cancels at once.
pub(crate) const PATIENCE_MS: u64 = 500;
/// Time after which applications give up.
const DEADLINE: Duration = Duration::from_millis(600);
/// Tolerance beyond the deadline.
const LATE_MAX: Duration = Duration::from_secs(20);
/// Between two attempts of a thread: the machine may be busy, but not so that the
/// agent's share of it is one of sixty.
const PACE: Duration = Duration::from_micros(5_000);
/// First of the ports that are bound, one per thread.
const BOUND_PORTS: u16 = 45_000;

const V4: IpAddr = IpAddr::V4(FAR_V4);
const V6: IpAddr = IpAddr::V6(FAR_V6);

/// Order of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StormOrder {
    /// Attempts of each thread.
    pub(crate) attempts: usize,
    /// Number of its first thread on the test network.
    pub(crate) first_thread: usize,
    /// True if the test network has two ephemeral ports.
    pub(crate) narrow: bool,
}

impl Display for StormOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            attempts,
            first_thread,
            narrow,
        } = self;
        write!(f, "{attempts} {first_thread} {narrow}")
    }
}

impl FromStr for StormOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let [attempts, first_thread, narrow] = text.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("three words, not {text:?}"));
        };
        Ok(Self {
            attempts: attempts.parse().map_err(|_| attempts)?,
            first_thread: first_thread.parse().map_err(|_| first_thread)?,
            narrow: narrow.parse().map_err(|_| narrow)?,
        })
    }
}

/// Does it; prints `TID LABEL ERRNO TIMEOUT_BY` for each attempt, in the order
/// that its thread began them.
pub(crate) fn work(order: StormOrder) {
    let numbers = order.first_thread..order.first_thread + THREADS;
    let threads: Vec<_> = numbers
        .map(|number| {
            thread::spawn(move || {
                let mut worker = StormWorker::new(number);
                if order.narrow {
                    worker.narrow(order.attempts);
                } else {
                    worker.wide(order.attempts);
                }
                worker.printed()
            })
        })
        .collect();
    for thread in threads {
        let printed = thread.join().unwrap();
        std::io::stdout().write_all(printed.as_bytes()).unwrap();
    }
}

/// Destination, and label of an attempt that ends there at once.
type Fast = (SocketAddr, &'static str);

/// Lists the catalogue's attempts that end at once, and two that the application cancels.
fn fast_attempts() -> Vec<Fast> {
    let answered = catalogue::all().filter(|one| one.is_at_once());
    let cancelled = [V4, V6].map(|host| (SocketAddr::new(host, ports::SILENT), "cancelled"));
    answered
        .map(|one| (one.to, one.expected[0].label))
        .chain(cancelled)
        .collect()
}

/// An attempt that nobody waits for in connect.
struct Slow {
    socket: Socket,
    /// Index of the result in `told`.
    place: usize,
    began: Instant,
    by_kernel: bool,
}

struct StormWorker {
    /// Number of the thread on the test network.
    number: usize,
    began: Instant,
    told: Vec<String>,
    slow: Vec<Slow>,
    fast: Vec<Fast>,
    /// True if the kernel can close sockets of other processes.
    can_kill: bool,
}

impl StormWorker {
    fn new(number: usize) -> Self {
        Self {
            number,
            began: Instant::now(),
            told: Vec::new(),
            slow: Vec::new(),
            fast: fast_attempts(),
            can_kill: endings::has_sock_destroy(),
        }
    }

    fn printed(&self) -> String {
        let tid = gettid();
        let lines = self.told.iter().map(|told| format!("{tid} {told}\n"));
        lines.collect()
    }

    fn tell(&mut self, label: &str, errno: Option<Errno>, timeout_by: &str) {
        let errno = errno.map_or_else(|| "-".to_owned(), |errno| format!("{errno:?}"));
        self.told.push(format!("{label} {errno} {timeout_by}"));
    }

    /// Every ending but those that take a narrow range of ports. The slow ones
    /// overlap.
    fn wide(&mut self, attempts: usize) {
        for i in 0..attempts {
            let silent = SocketAddr::new(if i % 2 == 0 { V4 } else { V6 }, ports::SILENT);
            match (i + self.number) % 64 {
                7 => self.begin(silent, true),
                23 | 54 => self.begin(silent, false),
                11 | 42 if self.can_kill => self.abort(silent),
                _ => self.fast(self.fast[(i + self.number * 5) % self.fast.len()]),
            }
            self.tend();
            self.pace(i);
        }
        while !self.slow.is_empty() {
            thread::sleep(Duration::from_millis(1));
            self.tend();
        }
    }

    /// Waits until the next attempt is due; late ones come without a pause.
    fn pace(&self, i: usize) {
        let due = PACE * u32::try_from(i + 1).unwrap();
        thread::sleep(due.saturating_sub(self.began.elapsed()));
    }

    fn fast(&mut self, (remote, label): Fast) {
        let socket = without_linger(tcp(remote));
        socket.set_nonblocking(label == "cancelled").unwrap();
        let began = Instant::now();
        let told = Errno::from_raw(attempt_on(&socket, remote).errno);
        drop(socket);
        match (label, told) {
            ("established", Errno::UnknownErrno) => self.tell(label, None, "-"),
            ("cancelled", Errno::EINPROGRESS) => self.gave_up(began),
            ("refused", Errno::ECONNREFUSED) => self.tell(label, Some(told), "-"),
            ("unreachable", told) if told != Errno::UnknownErrno => {
                self.tell(label, Some(told), "-");
            }
            (label, told) => panic!("{label} {remote} ended with {told:?}"),
        }
    }

    /// Records an attempt that the application gave up.
    fn gave_up(&mut self, began: Instant) {
        if began.elapsed() < Duration::from_millis(PATIENCE_MS) {
            self.tell("cancelled", None, "-");
        } else {
            self.tell("timed_out", None, "application");
        }
    }

    /// Begins an attempt that will not be answered.
    fn begin(&mut self, remote: SocketAddr, by_kernel: bool) {
        let socket = endings::begin(remote, by_kernel.then_some(USER_TIMEOUT)).unwrap();
        self.slow.push(Slow {
            socket,
            place: self.told.len(),
            began: Instant::now(),
            by_kernel,
        });
        self.tell("timed_out", None, "application");
    }

    /// Ends attempts that have waited long enough.
    fn tend(&mut self) {
        let told = &mut self.told;
        self.slow.retain(|slow| {
            let waited = slow.began.elapsed();
            if !slow.by_kernel {
                return waited < DEADLINE;
            }
            if waited < USER_TIMEOUT {
                return true;
            }
            if !has_ended(&slow.socket) {
                assert!(waited < LATE_MAX, "the kernel gives up");
                return true;
            }
            let error = slow.socket.take_error().unwrap().unwrap();
            assert_eq!(error.raw_os_error(), Some(Errno::ETIMEDOUT as i32));
            told[slow.place] = "timed_out ETIMEDOUT kernel".to_owned();
            false
        });
    }

    /// Closes the socket as another process.
    fn abort(&mut self, remote: SocketAddr) {
        let socket = endings::begin(remote, None).unwrap();
        endings::kill(&socket, remote).unwrap();
        let told = socket.take_error().unwrap().unwrap();
        assert_eq!(told.raw_os_error(), Some(Errno::ECONNABORTED as i32));
        self.tell("aborted", Some(Errno::ECONNABORTED), "-");
    }

    /// With two ephemeral ports, which this thread takes for remotes of its own.
    fn narrow(&mut self, attempts: usize) {
        let own = u16::try_from(self.number).unwrap();
        let [.., low] = own.to_be_bytes();
        let [a, b, c, _] = FAR_V4.octets();
        let [s0, s1, s2, s3, ..] = FAR_V6.segments();
        let remotes = [
            SocketAddr::from((Ipv4Addr::new(a, b, c, 10 + low), ports::ACCEPTS)),
            SocketAddr::from((Ipv6Addr::new(s0, s1, s2, s3, 0, 0, 1, own), ports::ACCEPTS)),
        ];
        let own_end = |remote: SocketAddr| {
            SocketAddr::new(source_of(remote.ip()).unwrap(), BOUND_PORTS + own)
        };
        let mut held = Vec::new();
        for remote in remotes {
            let sockets = [tcp(remote), tcp(remote), bound(own_end(remote))];
            held.extend(sockets.map(|socket| self.connected(socket, remote)));
        }
        for i in 0..attempts.saturating_sub(held.len()) {
            let remote = remotes[i % 2];
            match i / 2 % 3 {
                0 => self.without_address(&tcp(remote), remote, "port_exhausted"),
                1 => {
                    self.without_address(&bound(own_end(remote)), remote, "address_unavailable");
                }
                _ => self.fast((SocketAddr::new(remote.ip(), ports::RESETS), "refused")),
            }
            self.pace(i);
        }
    }

    fn connected(&mut self, socket: Socket, remote: SocketAddr) -> Socket {
        let socket = without_linger(socket);
        assert_eq!(attempt_on(&socket, remote).errno, 0, "connects to {remote}");
        self.tell("established", None, "-");
        socket
    }

    fn without_address(&mut self, socket: &Socket, remote: SocketAddr, label: &str) {
        let told = Errno::from_raw(attempt_on(socket, remote).errno);
        assert_eq!(told, Errno::EADDRNOTAVAIL, "{label}");
        self.tell(label, Some(told), "-");
    }
}
