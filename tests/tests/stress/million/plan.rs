//! Plan of an attempt: everything about it is drawn from the seed.

use std::{sync::LazyLock, time::Duration};

use conntrace_testnet::{catalogue, endings::Leave, ports};
use fastrand::Rng;

use crate::million::order::OrderKind;

/// Planned ending of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlannedEnding {
    /// Sends a SYN to this port of a far host, where the answer leads to this label.
    Answered(u16, &'static str),
    /// Connects to this host's loopback address, where no listener is.
    ResetHere,
    /// Nobody answers, and the application gives up.
    GivenUp,
    /// Nobody answers, and the kernel gives up: after its retries, or `TCP_USER_TIMEOUT`.
    ByRetries,
    ByUserTimeout,
    /// Another process closes the socket.
    Killed,
    /// Another socket has the same 4-tuple.
    TupleTaken,
    /// All ports of the range are taken for that remote.
    NoPort,
}

/// Planned endings with their weights.
type Weights = [(u32, PlannedEnding)];

static WIDE: LazyLock<Vec<(u32, PlannedEnding)>> = LazyLock::new(|| {
    let answered = catalogue::all().filter(|one| one.is_at_once());
    answered
        .map(|one| PlannedEnding::Answered(one.to.port(), one.expected[0].label))
        .map(|answered| (40, answered))
        .chain([
            (140, PlannedEnding::ResetHere),
            (120, PlannedEnding::GivenUp),
            (10, PlannedEnding::ByRetries),
            (10, PlannedEnding::ByUserTimeout),
            (30, PlannedEnding::Killed),
            (30, PlannedEnding::TupleTaken),
        ])
        .collect()
});
const NARROW: &Weights = &[
    (2, PlannedEnding::Answered(ports::RESETS, "refused")),
    (2, PlannedEnding::NoPort),
    (1, PlannedEnding::TupleTaken),
];

/// Address family of the destination and of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlannedFamily {
    V4,
    V6,
    /// IPv4 address on an IPv6 socket.
    Mapped,
}

/// Way in which the application waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitMode {
    /// Blocks in connect.
    Blocking,
    /// Waits in poll.
    Polled,
    /// Blocks in connect up to `SO_SNDTIMEO`.
    Deadline,
}

/// Caller of connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallerKind {
    /// Thread that makes many attempts.
    Thread,
    /// Thread that is gone when the attempt ends.
    NewThread,
    NewProcess,
}

/// Plan of one attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) ending: PlannedEnding,
    pub(crate) family: PlannedFamily,
    pub(crate) way: WaitMode,
    pub(crate) caller: CallerKind,
    pub(crate) leave: Leave,
    /// Time until the application gives up.
    pub(crate) wait: Duration,
    /// True if a new socket is bound before it connects.
    pub(crate) binds: bool,
    /// True if the attempt uses the socket of an earlier attempt.
    pub(crate) reuses: bool,
    /// Last byte of the remote address.
    pub(crate) host: u8,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng, kind: OrderKind, can_kill: bool) -> Self {
        // A process of one attempt holds nothing.
        let can_be = |ending| match kind {
            OrderKind::Wide | OrderKind::Narrow => can_kill || ending != PlannedEnding::Killed,
            OrderKind::Single => {
                ending != PlannedEnding::Killed && ending != PlannedEnding::TupleTaken
            }
        };
        let weights = match kind {
            OrderKind::Narrow => NARROW,
            OrderKind::Wide | OrderKind::Single => &WIDE,
        };
        let ending = loop {
            let ending = ending(rng, weights);
            if can_be(ending) {
                break ending;
            }
        };
        Self {
            ending,
            family: of(
                rng,
                [PlannedFamily::V4, PlannedFamily::V6, PlannedFamily::Mapped],
            ),
            way: way(rng, ending),
            caller: match (kind, rng.u32(..400)) {
                (OrderKind::Single, _) | (OrderKind::Wide, 0) => CallerKind::NewProcess,
                (OrderKind::Wide | OrderKind::Narrow, 1..40) => CallerKind::NewThread,
                _ => CallerKind::Thread,
            },
            leave: of(rng, [Leave::Close, Leave::Shutdown, Leave::Disconnect]),
            wait: Duration::from_millis(match rng.u32(..5) {
                0 => rng.u64(1..300),
                1 => rng.u64(600..900),
                _ => 0,
            }),
            binds: kind != OrderKind::Narrow && rng.u32(..4) == 0,
            reuses: rng.bool(),
            host: rng.u8(100..116),
        }
    }
}

fn ending(rng: &mut Rng, weights: &Weights) -> PlannedEnding {
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
fn way(rng: &mut Rng, ending: PlannedEnding) -> WaitMode {
    match (ending, rng.u32(..64)) {
        (PlannedEnding::GivenUp, 0..4) => WaitMode::Deadline,
        (PlannedEnding::ByUserTimeout, 0) => WaitMode::Blocking,
        (
            PlannedEnding::GivenUp
            | PlannedEnding::ByRetries
            | PlannedEnding::ByUserTimeout
            | PlannedEnding::Killed,
            _,
        ) => WaitMode::Polled,
        _ => of(
            rng,
            [WaitMode::Blocking, WaitMode::Polled, WaitMode::Deadline],
        ),
    }
}

fn of<T: Copy>(rng: &mut Rng, all: [T; 3]) -> T {
    all[rng.usize(..3)]
}
