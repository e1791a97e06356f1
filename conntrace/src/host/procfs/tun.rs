//! Holders of TUN devices.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path, time::Instant};

use super::process::{named, pids};
use crate::{
    diagnosis::{Undiagnosed, question::NamedProcess},
    host::attention::{goes_on, visit},
    sys,
};

/// Number of descriptors after which a search says that it goes on.
const PROGRESS_EVERY: usize = 256;

/// Finds the process that has the TUN device of this name in a network namespace open. A descriptor
/// tells the name of its device, and not the namespace (`tun_chr_show_fdinfo`). So all holders of
/// devices with that name must be in the namespace, or there must be only one: otherwise the answer
/// is `None`.
///
/// # Errors
/// `Incomplete` if not every process could be searched.
pub(crate) fn holder(
    netns: u32,
    name: &str,
    until: Instant,
) -> Result<Option<NamedProcess>, Undiagnosed> {
    if !sys::proc_shows_all() {
        return Err(Undiagnosed::NoAccess);
    }
    let mut holders = Vec::new();
    for pid in pids() {
        if Instant::now() >= until {
            return Err(Undiagnosed::Incomplete);
        }
        let found = visit(pid, |folder| holds(folder, name, until));
        match found {
            Ok(true) => holders.push(pid),
            // The process has exited.
            Ok(false) => {}
            Err(error) if is_gone(&error) => {}
            Err(_) => return Err(Undiagnosed::Incomplete),
        }
    }
    let first = holders.iter().min().copied();
    let is_inside = |pid: &u32| {
        let inode = visit(
            *pid,
            |folder| Ok(fs::metadata(folder.join("ns/net"))?.ino()),
        );
        inode.is_ok_and(|inode| inode == u64::from(netns))
    };
    let is_told = holders.len() == 1 || holders.iter().all(is_inside);
    Ok(first.filter(|_| is_told).map(named))
}

/// Returns true if a descriptor of the process is attached to a device of this name.
fn holds(folder: &Path, name: &str, until: Instant) -> io::Result<bool> {
    for (at, descriptor) in fs::read_dir(folder.join("fd"))?.flatten().enumerate() {
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if at % PROGRESS_EVERY == 0 {
            goes_on();
        }
        let link = fs::read_link(descriptor.path()).unwrap_or_default();
        if !link.to_string_lossy().contains("/tun") {
            continue;
        }
        let info = folder.join("fdinfo").join(descriptor.file_name());
        let info = fs::read_to_string(info).unwrap_or_default();
        let mut attached = info.lines().filter_map(|line| line.strip_prefix("iff:"));
        if attached.any(|device| device.trim() == name) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
