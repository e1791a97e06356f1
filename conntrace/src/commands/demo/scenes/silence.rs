//! Nobody answers: the kernel gives up, or the application does.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::{
    BY_APPLICATION, BY_KERNEL, CANCELLED, DemoScene, ESTABLISHED, Needs, SILENT_V4, SILENT_V6,
    Sysctls,
    acts::{at, begin, connect, ends, give_up, hold, listener, tcp},
    scene,
};
use crate::diagnosis::{Certainty, Code};
use conntrace_testnet::{
    FAR_V4, disconnect,
    ports::{ACCEPTS, ACCEPTS_SECOND_SYN, SILENT, SYN_THEN_SILENT, WRONG_RESET, WRONG_SYN_ACK},
};

/// How long an application waits that gives up; longer than the patience.
pub(super) const GIVES_UP_AFTER: Duration = Duration::from_millis(300);
/// Likewise, longer than the kernel waits before it sends the SYN again.
pub(super) const GIVES_UP_LATE: Duration = Duration::from_millis(1200);
/// How long the kernel tries where a scene lets it.
const USER_TIMEOUT: Duration = Duration::from_millis(1500);
/// A far host that never answers anything, not even wrongly.
const UNHEARD_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 6);
/// Of a listener; below the ports that the kernel chooses from.
const LISTENER_PORT: u16 = 20_002;

/// SYNs at 0 and 1 s, the end at 3 s.
const FEW_RETRIES: Sysctls = &[
    ("net/ipv4/tcp_syn_retries", "1"),
    // From Linux 6.5 these come on top.
    ("net/ipv4/tcp_syn_linear_timeouts", "0"),
];

#[rustfmt::skip]
pub(super) const SCENES: &[DemoScene] = &[
    scene("user timeout", "connect to a silent host with TCP_USER_TIMEOUT set to 1.5 s", Needs::Far, &[BY_KERNEL], || user_timeout(at(UNHEARD_V4, SILENT))).because(Code::SilentHost, Certainty::Possible),
    scene("user timeout v6", "IPv6: connect to a silent host with TCP_USER_TIMEOUT set to 1.5 s", Needs::FarV6, &[BY_KERNEL], || user_timeout(at(SILENT_V6, SILENT))).because(Code::SilentHost, Certainty::Possible),
    scene("crossed, silent", "connect to a host that sends a SYN of its own and then nothing more", Needs::Far, &[BY_KERNEL], || user_timeout(at(SILENT_V4, SYN_THEN_SILENT))),
    scene("retries used up", "connect to a silent host until the kernel has used up its SYN retries", Needs::Far, &[BY_KERNEL], || connect(UNHEARD_V4, SILENT)).with(FEW_RETRIES).because(Code::SilentHost, Certainty::Possible),

    scene("app timeout", "connect to a silent host, give up after 0.3 s", Needs::Far, &[BY_APPLICATION], || give_up(at(SILENT_V4, SILENT), GIVES_UP_AFTER)),
    scene("app timeout v6", "IPv6: connect to a silent host, give up after 0.3 s", Needs::FarV6, &[BY_APPLICATION], || give_up(at(SILENT_V6, SILENT), GIVES_UP_AFTER)),
    scene("after a stall", "connect to a silent host, give up after 1.2 s: one SYN was sent again", Needs::Far, &[BY_APPLICATION], || give_up(at(UNHEARD_V4, SILENT), GIVES_UP_LATE)).because(Code::SilentHost, Certainty::Possible),
    scene("SO_SNDTIMEO", "connect to a silent host with SO_SNDTIMEO set to 0.3 s", Needs::Far, &[BY_APPLICATION], || send_timeout(at(SILENT_V4, SILENT))),
    scene("wrong SYN-ACK", "connect to a host whose SYN-ACK answers another SYN, give up after 0.3 s", Needs::Far, &[BY_APPLICATION], || give_up(at(SILENT_V4, WRONG_SYN_ACK), GIVES_UP_AFTER)),
    scene("wrong RST", "connect to a host whose RST answers another SYN, give up after 0.3 s", Needs::Far, &[BY_APPLICATION], || give_up(at(SILENT_V4, WRONG_RESET), GIVES_UP_AFTER)),
    scene("queue full", "connect to a server that does not accept and whose queue is full", Needs::Lo, &[ESTABLISHED, BY_APPLICATION], || queue_full(at(Ipv4Addr::LOCALHOST, LISTENER_PORT))).because(Code::AnswersSometimes, Certainty::Possible),
    scene("not this time", "connect twice to a server that answers late; the second attempt gives up after 0.3 s", Needs::Far, &[ESTABLISHED, BY_APPLICATION], || not_this_time(at(FAR_V4, ACCEPTS_SECOND_SYN))).apart().because(Code::AnswersSometimes, Certainty::Possible),
    scene("one port only", "connect to a host on port 80, where it answers, then on port 82, where it does not", Needs::Far, &[ESTABLISHED, BY_APPLICATION], one_port_only).because(Code::RemoteFiltered, Certainty::Likely),
    scene("killed", "kill the process that holds the socket while it waits for the answer", Needs::Far, &[BY_APPLICATION], killed),

    scene("closed", "begin to connect, close the socket at once", Needs::Far, &[CANCELLED], || begin(at(SILENT_V4, SILENT)).map(drop)),
    scene("closed v6", "IPv6: begin to connect, close the socket at once", Needs::FarV6, &[CANCELLED], || begin(at(SILENT_V6, SILENT)).map(drop)),
    scene("shut down", "begin to connect, call shutdown at once", Needs::Far, &[CANCELLED], shut_down),
    scene("disconnected", "begin to connect, disconnect the socket at once (connect to AF_UNSPEC)", Needs::Far, &[CANCELLED], || disconnect(&begin(at(SILENT_V4, SILENT))?)),
];

