//! Path of the program under test.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// Path of the built `conntrace`: what `CONNTRACE_BIN` names, or the workspace's
/// own, brought up to date (`cargo test` builds it only for its own package).
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("CONNTRACE_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    // target/<profile>/deps/<test>: the profile's folder is two up.
    let test = env::current_exe().expect("path of this test");
    let profile_dir = test.parent().unwrap().parent().unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "conntrace",
        "--bin",
        "conntrace",
    ]);
    cargo.arg("--target-dir").arg(profile_dir.parent().unwrap());
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "cannot build conntrace: {status}");
    profile_dir.join("conntrace")
}

/// Copies a program in another process. A file that is open for writing cannot be run, and a child
/// of another test could briefly inherit the descriptor.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").args([from, to]).status().unwrap();
    assert!(status.success(), "cp: {status}");
}

/// The program under test, with nothing on its input.
pub fn conntrace() -> Command {
    let mut command = Command::new(binary());
    command.stdin(Stdio::null());
    command
}

/// Has `run` trace with the object, and on the tier, that the environment names for a
/// test, but where the test itself asks for another.
pub fn as_under_test(run: &mut Command) {
    for (option, variable) in [
        ("--object", "CONNTRACE_OBJECT"),
        ("--tier", "CONNTRACE_TIER"),
    ] {
        let asked = run.get_args().any(|arg| arg == option);
        if let Some(value) = env::var_os(variable).filter(|_| !asked) {
            run.arg(option).arg(value);
        }
    }
}
