//! Thread that serves the far end of the TUN device.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write},
    os::fd::AsFd,
    thread::{self, JoinHandle},
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::far_end::{FarEnd, answer, delay_of};

/// The device's MTU is 1500; a packet of any size is read whole.
const PACKET_BYTES_MAX: usize = 65_536;
/// Packets answered before the thread checks for a stop request.
const BATCH: usize = 64;

/// Thread that answers packets until dropped. The drop waits for its end.
#[derive(Debug)]
pub(super) struct FarThread {
    /// Stop request of the thread: closing this pipe ends it. Nothing is ever written to it.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl FarThread {
    /// Starts the thread on a non-blocking `tun`.
    pub(super) fn spawn(tun: File) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let thread = thread::Builder::new()
            .name("testnet-far".to_owned())
            .spawn(move || serve(&tun, &stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for FarThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already, and must not become a
            // second one while this thread unwinds.
            let _ = thread.join();
        }
    }
}

fn serve(tun: &File, stopped: &PipeReader) {
    let mut state = FarEnd::default();
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut later = Later::new();
    loop {
        let mut fds = [
            PollFd::new(tun.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, send_due(tun, &mut later)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        let [_, stop] = fds;
        if stop.any().unwrap_or(true) {
            return;
        }
        if serve_batch(tun, &mut buffer, &mut state, &mut later).is_err() {
            return;
        }
    }
}

/// Packets that are sent later, in that order: all after the same time.
type Later = VecDeque<(Instant, Vec<u8>)>;

/// Sends the packets that are due, and returns the time until the next one is.
fn send_due(mut tun: &File, later: &mut Later) -> PollTimeout {
    while let Some((at, _)) = later.front() {
        let left = at.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            // Rounded up: a wait that ended early would be repeated.
            let ms = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            return PollTimeout::from(ms.saturating_add(1));
        }
        if let Some((_, bytes)) = later.pop_front() {
            // As in a batch.
            let _ = tun.write(&bytes);
        }
    }
    PollTimeout::NONE
}

/// Answers up to a batch of the packets that wait in the device. An error means that the device is
/// gone.
fn serve_batch(
    mut tun: &File,
    buffer: &mut [u8],
    state: &mut FarEnd,
    later: &mut Later,
) -> io::Result<()> {
    for _ in 0..BATCH {
        let length = match tun.read(buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let packet = buffer.get(..length).unwrap_or_default();
        if let Some(reply) = answer(packet, state) {
            // A device that is down takes nothing (EIO): the packet is lost, as
            // on a wire that has been cut, and the device may come up again.
            let delay = delay_of(&reply);
            if delay.is_zero() {
                let _ = tun.write(&reply);
            } else {
                later.push_back((Instant::now() + delay, reply));
            }
        }
    }
    Ok(())
}