fn user_timeout(to: SocketAddr) -> io::Result<()> {
    let socket = tcp(to)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    ends(&socket, to);
    Ok(())
}

/// A blocking connect returns after `SO_SNDTIMEO`; the attempt goes on until the
/// socket is closed.
fn send_timeout(to: SocketAddr) -> io::Result<()> {
    let socket = tcp(to)?;
    socket.set_write_timeout(Some(GIVES_UP_AFTER))?;
    ends(&socket, to);
    Ok(())
}

/// Nobody accepts, and the one place in the queue is taken: the kernel drops the
/// next SYN without a word.
fn queue_full(own: SocketAddr) -> io::Result<()> {
    let _listener = listener(own, 0)?;
    let _first = hold(own)?;
    give_up(own, GIVES_UP_AFTER)
}

/// The server answers the second SYN, for which the second attempt does not wait.
fn not_this_time(to: SocketAddr) -> io::Result<()> {
    ends(&tcp(to)?, to);
    give_up(to, GIVES_UP_AFTER)
}

/// A host answers on one port and not on another.
fn one_port_only() -> io::Result<()> {
    connect(FAR_V4, ACCEPTS)?;
    give_up(at(FAR_V4, SILENT), GIVES_UP_LATE)
}

/// Linux ends the attempt and then says that there was none.
fn shut_down() -> io::Result<()> {
    let _ = begin(at(SILENT_V4, SILENT))?.shutdown(Shutdown::Both);
    Ok(())
}

/// The process that holds the socket is killed. It is this program once more,
/// which has the socket as its input, and reads a recording that never comes.
fn killed() -> io::Result<()> {
    let socket = OwnedFd::from(begin(at(SILENT_V4, SILENT))?);
    let (recording, never_written) = io::pipe()?;
    let mut child = Command::new("/proc/self/exe")
        .args(["replay", "/dev/stdout"])
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(recording))
        .stderr(Stdio::null())
        .spawn()?;
    thread::sleep(GIVES_UP_AFTER);
    let was_there = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    drop(never_written);
    if was_there {
        Ok(())
    } else {
        Err(io::Error::other("the process ended by itself"))
    }
}
