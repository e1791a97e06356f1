//! `cargo xtask test`: every test of the workspace.

use std::{ffi::OsString, path::Path, process::Command};

use anyhow::Result;

use crate::run::run;

pub(crate) fn test(root: &Path, args: &[OsString]) -> Result<()> {
    run(Command::new("cargo")
        .args(["test", "--workspace", "--locked"])
        .args(args)
        .current_dir(root))
}
