//! Separate process for scenarios that need another caller.

use std::{
    io::{self, Read as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::endings::begin;

/// Process that connects and waits. It ends when its input closes, and so when its parent ends.
pub(super) struct Client(pub(super) Child);

impl Client {
    /// Starts `program` with this variable in its environment, and has it connect.
    pub(super) fn start(
        program: &Path,
        to: SocketAddr,
        name: &str,
        value: &str,
    ) -> io::Result<Self> {
        let child = Command::new(program)
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

/// Begins an attempt and holds it until the input ends.
///
/// # Errors
/// When the attempt cannot begin, or the input cannot be read.
pub fn client(to: SocketAddr) -> io::Result<()> {
    let _socket = begin(to, None)?;
    io::stdin().read(&mut [0]).map(drop)
}
