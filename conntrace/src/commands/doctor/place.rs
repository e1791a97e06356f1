//! Checks of the place where conntrace runs: what it can see there of processes and containers.

use super::{
    CheckState, HostCheck,
    facts::{ok, unknown},
};
use crate::{
    capture::privileges::{Capabilities, Capability},
    output::event::HostLimit,
    sys::{self, CgroupGap, CgroupRoot, ProcPids, ProcView, proc_file},
};

/// Names of the checks of cgroups.
const V1: &str = "cgroup_v1";
const V2: &str = "cgroup_v2";

const WITHOUT_PROC: &str = "not known without /proc";
const NO_CGROUP: &str = "`cgroup` and `container` are null";
const NO_EXE: &str = "for processes of other users or with more capabilities `exe` is null, and \
                      causes name no process";
const NO_PROCESS: &str = "`exe` is null; causes that ask about processes or other network \
                          namespaces are missing";

/// Runs the checks.
pub(super) fn check_all(own: Option<Capabilities>) -> Vec<HostCheck> {
    let view = ProcView::get();
    let cgroups = match view.pids {
        ProcPids::NoProc => unknown(V2, WITHOUT_PROC),
        ProcPids::Same | ProcPids::Other | ProcPids::Unknown(_) => cgroup_v2(CgroupRoot::get()),
    };
    vec![
        cgroups,
        cgroup_v1(proc_file::read("/proc/self/cgroup").ok().as_deref()),
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
        proc(view),
        pid_namespace(&view.pids),
    ]
}

/// Returns what this place limits, for the `start` line. Must be called before capabilities are
/// dropped.
#[must_use]
pub fn limits() -> Vec<HostLimit> {
    let checks = check_all(Capabilities::own());
    // With v1 controllers most containers have a v2 cgroup as well.
    let checks = checks.into_iter().filter(|check| check.name != V1);
    checks.filter_map(limit).collect()
}

fn limit(check: HostCheck) -> Option<HostLimit> {
    Some(HostLimit {
        name: check.name.into(),
        found: check.found,
        cost: check.cost?.into(),
        remedy: check.remedy?.into(),
    })
}

fn cgroup_v2(root: Result<&CgroupRoot, &CgroupGap>) -> HostCheck {
    match root {
        Ok(root) => match root.mount_point() {
            Some(path) => ok(V2, path.display().to_string()),
            None => ok(V2, "reached through the mount of a part"),
        },
        Err(gap) => ok(V2, gap.to_string()).limits(NO_CGROUP, gap.remedy()),
    }
}

