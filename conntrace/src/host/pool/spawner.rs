//! Thread that starts the threads of a pool. They have its capabilities, which the owner of the pool
//! may have dropped.

use std::{
    io,
    sync::mpsc::{RecvError, Sender, channel},
    thread,
};

/// Stack of a started thread, in bytes.
const STACK_LEN: usize = 512 << 10;

type Run = Box<dyn FnOnce() + Send>;

/// Handle to the thread, which ends once this is dropped.
pub(super) struct Spawner(Sender<(Run, Sender<io::Result<()>>)>);

impl Spawner {
    /// Starts the thread. The threads that it starts have this name.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(name: &'static str) -> io::Result<Self> {
        let (sender, requests) = channel::<(Run, Sender<io::Result<()>>)>();
        thread::Builder::new()
            .name("conntrace-spawn".to_owned())
            .stack_size(STACK_LEN)
            .spawn(move || {
                for (run, started) in requests {
                    let builder = thread::Builder::new()
                        .name(name.to_owned())
                        .stack_size(STACK_LEN);
                    // The sender waits for it.
                    let _ = started.send(builder.spawn(run).map(drop));
                }
            })?;
        Ok(Self(sender))
    }

    /// Starts a thread, and returns once it is started.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn spawn(&self, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (started, result) = channel();
        let ended = |_| io::Error::other("the thread that starts threads has ended");
        self.0
            .send((Box::new(run), started))
            .map_err(|_| ended(RecvError))?;
        result.recv().map_err(ended)?
    }
}
