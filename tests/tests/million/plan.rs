//! What an attempt is to be: everything about it is drawn from the seed.

use std::time::Duration;

use conntrace_testnet::ports;
use fastrand::Rng;

use crate::order::Kind;

/// How an attempt is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The far end accepts.
    Accepted,
    /// It sends a RST.
    Reset,
    /// This host does: nobody listens on its loopback.
    ResetHere,
    /// The far router sends the ICMP error of this port, by which the attempt gets this
    /// label.
    Icmp(u16, &'static str),
    /// Nobody answers, and the application gives up.
    GivenUp,
    /// Nobody answers, and the kernel gives up: after its retries, or `TCP_USER_TIMEOUT`.
    ByRetries,
    ByUserTimeout,
    /// Somebody else ends the socket.
    Killed,
    /// The 4-tuple is another socket's.
    TupleTaken,
    /// All ports of the range are taken for that remote.
    NoPort,
}

/// Endings with their weights.
type Weights = [(u32, Ending)];

const WIDE: &Weights = &[
    (140, Ending::Accepted),
    (200, Ending::Reset),
    (140, Ending::ResetHere),
    (80, Ending::Icmp(ports::PORT_UNREACHABLE, "refused")),
    (60, Ending::Icmp(ports::HOST_UNREACHABLE, "unreachable")),
    (60, Ending::Icmp(ports::NET_UNREACHABLE, "unreachable")),
    (60, Ending::Icmp(ports::ADMIN_PROHIBITED, "unreachable")),
    (60, Ending::Icmp(ports::TTL_EXCEEDED, "unreachable")),
    (120, Ending::GivenUp),
    (10, Ending::ByRetries),
    (10, Ending::ByUserTimeout),
    (30, Ending::Killed),
    (30, Ending::TupleTaken),
];
const NARROW: &Weights = &[
    (2, Ending::Reset),
    (2, Ending::NoPort),
    (1, Ending::TupleTaken),
];

/// Which addresses, and on which kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    /// IPv4 on a socket for IPv6.
    Mapped,
}

/// How the application waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In connect.
    Blocking,
    /// In poll.
    Polled,
    /// In connect, but no longer than `SO_SNDTIMEO`.
    Deadline,
}

/// Who calls connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A thread that has done so before.
    Thread,
    /// One that is gone when the attempt ends.
    NewThread,
    NewProcess,
}

/// How the application gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    Close,
    Shutdown,
    /// Connects to `AF_UNSPEC`.
    Disconnect,
}

/// An attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) ending: Ending,
    pub(crate) family: Family,
    pub(crate) way: Way,
    pub(crate) caller: Caller,
    pub(crate) leave: Leave,
    /// After so long.
    pub(crate) wait: Duration,
    /// On a new socket, which is bound before.
    pub(crate) binds: bool,
    /// On the socket of an attempt before.
    pub(crate) reuses: bool,
    /// Last byte of the remote address.
    pub(crate) host: u8,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng, kind: Kind, can_destroy: bool) -> Self {
        // A process of one attempt holds nothing.
        let can_be = |ending| match kind {
            Kind::Wide | Kind::Narrow => can_destroy || ending != Ending::Killed,
            Kind::Single => ending != Ending::Killed && ending != Ending::TupleTaken,
        };
        let weights = match kind {
            Kind::Narrow => NARROW,
            Kind::Wide | Kind::Single => WIDE,
        };
        let ending = loop {
            let ending = ending(rng, weights);
            if can_be(ending) {
                break ending;
            }
        };
        Self {
            ending,
            family: of(rng, [Family::V4, Family::V6, Family::Mapped]),
            way: way(rng, ending),
            caller: match (kind, rng.u32(..400)) {
                (Kind::Single, _) | (Kind::Wide, 0) => Caller::NewProcess,
                (Kind::Wide | Kind::Narrow, 1..40) => Caller::NewThread,
                _ => Caller::Thread,
            },
            leave: of(rng, [Leave::Close, Leave::Shutdown, Leave::Disconnect]),
            wait: Duration::from_millis(match rng.u32(..5) {
                0 => rng.u64(1..300),
                1 => rng.u64(600..900),
                _ => 0,
            }),
            binds: kind != Kind::Narrow && rng.u32(..4) == 0,
            reuses: rng.bool(),
            host: rng.u8(100..116),
        }
    }
}

fn ending(rng: &mut Rng, weights: &Weights) -> Ending {
    let sum: u32 = weights.iter().map(|(weight, _)| weight).sum();
    let mut drawn = rng.u32(..sum);
    for (weight, ending) in weights {
        match drawn.checked_sub(*weight) {
            None => return *ending,
            Some(rest) => drawn = rest,
        }
    }
    unreachable!("less than the sum of the weights")
}

/// A thread that waits in connect for what nobody answers makes no other attempt
/// meanwhile: few do.
fn way(rng: &mut Rng, ending: Ending) -> Way {
    match (ending, rng.u32(..64)) {
        (Ending::GivenUp, 0..4) => Way::Deadline,
        (Ending::ByUserTimeout, 0) => Way::Blocking,
        (Ending::GivenUp | Ending::ByRetries | Ending::ByUserTimeout | Ending::Killed, _) => {
            Way::Polled
        }
        _ => of(rng, [Way::Blocking, Way::Polled, Way::Deadline]),
    }
}

fn of<T: Copy>(rng: &mut Rng, all: [T; 3]) -> T {
    all[rng.usize(..3)]
}
