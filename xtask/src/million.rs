//! `cargo xtask million`: the test `million` with a million attempts and the agent that
//! users have. As root.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::run::{run, target_dir};

pub(crate) fn million(root: &Path, seed: Option<u64>, attempts: u32) -> Result<()> {
    run(Command::new("cargo")
        .args(["build", "--locked", "--release", "--package", "conntrace"])
        .current_dir(root))?;
    let mut test = Command::new("cargo");
    test.args(["test", "--locked", "--package", "conntrace-tests"])
        .args(["--test", "stress", "million::"])
        .env("CONNTRACE_BIN", target_dir(root).join("release/conntrace"))
        .env("CONNTRACE_STORM", attempts.to_string())
        .current_dir(root);
    if let Some(seed) = seed {
        test.env("CONNTRACE_SEED", seed.to_string());
    }
    run(&mut test)
}
