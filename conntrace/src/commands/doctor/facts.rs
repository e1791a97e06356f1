//! Checks of the host. Pure functions turn facts into results; only [`check_all`] reads them.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{CheckState, HostCheck, place};
use crate::{
    capture::{
        self, StartError, VMLINUX_BTF,
        privileges::{Capabilities, Capability},
    },
    sys::proc_file,
};

/// Link to the initial user namespace (`PROC_USER_INIT_INO`), the same on every kernel.
const FIRST_USER_NS: &str = "user:[4026531837]";

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Name of the tracefs check.
pub(super) const TRACEFS: &str = "tracefs";

const NOTHING: &str = "nothing can be traced";

/// Runs all checks on this host.
pub(super) fn check_all() -> Vec<HostCheck> {
    let own = Capabilities::own();
    let btf = btf(Path::new(VMLINUX_BTF).try_exists());
    let members = match btf.state {
        CheckState::Ok => members(capture::check_members()),
        CheckState::Limits | CheckState::Blocks | CheckState::Unknown => {
            unknown("kernel_members", "cannot be looked up without BTF")
        }
    };
    let mut checks = vec![
        btf,
        members,
        privilege(own),
        user_namespace(fs::read_link("/proc/self/ns/user")),
        lockdown(proc_file::read_to_string(LOCKDOWN)),
        tracefs(capture::tracefs()),
    ];
    checks.extend(place::check_all(own));
    checks
}

pub(super) fn ok(name: &'static str, found: impl Into<String>) -> HostCheck {
    HostCheck {
        name,
        state: CheckState::Ok,
        found: found.into(),
        cost: None,
        remedy: None,
    }
}

pub(super) fn unknown(name: &'static str, found: impl Into<String>) -> HostCheck {
    HostCheck {
        state: CheckState::Unknown,
        ..ok(name, found)
    }
}

impl HostCheck {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const ROOT: &str = "CapEff:\t000001ffffffffff\n";
    pub(in super::super) const NOBODY: &str = "CapEff:\t0000000000000000\n";
    const ONLY_BPF: &str = "CapEff:\t0000008000000000\n";

    #[track_caller]
    pub(in super::super) fn check(fact: &HostCheck, state: CheckState, found: &str) {
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
    }
}
