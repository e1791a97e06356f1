//! Operations whose instructions are counted.
//!
//! Each runs in a process and a network namespace of its own, so that none finds what another left
//! behind.

use std::{
    env, fs,
    io::{ErrorKind, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use conntrace_testnet::enter_bare;
use nix::{
    sys::signal::{Signal, kill},
    time::{ClockId, clock_gettime},
    unistd::{Pid, getppid},
};
use socket2::SockRef;

use crate::accepted::FarClient;

/// Closed port of every namespace here.
const CLOSED: u16 = 9;
/// System calls that count as one operation.
const SYSTEM_CALLS: u32 = 20;
/// Limit of closed connections that wait for late packets. With thousands of them a connect
/// searches longer for a port.
const TIME_WAIT_MAX: &str = "100";

/// Operations that are timed in each process.
pub(crate) const COUNT: usize = 400;
/// Operations that go before those, for caches and for the namespace's own tables.
pub(crate) const WARM_UP: usize = 240;
/// Operations between two pauses in which a peer empties its buffer: the smallest holds 700 events.
const DRAINED: usize = 40;
const DRAIN: Duration = Duration::from_millis(50);

/// Names of the operations, in the order in which they run.
pub(crate) const OPERATIONS: [&str; 8] = [
    "refused", "rst", "close", "accepted", "drop", "udp", "tcp", "syscalls",
];

/// Something that is done many times.
type Act = Box<dyn FnMut() -> Result<()>>;

/// Runs an operation in a new process and returns the median of its instructions. A peer that does
/// not fit all events in its buffer is let run now and then.
pub(crate) fn measure(operation: &str, drained: Option<Pid>) -> Result<u64> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["operation", operation]);
    if let Some(pid) = drained {
        command.arg(pid.to_string());
    }
    let output = command.output().context("cannot run the meter again")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{operation}: {}", complaint.trim());
    let median = String::from_utf8(output.stdout)?;
    median.trim().parse().context("a median")
}

/// Returns the median of the instructions of one operation, in this process.
pub(crate) fn median(operation: &str, drained: Option<Pid>) -> Result<u64> {
    enter()?;
    let mut act = prepared(operation)?;
    let mut took = Vec::with_capacity(COUNT);
    for _ in 0..WARM_UP {
        act()?;
    }
    for done in 0..COUNT {
        if let Some(pid) = drained.filter(|_| done.is_multiple_of(DRAINED)) {
            kill(pid, Signal::SIGCONT)?;
            thread::sleep(DRAIN);
            kill(pid, Signal::SIGSTOP)?;
        }
        let began = instructions()?;
        act()?;
        took.push(instructions()? - began);
    }
    took.sort_unstable();
    let median = took.get(COUNT / 2).context("operations")?;
    Ok(u64::try_from(median.as_nanos())?)
}

/// Enters a new namespace.
pub(crate) fn enter() -> Result<()> {
    enter_bare()?;
    fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", TIME_WAIT_MAX).context("tcp_max_tw_buckets")
}

/// Instructions since the start of the guest: its clock has one nanosecond for each.
pub(crate) fn instructions() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC_RAW)?.into())
}

fn prepared(operation: &str) -> Result<Act> {
    Ok(match operation {
        "refused" => Box::new(refused),
        "rst" => connection(closed_by_rst)?,
        "close" => connection(closed)?,
        "accepted" => {
            let mut far = FarClient::new()?;
            Box::new(move || far.connects_and_closes())
        }
        "drop" => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            Box::new(move || {
                // The kernel drops it for want of a socket.
                socket.send_to(b"x", (Ipv4Addr::LOCALHOST, CLOSED))?;
                Ok(())
            })
        }
        "udp" => udp()?,
        "tcp" => tcp()?,
        "syscalls" => Box::new(|| {
            for _ in 0..SYSTEM_CALLS {
                getppid();
            }
            Ok(())
        }),
        other => bail!("no operation {other}"),
    })
}

/// Connects to a closed port.
pub(crate) fn refused() -> Result<()> {
    refused_by(Ipv4Addr::LOCALHOST)
}

/// Connects to a closed port of this address, which is this host's.
pub(crate) fn refused_by(address: Ipv4Addr) -> Result<()> {
    match TcpStream::connect((address, CLOSED)) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => bail!("not refused: {other:?}"),
    }
}

/// Connects and accepts, and closes both ends in this way.
fn connection(close: fn(TcpStream, TcpStream) -> Result<()>) -> Result<Act> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    Ok(Box::new(move || {
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        close(client, server)
    }))
}

fn closed_by_rst(client: TcpStream, server: TcpStream) -> Result<()> {
    SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
    drop(client);
    drop(server);
    Ok(())
}

fn closed(client: TcpStream, mut server: TcpStream) -> Result<()> {
    drop(client);
    ensure!(server.read(&mut [0])? == 0, "the end of the stream");
    Ok(())
}

fn udp() -> Result<Act> {
    let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = to.local_addr()?;
    Ok(Box::new(move || {
        from.send_to(b"x", address)?;
        to.recv(&mut [0; 1])?;
        Ok(())
    }))
}

fn tcp() -> Result<Act> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let from = TcpStream::connect(listener.local_addr()?)?;
    // Or the next byte would wait until this one is acknowledged.
    from.set_nodelay(true)?;
    let (mut to, _) = listener.accept()?;
    let from = SockRef::from(&from).try_clone()?;
    Ok(Box::new(move || {
        from.send(b"x")?;
        to.read_exact(&mut [0; 1])?;
        Ok(())
    }))
}
