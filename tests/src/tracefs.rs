//! A tracefs for those who trace system calls.

use std::path::Path;

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

const PATH: &str = "/sys/kernel/tracing";
const NONE: Option<&str> = None;

/// Mounts tracefs for this process and those it starts, and for nobody else; to be
/// called before there are other threads. Without root nothing happens.
///
/// # Errors
/// When this host does not let us.
pub fn mount_tracefs() -> nix::Result<()> {
    if !crate::is_root() || Path::new(PATH).join("events").exists() {
        return Ok(());
    }
    leave_mounts()?;
    mount(
        Some("tracefs"),
        PATH,
        Some("tracefs"),
        MsFlags::empty(),
        NONE,
    )
}

/// Takes tracefs away from the calling thread and the processes it starts.
pub fn without_tracefs() {
    leave_mounts().unwrap();
    while umount2(PATH, MntFlags::MNT_DETACH).is_ok() {}
    // Where debugfs has it as well.
    let _ = umount2("/sys/kernel/debug", MntFlags::MNT_DETACH);
    assert!(!Path::new(PATH).join("events").exists());
}

/// What is mounted from here on is not seen elsewhere.
fn leave_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
}
