//! `cargo xtask test`: every test of the workspace.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run::{output, run};

pub(crate) fn test(root: &Path, args: &[OsString]) -> Result<()> {
    run(Command::new("cargo")
        .args(["test", "--workspace", "--locked"])
        .args(args)
        .current_dir(root))
}

/// Test program of `cargo test`.
pub(crate) struct TestProgram {
    /// Name of its target: `live`, or `conntrace` for the unit tests of that crate.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// One of tests/tests, and not the unit tests of a crate.
    pub(crate) is_integration: bool,
}

impl TestProgram {
    fn built(line: &str) -> Result<Option<Self>> {
        let built: Value = serde_json::from_str(line).context("cargo's message about a build")?;
        let is_test = built.pointer("/profile/test") == Some(&Value::Bool(true));
        let path = built.pointer("/executable").and_then(Value::as_str);
        let Some(path) = path.filter(|_| is_test) else {
            return Ok(None);
        };
        Ok(Some(Self {
            name: stem(path).to_owned(),
            path: path.into(),
            is_integration: built
                .pointer("/target/kind/0")
                .is_some_and(|kind| kind == "test"),
        }))
    }

    /// Lists the names of its tests.
    pub(crate) fn tests(&self) -> Result<Vec<String>> {
        let list = output(Command::new(&self.path).arg("--list"))?;
        Ok(list.lines().filter_map(listed).map(str::to_owned).collect())
    }
}

/// Builds all programs of `cargo test`, with the same features.
pub(crate) fn programs(root: &Path) -> Result<Vec<TestProgram>> {
    let mut build = Command::new("cargo");
    build.args(["test", "--workspace", "--no-run"]);
    build.args(["--message-format", "json"]);
    let built = output(build.current_dir(root))?;
    let programs = built.lines().map(TestProgram::built);
    programs.filter_map(Result::transpose).collect()
}

/// Removes folder and hash: `target/debug/deps/live-0123456789abcdef` becomes `live`.
pub(crate) fn stem(program: &str) -> &str {
    let name = program.rsplit('/').next().unwrap_or(program);
    name.rsplit_once('-').map_or(name, |(stem, _)| stem)
}

/// `[needs root] refused::reset_v4: test`, a line of `--list`: `refused::reset_v4`.
fn listed(line: &str) -> Option<&str> {
    line.strip_suffix(": test")?.rsplit(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_tests() {
        assert_eq!(listed("refused::reset_v4: test"), Some("refused::reset_v4"));
        assert_eq!(
            listed("[needs a: b] routes::vrf: test"),
            Some("routes::vrf")
        );
        assert_eq!(listed("3 tests, 0 benchmarks"), None);
    }
}
