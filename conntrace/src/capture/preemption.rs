//! Detects kernel preemption, which can also interrupt a BPF program.

use crate::sys::proc_file;

/// File that shows the preemption mode of a `PREEMPT_DYNAMIC` kernel, such as `none
/// (voluntary) full lazy` (`sched_dynamic_show`).
const MODE: &str = "/sys/kernel/debug/sched/preempt";
/// File that shows the build options of the kernel (`uname -v`).
const VERSION: &str = "/proc/sys/kernel/version";

/// Returns true if threads can be preempted within the kernel, or if that is unknown.
pub(super) fn preempts() -> bool {
    let mode = proc_file::read_to_string(MODE).ok();
    let version = proc_file::read_to_string(VERSION).ok();
    parse(mode.as_deref(), version.as_deref())
}

fn parse(mode: Option<&str>, version: Option<&str>) -> bool {
    match (mode, version) {
        (Some(mode), _) => mode.contains("(full)") || mode.contains("(lazy)"),
        (None, Some(version)) => version.contains("PREEMPT"),
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_counts_before_what_was_built() {
        let dynamic = Some("#1 SMP PREEMPT_DYNAMIC Debian 6.12.9-1 (2025-01-10)");
        assert!(parse(None, dynamic));
        assert!(!parse(Some("none (voluntary) full\n"), dynamic));
        assert!(!parse(Some("(none) voluntary full lazy\n"), dynamic));
        assert!(parse(Some("none voluntary (full)\n"), dynamic));
        assert!(parse(Some("full (lazy)\n"), dynamic));
        assert!(parse(None, Some("#1 SMP PREEMPT_RT Debian 6.12.9-1")));
        assert!(!parse(None, Some("#1 SMP Debian 5.10.226-1 (2024-10-03)")));
        assert!(parse(None, None));
    }
}
