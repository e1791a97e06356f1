//! `cargo xtask ebpf`: builds conntrace/bpf/conntrace.bpf.o, reproducibly in any directory.
//!
//! It is built from a copy, `target/ebpf/stage`, for two reasons. The copy contains only the
//! recorded sources, so that no other file can affect the object. And cargo derives the crate hash
//! of a path dependency outside the workspace from its absolute path, which would appear in symbol
//! names. In the copy, conntrace-common is inside conntrace-ebpf's directory.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    record::{BuildRecord, Sources, Tools, sha256},
    run::{run, target_dir},
    toolchain::{TARGET, Toolchain, cargo_home, forget_outer_cargo},
};

const OBJECT: &str = "conntrace/bpf/conntrace.bpf.o";
const RECORD: &str = "conntrace/bpf/toolchain.txt";
const STALE: &str = "stale: run `cargo xtask ebpf`";

/// Result of a build.
struct Built {
    object: PathBuf,
    bytes: Vec<u8>,
    tools: Tools,
}

/// Builds the object and writes it with its build record, both to be committed.
pub(crate) fn build(root: &Path) -> Result<()> {
    let sources = Sources::read(root)?;
    let built = compile(root, &sources)?;
    let record = BuildRecord {
        tools: built.tools,
        object_sha256: sha256(&built.bytes),
        sources_sha256: sources.sha256(),
    };
    write(&root.join(OBJECT), &built.bytes)?;
    write(&root.join(RECORD), record.to_string().as_bytes())?;
    eprintln!(
        "{OBJECT}: {} bytes, sha256 {}",
        built.bytes.len(),
        record.object_sha256
    );
    Ok(())
}

/// Fails unless the committed object matches the sources.
pub(crate) fn check(root: &Path) -> Result<()> {
    let sources = Sources::read(root)?;
    let record = BuildRecord::read(&root.join(RECORD)).context(STALE)?;
    let committed = read(&root.join(OBJECT)).context(STALE)?;
    ensure!(
        sha256(&committed) == record.object_sha256,
        "checksum mismatch: {OBJECT} is not the object recorded in {RECORD}\n{STALE}"
    );
    let differing = record.differing(&sources.sha256());
    ensure!(
        differing.is_empty(),
        "changed since {OBJECT} was built: {}\n{STALE}",
        differing.join(", ")
    );
    eprintln!("{OBJECT} and its sources match {RECORD}");

    let built = compile(root, &sources)
        .context("the checksums match, but the object cannot be rebuilt for comparison")?;
    let fresh = built.object.display();
    if built.tools != record.tools {
        eprintln!(
            "The bytes are NOT compared: another toolchain built {OBJECT}.\n\
             Recorded:\n{}On this machine:\n{}\
             To run the live tests against the fresh object:\n\
             CONNTRACE_OBJECT={fresh} cargo test -p conntrace-tests",
            record.tools, built.tools
        );
    } else if built.bytes == committed {
        eprintln!("{OBJECT} is reproduced byte for byte from the sources");
    } else {
        bail!(
            "the build is not reproducible: the same toolchain and sources gave {fresh}, which \
             differs from {OBJECT}"
        );
    }
    Ok(())
}

/// Compiles, links and strips the object in the target directory.
fn compile(root: &Path, sources: &Sources) -> Result<Built> {
    let toolchain = Toolchain::find()?;
    let tools = toolchain.versions()?;
    let out = target_dir(root).join("ebpf");
    let stage = out.join("stage");
    write_stage(&stage, sources)?;

    // The directory of unpacked crates is named after the registry's address. It must exist
    // before its name can be remapped.
    let mut fetch = cargo(&toolchain, &stage)?;
    run(fetch.args(["fetch", "--locked"]))?;
    let target = out.join("build");
    let mut build = cargo(&toolchain, &stage)?;
    build
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&toolchain, &stage)?)
        .args(["build", "--release", "--locked", "--target", TARGET]);
    if toolchain.compiler.core_sources.is_some() {
        build.args(["-Z", "build-std=core"]);
    }
    run(&mut build)?;

    let linked = target.join(TARGET).join("release/conntrace-ebpf");
    let object = out.join("conntrace.bpf.o");
    // Removes DWARF, but keeps BTF, which the loader and the verifier's messages need.
    let mut strip = Command::new(&toolchain.llvm_strip);
    strip.arg("--strip-debug");
    if toolchain.llvm_strip.ends_with("llvm-objcopy") {
        strip.arg(&linked).arg(&object);
    } else {
        strip.arg("-o").arg(&object).arg(&linked);
    }
    run(&mut strip)?;
    let bytes = read(&object)?;
    check_no_local_path(&bytes, &[root, &out, &cargo_home()?, &home()])?;
    Ok(Built {
        object,
        bytes,
        tools,
    })
}

