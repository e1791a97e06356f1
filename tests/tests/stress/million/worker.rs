//! Worker process: its threads make the planned attempts and report the result of each at the end.

use std::{
    fmt::{self, Display},
    io::Write as _,
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{disconnect, endings, ports};
use conntrace_tests::{bound, has_ended, tcp, without_linger};
use fastrand::Rng;
use nix::{errno::Errno, unistd::gettid};
use socket2::Socket;

use crate::million::{
    application::{LATE_MAX, POLL, far, far_host, here, near, now, prepare, told_as, wait},
    order::{MillionOrder, OrderKind},
    plan::{CallerKind, Plan, PlannedEnding, PlannedFamily, WaitMode},
};

/// Patience that the tracer is started with. A busy machine may delay an application that gives up
/// after less than 300 ms.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);
/// An attempt that was given up when about that had passed: which side of it the kernel
/// saw, the application cannot say.
pub(crate) const EITHER: &str = "cancelled or timed_out";
/// Between two attempts of a thread: the machine may be busy, but not so that the
/// agent's share of it is one of sixty.
const PACE: Duration = Duration::from_micros(5_000);

/// Executes the order and prints a line for each attempt: its thread, start and end of connect,
/// destination, method and result.
pub(crate) fn work(order: MillionOrder) {
    let mut rng = Rng::with_seed(order.seed);
    let numbers = order.first_thread..order.first_thread + order.threads;
    let threads: Vec<_> = numbers
        .map(|number| {
            let rng = rng.fork();
            thread::spawn(move || MillionWorker::new(order.kind, number, rng).work(order.attempts))
        })
        .collect();
    for thread in threads {
        let printed = thread.join().unwrap();
        std::io::stdout().write_all(printed.as_bytes()).unwrap();
    }
}

/// Call to connect and its plan.
struct PlannedCall {
    tid: i32,
    from: u64,
    to: u64,
    remote: SocketAddr,
    plan: Plan,
    reused: bool,
    told: String,
}

/// An attempt that nobody waits for in connect.
struct Waiting {
    socket: Socket,
    /// Index of the call in `calls`.
    call: usize,
    began: Instant,
}

/// A socket that can be used again.
struct Spare {
    socket: Socket,
    family: PlannedFamily,
    /// True if the socket must be disconnected first.
    is_open: bool,
}

struct MillionWorker {
    kind: OrderKind,
    /// Number of the thread on the test network.
    number: u16,
    rng: Rng,
    began: Instant,
    calls: Vec<PlannedCall>,
    waiting: Vec<Waiting>,
    spare: Option<Spare>,
    /// The connections that take ports, and the families they are of.
    held: Vec<(PlannedFamily, Socket)>,
    children: Vec<Child>,
    /// Output of the child processes.
    printed: String,
    can_kill: bool,
}

impl MillionWorker {
    fn new(kind: OrderKind, number: u16, rng: Rng) -> Self {
        Self {
            kind,
            number,
            rng,
            began: Instant::now(),
            calls: Vec::new(),
            waiting: Vec::new(),
            spare: None,
            held: Vec::new(),
            children: Vec::new(),
            printed: String::new(),
            can_kill: endings::has_sock_destroy(),
        }
    }

    fn work(mut self, attempts: usize) -> String {
        for i in 0..attempts {
            let plan = Plan::draw(&mut self.rng, self.kind, self.can_kill);
            match plan.caller {
                CallerKind::NewProcess if self.kind != OrderKind::Single => self.delegate(),
                CallerKind::Thread | CallerKind::NewProcess => self.attempt(plan),
                CallerKind::NewThread => {
                    thread::scope(|scope| scope.spawn(|| self.attempt(plan)).join().unwrap());
                }
            }
            self.tend();
            // Late ones come without a pause.
            let due = PACE * u32::try_from(i + 1).unwrap();
            thread::sleep(due.saturating_sub(self.began.elapsed()));
        }
        while !self.waiting.is_empty() || !self.children.is_empty() {
            thread::sleep(POLL);
            self.tend();
        }
        for call in &self.calls {
            self.printed += &call.to_string();
        }
        self.printed
    }

    /// Starts a process that makes an attempt.
    fn delegate(&mut self) {
        let order = MillionOrder {
            kind: OrderKind::Single,
            seed: self.rng.u64(..),
            threads: 1,
            attempts: 1,
            first_thread: self.number,
        };
        self.children.push(order.start());
    }

    fn attempt(&mut self, plan: Plan) {
        let remote = match plan.ending {
            PlannedEnding::TupleTaken | PlannedEnding::NoPort => self.hold(plan),
            // Two ports are enough for one thread.
            PlannedEnding::Answered(port, _) if self.kind == OrderKind::Narrow => {
                far_host(plan.family, self.number, port)
            }
            PlannedEnding::Answered(port, _) => far(plan, port),
            PlannedEnding::ResetHere => here(plan),
            PlannedEnding::GivenUp
            | PlannedEnding::ByRetries
            | PlannedEnding::ByUserTimeout
            | PlannedEnding::Killed => far(plan, ports::SILENT),
        };
        let (socket, reused) = self.socket(plan, remote);
        prepare(&socket, plan);
        let (call, errno) = self.connect(&socket, remote, plan, reused);
        let told = Errno::from_raw(errno);
        let waiting = Waiting {
            socket,
            call,
            began: Instant::now(),
        };
        match (plan.ending, told) {
            (PlannedEnding::GivenUp, Errno::EINPROGRESS) if plan.way == WaitMode::Deadline => {
                self.leave(waiting);
            }
            (
                PlannedEnding::GivenUp | PlannedEnding::ByRetries | PlannedEnding::ByUserTimeout,
                Errno::EINPROGRESS,
            ) => {
                self.waiting.push(waiting);
            }
            (PlannedEnding::Killed, Errno::EINPROGRESS) => {
                endings::kill(&waiting.socket, remote).unwrap();
                self.ended(waiting, None);
            }
            (_, Errno::EINPROGRESS) => {
                wait(&waiting.socket);
                self.ended(waiting, None);
            }
            (_, told) => self.ended(waiting, Some(told)),
        }
    }

    /// Returns the socket of an earlier attempt, or a new one.
    fn socket(&mut self, plan: Plan, remote: SocketAddr) -> (Socket, bool) {
        if plan.ending == PlannedEnding::TupleTaken {
            return (bound(near(plan.family, self.number)), false);
        }
        let fits = |spare: &mut Spare| plan.reuses && spare.family == plan.family;
        if let Some(Spare {
            socket, is_open, ..
        }) = self.spare.take_if(fits)
        {
            if is_open {
                disconnect(&socket).unwrap();
            }
            return (socket, true);
        }
        let socket = without_linger(tcp(remote));
        if plan.binds {
            let any: IpAddr = match plan.family {
                PlannedFamily::V4 => Ipv4Addr::UNSPECIFIED.into(),
                PlannedFamily::V6 | PlannedFamily::Mapped => Ipv6Addr::UNSPECIFIED.into(),
            };
            socket.bind(&SocketAddr::new(any, 0).into()).unwrap();
        }
        (socket, false)
    }

    /// Calls connect and returns the index of the call and its result.
    fn connect(
        &mut self,
        socket: &Socket,
        remote: SocketAddr,
        plan: Plan,
        reused: bool,
    ) -> (usize, i32) {
        let from = now();
        let told = socket.connect(&remote.into());
        let to = now();
        self.calls.push(PlannedCall {
            tid: gettid().as_raw(),
            from,
            to,
            remote,
            plan,
            reused,
            told: String::new(),
        });
        let errno = told.map_or_else(|error| error.raw_os_error().unwrap(), |()| 0);
        (self.calls.len() - 1, errno)
    }

    /// Returns the address whose ports this thread holds. The first call takes them.
    fn hold(&mut self, plan: Plan) -> SocketAddr {
        let Plan { family, .. } = plan;
        let remote = far_host(family, self.number, ports::ACCEPTS);
        if self.held.iter().any(|(held, _)| *held == family) {
            return remote;
        }
        let mut sockets = vec![bound(near(family, self.number))];
        if self.kind == OrderKind::Narrow {
            sockets.extend([tcp(remote), tcp(remote)]);
        }
        for socket in sockets {
            let (call, errno) = self.connect(&socket, remote, plan, false);
            assert_eq!(errno, 0, "connects to {remote}");
            "established - -".clone_into(&mut self.calls[call].told);
            self.held.push((family, without_linger(socket)));
        }
        remote
    }

    /// Ends attempts that have waited long enough.
    fn tend(&mut self) {
        for waiting in mem::take(&mut self.waiting) {
            let plan = self.calls[waiting.call].plan;
            let waited = waiting.began.elapsed();
            let gives_up = plan.ending == PlannedEnding::GivenUp;
            // On a busy machine the kernel may be the first to give up.
            if has_ended(&waiting.socket) {
                self.ended(waiting, None);
            } else if gives_up && waited >= plan.wait {
                self.leave(waiting);
            } else {
                assert!(waited < LATE_MAX, "the kernel gives up");
                self.waiting.push(waiting);
            }
        }
        for mut child in mem::take(&mut self.children) {
            if child.try_wait().unwrap().is_none() {
                self.children.push(child);
                continue;
            }
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            self.printed += &String::from_utf8(output.stdout).unwrap();
        }
    }

    /// Gives up the attempt as the application.
    fn leave(&mut self, waiting: Waiting) {
        let Waiting { socket, call, .. } = waiting;
        let call = &mut self.calls[call];
        let family = call.plan.family;
        let before = now();
        let kept = endings::leave(socket, call.plan.leave).unwrap();
        let patience = u64::try_from(PATIENCE.as_nanos()).unwrap();
        let lasted_min = match call.plan.way {
            // It was waited for in connect.
            WaitMode::Deadline => u64::try_from(call.plan.wait.as_nanos()).unwrap(),
            WaitMode::Polled | WaitMode::Blocking => before - call.to,
        };
        call.told = if lasted_min >= patience {
            "timed_out - application".to_owned()
        } else if now() - call.from < patience {
            "cancelled - -".to_owned()
        } else {
            format!("{EITHER} - -")
        };
        self.spare = kept.map(|socket| Spare {
            socket,
            family,
            is_open: true,
        });
    }

    /// Ends an attempt with the errno of connect, or with the one that is read now.
    fn ended(&mut self, waiting: Waiting, by_connect: Option<Errno>) {
        let Waiting { socket, call, .. } = waiting;
        let told = by_connect.unwrap_or_else(|| {
            let error = socket.take_error().unwrap();
            Errno::from_raw(error.map_or(0, |error| error.raw_os_error().unwrap()))
        });
        let call = &mut self.calls[call];
        let plan = call.plan;
        let label = match plan.ending {
            PlannedEnding::Answered(_, label) => label,
            PlannedEnding::ResetHere => "refused",
            PlannedEnding::ByRetries | PlannedEnding::ByUserTimeout | PlannedEnding::GivenUp => {
                "timed_out"
            }
            PlannedEnding::Killed => "aborted",
            PlannedEnding::TupleTaken => "address_unavailable",
            PlannedEnding::NoPort => "port_exhausted",
        };
        call.told = told_as(told, plan);
        // When the kernel gives up, the socket gets the last attempt's ICMP error instead
        // (`sk_err_soft` in `tcp_write_err`).
        let of_the_last = call.reused && label == "timed_out";
        assert!(
            of_the_last || call.told.starts_with(label),
            "{plan:?} ended with {told:?}"
        );
        if plan.ending != PlannedEnding::TupleTaken {
            let refused = by_connect.is_some() && told != Errno::UnknownErrno;
            self.spare = Some(Spare {
                socket,
                family: plan.family,
                // What timed out leaves its clock behind.
                is_open: !refused || told == Errno::ETIMEDOUT,
            });
        }
    }
}

impl Display for PlannedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tid,
            from,
            to,
            remote,
            plan,
            reused,
            told,
        } = self;
        let addr = remote.ip().to_canonical();
        let remote = SocketAddr::new(addr, remote.port());
        let socket = match (plan.binds, reused) {
            (_, true) => "reused",
            (true, false) => "bound",
            (false, false) => "new",
        };
        let Plan {
            ending,
            family,
            way,
            caller,
            ..
        } = plan;
        let ending = format!("{ending:?}");
        let (ending, _) = ending.split_once('(').unwrap_or((&ending, ""));
        let how = format!("{ending},{family:?},{way:?},{caller:?},{socket}");
        writeln!(f, "{tid} {from} {to} {remote} {how} {told}")
    }
}