/// Checks that no controllers are in cgroup v1: some runtimes put containers there only.
fn cgroup_v1(cgroups: Option<&[u8]>) -> HostCheck {
    let Some(cgroups) = cgroups else {
        return unknown(V1, "/proc/self/cgroup cannot be read");
    };
    if sys::has_v1_controllers(&String::from_utf8_lossy(cgroups)) {
        ok(V1, "has controllers").limits(
            "`container` is null if its runtime uses cgroup v1 only",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    } else {
        ok(V1, "not used")
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
fn proc(view: &ProcView) -> HostCheck {
    let name = "proc";
    if view.pids == ProcPids::NoProc {
        return ok(name, "not mounted").limits(
            "`exe`, `cgroup` and `container` are null, and causes are missing",
            "mount -t proc proc /proc",
        );
    }
    if !view.has_sysctls {
        return ok(name, "without /proc/sys (subset=pid)").limits(
            "`boot_id` is null; causes that need a sysctl are missing, and `port_pressure`",
            "mount -t proc proc /proc",
        );
    }
    match &view.hidepid {
        None => ok(name, "mounted, hides no process"),
        Some(option) if view.may_inspect => ok(
            name,
            format!("mounted with {option}; CAP_SYS_PTRACE passes"),
        ),
        Some(option) => ok(name, format!("mounted with {option}"))
            .limits(NO_EXE, "mount -o remount,hidepid=0 /proc"),
    }
}

/// Checks that the pids of /proc are those of the host, as in the records.
fn pid_namespace(pids: &ProcPids) -> HostCheck {
    let name = "pid_namespace";
    match pids {
        ProcPids::Same => ok(name, "/proc shows the host's"),
        ProcPids::Other => ok(name, "/proc shows another than the host's").limits(
            NO_PROCESS,
            "run its container in the host's pid namespace (--pid=host, hostPID: true)",
        ),
        ProcPids::NoProc => unknown(name, WITHOUT_PROC),
        ProcPids::Unknown(reason) => unknown(name, reason.as_str()),
    }
}

impl HostCheck {
    pub(super) fn limits(self, cost: &'static str, remedy: &'static str) -> Self {
        Self {
            state: CheckState::Limits,
            cost: Some(cost),
            remedy: Some(remedy),
            ..self
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::commands::doctor::facts::tests::{NOBODY, ROOT, check};

    /// Returns what the worst place limits, in the longest words.
    pub(crate) fn worst_limits() -> Vec<HostLimit> {
        let without = Capabilities::parse(NOBODY);
        let denied = std::io::Error::from_raw_os_error(nix::libc::EACCES);
        let gap = CgroupGap::OnlyPart(denied);
        let mut checks = check_all(without);
        checks.retain(|check| ["cgroup_paths", "exe_of_others"].contains(&check.name));
        let hidden = view(ProcPids::Other, Some("hidepid=ptraceable"), false);
        let subset = ProcView {
            has_sysctls: false,
            ..view(ProcPids::Other, None, false)
        };
        let by_length = |check: &HostCheck| check.cost.unwrap().len() + check.found.len();
        let proc = [proc(&hidden), proc(&subset)];
        checks.extend(proc.into_iter().max_by_key(by_length));
        checks.extend([cgroup_v2(Err(&gap)), pid_namespace(&hidden.pids)]);
        checks.into_iter().filter_map(limit).collect()
    }

    #[test]
    fn capabilities() {
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

    fn view(pids: ProcPids, hidepid: Option<&str>, may_inspect: bool) -> ProcView {
        ProcView {
            pids,
            hidepid: hidepid.map(str::to_owned),
            may_inspect,
            has_sysctls: true,
        }
    }

    #[test]
    fn views_of_processes() {
        let of = |hidepid, may_inspect| proc(&view(ProcPids::Same, hidepid, may_inspect));
        check(
            &of(None, false),
            CheckState::Ok,
            "mounted, hides no process",
        );
        let found = "mounted with hidepid=2";
        check(&of(Some("hidepid=2"), false), CheckState::Limits, found);
        let passed = "mounted with hidepid=2; CAP_SYS_PTRACE passes";
        check(&of(Some("hidepid=2"), true), CheckState::Ok, passed);
        let absent = proc(&view(ProcPids::NoProc, None, true));
        check(&absent, CheckState::Limits, "not mounted");
        let subset = ProcView {
            has_sysctls: false,
            ..view(ProcPids::Same, None, true)
        };
        let found = "without /proc/sys (subset=pid)";
        check(&proc(&subset), CheckState::Limits, found);
        let of = |pids| pid_namespace(&pids);
        check(
            &of(ProcPids::Same),
            CheckState::Ok,
            "/proc shows the host's",
        );
        let found = "/proc shows another than the host's";
        check(&of(ProcPids::Other), CheckState::Limits, found);
        let unknown = of(ProcPids::Unknown("denied".to_owned()));
        check(&unknown, CheckState::Unknown, "denied");
        let without = of(ProcPids::NoProc);
        check(&without, CheckState::Unknown, "not known without /proc");
    }

    #[test]
    fn cgroups() {
        let found = "no cgroup v2 filesystem is mounted";
        let of = |gap: CgroupGap| cgroup_v2(Err(&gap));
        check(&of(CgroupGap::NotMounted), CheckState::Limits, found);
        let part = of(CgroupGap::OnlyPart(ErrorKind::PermissionDenied.into()));
        assert!(part.found.contains("the own part") && part.remedy.unwrap().contains("hostPath"));
        let of = |text: &str| cgroup_v1(Some(text.as_bytes()));
        check(&of("0::/\n"), CheckState::Ok, "not used");
        let hybrid = of("4:memory:/a\n0::/\n");
        check(&hybrid, CheckState::Limits, "has controllers");
        assert_eq!(cgroup_v1(None).state, CheckState::Unknown);
    }

    #[test]
    fn only_limits_are_in_the_start_line() {
        assert_eq!(limit(ok("x", "fine")), None);
        assert_eq!(limit(unknown("x", "who knows")), None);
        let limited = limit(ok("x", "found").limits("cost", "remedy")).unwrap();
        assert_eq!((&*limited.name, &*limited.remedy), ("x", "remedy"));
    }
}
