//! `cargo xtask bench`: measures the cost of tracing on this machine. Needs root.

use std::{ffi::OsString, path::Path, process::Command};

use anyhow::Result;

use crate::run::run;

pub(crate) fn bench(root: &Path, parts: &[OsString], peers: bool) -> Result<()> {
    run(Command::new("cargo")
        .args([
            "bench",
            "--locked",
            "--package",
            "conntrace-tests",
            "--bench",
            "cost",
            "--",
        ])
        .args(parts)
        .args(peers.then_some("--peers"))
        .current_dir(root))
}
