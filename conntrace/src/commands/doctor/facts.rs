//! Checks of the host. Pure functions turn facts into results; only [`check_all`] reads them.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{CheckState, HostCheck};
use crate::{
    capture::{
        self, StartError, VMLINUX_BTF,
        privileges::{Capabilities, Capability},
    },
    sys::{self, proc_file},
};

/// Inode numbers of the initial namespaces (`PROC_USER_INIT_INO`, `PROC_PID_INIT_INO`), the same on
/// every kernel.
const FIRST_USER_NS: &str = "user:[4026531837]";
const FIRST_PID_NS: &str = "pid:[4026531836]";

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Name of the tracefs check.
pub(super) const TRACEFS: &str = "tracefs";

const NOTHING: &str = "nothing can be traced";
const NO_CGROUP: &str = "`cgroup` and `container` are null";
const NO_EXE: &str = "`exe` is null for processes of other users or with more capabilities";

/// Runs all checks on this host.
pub(super) fn check_all() -> Vec<HostCheck> {
    let own = Capabilities::own();
    let mounts = proc_file::read_to_string("/proc/self/mountinfo");
    let mounts = mounts.as_deref().unwrap_or_default();
    let btf = btf(Path::new(VMLINUX_BTF).try_exists());
    let members = match btf.state {
        CheckState::Ok => members(capture::check_members()),
        CheckState::Limits | CheckState::Blocks | CheckState::Unknown => {
            unknown("kernel_members", "cannot be looked up without BTF")
        }
    };
    vec![
        btf,
        members,
        privilege(own),
        user_namespace(fs::read_link("/proc/self/ns/user")),
        lockdown(proc_file::read_to_string(LOCKDOWN)),
        cgroup_v2(mounts),
        capability(
            "cgroup_paths",
            own,
            Capability::CAP_DAC_READ_SEARCH,
            NO_CGROUP,
            "AmbientCapabilities=CAP_DAC_READ_SEARCH in its unit, or sudo",
        ),
        capability(
            "exe_of_others",
            own,
            Capability::CAP_SYS_PTRACE,
            NO_EXE,
            "AmbientCapabilities=CAP_SYS_PTRACE in its unit, or sudo",
        ),
        proc(mounts, own),
        tracefs(capture::tracefs()),
        pid_namespace(fs::read_link("/proc/self/ns/pid")),
    ]
}

fn ok(name: &'static str, found: impl Into<String>) -> HostCheck {
    HostCheck {
        name,
        state: CheckState::Ok,
        found: found.into(),
        cost: None,
        remedy: None,
    }
}

fn unknown(name: &'static str, found: impl Into<String>) -> HostCheck {
    HostCheck {
        state: CheckState::Unknown,
        ..ok(name, found)
    }
}

impl HostCheck {
    fn limits(self, cost: &'static str, remedy: &'static str) -> Self {
        Self {
            state: CheckState::Limits,
            cost: Some(cost),
            remedy: Some(remedy),
            ..self
        }
    }

    fn blocks(self, remedy: &'static str) -> Self {
        Self {
            state: CheckState::Blocks,
            ..self.limits(NOTHING, remedy)
        }
    }
}

fn btf(exists: io::Result<bool>) -> HostCheck {
    let name = "kernel_btf";
    match exists {
        Ok(true) => ok(name, VMLINUX_BTF),
        Ok(false) => ok(name, format!("no {VMLINUX_BTF}"))
            .blocks("a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container: mount /sys"),
        Err(error) => unknown(name, format!("{VMLINUX_BTF}: {error}")),
    }
}

fn members(resolved: Result<usize, StartError>) -> HostCheck {
    let name = "kernel_members";
    match resolved {
        Ok(count) => ok(
            name,
            format!("all {count} that the programs read are there"),
        ),
        Err(StartError::Unsupported { what, remedy, .. }) => ok(name, what).blocks(remedy),
        Err(error @ (StartError::Privilege(_) | StartError::Failed { .. })) => {
            unknown(name, capture::chain(&error))
        }
    }
}

fn privilege(own: Option<Capabilities>) -> HostCheck {
    let name = "privilege";
    let Some(own) = own else {
        return unknown(name, "/proc/self/status cannot be read");
    };
    if own.may_trace() {
        let has_pair = own.has(Capability::CAP_BPF) && own.has(Capability::CAP_PERFMON);
        return ok(
            name,
            match has_pair {
                true => "CAP_BPF and CAP_PERFMON",
                false => "CAP_SYS_ADMIN",
            },
        );
    }
    let pair = [Capability::CAP_BPF, Capability::CAP_PERFMON];
    let missing = pair.into_iter().filter(|one| !own.has(*one));
    let missing: Vec<_> = missing.map(|one| one.to_string()).collect();
    ok(name, format!("without {}", missing.join(" and ")))
        .blocks("AmbientCapabilities=CAP_BPF CAP_PERFMON in its unit, or sudo")
}

