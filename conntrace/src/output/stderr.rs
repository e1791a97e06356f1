//! Messages to stderr, which can be blocked or closed.

use std::{
    io::{self, Write},
    os::fd::AsFd as _,
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Time limit for writing a message.
const AT_MOST: Duration = Duration::from_secs(1);

/// Log output to stderr. Drops messages while a pipe or socket is full or a terminal is stopped. A
/// terminal that accepts only a part makes the caller wait.
#[derive(Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A pipe is ready if it has room for 4,096 bytes, which are written at once.
        for piece in bytes.chunks(libc::PIPE_BUF) {
            if !is_ready() {
                break;
            }
            // If stderr cannot be written, the error cannot be reported.
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

/// Writes a message to stderr, waiting a second at most.
pub fn say(text: &str) {
    let text = text.to_owned();
    let (done, written) = channel::<()>();
    let writing = thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(text.as_bytes());
        drop(done);
    });
    if writing.is_ok() {
        // Returns when the thread ends, or after the time limit.
        let _ = written.recv_timeout(AT_MOST);
    }
}
