//! Scenarios without an answer: the kernel gives up, or the application does.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use super::{
    Act::{Connect, Once, Starting},
    SILENT_V4, SILENT_V6, Scenario, Sysctls, mapped,
    outcome::{
        BY_APPLICATION, BY_KERNEL, CANCELLED, CERTAIN, ESTABLISHED, ExpectedOutcome, LIKELY,
        POSSIBLE,
    },
    process::Client,
    scenario, v4, v6,
};
use crate::{
    FAR_V4,
    endings::{
        DEADLINE, LATE_DEADLINE, Leave, attempt, begin, connect, give_up, hold, kernel_gives_up,
        leave, listener, tcp,
    },
    ports::{
        ACCEPTS, ACCEPTS_LATE, ACCEPTS_SECOND_SYN, FROM_ELSEWHERE, SILENT, SYN_THEN_SILENT,
        WRONG_RESET, WRONG_SYN_ACK,
    },
};

/// Far host that sends nothing at all, not even a wrong answer.
const UNHEARD_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 6);
/// Port of a listener, below the range that the kernel chooses from.
const LISTENER_PORT: u16 = 20_002;
const UNHEARD: SocketAddr = v4(UNHEARD_V4, SILENT);
const NOBODY: SocketAddr = v4(SILENT_V4, SILENT);
const NOBODY_V6: SocketAddr = v6(SILENT_V6, SILENT);
const NOBODY_MAPPED: SocketAddr = mapped(SILENT_V4, SILENT);

/// SYNs at 0 and 1 s, the end at 3 s.
const FEW_RETRIES: Sysctls = &[
    ("net/ipv4/tcp_syn_retries", "1"),
    // From Linux 6.5 these come on top.
    ("net/ipv4/tcp_syn_linear_timeouts", "0"),
];

const NOT_THIS_TIME: &[ExpectedOutcome] = &[ESTABLISHED.again(), BY_APPLICATION];
const ONE_PORT_ONLY: &[ExpectedOutcome] = &[ESTABLISHED.to_port(ACCEPTS), BY_APPLICATION.again()];

