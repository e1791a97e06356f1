//! `cargo xtask goldens`: compares the output of conntrace with checksums.
//!
//! The outputs are the schema, help texts, explanations, and two recordings of a live kernel
//! replayed with six sets of options. They stay in target/goldens, for comparison by hand.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::run::{output, run, target_dir};

/// File with the checksums of the outputs, a line each.
const SUMS: &str = "tests/golden/sums.txt";
/// Recordings of `conntrace demo`, with the options of each.
const RECORDINGS: [(&str, &str); 2] = [("plain", ""), ("syscalls", "--trace-syscalls")];
/// Records the demo in a cgroup, a mount and a UTS namespace of its own: no other program's attempts,
/// and no name of this machine. Arguments: the binary, the recording, and options of `conntrace run`.
const RECORD: &str = r#"
    hostname host
    mount -t tmpfs tmpfs /usr/local/bin
    cp "$1" /usr/local/bin/conntrace
    mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || true
    cgroup=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/conntrace-goldens
    mkdir -p "$cgroup"
    rm -f "$2"
    lines=$(mktemp)
    conntrace run --all --summary 2 --cgroup "$cgroup" $3 --record "$2" >"$lines" &
    until grep -q '"type":"start"' "$lines"; do sleep 0.1; kill -0 $!; done
    sh -ec "echo \$\$ >'$cgroup/cgroup.procs'; exec /usr/local/bin/conntrace demo"
    sleep 2
    kill -TERM $!
    wait $!
    chmod 644 "$2"
    rmdir "$cgroup"
    rm "$lines"
"#;
const COMMANDS: [&str; 6] = ["run", "demo", "doctor", "explain", "replay", "schema"];
/// Options of `replay`, which are also part of the names of the outputs.
const REPLAYS: [&[&str]; 6] = [
    &["--all"],
    &["--all", "--format=text"],
    &["--format=text", "--limit=1"],
    &["--all", "--no-diagnosis"],
    &["--label=refused", "--no-stalls"],
    &["--patience=1", "--limit=2"],
];

/// Records the demo anew, as root on a kernel that can run all of it.
pub(crate) fn record(root: &Path) -> Result<()> {
    let binary = build(root)?;
    for (name, options) in RECORDINGS {
        let recording = root.join(format!("tests/golden/{name}.rec"));
        run(Command::new("unshare")
            .args(["--mount", "--uts", "sh", "-ec", RECORD, "sh"])
            .args([&binary, &recording])
            .arg(options))?;
    }
    Ok(())
}

fn build(root: &Path) -> Result<PathBuf> {
    run(Command::new("cargo")
        .args(["build", "--locked", "--package", "conntrace"])
        .current_dir(root))?;
    Ok(target_dir(root).join("debug/conntrace"))
}

/// Compares the outputs of `binary`, or of a fresh build, with the checksums. With `update` it
/// writes the checksums instead.
pub(crate) fn goldens(root: &Path, binary: Option<PathBuf>, update: bool) -> Result<()> {
    let binary = match binary {
        Some(binary) => binary,
        None => build(root)?,
    };
    let outputs = outputs(root, &binary)?;
    let kept = target_dir(root).join("goldens");
    fs::create_dir_all(&kept).with_context(|| format!("cannot create {}", kept.display()))?;
    let mut sums = String::new();
    for (name, text) in &outputs {
        let file = kept.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let _ = write!(sums, "{name} ");
        for byte in Sha256::digest(text) {
            let _ = write!(sums, "{byte:02x}");
        }
        sums.push('\n');
    }
    let file = root.join(SUMS);
    if update {
        return fs::write(&file, sums).with_context(|| format!("cannot write {SUMS}"));
    }
    let expected = fs::read_to_string(&file).with_context(|| format!("cannot read {SUMS}"))?;
    let changed: Vec<_> = sums
        .lines()
        .filter(|line| !expected.lines().any(|known| known == *line))
        .filter_map(|line| line.split(' ').next())
        .collect();
    ensure!(
        changed.is_empty() && sums.lines().count() == expected.lines().count(),
        "outputs differ from {SUMS}: {}; see them in {}, or accept them with --update",
        changed.join(", "),
        kept.display()
    );
    eprintln!("all {} outputs match", outputs.len());
    Ok(())
}

fn outputs(root: &Path, binary: &Path) -> Result<BTreeMap<String, String>> {
    let conntrace = |args: &[&str]| {
        let mut command = Command::new(binary);
        // COLUMNS sets the width of help, TZ the time zone of the text format.
        command.env_clear().env("COLUMNS", "100").env("TZ", "UTC");
        output(command.args(args).current_dir(root))
    };
    let mut outputs = BTreeMap::new();
    outputs.insert("schema".to_owned(), conntrace(&["schema"])?);
    outputs.insert("help".to_owned(), conntrace(&["--help"])?);
    for name in COMMANDS {
        outputs.insert(format!("help-{name}"), conntrace(&[name, "--help"])?);
    }
    let overview = conntrace(&["explain"])?;
    for topic in overview.lines().filter_map(topic) {
        let text = conntrace(&["explain", topic])?;
        outputs.insert(format!("explain-{topic}"), text);
    }
    outputs.insert("explain".to_owned(), overview);
    for (name, _) in RECORDINGS {
        let recording = format!("tests/golden/{name}.rec");
        for options in REPLAYS {
            let replayed = conntrace(&[&["replay", &recording][..], options].concat())?;
            outputs.insert(format!("{name}{}", options.concat()), replayed);
        }
    }
    Ok(outputs)
}

/// Returns the label or cause that a line of `conntrace explain` describes.
fn topic(line: &str) -> Option<&str> {
    let (name, rest) = line.split_once("  ")?;
    let name = name.trim_end_matches('*');
    let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    (is_name && !name.is_empty() && rest.trim() != "means").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_the_names_of_labels_and_causes() {
        assert_eq!(topic("label                means"), None);
        assert_eq!(topic("cancelled*           closed"), Some("cancelled"));
        assert_eq!(topic("no_route             none"), Some("no_route"));
        assert_eq!(topic("* printed only with --all"), None);
        assert_eq!(topic(""), None);
    }
}
