//! Kernels for tests: BTF extracts of the test matrix, and the running kernel.

use std::{fs, path::Path};

use super::{VMLINUX_BTF, release};

/// Versions of the test matrix.
const EXTRACTS: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.3"];

/// Major and minor version.
pub(super) type Version = (u32, u32);

pub(super) struct TestKernel {
    pub(super) version: Version,
    /// BTF of the kernel, or the extract that `cargo xtask btf` keeps.
    pub(super) btf: Vec<u8>,
    /// True for the running kernel, into which a distribution may have backported newer code.
    pub(super) is_running: bool,
}

pub(super) fn all() -> Vec<TestKernel> {
    let extracts = EXTRACTS.map(|version| TestKernel {
        version: self::version(version),
        btf: fs::read(folder().join(format!("{version}.btf"))).unwrap(),
        is_running: false,
    });
    let running = fs::read(VMLINUX_BTF).ok().map(|btf| TestKernel {
        version: version(&release()),
        btf,
        is_running: true,
    });
    extracts.into_iter().chain(running).collect()
}

/// Parses the version of a release such as `6.18.15+deb13-cloud-amd64`.
pub(super) fn version(release: &str) -> Version {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().unwrap().parse().unwrap();
    (number(), number())
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/btf"))
}

#[test]
fn every_extract_is_a_small_one_of_the_matrix() {
    for file in fs::read_dir(folder()).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        assert!(
            EXTRACTS.contains(&name.strip_suffix(".btf").unwrap()),
            "{name}"
        );
        assert!(file.metadata().unwrap().len() < 10_000, "{name}");
    }
}
