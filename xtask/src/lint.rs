//! `cargo xtask lint`: everything that is checked without running the program.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    bench,
    run::{on_path, run},
    shape, test_names,
};

/// The only files that may lift the ban on unsafe code, each for a reason stated in it.
const UNSAFE_FILES: [&str; 20] = [
    "conntrace-common/src/shared.rs",
    "conntrace-ebpf/src/attempt/mod.rs",
    "conntrace-ebpf/src/failed_calls.rs",
    "conntrace-ebpf/src/connect_counter.rs",
    "conntrace-ebpf/src/report.rs",
    "conntrace-ebpf/src/filter.rs",
    "conntrace-ebpf/src/hooks/task_file.rs",
    "conntrace-ebpf/src/kernel/mod.rs",
    "conntrace-ebpf/src/main.rs",
    "conntrace-ebpf/src/maps/mod.rs",
    "conntrace-ebpf/src/sync.rs",
    "conntrace-ebpf/src/attempt_table.rs",
    "conntrace-testnet/src/disconnect.rs",
    "conntrace-testnet/src/tun.rs",
    "conntrace/src/sys/mod.rs",
    "tests/src/bpf.rs",
    "tests/src/ia32.rs",
    "tests/src/passed.rs",
    "tests/src/signal.rs",
    "tests/src/uring.rs",
];
const CRATES: [&str; 10] = [
    "conntrace",
    "conntrace-btf",
    "conntrace-common",
    "conntrace-ebpf",
    "conntrace-testnet",
    "fuzz",
    "meter",
    "tests",
    "tools",
    "xtask",
];
/// The lint's name; in two halves so that this file does not contain it.
const UNSAFE_LINT: &str = concat!("unsafe", "_code");
const EBPF_MANIFEST: &str = "conntrace-ebpf/Cargo.toml";
const FUZZ_MANIFEST: &str = "fuzz/Cargo.toml";

pub(crate) fn lint(root: &Path, deny_required: bool) -> Result<()> {
    run(cargo(root).args(["fmt", "--all", "--check"]))?;
    // The kernel side gets no clippy: that would need a clippy of the BPF toolchain.
    // Nor do the fuzz targets: their substance is part of the tests `any_bytes`.
    for manifest in [EBPF_MANIFEST, FUZZ_MANIFEST] {
        run(cargo(root).args(["fmt", "--manifest-path", manifest, "--check"]))?;
    }
    run(cargo(root)
        .args(["clippy", "--workspace", "--all-targets", "--locked"])
        .args(["--", "-D", "warnings"]))?;
    unsafe_files(root)?;
    openings(root)?;
    test_names::exist(root)?;
    run(cargo(root)
        .args(["run", "--quiet", "--locked", "--package", "conntrace-tools"])
        .args(["--bin", "docs", "--", "--check"]))?;
    bench::check_page(root)?;
    dependencies(root, deny_required)
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    command
}

/// Licences, sources and duplicates always; advisories if their database can be fetched.
fn dependencies(root: &Path, required: bool) -> Result<()> {
    if on_path("cargo-deny").is_none() {
        return not_run(
            required,
            "`cargo deny check`: cargo-deny is not installed; `cargo install cargo-deny --locked`",
        );
    }
    for manifest in ["Cargo.toml", EBPF_MANIFEST] {
        run(deny(root, manifest).args(["bans", "licenses", "sources"]))?;
    }
    if run(cargo(root).args(["deny", "fetch", "db"])).is_err() {
        return not_run(
            required,
            "`cargo deny check advisories`: their database could not be fetched",
        );
    }
    for manifest in ["Cargo.toml", EBPF_MANIFEST] {
        run(deny(root, manifest).arg("advisories"))?;
    }
    Ok(())
}

fn deny(root: &Path, manifest: &str) -> Command {
    let mut command = cargo(root);
    command
        .args(["deny", "--manifest-path", manifest, "--config", "deny.toml"])
        .args(["--locked", "check", "--hide-inclusion-graph"]);
    command
}

fn not_run(required: bool, what: &str) -> Result<()> {
    ensure!(!required, "not run: {what}");
    eprintln!("NOT RUN: {what}");
    Ok(())
}

