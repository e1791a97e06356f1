//! Mounts that are private to a test, to hide a host's features or add some.

use std::{path::Path, thread};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

const TRACEFS: &str = "/sys/kernel/tracing";
const NONE: Option<&str> = None;

/// Runs `act` in a thread with private mounts. Only it and its child processes see its mounts,
/// which disappear with them.
pub fn in_private_mounts<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let in_namespace = || {
        leave_mounts().unwrap();
        act()
    };
    thread::scope(|scope| match scope.spawn(in_namespace).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Mounts tracefs as [`mount_tracefs`] does, and returns the error if that fails.
pub fn lacks_tracefs() -> Option<String> {
    let error = mount_tracefs().err()?;
    Some(format!("needs tracefs: {error}"))
}

/// Mounts tracefs only for this process and its children. Call it before other threads exist.
/// Without root it does nothing.
///
/// # Errors
/// When this host does not let us.
pub fn mount_tracefs() -> nix::Result<()> {
    if !crate::is_root() || has_tracefs() {
        return Ok(());
    }
    leave_mounts()?;
    mount(
        Some("tracefs"),
        TRACEFS,
        Some("tracefs"),
        MsFlags::empty(),
        NONE,
    )
}

/// Runs `act` where tracefs is not mounted.
pub fn without_tracefs<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    in_private_mounts(|| {
        while umount2(TRACEFS, MntFlags::MNT_DETACH).is_ok() {}
        // Which has it as well.
        let _ = umount2("/sys/kernel/debug", MntFlags::MNT_DETACH);
        assert!(!has_tracefs());
        act()
    })
}

fn has_tracefs() -> bool {
    Path::new(TRACEFS).join("events").exists()
}

/// Hides all later mounts from other processes.
pub(crate) fn leave_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
}
