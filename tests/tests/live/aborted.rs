//! Attempts that another process ends, as `ss -K` does.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{FAR_V4, FAR_V6, destroy, ports};
use conntrace_tests::{Attempted, ExpectedLine, Live, attempt_on, live_test, run, tcp};
use nix::errno::Errno;
use socket2::Socket;

/// Upper bound for every attempt in this group.
const LONG: Duration = Duration::from_secs(10);
/// Time before the first SYN retransmission at 1 s, less a margin for an early timer.
const BEFORE_STALL: Duration = Duration::from_millis(990);

pub(crate) fn main() -> ExitCode {
    let mut tests = Vec::new();
    let mapped = FAR_V4.to_ipv6_mapped();
    for (name, remote) in [
        ("v4", SocketAddr::from((FAR_V4, ports::SILENT))),
        ("v6", (FAR_V6, ports::SILENT).into()),
        ("mapped", (mapped, ports::SILENT).into()),
    ] {
        tests.extend([
            live_test(&format!("blocking_{name}"), move || {
                aborted(remote, attempt_on);
            }),
            live_test(&format!("polled_{name}"), move || {
                aborted(remote, |socket, remote| {
                    Attempted::within(LONG, socket, remote)
                });
            }),
        ]);
    }
    run(tests)
}

/// The line names the thread that connects, not the one that kills the socket.
fn aborted(remote: SocketAddr, attempt: fn(&Socket, SocketAddr) -> Attempted) {
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_STALL, |_| {
        let socket = &tcp(remote);
        let (sender, attempted) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || sender.send(attempt(socket, remote)).unwrap());
            kill(socket, remote);
        });
        attempted.recv().unwrap()
    });
    let told = Errno::from_raw(scene.value.errno);
    assert_eq!(told, Errno::ECONNABORTED);
    live.expect(&scene, &[ExpectedLine::new("aborted", &scene.value)]);
    assert!(live.stalls(&scene).is_empty());
}

/// Kills the attempt's socket as soon as the kernel lists it.
fn kill(socket: &Socket, remote: SocketAddr) {
    let until = Instant::now() + LONG;
    loop {
        let local = socket.local_addr().unwrap().as_socket().unwrap();
        match destroy(local, remote) {
            Ok(()) => return,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}
