//! Whether this process may load and attach the programs.

use std::fs;

use super::StartError;

/// A capability by its bit in `CapEff`.
struct Capability {
    bit: u32,
    name: &'static str,
}

const SYS_ADMIN: Capability = Capability {
    bit: 21,
    name: "CAP_SYS_ADMIN",
};
const BPF: Capability = Capability {
    bit: 39,
    name: "CAP_BPF",
};
const PERFMON: Capability = Capability {
    bit: 38,
    name: "CAP_PERFMON",
};

/// Checks before anything is tried, so that the message names what is missing
/// and not the first call that failed.
///
/// # Errors
/// When neither `CAP_SYS_ADMIN` nor the pair that replaces it is there.
pub(super) fn check() -> Result<(), StartError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match effective(&status) {
        Some(set) if !may_trace(set) => {
            let names = format!("{} and {}", BPF.name, PERFMON.name);
            Err(StartError::Privilege(names))
        }
        // Without /proc the kernel's own answer has to do.
        _ => Ok(()),
    }
}

fn may_trace(set: u64) -> bool {
    let has = |capability: &Capability| set & (1 << capability.bit) != 0;
    has(&SYS_ADMIN) || (has(&BPF) && has(&PERFMON))
}

fn effective(status: &str) -> Option<u64> {
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_pair_may_trace() {
        let of = |line: &str| effective(line).map(may_trace);
        assert_eq!(of("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(true));
        assert_eq!(of("CapEff:\t0000000000000000\n"), Some(false));
        assert_eq!(of("CapEff:\t000000c000000000\n"), Some(true));
        assert_eq!(of("CapEff:\t0000008000000000\n"), Some(false));
        assert_eq!(of("nothing"), None);
    }
}
