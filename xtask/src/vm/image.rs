//! Memory image of a guest: an archive of files (initramfs) with the programs that it runs as they
//! are, and their dependencies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    run::{on_path, output, run, show},
    vm::kernels::UnpackedKernel,
};

/// Programs that the tests call, of this machine; whatever else they call busybox
/// can do.
pub(crate) const TEST_PROGRAMS: [&str; 4] = ["ip", "nft", "ss", "setpriv"];
/// Kernel modules that the tests need. A kernel without one of them has it built in, or lacks it.
pub(crate) const TEST_MODULES: [&str; 26] = [
    "tun",
    "veth",
    "macvlan",
    "inet_diag",
    "tcp_diag",
    "nf_tables",
    "nft_counter",
    "nft_ct",
    "nft_limit",
    "nft_numgen",
    "nft_redir",
    "ifb",
    "nf_conntrack_netlink",
    "nf_dup_ipv4",
    "nft_dup_ipv4",
    "nft_hash",
    "nft_masq",
    "nft_nat",
    "nft_chain_nat",
    "nft_reject",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_fib_inet",
    "nf_nat",
    "nf_conntrack",
];

/// A file tree that becomes an archive.
struct Tree(PathBuf);

impl Tree {
    fn new(folder: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.0.join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().context("a path in the archive")?)?;
        Ok(place)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.place(path)?, text)?)
    }

    fn copy(&self, from: &Path, path: &str) -> Result<()> {
        let what = || format!("cannot copy {}", from.display());
        fs::copy(from, self.place(path)?)
            .map(drop)
            .with_context(what)
    }

    /// A program, where PATH of the guest has it, and its libraries where they are here.
    fn program(&self, from: &Path, path: &str) -> Result<()> {
        self.copy(from, path)?;
        for library in libraries(from)? {
            let path = library.to_str().context("a library's path")?;
            if !self.0.join(path.trim_start_matches('/')).exists() {
                self.copy(&library, path)?;
            }
        }
        Ok(())
    }

    /// Packs the tree into an archive.
    fn pack(&self, into: &Path) -> Result<()> {
        let mut names = Vec::new();
        list(&self.0, Path::new(""), &mut names)?;
        let mut cpio = Command::new("cpio");
        cpio.args(["--quiet", "--create", "--format=newc", "--owner=+0:+0"]);
        cpio.current_dir(&self.0);
        eprintln!("$ {} > {}", show(&cpio), into.display());
        cpio.stdin(Stdio::piped()).stdout(fs::File::create(into)?);
        let mut child = cpio.spawn().context("cannot start cpio")?;
        let mut input = child.stdin.take().context("cpio has an input")?;
        input.write_all(names.join("\n").as_bytes())?;
        drop(input);
        if !child.wait()?.success() {
            bail!("cpio failed");
        }
        Ok(())
    }
}

/// Every path below this one, folders before what is in them.
fn list(root: &Path, below: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        names.push(path.display().to_string());
        if entry.file_type()?.is_dir() {
            list(root, &path, names)?;
        }
    }
    Ok(())
}

/// Libraries that the dynamic linker loads for this program, itself included.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let text = output(Command::new("ldd").arg(program))?;
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// Command that a guest runs: a group of tests, or anything else.
pub(crate) struct GuestCommand {
    /// Name in the table.
    pub(crate) name: String,
    /// For the guest's shell, in the folder of the programs.
    pub(crate) command: String,
}

/// Part that guests of all kernels share.
pub(crate) struct GuestPrograms<'a> {
    /// Programs of this machine by their names.
    pub(crate) system: &'a [&'a str],
    /// Programs of this repository, and their names in the guest's folder `guest`.
    pub(crate) own: Vec<(PathBuf, String)>,
    /// Other files, and their names in the same folder.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Lists of commands, by the name that the kernel's command line has.
    pub(crate) lists: Vec<(&'a str, Vec<GuestCommand>)>,
    /// Time limit of each command in a guest, in seconds.
    pub(crate) seconds_max: u64,
}

