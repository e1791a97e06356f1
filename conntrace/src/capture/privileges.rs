//! What this process may do, and what it gives up once it traces.

pub use caps::Capability;
use caps::{CapSet, CapsHashSet};
use nix::sys::prctl;

use super::{StartError, failed};
use crate::sys::proc_file;

/// Kept after the programs are attached: to read the maps (before Linux 5.19
/// that takes `CAP_BPF`), and to name other users' programs and cgroups.
const KEPT: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Kept for diagnosis: to look into other network namespaces.
const KEPT_FOR_DIAGNOSIS: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN];

/// The capabilities in effect for a process.
#[derive(Debug, Clone, Copy)]
pub struct Capabilities(u64);

impl Capabilities {
    /// This thread's; `None` without /proc.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::parse(&proc_file::read_to_string("/proc/thread-self/status").ok()?)
    }

    /// From `/proc/PID/status`.
    #[must_use]
    pub fn parse(status: &str) -> Option<Self> {
        let set = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(set.trim(), 16).ok().map(Self)
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        self.0 & capability.bitmask() != 0
    }

    /// Whether they suffice to load and attach the programs.
    #[must_use]
    pub fn may_trace(self) -> bool {
        self.has(Capability::CAP_SYS_ADMIN)
            || (self.has(Capability::CAP_BPF) && self.has(Capability::CAP_PERFMON))
    }
}

/// Checks before anything is tried, so that the message names what is missing
/// and not the first call that failed.
///
/// # Errors
/// When neither `CAP_SYS_ADMIN` nor the pair that replaces it is there.
pub(super) fn check() -> Result<(), StartError> {
    match Capabilities::own() {
        Some(own) if !own.may_trace() => {
            let names = format!("{} and {}", Capability::CAP_BPF, Capability::CAP_PERFMON);
            Err(StartError::Privilege(names))
        }
        // Without /proc the kernel's own answer has to do.
        Some(_) | None => Ok(()),
    }
}

/// Gives up, for this thread and those it starts, what is not needed once the
/// programs are attached: a flaw found in the agent later is then worth less. To
/// be called when all files are open: without `CAP_DAC_OVERRIDE` even root cannot
/// make one in another user's folder.
///
/// # Errors
/// When the kernel refuses.
pub fn give_up_rest(diagnosis: bool) -> Result<(), StartError> {
    let what = "giving up capabilities";
    prctl::set_no_new_privs().map_err(|error| failed(what, error))?;
    let held = caps::read(None, CapSet::Permitted).map_err(|error| failed(what, error))?;
    let for_diagnosis = KEPT_FOR_DIAGNOSIS.into_iter().filter(|_| diagnosis);
    let kept: CapsHashSet = KEPT
        .into_iter()
        .chain(for_diagnosis)
        .filter(|kept| held.contains(kept))
        .collect();
    caps::clear(None, CapSet::Inheritable).map_err(|error| failed(what, error))?;
    caps::set(None, CapSet::Effective, &kept).map_err(|error| failed(what, error))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(|error| failed(what, error))
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
