//! Connects and binds that are submitted to `io_uring`.
#![expect(
    unsafe_code,
    reason = "what is submitted points to memory the kernel reads later"
)]

use std::{io, net::SocketAddr, os::fd::AsRawFd as _, time::Duration};

use io_uring::{
    IoUring, Probe, opcode,
    squeue::{Entry, Flags},
    types::{Fd, Timespec},
};
use socket2::{SockAddr, Socket};

use crate::Attempted;

/// Requests under way at once: a connect and its timeout.
const ENTRIES: u32 = 2;
/// User data of the awaited request.
const ONE: u64 = 1;
/// Time that the kernel's polling thread stays awake, in milliseconds.
const IDLE_MS: u32 = 10;

/// `io_uring` instance of the calling thread.
pub struct Uring(IoUring);

impl Uring {
    /// Creates a ring whose requests start in the submitter's own call.
    pub fn new() -> io::Result<Self> {
        IoUring::new(ENTRIES).map(Self)
    }

    /// Creates a ring that a kernel thread polls.
    pub fn polled() -> io::Result<Self> {
        IoUring::builder()
            .setup_sqpoll(IDLE_MS)
            .build(ENTRIES)
            .map(Self)
    }

    /// Connects and waits for the completion.
    pub fn connect(&mut self, socket: &Socket, remote: SocketAddr) -> Attempted {
        self.run(socket, remote, Flags::empty(), None)
    }

    /// Connects on a kernel worker thread and waits for the completion.
    pub fn connect_by_worker(&mut self, socket: &Socket, remote: SocketAddr) -> Attempted {
        self.run(socket, remote, Flags::ASYNC, None)
    }

    /// Connects with a linked timeout and waits for the completion.
    pub fn connect_within(
        &mut self,
        deadline: Duration,
        socket: &Socket,
        remote: SocketAddr,
    ) -> Attempted {
        let deadline = Timespec::from(deadline);
        self.run(socket, remote, Flags::IO_LINK, Some(&deadline))
    }

    /// Binds a socket and returns the errno, or 0.
    pub fn bind(&mut self, socket: &Socket, local: SocketAddr) -> i32 {
        let address = SockAddr::from(local);
        let bind = opcode::Bind::new(
            Fd(socket.as_raw_fd()),
            address.as_ptr().cast(),
            address.len(),
        );
        self.complete(&[bind.build().user_data(ONE)])
    }

    fn run(
        &mut self,
        socket: &Socket,
        remote: SocketAddr,
        flags: Flags,
        deadline: Option<&Timespec>,
    ) -> Attempted {
        let address = SockAddr::from(remote);
        let connect = opcode::Connect::new(
            Fd(socket.as_raw_fd()),
            address.as_ptr().cast(),
            address.len(),
        );
        let mut requests = vec![connect.build().flags(flags).user_data(ONE)];
        requests.extend(deadline.map(|it| opcode::LinkTimeout::new(it).build()));
        let errno = self.complete(&requests);
        Attempted::on(socket, remote, errno)
    }

    /// Submits the requests, waits for all, and returns the errno of request [`ONE`].
    fn complete(&mut self, requests: &[Entry]) -> i32 {
        // SAFETY: the addresses and timeouts they point to are the caller's, who
        // waits below until the kernel is done with every request.
        unsafe { self.0.submission().push_multiple(requests) }.unwrap();
        let mut done = Vec::new();
        while done.len() < requests.len() {
            self.0.submit_and_wait(1).unwrap();
            done.extend(self.0.completion());
        }
        let one = done.iter().find(|it| it.user_data() == ONE);
        -one.unwrap().result()
    }
}

/// Returns the missing requirement if connects cannot be submitted here.
pub fn lacks_uring() -> Option<String> {
    let error = Uring::new().err()?;
    Some(format!("needs io_uring: {error}"))
}

/// Returns the missing requirement if binds cannot be submitted here.
pub fn lacks_uring_bind() -> Option<String> {
    let supported = || {
        let mut probe = Probe::new();
        let ring = IoUring::new(ENTRIES)?;
        ring.submitter().register_probe(&mut probe)?;
        Ok::<_, io::Error>(probe.is_supported(opcode::Bind::CODE))
    };
    match supported() {
        Ok(true) => None,
        Ok(false) => Some("needs an io_uring that binds (Linux 6.11)".to_owned()),
        Err(error) => Some(format!("needs io_uring: {error}")),
    }
}
