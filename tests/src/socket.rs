//! Connection attempts and their outcome as the application sees it.

use std::{
    fs, io,
    net::SocketAddr,
    ops::RangeBounds,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{Testnet, disconnect, endings};
use nix::{errno::Errno, unistd::gettid};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Live, PlayedScenario};

/// Limit of runs of a scenario until it goes as intended.
const TRIES: usize = 20;
/// Time limit for another thread or process to connect.
const SYN_SENT_MAX: Duration = Duration::from_secs(10);

/// Attempt as the application saw it.
#[derive(Debug, Clone)]
pub struct Attempted {
    /// Thread id of the caller.
    pub tid: u32,
    /// Comm of the calling thread.
    pub comm: String,
    /// Remote address.
    pub remote: SocketAddr,
    /// The local port, where the socket still has one afterwards.
    pub local_port: Option<u16>,
    /// Result of connect, or later of poll and `SO_ERROR`: an errno, or 0. It is EINPROGRESS while
    /// the attempt is pending.
    pub errno: i32,
}

impl Attempted {
    /// Records the result of an attempt on this socket by the calling thread.
    pub fn on(socket: &Socket, remote: impl Into<SocketAddr>, errno: i32) -> Self {
        Self {
            tid: gettid().as_raw().unsigned_abs(),
            comm: comm(),
            remote: remote.into(),
            local_port: local_port(socket).unwrap(),
            errno,
        }
    }

    /// Connects this socket, which stays non-blocking, and waits for nothing.
    pub fn begin(socket: &Socket, remote: impl Into<SocketAddr>) -> Self {
        socket.set_nonblocking(true).unwrap();
        attempt_on(socket, remote)
    }

    /// Connects this socket without blocking, then waits in poll and reads
    /// `SO_ERROR`, but no longer than this.
    pub fn within(deadline: Duration, socket: &Socket, remote: impl Into<SocketAddr>) -> Self {
        let remote = remote.into();
        let errno = match socket.connect_timeout(&remote.into(), deadline) {
            Ok(()) => 0,
            Err(error)
                if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() =>
            {
                Errno::EINPROGRESS as i32
            }
            Err(error) => error.raw_os_error().unwrap(),
        };
        Self::on(socket, remote, errno)
    }

    /// Disconnects the socket (`AF_UNSPEC`), which ends an attempt under way.
    pub fn abandon(socket: &Socket) {
        disconnect(socket).unwrap();
    }
}

impl Live {
    /// Plays a scenario, again when its act did not last as long as meant: a
    /// loaded machine, or an ICMP error that met a locked socket (seen once in
    /// 24,000), makes another scenario of it.
    pub fn play_lasting<T: Send>(
        &self,
        lasting: impl RangeBounds<Duration>,
        act: impl Fn(&Testnet) -> T + Sync,
    ) -> PlayedScenario<T> {
        let scene = self.play_all_lasting(lasting, |testnet| {
            let began = Instant::now();
            let value = act(testnet);
            vec![(value, began.elapsed())]
        });
        PlayedScenario {
            netns: scene.netns,
            began: scene.began,
            value: scene.value.into_iter().next().unwrap(),
        }
    }

    /// Plays a scenario of several acts, again when one did not last as long as
    /// meant. `act` says how long each did.
    pub fn play_all_lasting<T: Send>(
        &self,
        lasting: impl RangeBounds<Duration>,
        act: impl Fn(&Testnet) -> Vec<(T, Duration)> + Sync,
    ) -> PlayedScenario<Vec<T>> {
        let mut wrong = Duration::ZERO;
        for _ in 0..TRIES {
            let scene = self.play(&act);
            let mut lasted = scene.value.iter().map(|(_, lasted)| *lasted);
            match lasted.find(|lasted| !lasting.contains(lasted)) {
                Some(lasted) => wrong = lasted,
                None => {
                    return PlayedScenario {
                        netns: scene.netns,
                        began: scene.began,
                        value: scene.value.into_iter().map(|(value, _)| value).collect(),
                    };
                }
            }
        }
        panic!("lasted {wrong:?} at the {TRIES}th try");
    }
}

/// A TCP socket for that address's family.
pub fn tcp(remote: SocketAddr) -> Socket {
    endings::tcp(remote).unwrap()
}

/// An MPTCP socket for that address's family.
pub fn mptcp(remote: SocketAddr) -> Socket {
    mptcp_socket(Domain::for_address(remote)).unwrap()
}

/// Returns the missing requirement if MPTCP sockets are unavailable.
pub fn lacks_mptcp() -> Option<&'static str> {
    let refused = mptcp_socket(Domain::IPV4).is_err();
    refused.then_some("needs MPTCP (CONFIG_MPTCP, net.mptcp.enabled=1)")
}

fn mptcp_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(
        domain,
        Type::STREAM,
        Some(Protocol::from(nix::libc::IPPROTO_MPTCP)),
    )
}

/// Creates a TCP socket that is bound with address reuse.
pub fn bound(local: SocketAddr) -> Socket {
    endings::bound(local).unwrap()
}

/// Connects a new socket, blocking, and closes it.
pub fn attempt(remote: impl Into<SocketAddr>) -> Attempted {
    let remote = remote.into();
    attempt_on(&tcp(remote), remote)
}

/// Connects this socket.
pub fn attempt_on(socket: &Socket, remote: impl Into<SocketAddr>) -> Attempted {
    let remote = remote.into();
    let errno = match socket.connect(&remote.into()) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap(),
    };
    Attempted::on(socket, remote, errno)
}

/// Returns true if this thread's namespace has a socket in `SYN_SENT`.
pub fn has_syn_sent() -> bool {
    ["tcp", "tcp6"].iter().any(|family| {
        let sockets = fs::read_to_string(format!("/proc/thread-self/net/{family}")).unwrap();
        let mut states = sockets.lines().map(|line| line.split_whitespace().nth(3));
        states.any(|state| state == Some("02"))
    })
}

/// Waits up to a time limit until [`has_syn_sent`].
pub fn wait_for_syn_sent() {
    let until = Instant::now() + SYN_SENT_MAX;
    while !has_syn_sent() {
        assert!(Instant::now() < until, "no attempt is under way");
        thread::sleep(Duration::from_millis(1));
    }
}

fn local_port(socket: &Socket) -> io::Result<Option<u16>> {
    let local = socket.local_addr()?.as_socket().unwrap();
    // After a failed connect the port may still be readable, but is already released.
    Ok((!local.ip().is_unspecified()).then_some(local.port()))
}

/// Returns the comm of the calling thread.
fn comm() -> String {
    fs::read_to_string("/proc/thread-self/comm")
        .unwrap()
        .trim_end_matches('\n')
        .to_owned()
}
