//! What this process may do, and what it gives up once it traces.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

use super::{StartError, failed};

/// Kept after the programs are attached: to read the maps (before Linux 5.19
/// that takes `CAP_BPF`), to look into other network namespaces and at other
/// users' processes and cgroups.
const KEPT: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Checks before anything is tried, so that the message names what is missing
/// and not the first call that failed.
///
/// # Errors
/// When neither `CAP_SYS_ADMIN` nor the pair that replaces it is there.
pub(super) fn check() -> Result<(), StartError> {
    match caps::read(None, CapSet::Effective) {
        Ok(held) if !may_trace(&held) => {
            let names = format!("{} and {}", Capability::CAP_BPF, Capability::CAP_PERFMON);
            Err(StartError::Privilege(names))
        }
        // Where that cannot be read the kernel's own answer has to do.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn may_trace(held: &CapsHashSet) -> bool {
    let has = |capability| held.contains(&capability);
    has(Capability::CAP_SYS_ADMIN) || (has(Capability::CAP_BPF) && has(Capability::CAP_PERFMON))
}

/// Gives up, for this thread and those it starts, what is not needed once the
/// programs are attached: a flaw found in the agent later is then worth less.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn give_up_rest() -> Result<(), StartError> {
    let what = "giving up capabilities";
    prctl::set_no_new_privs().map_err(|error| failed(what, error))?;
    let held = caps::read(None, CapSet::Permitted).map_err(|error| failed(what, error))?;
    let kept: CapsHashSet = KEPT
        .into_iter()
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
    fn sys_admin_or_the_pair_may_trace() {
        use Capability::{CAP_BPF, CAP_CHOWN, CAP_PERFMON, CAP_SYS_ADMIN};
        let may = |held: &[Capability]| may_trace(&held.iter().copied().collect());
        assert!(may(&[CAP_SYS_ADMIN]));
        assert!(may(&[CAP_BPF, CAP_PERFMON]));
        assert!(!may(&[CAP_BPF]));
        assert!(!may(&[CAP_PERFMON, CAP_CHOWN]));
        assert!(!may(&[]));
    }
}
