//! Finds the tools that build the kernel side: a rustc for BPF, bpf-linker and llvm-strip.
//!
//! Two compilers are supported: Debian's rustc with a precompiled core for BPF, and a rustup
//! nightly with rust-src. Debian's is preferred, because it is a fixed release.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    record::Tools,
    run::{on_path, output},
};

/// Compilation target of the kernel side.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// Version of LLVM for bpf-linker: that of rustc, or newer.
pub(crate) const LLVM_MAJOR: &str = "22";
/// Version of bpf-linker that `cargo xtask setup` installs.
pub(crate) const BPF_LINKER: &str = "0.13.0";
/// Debian packages of the toolchain; the `-web` ones follow Rust's releases in every suite.
pub(crate) const DEBIAN_PACKAGES: [&str; 4] = [
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
];

/// Compiler that can compile for BPF.
pub(crate) struct Compiler {
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    /// Directory of core's sources, if core must be compiled first (`-Z build-std`).
    pub(crate) core_sources: Option<PathBuf>,
}

/// Tools that build the kernel side.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) bpf_linker: PathBuf,
    pub(crate) llvm_strip: PathBuf,
}

/// Parts of the toolchain that are installed on this machine.
pub(crate) struct Survey {
    pub(crate) compiler: Option<Compiler>,
    pub(crate) bpf_linker: Option<PathBuf>,
    pub(crate) llvm_strip: Option<PathBuf>,
}

impl Survey {
    /// Finds the tools. Runs only `rustc --print sysroot` and `rustup which`.
    pub(crate) fn take() -> Result<Self> {
        let compiler = match debian_compiler()? {
            Some(compiler) => Some(compiler),
            None => nightly_compiler(),
        };
        Ok(Self {
            compiler,
            bpf_linker: on_path("bpf-linker")
                .or_else(|| existing(cargo_home().ok()?.join("bin/bpf-linker"))),
            // Prefers llvm-strip of the same LLVM, because its output may depend on its version.
            llvm_strip: existing(llvm_bin().join("llvm-strip"))
                .or_else(|| on_path("llvm-strip"))
                .or_else(|| on_path("llvm-objcopy")),
        })
    }

    /// Returns the toolchain if no part is missing.
    pub(crate) fn complete(self) -> Option<Toolchain> {
        Some(Toolchain {
            compiler: self.compiler?,
            bpf_linker: self.bpf_linker?,
            llvm_strip: self.llvm_strip?,
        })
    }
}

impl Toolchain {
    pub(crate) fn find() -> Result<Self> {
        Survey::take()?
            .complete()
            .context("the eBPF toolchain is incomplete: see `cargo xtask setup --explain`")
    }

    /// Reads the tool versions that determine the bytes of the object.
    pub(crate) fn versions(&self) -> Result<Tools> {
        let rustc = output(Command::new(&self.compiler.rustc).arg("-vV"))?;
        let (release, rest) = rustc
            .split_once('\n')
            .context("`rustc -vV` printed only one line")?;
        let llvm = rest.lines().find(|line| line.starts_with("LLVM version"));
        let llvm = llvm.context("`rustc -vV` printed no LLVM version")?;
        let linker = output(Command::new(&self.bpf_linker).arg("--version"))?;
        let strip = output(Command::new(&self.llvm_strip).arg("--version"))?;
        let strip = strip.lines().find(|line| line.contains("LLVM version"));
        let strip = strip.context("`llvm-strip --version` printed no LLVM version")?;
        Ok(Tools {
            rustc: format!("{release}, {llvm}"),
            bpf_linker: linker.trim().to_owned(),
            llvm_strip: strip.trim().to_owned(),
        })
    }
}

/// Returns the directory of Debian's LLVM tools.
pub(crate) fn llvm_bin() -> PathBuf {
    Path::new("/usr/lib")
        .join(format!("llvm-{LLVM_MAJOR}"))
        .join("bin")
}

/// Returns the directory of cargo's downloaded crates and installed programs.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// Removes the variables through which an outer cargo or rustup would affect a command. Settings
/// for fetching crates are kept.
pub(crate) fn forget_outer_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(steers_cargo) {
            command.env_remove(name);
        }
    }
    command
}

fn steers_cargo(name: &str) -> bool {
    const FETCHING: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
    ];
    const STEERING: [&str; 6] = [
        "CARGO",
        "LD_LIBRARY_PATH", // set by rustup to the outer toolchain's libraries
        "RUSTC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    STEERING.iter().any(|prefix| name.starts_with(prefix))
        && !FETCHING.iter().any(|prefix| name.starts_with(prefix))
}

/// Finds Debian's cargo and rustc, if core for BPF is installed too.
fn debian_compiler() -> Result<Option<Compiler>> {
    let cargo = PathBuf::from("/usr/bin/cargo");
    let rustc = PathBuf::from("/usr/bin/rustc");
    if !cargo.is_file() || !rustc.is_file() {
        return Ok(None);
    }
    let mut command = Command::new(&rustc);
    let sysroot = output(forget_outer_cargo(
        command.args(["--print", "sysroot"]).current_dir("/"),
    ))?;
    let core = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib");
    Ok(core.is_dir().then_some(Compiler {
        cargo,
        rustc,
        core_sources: None,
    }))
}

/// Finds cargo and rustc of rustup's nightly, if it has core's sources.
fn nightly_compiler() -> Option<Compiler> {
    on_path("rustup")?;
    let which = |program| {
        let mut command = Command::new("rustup");
        command
            .env("RUSTUP_AUTO_INSTALL", "0")
            .args(["which", "--toolchain", "nightly", program]);
        // Fails if there is no nightly.
        let path = output(forget_outer_cargo(&mut command)).ok()?;
        existing(PathBuf::from(path.trim()))
    };
    let rustc = which("rustc")?;
    let cargo = which("cargo")?;
    let sysroot = rustc.parent()?.parent()?;
    let core_sources = sysroot.join("lib/rustlib/src/rust");
    core_sources
        .join("library/core")
        .is_dir()
        .then_some(Compiler {
            cargo,
            rustc,
            core_sources: Some(core_sources),
        })
}

fn existing(file: PathBuf) -> Option<PathBuf> {
    file.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_cargo_is_forgotten_but_not_where_crates_come_from() {
        for name in [
            "CARGO",
            "CARGO_PKG_NAME",
            "CARGO_TARGET_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(steers_cargo(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "RUSTUP_HOME",
            "RUST_BACKTRACE",
            "PATH",
        ] {
            assert!(!steers_cargo(name), "{name}");
        }
    }
}
