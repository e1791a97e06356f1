//! Filters of the command line, parsed.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use conntrace_common::{filter::kind, record::COMM_LEN};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, FsType, NSFS_MAGIC, statfs};

use crate::sys::{self, CgroupRoot};

/// Maximum length of a task's name in bytes, without the terminating zero of `TASK_COMM_LEN`.
const NAME_LEN_MAX: usize = COMM_LEN - 1;

/// Filter of the traced attempts. An attempt must match one value of every kind that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Process ids.
    pub pids: Vec<u32>,
    /// Names of threads or processes (`comm`).
    pub comms: Vec<TaskName>,
    /// User ids.
    pub uids: Vec<u32>,
    /// Cgroups (v2), including their descendants.
    pub cgroups: Vec<CgroupId>,
    /// Network namespaces.
    pub netns: Vec<NetnsInode>,
    /// Destination networks.
    pub networks: Vec<Network>,
    /// Destination ports.
    pub ports: Vec<PortRange>,
}

impl Filter {
    /// Returns the kinds that are set, as bits of [`kind`] for the kernel side.
    #[must_use]
    pub fn kinds(&self) -> u32 {
        let kind = |kind, is_empty: bool| if is_empty { 0 } else { kind };
        kind(kind::PID, self.pids.is_empty())
            | kind(kind::COMM, self.comms.is_empty())
            | kind(kind::UID, self.uids.is_empty())
            | kind(kind::CGROUP, self.cgroups.is_empty())
            | kind(kind::NETNS, self.netns.is_empty())
            | kind(kind::NETWORK, self.networks.is_empty())
            | kind(kind::PORT, self.ports.is_empty())
    }
}

/// Name of a task (`task_struct.comm`), padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskName(pub [u8; COMM_LEN]);

impl FromStr for TaskName {
    type Err = String;

    /// Parses a name and truncates it to 15 bytes, like the kernel.
    fn from_str(typed: &str) -> Result<Self, String> {
        if typed.is_empty() || typed.contains('\0') {
            return Err("a process has a name of at least one character".to_owned());
        }
        let mut name = [0; COMM_LEN];
        for (place, byte) in name.iter_mut().zip(typed.bytes().take(NAME_LEN_MAX)) {
            *place = byte;
        }
        Ok(Self(name))
    }
}

/// Remedy for an argument that is no cgroup.
const CGROUP_WANTED: &str = "give the path that `cat /proc/PID/cgroup` shows after 0::";

/// Id of a cgroup (v2), its inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupId(pub u64);

impl FromStr for CgroupId {
    type Err = String;

    /// Parses a path in the host's filesystem, or one relative to the cgroup filesystem's root,
    /// as the event lines show it.
    fn from_str(typed: &str) -> Result<Self, String> {
        if typed.is_empty() {
            return Err(format!("{CGROUP_WANTED}; / matches every cgroup"));
        }
        let root = CgroupRoot::get().map_err(|gap| format!("{gap}; {}", gap.remedy()))?;
        for path in [PathBuf::from(typed), root.join(typed)] {
            if is_on(&path, CGROUP2_SUPER_MAGIC) && path.is_dir() {
                return inode(&path).map(Self);
            }
        }
        Err(format!("no cgroup (v2) found at {typed}; {CGROUP_WANTED}"))
    }
}

/// Inode number of a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetnsInode(pub u32);

impl FromStr for NetnsInode {
    type Err = String;

    /// Parses an inode number, or a path such as `/proc/PID/ns/net`.
    fn from_str(typed: &str) -> Result<Self, String> {
        if !typed.is_empty() && typed.bytes().all(|byte| byte.is_ascii_digit()) {
            let inode = typed.parse().ok().filter(|&inode| inode > 0);
            return inode.map(Self).ok_or_else(|| {
                format!("the inode number of a namespace is from 1 to {}", u32::MAX)
            });
        }
        let wanted = |found: &str| {
            format!(
                "{found}; give the inode number of a network namespace or a file of one, \
                 such as /run/netns/NAME or /proc/PID/ns/net"
            )
        };
        let found = statfs(typed).map_err(|error| wanted(error.desc()))?;
        if found.filesystem_type() != NSFS_MAGIC {
            return Err(wanted("it is no file of a namespace"));
        }
        let file = File::open(typed).map_err(|error| wanted(&error.to_string()))?;
        if !sys::is_network_namespace(&file) {
            return Err(wanted("it is a namespace, but none of the network"));
        }
        let found = file.metadata().map_err(|error| error.to_string())?;
        u32::try_from(found.ino())
            .map(Self)
            .map_err(|_| format!("its inode number exceeds {}", u32::MAX))
    }
}

/// Returns true if the path is on a filesystem of this type.
fn is_on(path: &Path, fs_type: FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == fs_type)
}

