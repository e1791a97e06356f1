//! `cargo xtask btf`: extracts the BTF that the agent reads from a kernel into conntrace/bpf/btf,
//! for tests of hooks and members.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::run::{run, target_dir};

const EXTRACTS: &str = "conntrace/bpf/btf";

/// Compression formats of a kernel: magic bytes, program that decompresses them, and the suffix
/// that it expects. All programs take the same options.
const COMPRESSIONS: [(&[u8], &str, &str); 4] = [
    (b"\x1f\x8b", "gzip", "gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zst"),
    (b"\xfd7zXZ", "xz", "xz"),
    (b"\x02\x21\x4c\x18", "lz4", "lz4"),
];

/// Kernel whose BTF is extracted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelFile {
    /// Major and minor version, as in `6.12`.
    version: String,
    /// Path of a vmlinuz, a vmlinux, or its BTF alone.
    file: PathBuf,
}

impl FromStr for KernelFile {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = || anyhow!("expected VERSION=FILE, such as 6.12=/boot/vmlinuz");
        let (version, file) = text.split_once('=').ok_or_else(wanted)?;
        let (major, minor) = version.split_once('.').ok_or_else(wanted)?;
        let is_number = |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit());
        ensure!(is_number(major) && is_number(minor), wanted());
        Ok(Self {
            version: version.to_owned(),
            file: file.into(),
        })
    }
}

pub(crate) fn btf(root: &Path, kernels: &[KernelFile]) -> Result<()> {
    let unpacked = target_dir(root).join("btf");
    for dir in [&unpacked, &root.join(EXTRACTS)] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    for kernel in kernels {
        let file = fs::canonicalize(&kernel.file)
            .with_context(|| format!("cannot find {}", kernel.file.display()))?;
        let vmlinux = vmlinux(&file, &unpacked.join(&kernel.version))
            .with_context(|| format!("cannot unpack {}", file.display()))?;
        run(Command::new("cargo")
            .args(["run", "--quiet", "--locked", "--package", "conntrace-tools"])
            .args(["--bin", "btf_extract", "--"])
            .arg(vmlinux)
            .arg(format!("{EXTRACTS}/{}.btf", kernel.version))
            .current_dir(root))?;
    }
    // About 50 MB for each kernel.
    fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))
}

/// Returns the file itself, or the unpacked kernel if the file is a bzImage.
fn vmlinux(file: &Path, unpacked: &Path) -> Result<PathBuf> {
    let bytes = fs::read(file)?;
    let Some(payload) = payload(&bytes)? else {
        return Ok(file.to_owned());
    };
    let found = COMPRESSIONS
        .iter()
        .find(|(magic, ..)| payload.starts_with(magic));
    let Some((_, program, suffix)) = found else {
        bail!("unknown compression; supported are gzip, zstd, xz and lz4");
    };
    // The kernel's build appends the length of the data, except for gzip, which contains it.
    let trailer = if *program == "gzip" { 0 } else { 4 };
    let data = payload
        .get(..payload.len() - trailer)
        .context("the file is truncated")?;
    let packed = PathBuf::from(format!("{}.{suffix}", unpacked.display()));
    fs::write(&packed, data)?;
    run(Command::new(program)
        .args(["--decompress", "--stdout"])
        .arg(&packed)
        .stdout(File::create(unpacked)?))?;
    fs::remove_file(packed)?;
    Ok(unpacked.to_owned())
}

/// Returns the compressed kernel in a bzImage, or `None` for another file. See "The Linux/x86
/// Boot Protocol" in the kernel's documentation.
fn payload(bytes: &[u8]) -> Result<Option<&[u8]>> {
    if bytes.get(0x202..0x206) != Some(b"HdrS") {
        return Ok(None);
    }
    let word = |at: usize| {
        let word = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*word) as usize)
    };
    let find = || {
        // The boot sector and the setup code precede the code that unpacks.
        let setup_sectors = usize::from(*bytes.get(0x1f1)?);
        let start = (1 + setup_sectors) * 512 + word(0x248)?;
        bytes.get(start..)?.get(..word(0x24c)?)
    };
    find()
        .context("the bzImage header refers to bytes outside the file")
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_a_version_and_a_file() {
        let kernel: KernelFile = "6.12=/boot/a=b".parse().unwrap();
        assert_eq!(kernel.version, "6.12");
        assert_eq!(kernel.file, Path::new("/boot/a=b"));
        for bad in ["", "6.12", "6=/boot/x", "6.x=/boot/x", ".=x", "../6.1=x"] {
            assert!(bad.parse::<KernelFile>().is_err(), "{bad}");
        }
    }

    /// Builds a bzImage with one setup sector, followed by the payload at an offset.
    fn image(offset: u32, payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&offset.to_le_bytes());
        let len = u32::try_from(payload.len()).unwrap();
        image[0x24c..0x250].copy_from_slice(&len.to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn the_payload_is_where_the_header_says() {
        assert_eq!(
            payload(&image(0, b"\x1f\x8b")).unwrap(),
            Some(&b"\x1f\x8b"[..])
        );
        assert!(payload(&image(1, b"\x1f\x8b")).is_err());
        assert_eq!(payload(b"\x7fELF").unwrap(), None);
    }

    #[test]
    fn an_unknown_compression_is_refused() {
        let file = std::env::temp_dir().join(format!("xtask-btf-{}", std::process::id()));
        fs::write(&file, image(0, b"data")).unwrap();
        let error = vmlinux(&file, &file).unwrap_err();
        fs::remove_file(&file).unwrap();
        assert!(error.to_string().starts_with("unknown compression"));
    }
}
