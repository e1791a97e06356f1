//! Users without privileges, in namespaces of their own.

use std::{
    fs,
    process::{Command, Stdio},
};

use conntrace_testnet::enter_bare;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

use crate::child::ROLE;

/// Builds a command that runs this program in a role, for a user that need not be able to enter the
/// program's folder.
pub fn in_role_again(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(ROLE, role).stdin(Stdio::null());
    command
}

/// Moves the calling process to a user and a network namespace of its own, in which it is root and
/// only `lo` is up. It must have one thread.
pub fn enter_own_namespaces() {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text).unwrap();
    }
    enter_bare().unwrap();
}
