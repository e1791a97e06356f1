//! `cargo xtask fuzz`: runs the fuzz targets, which pass mutated bytes to every parser.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::run::{on_path, run, target_dir};

/// Names of the fuzz targets, as in `fuzz/Cargo.toml`.
const TARGETS: [&str; 4] = ["wire", "recording", "filter", "btf"];

/// Maximum length of an input in bytes, enough for the longest entry of a recording.
const LEN_MAX: usize = 16 * 1024;

/// Required programs besides Rust, and how to install them.
const TOOLS: [(&str, &str); 2] = [
    (
        "cargo-fuzz",
        "install it with `cargo install cargo-fuzz --locked`",
    ),
    (
        "c++",
        "libFuzzer needs a C++ compiler; install one, for example with `apt-get install g++`",
    ),
];

pub(crate) fn fuzz(root: &Path, only: Option<&str>, seconds: u32) -> Result<()> {
    let targets = TARGETS
        .iter()
        .filter(|&&target| only.is_none_or(|only| only == target));
    let targets: Vec<_> = targets.copied().collect();
    ensure!(
        !targets.is_empty(),
        "unknown fuzz target; choose one of {}",
        TARGETS.join(", ")
    );
    for (program, remedy) in TOOLS {
        ensure!(on_path(program).is_some(), "{program} is missing: {remedy}");
    }
    let mut found = Vec::new();
    for target in targets {
        // New inputs stay out of the repository, whose corpus is only read.
        let corpus = target_dir(root).join("fuzz/corpus").join(target);
        fs::create_dir_all(&corpus)
            .with_context(|| format!("cannot create {}", corpus.display()))?;
        match run(&mut command(root, target, &corpus, seconds)) {
            Ok(()) => eprintln!("{target}: nothing found"),
            Err(error) => found.push(format!("{target}: {error:#}")),
        }
    }
    if !found.is_empty() {
        bail!(
            "{}; the input is in fuzz/artifacts, and the command to reproduce it is above",
            found.join("; ")
        );
    }
    Ok(())
}

/// Returns the command that runs a fuzz target. It uses no sanitizer, so that stable Rust
/// suffices: the fuzzed code has no unsafe code. Debug assertions and overflow checks detect
/// errors.
fn command(root: &Path, target: &str, corpus: &Path, seconds: u32) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args(["fuzz", "run", "--fuzz-dir", "fuzz", "--sanitizer", "none"])
        .arg("--target-dir")
        .arg(target_dir(root).join("fuzz"))
        .arg(target)
        .arg(corpus)
        .arg(format!("fuzz/corpus/{target}"))
        .args(["--", "-verbosity=0", "-print_final_stats=1", "-timeout=10"])
        .arg(format!("-max_len={LEN_MAX}"))
        .arg(format!("-max_total_time={seconds}"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_the_crate_is_run() {
        let root = crate::run::root().unwrap();
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
        for target in TARGETS {
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target}"
            );
            assert!(root.join("fuzz/corpus").join(target).is_dir(), "{target}");
        }
    }
}
