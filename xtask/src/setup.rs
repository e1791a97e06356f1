//! `cargo xtask setup`: installs the missing parts of the eBPF toolchain.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    run::{on_path, output, run, show},
    toolchain::{BPF_LINKER, DEBIAN_PACKAGES, LLVM_MAJOR, Survey, forget_outer_cargo, llvm_bin},
};

const BY_HAND: &str = "\
Without apt-get nothing can be installed here. Install by hand:
    rustup toolchain install nightly --component rust-src
    cargo install bpf-linker
    llvm-strip or llvm-objcopy, from your system's LLVM package";

pub(crate) fn setup(explain: bool) -> Result<()> {
    let survey = Survey::take()?;
    report(&survey);
    let commands = if on_path("apt-get").is_some() {
        missing(&survey)?
    } else {
        Vec::new()
    };
    if survey.complete().is_some() {
        eprintln!("The eBPF toolchain is complete.");
        return Ok(());
    }
    if commands.is_empty() {
        bail!("the eBPF toolchain is incomplete\n{BY_HAND}");
    }
    if explain {
        eprintln!("`cargo xtask setup` would run:");
        for command in &commands {
            eprintln!("    {}", show(command));
        }
        return Ok(());
    }
    for mut command in commands {
        run(&mut command)?;
    }
    Survey::take()?
        .complete()
        .context("the toolchain is still incomplete; see `cargo xtask setup --explain`")?;
    eprintln!("The eBPF toolchain is complete: run `cargo xtask ebpf`.");
    Ok(())
}

fn report(survey: &Survey) {
    let compiler = survey.compiler.as_ref().map(|it| it.rustc.as_path());
    for (what, found) in [
        ("a rustc that can compile for BPF", compiler),
        ("bpf-linker", survey.bpf_linker.as_deref()),
        ("llvm-strip", survey.llvm_strip.as_deref()),
    ] {
        match found {
            Some(path) => eprintln!("found:   {what} ({})", path.display()),
            None => eprintln!("missing: {what}"),
        }
    }
}

/// Returns the commands that install the missing parts on Debian and its derivatives.
fn missing(survey: &Survey) -> Result<Vec<Command>> {
    let mut commands = Vec::new();
    // bpf-linker is linked with the packaged LLVM, so that it needs the packages too.
    let llvm = llvm_bin().join("llvm-config").is_file();
    let linker = survey.bpf_linker.is_some();
    if survey.compiler.is_none() || survey.llvm_strip.is_none() || !(linker || llvm) {
        let is_root = output(Command::new("id").arg("-u"))?.trim() == "0";
        commands.push(apt_get(is_root, &["update"]));
        let mut install = apt_get(is_root, &["install", "-y", "--no-install-recommends"]);
        install.args(DEBIAN_PACKAGES);
        commands.push(install);
    }
    if !linker {
        commands.push(install_linker()?);
    }
    Ok(commands)
}

fn apt_get(is_root: bool, args: &[&str]) -> Command {
    let mut command = if is_root {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    command.args(args);
    command
}

fn install_linker() -> Result<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([llvm_bin()].into_iter().chain(env::split_paths(&path)))?;
    let mut command = Command::new("cargo");
    // Runs outside the repository, whose toolchain and settings must not apply.
    forget_outer_cargo(&mut command)
        .current_dir(Path::new("/"))
        .env("PATH", path)
        .args(["install", "bpf-linker", "--version", BPF_LINKER])
        .args(["--locked", "--no-default-features", "--features"])
        .arg(format!("llvm-{LLVM_MAJOR}"));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_linker_is_the_last_thing_installed() {
        let survey = Survey {
            compiler: None,
            bpf_linker: None,
            llvm_strip: None,
        };
        let shown: Vec<String> = missing(&survey).unwrap().iter().map(show).collect();
        assert_eq!(shown.len(), 3);
        assert!(shown[0].ends_with("apt-get update"), "{}", shown[0]);
        assert!(
            shown[1].ends_with(&DEBIAN_PACKAGES.join(" ")),
            "{}",
            shown[1]
        );
        assert!(
            shown[2].contains(" cargo install bpf-linker "),
            "{}",
            shown[2]
        );
    }

    #[test]
    fn the_packages_and_the_linker_agree_on_llvm() {
        let package = format!("llvm-{LLVM_MAJOR}-dev");
        assert!(DEBIAN_PACKAGES.contains(&package.as_str()));
    }
}
