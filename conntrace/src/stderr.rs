//! Words for a person, on a stderr that may be stuck or gone: nobody waits for it.

use std::{
    io::{self, Write},
    os::fd::AsFd as _,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Stderr for the log: a message for which a pipe or terminal has no room is dropped.
#[derive(Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_within(Duration::ZERO, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to stderr, unless it has had no room for a second.
pub fn say(text: &str) {
    write_within(LAST_WORDS, text.as_bytes());
}

fn write_within(at_most: Duration, bytes: &[u8]) {
    let stderr = io::stderr();
    // Ready means room for 4,096 bytes, which are written at once (PIPE_BUF).
    for piece in bytes.chunks(libc::PIPE_BUF) {
        let mut polled = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        let at_most = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
        if poll(&mut polled, at_most) != Ok(1) {
            return;
        }
        // Whoever cannot read it is not told either.
        let _ = stderr.lock().write_all(piece);
    }
}
