//! Actions of an application during an attempt that do not end it. The line is printed once, with
//! the ending.

use std::{
    net::{IpAddr, Shutdown, SocketAddr},
    os::{fd::AsFd as _, unix::thread::JoinHandleExt as _},
    process::ExitCode,
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, HostTest, Live, PlayedScenario, attempt_on,
    kernel_version, let_interrupt, live_test, run, tcp, wait_for_syn_sent,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
    sys::{
        pthread::pthread_kill,
        signal::{SaFlags, Signal},
    },
};
use socket2::Socket;

/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = ms(200);
/// Time before the first SYN retransmission at 1 s, less a margin for an early timer.
const BEFORE_STALL: Duration = ms(990);
/// Time before the second SYN retransmission (at 2 s from Linux 6.5 on), less a margin for an early
/// timer.
const BEFORE_SECOND_STALL: Duration = ms(1990);
/// Time that exceeds a thread's way from `SYN_SENT` to its sleep.
const ASLEEP: Duration = ms(20);
/// Upper bound in milliseconds for every attempt in this group.
const LONG: u16 = 10_000;

pub(crate) fn main() -> ExitCode {
    let_interrupt(Signal::SIGUSR1, SaFlags::empty());
    let_interrupt(Signal::SIGUSR2, SaFlags::SA_RESTART);
    let mut tests = Vec::new();
    let hosts: [(&str, IpAddr); 2] = [("v4", FAR_V4.into()), ("v6", FAR_V6.into())];
    for (name, host) in hosts {
        let scenarios: [HostTest; 13] = [
            ("send_timeout_over_patience", send_timeout_over_patience),
            ("send_timeout_under_patience", send_timeout_under_patience),
            (
                "send_timeout_then_established",
                send_timeout_then_established,
            ),
            ("interrupted_then_closed", interrupted_then_closed),
            ("interrupted_then_polled", interrupted_then_polled),
            ("interrupted_and_restarted", interrupted_and_restarted),
            ("connect_again", connect_again),
            ("connect_elsewhere", connect_elsewhere),
            ("connect_when_established", connect_when_established),
            ("close_with_linger_0", |host| given_up(host, linger_0)),
            ("shutdown_write", |host| {
                given_up(host, |it| shut(it, Shutdown::Write));
            }),
            ("shutdown_read", |host| {
                given_up(host, |it| shut(it, Shutdown::Read));
            }),
            ("shut_down_by_another_thread", shut_down_by_another_thread),
        ];
        for (scenario, play) in scenarios {
            tests.push(live_test(&format!("{scenario}_{name}"), move || play(host)));
        }
    }
    run(tests)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn silent(host: IpAddr) -> SocketAddr {
    (host, ports::SILENT).into()
}

fn assert_told(attempted: &Attempted, errno: Errno) {
    assert_eq!(Errno::from_raw(attempted.errno), errno);
}

/// `SO_SNDTIMEO` ends the call with EINPROGRESS, but not the attempt. The next connect waits as
/// long again and returns EALREADY.
fn send_timeout(remote: SocketAddr, timeout: Duration) -> Attempted {
    let socket = tcp(remote);
    socket.set_write_timeout(Some(timeout)).unwrap();
    let attempted = attempt_on(&socket, remote);
    assert_told(&attempted, Errno::EINPROGRESS);
    assert_told(&attempt_on(&socket, remote), Errno::EALREADY);
    attempted
}

fn send_timeout_over_patience(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(PATIENCE..BEFORE_STALL, |_| {
        send_timeout(silent(host), ms(150))
    });
    live.expect(&scene, &[ExpectedLine::gave_up("timed_out", &scene.value)]);
}

fn send_timeout_under_patience(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| send_timeout(silent(host), ms(30)));
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}

/// Connect returns a timeout to the application, which calls it again and succeeds.
fn send_timeout_then_established(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::ACCEPTS_SECOND_SYN));
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_SECOND_STALL, |_| {
        let socket = tcp(remote);
        socket.set_write_timeout(Some(ms(100))).unwrap();
        assert_told(&attempt_on(&socket, remote), Errno::EINPROGRESS);
        socket.set_write_timeout(None).unwrap();
        attempt_on(&socket, remote)
    });
    expect_answered_late(&live, &scene);
}

/// Expects one stall and an established outcome, because the second SYN is answered.
fn expect_answered_late(live: &Live, scene: &PlayedScenario<Attempted>) {
    let expected = ExpectedLine {
        syn_sent: 2,
        syn_retransmitted: 1,
        ..ExpectedLine::established(&scene.value)
    };
    let lines = live.expect(scene, std::slice::from_ref(&expected));
    let stall = live.only_stall(scene);
    expected.assert_stall(&stall, &lines[0], ExpectedReply::None);
}

