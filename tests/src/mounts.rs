//! Hosts that lack something: mounts that only one thread sees.

use std::thread;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Runs `act` in a thread with mounts of its own; what it mounts, only it and
/// the processes it starts can see, and it goes with them.
pub fn in_private_mounts<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let in_namespace = || {
        let nothing = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(nothing, "/", nothing, private, nothing).unwrap();
        act()
    };
    thread::scope(|scope| match scope.spawn(in_namespace).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