/// Returns a cargo command for the kernel side, without the settings of the cargo that runs
/// xtask.
fn cargo(toolchain: &Toolchain, stage: &Path) -> Result<Command> {
    // rustc searches PATH for bpf-linker; its LLVM must precede any other.
    let tools = [&toolchain.llvm_strip, &toolchain.bpf_linker];
    let dirs = tools.into_iter().filter_map(|tool| tool.parent());
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(dirs.map(Path::to_path_buf).chain(env::split_paths(&path)))?;
    let mut command = Command::new(&toolchain.compiler.cargo);
    forget_outer_cargo(&mut command)
        .env("PATH", path)
        .env("RUSTC", &toolchain.compiler.rustc)
        // aya-ebpf uses unstable features; Debian's compiler is a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(stage);
    Ok(command)
}

/// Returns the compiler flags, which remap every path of this machine in the debug information.
fn rustflags(toolchain: &Toolchain, stage: &Path) -> Result<OsString> {
    let crates = cargo_home()?;
    let mut remaps = vec![
        (crates.clone(), "cargo"),
        (stage.to_path_buf(), "conntrace-ebpf"),
        (stage.join("conntrace-common"), "conntrace-common"),
    ];
    let registries = crates.join("registry/src");
    for entry in fs::read_dir(&registries)
        .with_context(|| format!("cannot list {}", registries.display()))?
    {
        remaps.push((entry?.path(), "crates"));
    }
    if let Some(sources) = &toolchain.compiler.core_sources {
        remaps.push((sources.clone(), "rust"));
    }
    let mut flags: Vec<OsString> = [
        "-C",
        "debuginfo=2",
        "-C",
        "link-arg=--btf",
        "-C",
        "target-cpu=v3",
    ]
    .map(OsString::from)
    .into();
    // If several match, rustc uses the last.
    for (from, to) in remaps {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join(OsStr::new("\x1f")))
}

/// Writes the sources again, so that cargo always compiles and links them. It would not detect a
/// changed bpf-linker.
fn write_stage(stage: &Path, sources: &Sources) -> Result<()> {
    if stage.exists() {
        fs::remove_dir_all(stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    }
    for (path, bytes) in &sources.0 {
        let staged = stage.join(path.strip_prefix("conntrace-ebpf/").unwrap_or(path));
        if path == "conntrace-ebpf/Cargo.toml" {
            write(&staged, staged_manifest(bytes)?.as_bytes())?;
        } else {
            write(&staged, bytes)?;
        }
    }
    Ok(())
}

/// Returns the manifest with conntrace-common inside the package's directory.
fn staged_manifest(manifest: &[u8]) -> Result<String> {
    const OUTSIDE: &str = "path = \"../conntrace-common\"";
    let text = str::from_utf8(manifest)?;
    ensure!(
        text.matches("path = \"../").count() == 1 && text.contains(OUTSIDE),
        "conntrace-ebpf/Cargo.toml must have exactly one path dependency outside its directory, \
         `{OUTSIDE}`"
    );
    Ok(text.replace(OUTSIDE, "path = \"conntrace-common\""))
}

/// Fails if the object contains a path of this machine.
fn check_no_local_path(object: &[u8], folders: &[&Path]) -> Result<()> {
    for folder in folders {
        let mut needle = folder.as_os_str().as_encoded_bytes().to_vec();
        if needle.len() < 2 {
            continue; // "" or "/": no home directory, and too short to search for
        }
        needle.push(b'/');
        ensure!(
            !object.windows(needle.len()).any(|window| window == needle),
            "the object contains {}, a directory of this machine: add it to the remaps",
            folder.display()
        );
    }
    Ok(())
}

fn home() -> PathBuf {
    env::var_os("HOME").map(PathBuf::from).unwrap_or_default()
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let dir = file.parent().context("the path has no parent directory")?;
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(file, bytes))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_staged_manifest_names_no_folder_outside() {
        let manifest = b"[dependencies]\nconntrace-common = { path = \"../conntrace-common\" }\n";
        assert_eq!(
            staged_manifest(manifest).unwrap(),
            "[dependencies]\nconntrace-common = { path = \"conntrace-common\" }\n"
        );
        assert!(staged_manifest(b"other = { path = \"../other\" }").is_err());
        assert!(staged_manifest(b"").is_err());
    }

    #[test]
    fn a_path_of_the_machine_is_noticed() {
        let folders = [Path::new("/home/me"), Path::new("/"), Path::new("")];
        assert!(check_no_local_path(b"\0src/main.rs\0/home/mean/x", &folders).is_ok());
        assert!(check_no_local_path(b"\0/home/me/src/main.rs\0", &folders).is_err());
    }
}