/// Calls a blocking connect on a new thread, and interrupts it by this signal.
fn signalled(socket: &Socket, remote: SocketAddr, signal: Signal) -> Attempted {
    let socket = socket.try_clone().unwrap();
    let connecting = thread::Builder::new()
        .name("connecting".to_owned())
        .spawn(move || attempt_on(&socket, remote))
        .unwrap();
    wait_for_syn_sent();
    thread::sleep(ASLEEP);
    pthread_kill(connecting.as_pthread_t(), signal).unwrap();
    connecting.join().unwrap()
}

/// Interrupts a connect, then repeats it without blocking.
fn interrupted(socket: &Socket, remote: SocketAddr) -> Attempted {
    let attempted = signalled(socket, remote, Signal::SIGUSR1);
    assert_eq!(attempted.comm, "connecting");
    assert_told(&attempted, Errno::EINTR);
    assert_told(&Attempted::begin(socket, remote), Errno::EALREADY);
    attempted
}

fn interrupted_then_closed(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        interrupted(&tcp(silent(host)), silent(host))
    });
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}

/// The application waits in poll after EINTR, which reports the completed handshake.
fn interrupted_then_polled(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::ACCEPTS_SECOND_SYN));
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_SECOND_STALL, |_| {
        let socket = tcp(remote);
        let attempted = interrupted(&socket, remote);
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        assert_eq!(poll(&mut polled, LONG), Ok(1));
        assert_eq!(polled[0].revents(), Some(PollFlags::POLLOUT));
        Attempted {
            errno: 0,
            ..attempted
        }
    });
    expect_answered_late(&live, &scene);
}

/// With `SA_RESTART` the kernel itself restarts connect.
fn interrupted_and_restarted(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::ACCEPTS_SECOND_SYN));
    let live = Live::get();
    let scene = live.play_lasting(..BEFORE_SECOND_STALL, |_| {
        signalled(&tcp(remote), remote, Signal::SIGUSR2)
    });
    expect_answered_late(&live, &scene);
}

fn connect_again(host: IpAddr) {
    connect_to_other(host, silent(host));
}

fn connect_elsewhere(host: IpAddr) {
    connect_to_other(host, (host, ports::ACCEPTS).into());
}

/// A second connect on a connecting socket is no attempt, whatever its address.
fn connect_to_other(host: IpAddr, other: SocketAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        let socket = tcp(silent(host));
        let attempted = Attempted::begin(&socket, silent(host));
        for _ in 0..3 {
            assert_told(&Attempted::begin(&socket, other), Errno::EALREADY);
        }
        attempted
    });
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}

fn connect_when_established(host: IpAddr) {
    let remote = SocketAddr::from((host, ports::ACCEPTS));
    let live = Live::get();
    let scene = live.play(|_| {
        let socket = tcp(remote);
        let attempted = attempt_on(&socket, remote);
        let refusing = SocketAddr::from((host, ports::RESETS));
        for other in [remote, refusing] {
            assert_told(&attempt_on(&socket, other), Errno::EISCONN);
        }
        attempted
    });
    live.expect(&scene, &[ExpectedLine::established(&scene.value)]);
}

/// The application gives up by ways that differ in the kernel (`tcp_close`, `tcp_disconnect`).
fn given_up(host: IpAddr, give_up: fn(&Socket)) {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        let socket = tcp(silent(host));
        let attempted = Attempted::begin(&socket, silent(host));
        give_up(&socket);
        attempted
    });
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}

fn linger_0(socket: &Socket) {
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

fn shut(socket: &Socket, how: Shutdown) {
    // Linux ends the attempt, then returns an error as if there was none.
    let _ = socket.shutdown(how);
}

/// One thread is in connect when another ends the attempt, and the line names the first. Before
/// Linux 6.7 the kernel refuses that while a thread waits (`tcp_disconnect`, EBUSY). The first
/// thread then stops waiting, and closes.
fn shut_down_by_another_thread(host: IpAddr) {
    let live = Live::get();
    let scene = live.play_lasting(..PATIENCE, |_| {
        let socket = tcp(silent(host));
        socket.set_write_timeout(Some(PATIENCE / 2)).unwrap();
        thread::scope(|scope| {
            let connecting = thread::Builder::new()
                .name("connecting".to_owned())
                .spawn_scoped(scope, || attempt_on(&socket, silent(host)))
                .unwrap();
            wait_for_syn_sent();
            let error = socket.shutdown(Shutdown::Both).err();
            let is_busy = error.is_some_and(|it| it.raw_os_error() == Some(Errno::EBUSY as i32));
            let attempted = connecting.join().unwrap();
            let waited = attempted.errno == Errno::EINPROGRESS as i32;
            assert_eq!(waited, is_busy, "{attempted:?}");
            assert!(!is_busy || kernel_version() < (6, 7));
            attempted
        })
    });
    assert_eq!(scene.value.comm, "connecting");
    live.expect(&scene, &[ExpectedLine::gave_up("cancelled", &scene.value)]);
}
