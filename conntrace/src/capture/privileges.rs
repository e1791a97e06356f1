//! Checks the privileges of this process, and drops those not needed after the start.

pub use caps::Capability;
use caps::{CapSet, CapsHashSet};
use nix::sys::prctl;

use super::{StartError, failed};
use crate::sys::proc_file;

/// Capabilities kept after the programs are attached: to read the maps (needs `CAP_BPF`
/// before Linux 5.19), and to name programs and cgroups of other users.
const KEPT: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Capabilities kept for diagnosis, to enter other network namespaces.
const KEPT_FOR_DIAGNOSIS: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN];

/// Effective capabilities of a process.
#[derive(Debug, Clone, Copy)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Reads those of this thread; `None` without /proc.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::parse(&proc_file::read_to_string("/proc/thread-self/status").ok()?)
    }

    /// Parses the text of `/proc/PID/status`.
    #[must_use]
    pub fn parse(status: &str) -> Option<Self> {
        let set = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(set.trim(), 16).ok().map(Self)
    }

    /// Returns true if the set contains this capability.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        self.0 & capability.bitmask() != 0
    }

    /// Returns true if they suffice to load and attach the programs.
    #[must_use]
    pub fn may_trace(self) -> bool {
        self.has(Capability::CAP_SYS_ADMIN)
            || (self.has(Capability::CAP_BPF) && self.has(Capability::CAP_PERFMON))
    }
}

/// Checks the capabilities first, so that the error names the missing ones and not a system
/// call that failed.
///
/// # Errors
/// When this thread has neither `CAP_SYS_ADMIN` nor both `CAP_BPF` and `CAP_PERFMON`.
pub(super) fn check() -> Result<(), StartError> {
    match Capabilities::own() {
        Some(own) if !own.may_trace() => {
            let names = format!("{} and {}", Capability::CAP_BPF, Capability::CAP_PERFMON);
            Err(StartError::Privilege(names))
        }
        // Without /proc the kernel's own error is reported later.
        Some(_) | None => Ok(()),
    }
}

/// Returns the capabilities of the worker: to read the maps, and to open cgroups by their ids.
/// `CAP_SYS_ADMIN` stands in for `CAP_BPF` where that is not held (`bpf_capable`).
pub(crate) fn of_worker() -> [Capability; 2] {
    let has_bpf = caps::has_cap(None, CapSet::Permitted, Capability::CAP_BPF).unwrap_or(false);
    let of_maps = if has_bpf {
        Capability::CAP_BPF
    } else {
        Capability::CAP_SYS_ADMIN
    };
    [of_maps, Capability::CAP_DAC_READ_SEARCH]
}

/// Drops all capabilities of the calling thread but these, for it and those it starts later.
///
/// # Errors
/// When the kernel refuses to change the capabilities.
pub(crate) fn keep_only(wanted: &[Capability]) -> Result<(), StartError> {
    let what = "dropping capabilities";
    let held = caps::read(None, CapSet::Permitted).map_err(|error| failed(what, error))?;
    let kept: CapsHashSet = wanted
        .iter()
        .copied()
        .filter(|wanted| held.contains(wanted))
        .collect();
    caps::set(None, CapSet::Effective, &kept).map_err(|error| failed(what, error))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(|error| failed(what, error))
}

/// Drops the capabilities that are not needed once the programs are attached, for this thread
/// and those it starts later, and the means to get them back. This limits the damage of a flaw in
/// the agent.
///
/// Must be called after all files are open: without `CAP_DAC_OVERRIDE` even root cannot create
/// a file in another user's directory.
///
/// # Errors
/// When the kernel refuses to change the capabilities.
pub fn give_up_rest(diagnosis: bool) -> Result<(), StartError> {
    let what = "dropping capabilities";
    prctl::set_no_new_privs().map_err(|error| failed(what, error))?;
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        caps::clear(None, CapSet::Bounding).map_err(|error| failed(what, error))?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(|error| failed(what, error))?;
    let for_diagnosis = KEPT_FOR_DIAGNOSIS.into_iter().filter(|_| diagnosis);
    let wanted: Vec<Capability> = KEPT.into_iter().chain(for_diagnosis).collect();
    keep_only(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_pair_may_trace() {
        let of = |line: &str| Capabilities::parse(line).map(Capabilities::may_trace);
        assert_eq!(of("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(true));
        assert_eq!(of("CapEff:\t0000000000000000\n"), Some(false));
        assert_eq!(of("CapEff:\t000000c000000000\n"), Some(true));
        assert_eq!(of("CapEff:\t0000008000000000\n"), Some(false));
        assert_eq!(of("nothing"), None);
    }
}
