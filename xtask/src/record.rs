//! Build record beside the committed object: its toolchain and the checksums of its sources.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// Inputs of the object; a directory stands for all files in it.
const INPUTS: [&str; 5] = [
    "conntrace-common/Cargo.toml",
    "conntrace-common/src",
    "conntrace-ebpf/Cargo.lock",
    "conntrace-ebpf/Cargo.toml",
    "conntrace-ebpf/src",
];

const HEADER: &str = "\
# Build record of conntrace.bpf.o: tools, and sha256 of the object and its sources.
# Written by `cargo xtask ebpf`, checked by `cargo xtask ebpf --check`.
";

/// Tool versions that determine the bytes of the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tools {
    pub(crate) rustc: String,
    pub(crate) bpf_linker: String,
    pub(crate) llvm_strip: String,
}

/// Contents of toolchain.txt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BuildRecord {
    pub(crate) tools: Tools,
    /// Checksum of the stripped object.
    pub(crate) object_sha256: String,
    /// Checksums of the sources, by path relative to the repository.
    pub(crate) sources_sha256: BTreeMap<String, String>,
}

/// Snapshot of the source files, by path relative to the repository.
pub(crate) struct Sources(pub(crate) BTreeMap<String, Vec<u8>>);

impl Sources {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut found = BTreeMap::new();
        let mut todo: Vec<PathBuf> = INPUTS.iter().map(PathBuf::from).collect();
        while let Some(path) = todo.pop() {
            let full = root.join(&path);
            let context = || format!("cannot read {}", full.display());
            if full.is_dir() {
                for entry in fs::read_dir(&full).with_context(context)? {
                    todo.push(path.join(entry.with_context(context)?.file_name()));
                }
            } else {
                let name = path.to_str().context("the name of a source is not UTF-8")?;
                let bytes = fs::read(&full).with_context(context)?;
                found.insert(name.to_owned(), bytes);
            }
        }
        Ok(Self(found))
    }

    pub(crate) fn sha256(&self) -> BTreeMap<String, String> {
        let hashed = |(path, bytes): (&String, &Vec<u8>)| (path.clone(), sha256(bytes));
        self.0.iter().map(hashed).collect()
    }
}

impl BuildRecord {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        fs::read_to_string(file)
            .map_err(anyhow::Error::from)
            .and_then(|text| Self::parse(&text))
            .with_context(|| format!("cannot read {}", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut fields = BTreeMap::new();
        let mut sources_sha256 = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line
                .split_once(": ")
                .with_context(|| format!("expected `key: value`, found {line:?}"))?;
            let map = if key.contains('/') {
                &mut sources_sha256
            } else {
                &mut fields
            };
            if map.insert(key.to_owned(), value.to_owned()).is_some() {
                bail!("duplicate key {key:?}");
            }
        }
        let mut field = |key| {
            let found = fields.remove(key);
            found.with_context(|| format!("missing key {key:?}"))
        };
        let record = Self {
            tools: Tools {
                rustc: field("rustc")?,
                bpf_linker: field("bpf-linker")?,
                llvm_strip: field("llvm-strip")?,
            },
            object_sha256: field("conntrace.bpf.o")?,
            sources_sha256,
        };
        match fields.keys().next() {
            Some(key) => bail!("unknown key {key:?}"),
            None => Ok(record),
        }
    }

    /// Returns the paths of sources that were changed, added or removed since the record.
    pub(crate) fn differing(&self, sources: &BTreeMap<String, String>) -> Vec<String> {
        let mut paths: Vec<String> = self
            .sources_sha256
            .keys()
            .chain(sources.keys())
            .filter(|path| self.sources_sha256.get(*path) != sources.get(*path))
            .cloned()
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "rustc: {}", self.rustc)?;
        writeln!(out, "bpf-linker: {}", self.bpf_linker)?;
        writeln!(out, "llvm-strip: {}", self.llvm_strip)
    }
}

impl fmt::Display for BuildRecord {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{HEADER}{}", self.tools)?;
        writeln!(out, "conntrace.bpf.o: {}", self.object_sha256)?;
        for (path, sha256) in &self.sources_sha256 {
            writeln!(out, "{path}: {sha256}")?;
        }
        Ok(())
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BuildRecord {
        let sources = Sources(BTreeMap::from([
            ("conntrace-ebpf/src/maps.rs".to_owned(), b"b".to_vec()),
            ("conntrace-common/Cargo.toml".to_owned(), b"a".to_vec()),
        ]));
        BuildRecord {
            tools: Tools {
                rustc: "rustc 1.96.0 (ac68faa20 2026-05-25), LLVM version: 22.1.8".to_owned(),
                bpf_linker: "bpf-linker 0.13.0".to_owned(),
                llvm_strip: "LLVM version 22.1.8".to_owned(),
            },
            object_sha256: sha256(b""),
            sources_sha256: sources.sha256(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(BuildRecord::parse(&sample().to_string()).unwrap(), sample());
    }

    #[test]
    fn sources_are_sorted_by_path() {
        let text = sample().to_string();
        let common = text.find("conntrace-common/Cargo.toml: ca978112ca1b");
        let ebpf = text.find("conntrace-ebpf/src/maps.rs: 3e23e8160039");
        assert!(common.unwrap() < ebpf.unwrap(), "{text}");
    }

    #[test]
    fn the_order_of_the_folder_does_not_matter() {
        let root = std::env::temp_dir().join(format!("xtask-record-{}", std::process::id()));
        for input in INPUTS {
            let file = match Path::new(input).extension() {
                Some(_) => root.join(input),
                None => root.join(input).join("sub/main.rs"),
            };
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, input).unwrap();
        }
        let sources = Sources::read(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let paths: Vec<&String> = sources.0.keys().collect();
        assert_eq!(
            paths,
            [
                "conntrace-common/Cargo.toml",
                "conntrace-common/src/sub/main.rs",
                "conntrace-ebpf/Cargo.lock",
                "conntrace-ebpf/Cargo.toml",
                "conntrace-ebpf/src/sub/main.rs",
            ]
        );
    }

    #[test]
    fn a_changed_a_new_and_a_lost_file_differ() {
        let record = sample();
        let mut now = record.sources_sha256.clone();
        assert_eq!(record.differing(&now), Vec::<String>::new());
        now.remove("conntrace-common/Cargo.toml");
        now.insert("conntrace-ebpf/src/maps.rs".to_owned(), sha256(b"c"));
        now.insert("conntrace-ebpf/src/new.rs".to_owned(), sha256(b""));
        assert_eq!(
            record.differing(&now),
            [
                "conntrace-common/Cargo.toml",
                "conntrace-ebpf/src/maps.rs",
                "conntrace-ebpf/src/new.rs",
            ]
        );
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let good = sample().to_string();
        for (bad, why) in [
            (
                good.replace("bpf-linker: ", "linker: "),
                "missing key \"bpf-linker\"",
            ),
            (format!("{good}colour: red\n"), "unknown key \"colour\""),
            (format!("{good}rustc: 2\n"), "duplicate key \"rustc\""),
            (
                format!("{good}what?\n"),
                "expected `key: value`, found \"what?\"",
            ),
        ] {
            assert_eq!(BuildRecord::parse(&bad).unwrap_err().to_string(), why);
        }
    }
}
