//! Debian's kernels, by package: fetched and unpacked below the target folder.
//!
//! A suite other than the machine's own is read through a sources list and lists of
//! our own, passed to apt by options: the machine's are left as they are.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::run::{output, run};

/// Sources of Debian's kernels: version and suite.
const SUITES: [(&str, &str); 5] = [
    ("5.10", "bullseye"),
    ("6.1", "bookworm"),
    ("6.12", "trixie"),
    ("6.18", "trixie-backports"),
    (NEWEST, "trixie-backports"),
];
/// Whatever is the newest of its major version.
const NEWEST: &str = "7";
/// Of its packages those for virtual machines, which are small.
const FLAVOUR: &str = "-cloud-amd64";
/// From 6.19 on the image is in the first, its modules in the last.
const KINDS: [&str; 3] = ["linux-binary-", "linux-image-", "linux-modules-"];

/// Versions that can be asked for, in order.
pub(crate) fn versions() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|&(version, _)| version)
}

/// Unpacked kernel package.
pub(crate) struct UnpackedKernel {
    /// Release as in `uname -r`.
    pub(crate) release: String,
    /// Path of the bootable image.
    pub(crate) image: PathBuf,
    /// Folder of the kernel's modules.
    pub(crate) modules: PathBuf,
}

impl UnpackedKernel {
    /// Fetches the newest package of this version, unless it is there already.
    pub(crate) fn fetch(version: &str, apt: &Apt) -> Result<Self> {
        let release = apt.newest(version)?;
        let folder = apt.folder.join(&release);
        if !folder.is_dir() {
            apt.unpack(&release, &folder)?;
        }
        Self::unpacked(release, &folder)
    }

    fn unpacked(release: String, folder: &Path) -> Result<Self> {
        let lib = ["usr/lib/modules", "lib/modules"].map(|lib| folder.join(lib).join(&release));
        let modules = lib.into_iter().find(|lib| lib.is_dir());
        let modules = modules.with_context(|| format!("{} has no modules", folder.display()))?;
        let boot = folder.join("boot").join(format!("vmlinuz-{release}"));
        let images = [boot, modules.join("vmlinuz")];
        let image = images.into_iter().find(|image| image.is_file());
        Ok(Self {
            image: image.with_context(|| format!("{} has no image", folder.display()))?,
            modules,
            release,
        })
    }
}

/// Access to Debian packages of other suites.
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Reads the suites' lists into this folder.
    pub(crate) fn update(folder: &Path) -> Result<Self> {
        let apt = Self {
            folder: folder.to_owned(),
        };
        for part in ["lists/partial", "cache/archives/partial", "deb"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("sources.list"), sources(&mirror()?))?;
        run(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let under = |name: &str| self.folder.join(name).display().to_string();
        for (option, value) in [
            ("Dir::Etc::sourcelist", under("sources.list")),
            ("Dir::Etc::sourceparts", "-".to_owned()),
            ("Dir::State::lists", under("lists")),
            ("Dir::Cache", under("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }

    /// The newest release of this version, as `uname -r` says it.
    fn newest(&self, version: &str) -> Result<String> {
        let names = output(self.command("apt-cache").args(["pkgnames", "linux-"]))?;
        let of_version = |name: &str| {
            let kind = KINDS.iter().take(2);
            let release = kind.filter_map(|kind| name.strip_prefix(kind)).next()?;
            let rest = release.strip_prefix(version)?;
            (rest.starts_with('.') && release.ends_with(FLAVOUR)).then(|| release.to_owned())
        };
        let newest = names
            .lines()
            .filter_map(of_version)
            .max_by(|a, b| by_number(a, b));
        newest.with_context(|| format!("no package of Linux {version}"))
    }

    fn unpack(&self, release: &str, folder: &Path) -> Result<()> {
        let names = output(self.command("apt-cache").args(["pkgnames", "linux-"]))?;
        let packages: Vec<_> = KINDS
            .iter()
            .map(|kind| format!("{kind}{release}"))
            .collect();
        let mut packages: Vec<_> = packages
            .iter()
            .filter(|package| names.lines().any(|name| name == package.as_str()))
            .collect();
        // The image is then a package that only depends on the others.
        if packages.len() == KINDS.len() {
            packages.remove(1);
        }
        let deb = self.folder.join("deb").join(release);
        fs::create_dir_all(&deb)?;
        let mut download = self.command("apt-get");
        run(download
            .args(["-qq", "download"])
            .args(packages)
            .current_dir(&deb))?;
        let partial = folder.with_extension("partial");
        for package in fs::read_dir(&deb)? {
            run(Command::new("dpkg")
                .arg("-x")
                .arg(package?.path())
                .arg(&partial))?;
        }
        fs::remove_dir_all(&deb)?;
        Ok(fs::rename(&partial, folder)?)
    }
}

/// Returns the mirror from which this machine gets Debian's packages.
fn mirror() -> Result<String> {
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(ORIGIN) $(RELEASE)",
        "Created-By: Packages",
    ]))?;
    let debian = |line: &str| {
        let [uri, origin, suite] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        (origin == "Debian" && !suite.contains('-')).then(|| uri.to_owned())
    };
    match targets.lines().find_map(debian) {
        Some(mirror) => Ok(mirror),
        None => bail!("this machine's apt knows no mirror of Debian"),
    }
}

fn sources(mirror: &str) -> String {
    let mut suites: Vec<_> = SUITES.iter().map(|&(_, suite)| suite).collect();
    suites.dedup();
    let keys = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg";
    let line = |suite: &&str| format!("deb [{keys}] {mirror} {suite} main\n");
    suites.iter().map(line).collect()
}

/// As versions are ordered: numbers in them count as such.
fn by_number(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        let parts = text.split(|c: char| !c.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        assert_eq!(by_number("6.1.0-9", "6.1.0-50"), Ordering::Less);
        assert_eq!(by_number("7.3.4+deb13", "7.2.12+deb13"), Ordering::Greater);
    }

    #[test]
    fn each_suite_is_read_once() {
        let sources = sources("MIRROR");
        assert_eq!(sources.lines().count(), 4);
        assert_eq!(sources.matches("MIRROR trixie-backports main").count(), 1);
    }
}