impl GuestPrograms<'_> {
    /// Packs them into an archive in this folder.
    pub(crate) fn pack(&self, folder: &Path) -> Result<PathBuf> {
        let tree = Tree::new(folder.join("programs"))?;
        tree.write("init", include_str!("init.sh"))?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(tree.place("init")?, executable)?;
        for empty in ["proc", "sys", "dev", "tmp", "run", "etc", "guest/programs"] {
            fs::create_dir_all(tree.0.join(empty))?;
        }
        tree.write("etc/passwd", "root:x:0:0:root:/:/bin/sh\n")?;
        let busybox = on_path("busybox").context("no busybox: apt-get install busybox-static")?;
        // A static one, which needs no library.
        tree.copy(&busybox, "bin/busybox")?;
        for name in self.system {
            let path = on_path(name).with_context(|| format!("no program {name}"))?;
            tree.program(&path, &format!("usr/sbin/{name}"))?;
        }
        for (path, name) in &self.own {
            let name = format!("guest/{name}");
            tree.program(path, &name)?;
            run(Command::new("strip").arg(tree.0.join(name)))?;
        }
        let lib64 = tree.0.join("lib64");
        if !lib64.exists() {
            symlink("usr/lib64", lib64)?;
        }
        for (path, name) in &self.files {
            tree.copy(path, &format!("guest/{name}"))?;
        }
        self.write_lists(&tree)?;
        let archive = folder.join("programs.cpio");
        tree.pack(&archive)?;
        Ok(archive)
    }

    fn write_lists(&self, tree: &Tree) -> Result<()> {
        tree.write("guest/commands/none", "")?;
        for (list, commands) in &self.lists {
            let line =
                |it: &GuestCommand| format!("{} {} {}\n", self.seconds_max, it.name, it.command);
            let lines: String = commands.iter().map(line).collect();
            tree.write(&format!("guest/commands/{list}"), &lines)?;
        }
        Ok(())
    }
}

/// Packs the part of one kernel: its modules, and the order to load them in.
pub(crate) fn pack_modules(
    folder: &Path,
    kernel: &UnpackedKernel,
    names: &[&str],
) -> Result<PathBuf> {
    let tree = Tree::new(folder.join(format!("modules-{}", kernel.release)))?;
    let mut modules = Modules {
        files: BTreeMap::new(),
        tree,
        order: Vec::new(),
    };
    modules.find(&kernel.modules)?;
    for name in names {
        modules.add(name)?;
    }
    let order: String = modules
        .order
        .iter()
        .map(|name| format!("{name}.ko\n"))
        .collect();
    modules.tree.write("guest/modules/order", &order)?;
    let archive = folder.join(format!("modules-{}.cpio", kernel.release));
    modules.tree.pack(&archive)?;
    Ok(archive)
}

/// A kernel's modules, and those of them that a guest gets.
struct Modules {
    /// Paths of the modules, by name.
    files: BTreeMap<String, PathBuf>,
    tree: Tree,
    /// Those that are in the tree, each after what it depends on.
    order: Vec<String>,
}

impl Modules {
    fn find(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.find(&path)?;
            } else if let Some(name) = module_name(&path) {
                self.files.insert(name, path);
            }
        }
        Ok(())
    }

    /// A module and what it depends on; nothing if the kernel does not have it.
    fn add(&mut self, name: &str) -> Result<()> {
        let Some(file) = self.files.get(name) else {
            return Ok(());
        };
        if self.order.iter().any(|there| there == name) {
            return Ok(());
        }
        let path = format!("guest/modules/{name}.ko");
        if file.extension().is_some_and(|suffix| suffix == "xz") {
            self.tree.copy(file, &format!("{path}.xz"))?;
            let packed = self.tree.place(&format!("{path}.xz"))?;
            run(Command::new("xz").arg("--decompress").arg(packed))?;
        } else {
            self.tree.copy(file, &path)?;
        }
        for needed in depends(&fs::read(self.tree.place(&path)?)?) {
            self.add(&needed)?;
        }
        self.order.push(name.to_owned());
        Ok(())
    }
}

/// Returns the module name of a file: `nf_tables` for `nf_tables.ko.xz`.
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let name = name.strip_suffix(".xz").unwrap_or(name);
    Some(name.strip_suffix(".ko")?.replace('-', "_"))
}

/// Names of the modules that this one needs, as it says itself (`.modinfo`).
fn depends(module: &[u8]) -> Vec<String> {
    let says = b"\0depends=";
    let Some(at) = module.windows(says.len()).position(|part| part == says) else {
        return Vec::new();
    };
    let rest = module.get(at + says.len()..).unwrap_or_default();
    let value = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    let names = value
        .split(|&byte| byte == b',')
        .filter(|name| !name.is_empty());
    names
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=nf_tables,nf-nat\0retpoline=Y\0";
        assert_eq!(depends(module), ["nf_tables", "nf_nat"]);
        assert_eq!(depends(b"\0depends=\0"), [""; 0]);
        assert_eq!(depends(b"\x7fELF"), [""; 0]);
    }

    #[test]
    fn a_module_is_known_by_its_file() {
        let name = |file: &str| module_name(Path::new(file));
        assert_eq!(name("net/nf_tables.ko.xz").as_deref(), Some("nf_tables"));
        assert_eq!(name("a-b.ko").as_deref(), Some("a_b"));
        assert_eq!(name("modules.order"), None);
    }
}
