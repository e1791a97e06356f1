//! Socket calls of the workers' applications, and their destinations.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, endings::USER_TIMEOUT};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};
use socket2::Socket;

use crate::million::plan::{Plan, PlannedEnding, PlannedFamily, WaitMode};

/// Time limit of every ending.
pub(crate) const LATE_MAX: Duration = Duration::from_secs(20);
/// Interval between two checks.
pub(crate) const POLL: Duration = Duration::from_millis(1);

/// First of the ports that are bound, one per thread.
const BOUND_PORTS: u16 = 45_000;

/// Label of the errno to the application, which knows if it asked for a port.
pub(crate) fn told_as(told: Errno, plan: Plan) -> String {
    let label = match (told, plan.ending) {
        (Errno::UnknownErrno, _) => return "established - -".to_owned(),
        (Errno::ETIMEDOUT, _) => return "timed_out ETIMEDOUT kernel".to_owned(),
        (Errno::ECONNREFUSED, _) => "refused",
        (Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EACCES, _) => "unreachable",
        (Errno::ECONNABORTED, _) => "aborted",
        (Errno::EADDRNOTAVAIL, PlannedEnding::TupleTaken) => "address_unavailable",
        (Errno::EADDRNOTAVAIL, _) => "port_exhausted",
        (other, _) => panic!("{plan:?} ended with {other:?}"),
    };
    format!("{label} {told:?} -")
}

pub(crate) fn prepare(socket: &Socket, plan: Plan) {
    let Plan { way, ending, .. } = plan;
    let gives_up = ending == PlannedEnding::GivenUp;
    let deadline = if gives_up { plan.wait + POLL } else { LATE_MAX };
    let deadline = (way == WaitMode::Deadline).then_some(deadline);
    let user_timeout = (ending == PlannedEnding::ByUserTimeout).then_some(USER_TIMEOUT);
    socket.set_nonblocking(way == WaitMode::Polled).unwrap();
    socket.set_write_timeout(deadline).unwrap();
    socket.set_tcp_user_timeout(user_timeout).unwrap();
}

/// Waits in poll until the attempt is over. `SO_ERROR` is left alone until then, also
/// where an ICMP error met a locked socket and ends the attempt only a second later. That
/// of an attempt before on this socket is still in its error queue, for ever `POLLERR`.
pub(crate) fn wait(socket: &Socket) {
    let until = Instant::now() + LATE_MAX;
    loop {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::from(1000_u16)).unwrap();
        let events = fds[0].revents().unwrap();
        if events.contains(PollFlags::POLLOUT) {
            return;
        }
        assert!(Instant::now() < until, "the attempt ends: {events:?}");
        thread::sleep(POLL);
    }
}

pub(crate) fn far(plan: Plan, port: u16) -> SocketAddr {
    far_host(plan.family, plan.host.into(), port)
}

/// Returns a far host. Each thread has its own, with a low number.
pub(crate) fn far_host(family: PlannedFamily, number: u16, port: u16) -> SocketAddr {
    let [a, b, c, _] = FAR_V4.octets();
    let [s0, s1, s2, s3, ..] = FAR_V6.segments();
    let v4 = |first: u8| {
        let [_, low] = number.to_be_bytes();
        Ipv4Addr::new(a, b, c, first + low)
    };
    let addr: IpAddr = match family {
        PlannedFamily::V4 => v4(10).into(),
        PlannedFamily::V6 => Ipv6Addr::new(s0, s1, s2, s3, 0, 0, 1, number).into(),
        PlannedFamily::Mapped => v4(30).to_ipv6_mapped().into(),
    };
    SocketAddr::new(addr, port)
}

/// Returns the local end of a thread's sockets.
pub(crate) fn near(family: PlannedFamily, number: u16) -> SocketAddr {
    let local: IpAddr = match family {
        PlannedFamily::V4 => FAR_LOCAL_V4.into(),
        PlannedFamily::V6 => FAR_LOCAL_V6.into(),
        PlannedFamily::Mapped => FAR_LOCAL_V4.to_ipv6_mapped().into(),
    };
    SocketAddr::new(local, BOUND_PORTS + number)
}

/// Address of this host without a listener.
pub(crate) fn here(plan: Plan) -> SocketAddr {
    let addr: IpAddr = match plan.family {
        PlannedFamily::V4 => Ipv4Addr::LOCALHOST.into(),
        PlannedFamily::V6 => Ipv6Addr::LOCALHOST.into(),
        PlannedFamily::Mapped => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
    };
    SocketAddr::new(addr, u16::from(plan.host))
}

/// The clock of the attempts' ids, in nanoseconds.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}