/// Fails when other files than those of the list have an attribute about unsafe code.
fn unsafe_files(root: &Path) -> Result<()> {
    let mut found = BTreeSet::new();
    for dir in CRATES {
        rust_files(root, dir, &mut |path, text| {
            if lifts_unsafe_ban(text) {
                found.insert(path.to_owned());
            }
        })?;
    }
    let listed = BTreeSet::from(UNSAFE_FILES.map(str::to_owned));
    let new: Vec<_> = found.difference(&listed).map(String::as_str).collect();
    ensure!(
        new.is_empty(),
        "unsafe code where there was none: {}; if it must be, add the file to UNSAFE_FILES in \
         xtask/src/lint.rs",
        new.join(", ")
    );
    let gone: Vec<_> = listed.difference(&found).map(String::as_str).collect();
    ensure!(
        gone.is_empty(),
        "no unsafe code any more: {}; remove the file from UNSAFE_FILES in xtask/src/lint.rs",
        gone.join(", ")
    );
    eprintln!("unsafe code is only in the files listed for it");
    Ok(())
}

/// Fails for a doc comment that opens with a word such as `What`: it does not stand alone.
fn openings(root: &Path) -> Result<()> {
    let mut found = Vec::new();
    for dir in CRATES {
        rust_files(root, dir, &mut |path, text| {
            let mut in_comment = false;
            for (at, line) in text.lines().enumerate() {
                let line = line.trim_start();
                let comment = line
                    .strip_prefix("///")
                    .or_else(|| line.strip_prefix("//!"));
                if !in_comment && comment.is_some_and(shape::opens_badly) {
                    found.push(format!("{path}:{}", at + 1));
                }
                in_comment = comment.is_some();
            }
        })?;
    }
    ensure!(
        found.is_empty(),
        "doc comments that open with {}; begin with a verb or a noun phrase: {}",
        shape::OPENINGS.join(", "),
        found.join(", ")
    );
    Ok(())
}

/// Visits every .rs file below `dir`, by its path relative to the repository.
fn rust_files(root: &Path, dir: &str, visit: &mut dyn FnMut(&str, &str)) -> Result<()> {
    let full = root.join(dir);
    let context = || format!("cannot read {}", full.display());
    for entry in fs::read_dir(&full).with_context(context)? {
        let entry = entry.with_context(context)?;
        let path = format!("{dir}/{}", entry.file_name().display());
        if entry.file_type().with_context(context)?.is_dir() {
            if entry.file_name() != "target" {
                rust_files(root, &path, visit)?;
            }
        } else if path.ends_with(".rs") {
            let text =
                fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            visit(&path, &text);
        }
    }
    Ok(())
}

/// Returns true if an attribute lowers the level of the lint against unsafe code.
fn lifts_unsafe_ban(text: &str) -> bool {
    ["#[", "#!["]
        .iter()
        .flat_map(|open| text.split(open).skip(1))
        .filter_map(|rest| rest.split_once(']'))
        .filter(|(attribute, _)| attribute.contains(UNSAFE_LINT))
        .any(|(attribute, _)| {
            ["allow(", "expect(", "warn("]
                .iter()
                .any(|level| attribute.contains(level))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_that_lifts_the_ban_is_found() {
        for attribute in [
            "#[expect(LINT, reason = \"why\")]",
            "#![allow(LINT)]",
            "fn a() {}\n    #[expect(\n        LINT,\n        reason = \"why\"\n    )]\nfn b() {}",
            "#[cfg_attr(test, allow(dead_code, LINT))]",
        ] {
            let text = attribute.replace("LINT", UNSAFE_LINT);
            assert!(lifts_unsafe_ban(&text), "{text}");
        }
    }

    #[test]
    fn words_and_stricter_levels_are_no_exception() {
        for text in [
            "",
            "// LINT is denied; see #[expect(dead_code)]",
            "#![forbid(LINT)]",
            "#[deny(LINT)]",
        ] {
            let text = text.replace("LINT", UNSAFE_LINT);
            assert!(!lifts_unsafe_ban(&text), "{text}");
        }
    }
}
