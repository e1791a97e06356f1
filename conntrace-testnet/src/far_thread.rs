//! Thread that serves the far end of the TAP device.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, IoSlice, PipeReader, PipeWriter, Read, Write},
    os::fd::AsFd,
    thread::{self, JoinHandle},
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::far_end::{FarEnd, answer, delay_of};

/// The device's MTU is 1500; a frame of any size is read whole.
const FRAME_BYTES_MAX: usize = 65_536;
const MAC_BYTES: usize = 6;
/// Size of `struct ethhdr`.
const ETHERNET_BYTES: usize = 14;
/// Link-layer address from which every far host answers.
const FAR_MAC: [u8; MAC_BYTES] = [2, 0, 0, 0, 0, 0xfa];
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
    /// Starts the thread on a non-blocking `tap`.
    pub(super) fn spawn(tap: File) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let thread = thread::Builder::new()
            .name("testnet-far".to_owned())
            .spawn(move || serve(&tap, &stopped))?;
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

fn serve(tap: &File, stopped: &PipeReader) {
    let mut state = FarEnd::default();
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut later = Later::new();
    loop {
        let mut fds = [
            PollFd::new(tap.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, send_due(tap, &mut later)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        let [_, stop] = fds;
        if stop.any().unwrap_or(true) {
            return;
        }
        if serve_batch(tap, &mut buffer, &mut state, &mut later).is_err() {
            return;
        }
    }
}

/// Answers that are sent later, in that order: all after the same time.
type Later = VecDeque<(Instant, Answer)>;

/// IP packet that answers a frame, with its Ethernet header.
struct Answer {
    header: [u8; ETHERNET_BYTES],
    packet: Vec<u8>,
}

impl Answer {
    /// Returns the answer to a frame, or none.
    fn to(frame: &[u8], state: &mut FarEnd) -> Option<Self> {
        let (header, packet) = frame.split_first_chunk::<ETHERNET_BYTES>()?;
        let (macs, ether_type) = header.split_last_chunk::<2>()?;
        let (_, sender) = macs.split_last_chunk::<MAC_BYTES>()?;
        let packet = answer(packet, state)?;
        let mut header = [0; ETHERNET_BYTES];
        let parts = sender.iter().chain(&FAR_MAC).chain(ether_type);
        for (byte, part) in header.iter_mut().zip(parts) {
            *byte = *part;
        }
        Some(Self { header, packet })
    }

    fn send(&self, mut tap: &File) {
        // A device that is down takes nothing (EIO): the packet is lost, as on a wire that has
        // been cut, and the device may come up again.
        let _ = tap.write_vectored(&[IoSlice::new(&self.header), IoSlice::new(&self.packet)]);
    }
}

/// Sends the packets that are due, and returns the time until the next one is.
fn send_due(tap: &File, later: &mut Later) -> PollTimeout {
    while let Some((at, _)) = later.front() {
        let left = at.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            // Rounded up: a wait that ended early would be repeated.
            let ms = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            return PollTimeout::from(ms.saturating_add(1));
        }
        if let Some((_, answer)) = later.pop_front() {
            answer.send(tap);
        }
    }
    PollTimeout::NONE
}

/// Answers up to a batch of the packets that wait in the device. An error means that the device is
/// gone.
fn serve_batch(
    mut tap: &File,
    buffer: &mut [u8],
    state: &mut FarEnd,
    later: &mut Later,
) -> io::Result<()> {
    for _ in 0..BATCH {
        let length = match tap.read(buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let frame = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = Answer::to(frame, state) {
            let delay = delay_of(&answer.packet);
            if delay.is_zero() {
                answer.send(tap);
            } else {
                later.push_back((Instant::now() + delay, answer));
            }
        }
    }
    Ok(())
}