fn inode(path: &Path) -> Result<u64, String> {
    fs::metadata(path)
        .map(|found| found.ino())
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Network prefix in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Address in the network; IPv4 is v4-mapped.
    pub addr: Ipv6Addr,
    /// Length of the prefix in bits, 0 to 128.
    pub prefix_len: u8,
}

impl FromStr for Network {
    type Err = String;

    /// Parses `ADDRESS[/BITS]`; address bits after the prefix are ignored.
    fn from_str(typed: &str) -> Result<Self, String> {
        let (addr, bits) = match typed.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits)),
            None => (typed, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| {
            format!("{addr:?} is not an IPv4 or IPv6 address; write 10.0.0.0/8 or fd00::/8")
        })?;
        let (bits_max, mapped) = match addr {
            IpAddr::V4(v4) => (32, v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => (128, v6),
        };
        let bits = match bits {
            None => bits_max,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|&bits: &u8| bits <= bits_max)
                .ok_or_else(|| {
                    format!("the prefix of {addr} has 0 to {bits_max} bits, not {bits:?}")
                })?,
        };
        Ok(Self {
            addr: mapped,
            prefix_len: 128 - bits_max + bits,
        })
    }
}

/// Inclusive range of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = String;

    /// Parses `N` or `N-M`.
    fn from_str(typed: &str) -> Result<Self, String> {
        let port = |text: &str| {
            let wanted = "a port is a number from 0 to 65535; for several write 8000-8099";
            text.parse::<u16>().map_err(|_| wanted.to_owned())
        };
        let (first, last) = match typed.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(typed)?, port(typed)?),
        };
        if first > last {
            return Err(format!(
                "the range ends before it begins; write {last}-{first}"
            ));
        }
        Ok(Self(first..=last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(typed: &str) -> (String, u8) {
        let network: Network = typed.parse().unwrap();
        (network.addr.to_canonical().to_string(), network.prefix_len)
    }

    #[test]
    fn networks() {
        assert_eq!(network("10.0.0.0/8"), ("10.0.0.0".to_owned(), 104));
        // Host bits are kept: the kernel side's trie compares only the prefix.
        assert_eq!(network("10.0.0.5/24"), ("10.0.0.5".to_owned(), 120));
        assert_eq!(network("10.1.2.3"), ("10.1.2.3".to_owned(), 128));
        assert_eq!(network("0.0.0.0/0"), ("0.0.0.0".to_owned(), 96));
        assert_eq!(network("fd00::/8"), ("fd00::".to_owned(), 8));
        assert_eq!(network("::/0"), ("::".to_owned(), 0));
        assert_eq!(network("::ffff:10.0.0.0/104"), network("10.0.0.0/8"));
        for wrong in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "fd00::/129",
            "host",
            "10.0.0.0:80",
            "[::1]",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports() {
        assert_eq!("80".parse(), Ok(PortRange(80..=80)));
        assert_eq!("0-65535".parse(), Ok(PortRange(0..=65535)));
        for wrong in [
            "", "-", "80-", "-80", "70000", "9-3", "80,81", "http", "1-2-3",
        ] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_cut_as_the_kernel_cuts_them() {
        let name: TaskName = "a-very-long-process-name".parse().unwrap();
        assert_eq!(&name.0, b"a-very-long-pro\0");
        assert!("".parse::<TaskName>().is_err());
    }

    #[test]
    fn namespaces() {
        assert_eq!("4026531840".parse(), Ok(NetnsInode(4_026_531_840)));
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let NetnsInode(by_path) = "/proc/self/ns/net".parse().unwrap();
        assert_eq!(u64::from(by_path), own);
        for (wrong, why) in [
            ("", "No such file or directory; give"),
            ("0", "from 1 to 4294967295"),
            ("4294967296", "from 1 to 4294967295"),
            ("-1", "No such file or directory; give"),
            ("nowhere", "No such file or directory; give"),
            ("/etc/passwd", "it is no file of a namespace"),
            ("/", "it is no file of a namespace"),
            ("/proc/self/ns/nothing", "No such file or directory; give"),
            ("/proc/self/ns/uts", "none of the network"),
        ] {
            let error = wrong.parse::<NetnsInode>().unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn no_cgroup() {
        // A host without cgroup v2 yields a different message.
        for wrong in ["", "/no/such", "/etc/passwd", "/proc"] {
            let error = wrong.parse::<CgroupId>().unwrap_err();
            assert!(error.contains("cgroup"), "{wrong}: {error}");
        }
    }

    #[test]
    fn kinds_that_are_set() {
        assert_eq!(Filter::default().kinds(), 0);
        let filter = Filter {
            pids: vec![1],
            ports: vec![PortRange(1..=2)],
            ..Filter::default()
        };
        assert_eq!(filter.kinds(), kind::PID | kind::PORT);
    }
}
