//! Messages on stderr, which may be blocked or closed.

use std::{io, io::Write, os::fd::AsFd as _, sync::mpsc::channel, thread, time::Duration};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest wait for stderr to take a message.
const AT_MOST: Duration = Duration::from_secs(1);

/// Log output on stderr. A message is dropped while a pipe or socket is full, or a terminal is
/// stopped. On a terminal that takes only a part of it the caller waits.
#[derive(Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A pipe is ready when it has room for 4,096 bytes, which are written at once.
        for piece in bytes.chunks(libc::PIPE_BUF) {
            if !is_ready() {
                break;
            }
            // Whoever cannot read it is not told either.
            let _ = io::stderr().write_all(piece);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_ready() -> bool {
    let stderr = io::stderr();
    let mut polled = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut polled, PollTimeout::ZERO) == Ok(1)
}

/// Writes a message to stderr, and waits for a second at most.
pub fn say(text: &str) {
    let text = text.to_owned();
    let (done, written) = channel::<()>();
    let writing = thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(text.as_bytes());
        drop(done);
    });
    if writing.is_ok() {
        // It ends with the thread, or when the time is over.
        let _ = written.recv_timeout(AT_MOST);
    }
}
