//! What is held until a scene's lines are told.

use std::{
    io,
    io::Read as _,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use socket2::Socket;

use super::acts::begin;

/// What shows why an attempt ended as it did, and must still be there when that is
/// looked at.
pub(super) enum HeldEvidence {
    Nothing,
    /// Dropped last.
    Sockets(#[expect(dead_code, reason = "held for its drop")] Vec<Socket>),
    /// The process that made the attempt.
    Client(Client),
}

impl HeldEvidence {
    /// The thread that made the attempts, if it is another than the scene's.
    pub(super) fn client(&self) -> Option<u32> {
        match self {
            Self::Nothing | Self::Sockets(_) => None,
            Self::Client(Client(child)) => Some(child.id()),
        }
    }
}

/// This program once more, as a process that only connects. It ends when its input
/// does, and so with the demo, however that ends.
pub(super) struct Client(Child);

impl Client {
    /// One that connects there and has this in its environment.
    pub(super) fn start(to: SocketAddr, variable: (&str, String)) -> io::Result<Self> {
        let (name, value) = variable;
        let child = Command::new("/proc/self/exe")
            .args(["demo", "--connects-to", &to.to_string()])
            .env(name, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        child.map(Self)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// What such a process does. It waits for no answer: with the demo the far end goes.
///
/// # Errors
/// When there is no socket to be had, or no input.
pub fn client(to: SocketAddr) -> io::Result<()> {
    let _socket = begin(to)?;
    io::stdin().read(&mut [0]).map(drop)
}
