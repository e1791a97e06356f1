//! `cargo xtask fuzz`: hands mutated bytes to whatever reads bytes from elsewhere.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::run::{on_path, run, target_dir};

/// As in `fuzz/Cargo.toml`.
const TARGETS: [&str; 4] = ["wire", "recording", "filter", "btf"];

/// Room for an entry of a recording that is as long as it may be.
const LEN_MAX: usize = 16 * 1024;

/// What it takes besides Rust, and how to get it.
const TOOLS: [(&str, &str); 2] = [
    (
        "cargo-fuzz",
        "install it with `cargo install cargo-fuzz --locked`",
    ),
    (
        "c++",
        "libFuzzer is built with a C++ compiler, `apt-get install g++` for example",
    ),
];

pub(crate) fn fuzz(root: &Path, only: Option<&str>, seconds: u32) -> Result<()> {
    let targets = TARGETS
        .iter()
        .filter(|&&target| only.is_none_or(|only| only == target));
    let targets: Vec<_> = targets.copied().collect();
    ensure!(
        !targets.is_empty(),
        "no fuzz target of that name; there are {}",
        TARGETS.join(", ")
    );
    for (program, remedy) in TOOLS {
        ensure!(on_path(program).is_some(), "{program} is missing: {remedy}");
    }
    let mut found = Vec::new();
    for target in targets {
        // What is learned stays out of the repository; its own corpus is only read.
        let corpus = target_dir(root).join("fuzz/corpus").join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        match run(&mut command(root, target, &corpus, seconds)) {
            Ok(()) => eprintln!("{target}: nothing found"),
            Err(error) => found.push(format!("{target}: {error:#}")),
        }
    }
    if !found.is_empty() {
        bail!(
            "{}; the input is in fuzz/artifacts, and the way to repeat it above",
            found.join("; ")
        );
    }
    Ok(())
}

/// Stable Rust does, because no sanitizer is asked for: what is tried has no
/// unsafe code. So debug assertions and overflow checks are what finds.
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
