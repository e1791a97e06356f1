//! Requests to the kernel over netlink, and the messages of the answers.

pub(super) mod conntrack;
pub(super) mod nftables;
pub mod route;
pub(crate) mod sock_diag;
pub(super) mod wireguard;

use std::{
    cell::Cell,
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

/// Buffer size of a datagram, more than the kernel fills.
const DATAGRAM_MAX: usize = 64 * 1024;
const HEADER_LEN: usize = 16;
/// `NLMSG_ERROR`: with errno 0 it is an acknowledgement.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: the data changed during the dump, so some may be missing.
const INTERRUPTED: u16 = 0x10;
/// `NLM_F_MULTI`: more messages follow, until the end of the dump.
const MULTI: u16 = 2;

/// Maximum number of messages in the answer to one request.
const MESSAGES_MAX: usize = 1 << 20;

thread_local! {
    /// Time at which the calling thread's requests stop.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `act`. Its requests stop at `until`: they close their socket and fail with `TimedOut`. The
/// kernel fills one datagram at a time, so a dump costs nothing beyond it.
pub(crate) fn bounded<T>(until: Instant, act: impl FnOnce() -> T) -> T {
    let before = UNTIL.replace(Some(until));
    let result = act();
    UNTIL.set(before);
    result
}

/// Returns the time that is left to the calling thread's requests; `None` without a limit.
///
/// # Errors
/// `TimedOut` if none is left.
fn time_left() -> io::Result<Option<Duration>> {
    let Some(until) = UNTIL.get() else {
        return Ok(None);
    };
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(Some(left))
}

/// Sends a request in the calling thread's namespace. Passes each message of the answer to `each`:
/// its type and its body. Stops at the first error of `each`.
///
/// # Errors
/// The kernel's errno, or the error of `each`; `Interrupted` if a dump is inconsistent.
pub(crate) fn ask_while(
    protocol: isize,
    request: &[u8],
    each: impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    exchange(protocol, request, each)?.map_err(io::Error::from_raw_os_error)
}

/// Like [`ask_while`], but stops when `each` breaks. Returns false if the data changed during the dump,
/// so that some may be missing.
///
/// # Errors
/// The kernel's errno.
pub(crate) fn dump(
    protocol: isize,
    request: &[u8],
    mut each: impl FnMut(u16, &[u8]) -> ControlFlow<()>,
) -> io::Result<bool> {
    let mut has_enough = false;
    let each = |kind, body: &[u8]| {
        has_enough = each(kind, body).is_break();
        if has_enough {
            Err(io::ErrorKind::Other.into())
        } else {
            Ok(())
        }
    };
    match ask_while(protocol, request, each) {
        Ok(()) => Ok(true),
        Err(_) if has_enough => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Like [`ask_while`], but separates the kernel's errno (inner) from an error of the socket
/// (outer).
///
/// # Errors
/// An error of the socket or of `each`; `Interrupted` if a dump is inconsistent, `TimedOut` beyond
/// the time of [`bounded`], `FileTooLarge` beyond [`MESSAGES_MAX`].
pub(crate) fn exchange(
    protocol: isize,
    request: &[u8],
    mut each: impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<Result<(), i32>> {
    let left = time_left()?;
    let socket = Socket::new(protocol)?;
    if let Some(left) = left {
        setsockopt(&socket, ReceiveTimeout, &timeout(left))?;
    }
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(request, 0)?;
    let mut datagram = Vec::with_capacity(DATAGRAM_MAX);
    let mut messages = 0;
    loop {
        time_left()?;
        datagram.clear();
        socket.recv(&mut datagram, 0).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                io::ErrorKind::TimedOut.into()
            } else {
                error
            }
        })?;
        let mut rest = datagram.as_slice();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((message, after)) = split(rest) {
            rest = after;
            messages += 1;
            if messages > MESSAGES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if message.flags & INTERRUPTED != 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match message.kind {
                // `NLMSG_DONE` holds an errno if the dump ended early.
                DONE | ERROR => return outcome(message.body),
                kind => each(kind, message.body)?,
            }
            if message.flags & MULTI == 0 {
                return Ok(Ok(()));
            }
        }
    }
}

/// Converts to a socket's timeout, where 0 would mean none.
fn timeout(left: Duration) -> TimeVal {
    let left = left.max(Duration::from_micros(1));
    let seconds = left.as_secs().try_into().unwrap_or(libc::time_t::MAX);
    TimeVal::new(seconds, left.subsec_micros().into())
}

struct NetlinkMessage<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

/// Splits off the first message.
fn split(bytes: &[u8]) -> Option<(NetlinkMessage<'_>, &[u8])> {
    let len = u32_at(bytes, 0)? as usize;
    let body = bytes.get(HEADER_LEN..len)?;
    let message = NetlinkMessage {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        body,
    };
    let after = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((message, after))
}

fn outcome(body: &[u8]) -> io::Result<Result<(), i32>> {
    match u32_at(body, 0).map(u32::cast_signed) {
        // A dump ends with the return value of its last call, which can be positive.
        Some(0..) => Ok(Ok(())),
        Some(errno) => Ok(Err(errno.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Iterates over attributes (`struct nlattr`) by type and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let attribute = (u16_at(bytes, 2)?, bytes.get(4..len)?);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

/// Builds a request of this type: `struct nlmsghdr` and the body.
pub(crate) fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let len = u32::try_from(HEADER_LEN + body.len()).map_err(io::Error::other)?;
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number and port id: a socket asks only once.
    bytes.extend([0; 8]);
    bytes.extend(body);
    Ok(bytes)
}

/// Appends a `struct nlattr`, padded.
pub(crate) fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Values in requests have at most a few thousand bytes.
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_end_it() {
        let mut message = request(20, 0, b"body").unwrap();
        assert_eq!(split(&message).unwrap().0.body, b"body");
        for lie in [0_u32, 3, 15, 21, u32::MAX] {
            message[..4].copy_from_slice(&lie.to_ne_bytes());
            assert!(split(&message).is_none(), "{lie}");
        }
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 7]).count(), 0);
        let two = [5, 0, 1, 0, 7, 0, 0, 0, 4, 0, 2, 0];
        let found: Vec<_> = attributes(&two).collect();
        assert_eq!(found, [(1, &[7][..]), (2, &[][..])]);
    }
}