#[rustfmt::skip]
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("user timeout", "connect to a silent host with TCP_USER_TIMEOUT set to 1.5 s", UNHEARD, Once(kernel_gives_up), &[BY_KERNEL]).because("silent_host", POSSIBLE),
    scenario("user timeout v6", "IPv6: connect to a silent host with TCP_USER_TIMEOUT set to 1.5 s", NOBODY_V6, Once(kernel_gives_up), &[BY_KERNEL]).because("silent_host", POSSIBLE),
    scenario("timeout mapped", "connect to a silent IPv4-mapped IPv6 address with TCP_USER_TIMEOUT set to 1.5 s", mapped(UNHEARD_V4, SILENT), Once(kernel_gives_up), &[BY_KERNEL]).because("silent_host", POSSIBLE).only_tested(),
    scenario("crossed, silent", "connect to a host that sends a SYN of its own and then nothing more", v4(SILENT_V4, SYN_THEN_SILENT), Once(kernel_gives_up), &[BY_KERNEL.crossed()]),
    scenario("retries used up", "connect to a silent host until the kernel has used up its SYN retries", UNHEARD, Connect, &[BY_KERNEL]).with(FEW_RETRIES).because("silent_host", POSSIBLE),
    scenario("retries v6", "IPv6: connect to a silent host until the kernel has used up its SYN retries", NOBODY_V6, Connect, &[BY_KERNEL]).with(FEW_RETRIES).because("silent_host", POSSIBLE).only_tested(),

    scenario("app timeout", "connect to a silent host, give up after 0.3 s", NOBODY, Once(|to| give_up(to, DEADLINE)), &[BY_APPLICATION]),
    scenario("app timeout v6", "IPv6: connect to a silent host, give up after 0.3 s", NOBODY_V6, Once(|to| give_up(to, DEADLINE)), &[BY_APPLICATION]),
    scenario("deadline mapped", "connect to a silent IPv4-mapped IPv6 address, give up after 0.3 s", NOBODY_MAPPED, Once(|to| give_up(to, DEADLINE)), &[BY_APPLICATION]).only_tested(),
    scenario("after a stall", "connect to a silent host, give up after 1.2 s: one SYN was sent again", UNHEARD, Once(|to| give_up(to, LATE_DEADLINE)), &[BY_APPLICATION.again()]).because("silent_host", POSSIBLE),
    scenario("stalled v6", "IPv6: connect to a silent host, give up after 1.2 s: one SYN was sent again", NOBODY_V6, Once(|to| give_up(to, LATE_DEADLINE)), &[BY_APPLICATION.again()]).because("silent_host", POSSIBLE).only_tested(),
    scenario("SO_SNDTIMEO", "connect to a silent host with SO_SNDTIMEO set to 0.3 s", NOBODY, Once(send_timeout), &[BY_APPLICATION]),
    scenario("wrong SYN-ACK", "connect to a host whose SYN-ACK answers another SYN, give up after 0.3 s", v4(SILENT_V4, WRONG_SYN_ACK), Once(|to| give_up(to, DEADLINE)), &[BY_APPLICATION.again()]),
    scenario("wrong RST", "connect to a host whose RST answers another SYN, give up after 0.3 s", v4(SILENT_V4, WRONG_RESET), Once(|to| give_up(to, DEADLINE)), &[BY_APPLICATION.again()]),
    scenario("queue full", "connect to a server that does not accept and whose queue is full", v4(Ipv4Addr::LOCALHOST, LISTENER_PORT), Once(queue_full), &[ESTABLISHED, BY_APPLICATION]).because("accept_queue_full", CERTAIN).or("answers_sometimes", POSSIBLE),
    scenario("not this time", "connect twice to a server that answers late; the second attempt gives up after 0.3 s", v4(FAR_V4, ACCEPTS_SECOND_SYN), Once(not_this_time), NOT_THIS_TIME).alone().because("answers_sometimes", POSSIBLE),
    scenario("one port only", "connect to a host on port 80, where it answers, then on port 82, where it does not", v4(FAR_V4, SILENT), Once(one_port_only), ONE_PORT_ONLY).because("remote_filtered", LIKELY),
    scenario("deadline", "connect to a server that answers after 0.4 s, give up after 0.3 s", v4(SILENT_V4, ACCEPTS_LATE), Once(|to| give_up(to, DEADLINE)), &[BY_APPLICATION]).because("deadline_too_short", CERTAIN).covered_by("local_drop"),
    scenario("other address", "connect to a server whose answers come from another address, give up after 1.2 s", v4(SILENT_V4, FROM_ELSEWHERE), Once(|to| give_up(to, LATE_DEADLINE)), &[BY_APPLICATION.again()]).because("answer_from_elsewhere", CERTAIN).covered_by("local_drop"),
    scenario("killed", "kill the process that holds the socket while it waits for the answer", NOBODY, Starting(killed), &[BY_APPLICATION]),

    scenario("closed", "begin to connect, close the socket at once", NOBODY, Once(|to| given_up(to, Leave::Close)), &[CANCELLED]),
    scenario("closed v6", "IPv6: begin to connect, close the socket at once", NOBODY_V6, Once(|to| given_up(to, Leave::Close)), &[CANCELLED]),
    scenario("closed mapped", "begin to connect to an IPv4-mapped IPv6 address, close the socket at once", NOBODY_MAPPED, Once(|to| given_up(to, Leave::Close)), &[CANCELLED]).only_tested(),
    scenario("shut down", "begin to connect, call shutdown at once", NOBODY, Once(|to| given_up(to, Leave::Shutdown)), &[CANCELLED]),
    scenario("shut down v6", "IPv6: begin to connect, call shutdown at once", NOBODY_V6, Once(|to| given_up(to, Leave::Shutdown)), &[CANCELLED]).only_tested(),
    scenario("disconnected", "begin to connect, disconnect the socket at once (connect to AF_UNSPEC)", NOBODY, Once(|to| given_up(to, Leave::Disconnect)), &[CANCELLED]),
    scenario("disconnected 6", "IPv6: begin to connect, disconnect the socket at once (connect to AF_UNSPEC)", NOBODY_V6, Once(|to| given_up(to, Leave::Disconnect)), &[CANCELLED]).only_tested(),
];

fn given_up(to: SocketAddr, way: Leave) -> io::Result<()> {
    leave(begin(to, None)?, way).map(drop)
}

/// A blocking connect returns after `SO_SNDTIMEO`; the attempt goes on until the
/// socket is closed.
fn send_timeout(to: SocketAddr) -> io::Result<()> {
    let socket = tcp(to)?;
    socket.set_write_timeout(Some(DEADLINE))?;
    attempt(&socket, to);
    Ok(())
}

/// Fills the accept queue, so that the kernel drops the next SYN without an answer. The listener stays
/// until it has been looked at.
fn queue_full(own: SocketAddr) -> io::Result<()> {
    let _listener = listener(own, 0)?;
    let _first = hold(own)?;
    give_up(own, DEADLINE)?;
    thread::sleep(LATE_DEADLINE);
    Ok(())
}

/// The server answers the second SYN, for which the second attempt does not wait.
fn not_this_time(to: SocketAddr) -> io::Result<()> {
    connect(to)?;
    give_up(to, DEADLINE)
}

fn one_port_only(to: SocketAddr) -> io::Result<()> {
    connect(SocketAddr::new(to.ip(), ACCEPTS))?;
    give_up(to, LATE_DEADLINE)
}

/// The killed process has the socket as its input, and reads a recording that never comes.
fn killed(to: SocketAddr, program: &Path) -> io::Result<Option<Client>> {
    let socket = OwnedFd::from(begin(to, None)?);
    let (recording, never_written) = io::pipe()?;
    let mut child = Command::new(program)
        .args(["replay", "/dev/stdout"])
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(recording))
        .stderr(Stdio::null())
        .spawn()?;
    thread::sleep(DEADLINE);
    let was_there = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    drop(never_written);
    if was_there {
        Ok(None)
    } else {
        Err(io::Error::other("the process ended by itself"))
    }
}