/// Checks for the initial user namespace: capabilities held elsewhere load no programs.
fn user_namespace(link: io::Result<PathBuf>) -> HostCheck {
    let name = "user_namespace";
    match link {
        Ok(link) if link == Path::new(FIRST_USER_NS) => ok(name, "the host's"),
        Ok(_) => ok(
            name,
            "one of its own, whose capabilities the kernel does not take",
        )
        .blocks("run it on the host, or in a container without user namespaces"),
        Err(error) => unknown(name, format!("/proc/self/ns/user: {error}")),
    }
}

/// Parses the lockdown level, such as `none [integrity] confidentiality`.
fn lockdown(text: io::Result<String>) -> HostCheck {
    let name = "lockdown";
    match text {
        Ok(text) if text.contains("[confidentiality]") => {
            ok(name, "confidentiality").blocks("boot with lockdown=integrity or none")
        }
        Ok(text) => {
            let level = text.split(['[', ']']).nth(1).unwrap_or(text.trim_end());
            ok(name, level)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => ok(name, "not reported"),
        Err(error) => unknown(name, format!("{LOCKDOWN}: {error}")),
    }
}

fn cgroup_v2(mountinfo: &str) -> HostCheck {
    let name = "cgroup_v2";
    match sys::cgroup_mount_point(mountinfo) {
        Some(path) => ok(name, path.display().to_string()),
        None => ok(name, "not mounted").limits(
            NO_CGROUP,
            "mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2",
        ),
    }
}

fn capability(
    name: &'static str,
    own: Option<Capabilities>,
    wanted: Capability,
    cost: &'static str,
    remedy: &'static str,
) -> HostCheck {
    match own {
        Some(own) if own.has(wanted) => ok(name, wanted.to_string()),
        Some(_) => ok(name, format!("without {wanted}")).limits(cost, remedy),
        None => unknown(name, "/proc/self/status cannot be read"),
    }
}

/// Checks /proc: with hidepid, only `CAP_SYS_PTRACE` shows other users' processes.
fn proc(mountinfo: &str, own: Option<Capabilities>) -> HostCheck {
    let name = "proc";
    // A mount over another comes after it in the list.
    let options = mountinfo.lines().rev().find_map(|line| {
        let (left, right) = line.split_once(" - proc ")?;
        (left.split(' ').nth(4) == Some("/proc")).then_some(right)
    });
    let Some(options) = options else {
        return ok(name, "not mounted").limits(
            "`exe`, `cgroup` and `container` are null",
            "mount -t proc proc /proc",
        );
    };
    let hidepid = options
        .split([' ', ','])
        .find(|option| option.starts_with("hidepid="))
        .filter(|option| !["hidepid=0", "hidepid=off"].contains(option));
    match hidepid {
        None => ok(name, "mounted, shows every process"),
        Some(option) if own.is_some_and(|own| own.has(Capability::CAP_SYS_PTRACE)) => ok(
            name,
            format!("mounted with {option}; CAP_SYS_PTRACE passes"),
        ),
        Some(option) => ok(name, format!("mounted with {option}"))
            .limits(NO_EXE, "mount -o remount,hidepid=0 /proc"),
    }
}

/// Checks for tracefs, which `--trace-syscalls` needs.
fn tracefs(folder: Option<&Path>) -> HostCheck {
    let name = TRACEFS;
    match folder {
        Some(folder) => ok(name, folder.display().to_string()),
        None => ok(name, "not mounted").limits(
            "--trace-syscalls sees no more than without",
            "mount -t tracefs tracefs /sys/kernel/tracing",
        ),
    }
}

fn pid_namespace(link: io::Result<PathBuf>) -> HostCheck {
    let name = "pid_namespace";
    match link {
        Ok(link) if link == Path::new(FIRST_PID_NS) => ok(name, "the host's"),
        Ok(_) => ok(name, "one of its own").limits(
            "`exe` is null: /proc here does not show the host's processes",
            "run its container in the host's pid namespace (--pid=host, hostPID: true)",
        ),
        Err(error) => unknown(name, format!("/proc/self/ns/pid: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "CapEff:\t000001ffffffffff\n";
    const NOBODY: &str = "CapEff:\t0000000000000000\n";
    const ONLY_BPF: &str = "CapEff:\t0000008000000000\n";

    #[track_caller]
    fn check(fact: &HostCheck, state: CheckState, found: &str) {
        assert_eq!((fact.state, fact.found.as_str()), (state, found));
        let needs_words = matches!(state, CheckState::Limits | CheckState::Blocks);
        assert_eq!(fact.cost.is_some(), needs_words);
        assert_eq!(fact.remedy.is_some(), needs_words);
    }

    #[test]
    fn capabilities() {
        let of = |status| privilege(Capabilities::parse(status));
        check(&of(ROOT), CheckState::Ok, "CAP_BPF and CAP_PERFMON");
        let missing = "without CAP_BPF and CAP_PERFMON";
        check(&of(NOBODY), CheckState::Blocks, missing);
        check(&of(ONLY_BPF), CheckState::Blocks, "without CAP_PERFMON");
        let admin = "CapEff:\t0000000000200000\n";
        check(&of(admin), CheckState::Ok, "CAP_SYS_ADMIN");
        check(
            &of(""),
            CheckState::Unknown,
            "/proc/self/status cannot be read",
        );
        let of = |status| {
            capability(
                "x",
                Capabilities::parse(status),
                Capability::CAP_SYS_PTRACE,
                "",
                "",
            )
        };
        check(&of(ROOT), CheckState::Ok, "CAP_SYS_PTRACE");
        check(&of(NOBODY), CheckState::Limits, "without CAP_SYS_PTRACE");
    }

    #[test]
    fn lockdown_levels() {
        let of = |text: &str| lockdown(Ok(text.to_owned()));
        check(
            &of("[none] integrity confidentiality\n"),
            CheckState::Ok,
            "none",
        );
        check(
            &of("none [integrity] confidentiality\n"),
            CheckState::Ok,
            "integrity",
        );
        let locked = of("none integrity [confidentiality]\n");
        check(&locked, CheckState::Blocks, "confidentiality");
        let absent = lockdown(Err(ErrorKind::NotFound.into()));
        check(&absent, CheckState::Ok, "not reported");
        let hidden = lockdown(Err(ErrorKind::PermissionDenied.into()));
        assert_eq!(hidden.state, CheckState::Unknown);
    }

    #[test]
    fn mounts() {
        let root = Capabilities::parse(ROOT);
        let nobody = Capabilities::parse(NOBODY);
        let plain = "22 27 0:21 / /proc rw,relatime - proc proc rw\n";
        check(
            &proc(plain, nobody),
            CheckState::Ok,
            "mounted, shows every process",
        );
        for option in ["hidepid=invisible", "hidepid=2", "hidepid=ptraceable"] {
            let hiding = format!("22 27 0:21 / /proc rw - proc proc rw,gid=4,{option}\n");
            let found = format!("mounted with {option}");
            check(&proc(&hiding, nobody), CheckState::Limits, &found);
            let passed = format!("{found}; CAP_SYS_PTRACE passes");
            check(&proc(&hiding, root), CheckState::Ok, &passed);
        }
        let over = format!("{plain}33 22 0:40 / /proc rw - proc proc rw,hidepid=invisible\n");
        let hidden = "mounted with hidepid=invisible";
        check(&proc(&over, nobody), CheckState::Limits, hidden);
        check(&proc("", root), CheckState::Limits, "not mounted");
        check(&cgroup_v2(plain), CheckState::Limits, "not mounted");
        let cgroup = "31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        check(&cgroup_v2(cgroup), CheckState::Ok, "/sys/fs/cgroup");
    }

    #[test]
    fn kernel_and_namespaces() {
        check(&btf(Ok(true)), CheckState::Ok, VMLINUX_BTF);
        let absent = format!("no {VMLINUX_BTF}");
        check(&btf(Ok(false)), CheckState::Blocks, &absent);
        check(
            &members(Ok(3)),
            CheckState::Ok,
            "all 3 that the programs read are there",
        );
        let lacking = members(Err(StartError::Unsupported {
            kernel: "x".to_owned(),
            what: "this kernel has no sock.sk_err".to_owned(),
            remedy: "report",
        }));
        check(
            &lacking,
            CheckState::Blocks,
            "this kernel has no sock.sk_err",
        );
        assert_eq!(
            user_namespace(Ok(FIRST_USER_NS.into())).state,
            CheckState::Ok
        );
        assert_eq!(
            user_namespace(Ok("user:[7]".into())).state,
            CheckState::Blocks
        );
        assert_eq!(pid_namespace(Ok(FIRST_PID_NS.into())).state, CheckState::Ok);
        assert_eq!(
            pid_namespace(Ok("pid:[7]".into())).state,
            CheckState::Limits
        );
    }
}
