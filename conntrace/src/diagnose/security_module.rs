use super::{Case, Evidence, denied, place};
use crate::{
    errno::Errno,
    event::{self, Cause, Certainty, Code},
};

/// Denied: a security module confines the process, and its policy forbids the
/// connect (`SELinux`, `AppArmor`).
///
/// Wrong when the process is confined but something else said no; the audit log
/// knows.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if !denied::by_connect(case, Errno::EACCES) {
        return None;
    }
    let remote = case.remote_socket()?;
    if place::no_way(case, evidence).is_some() {
        return None;
    }
    let profile = evidence.confinement(case.process?)??;
    Some(Cause::new(
        Code::SecurityModule,
        Certainty::Likely,
        &format!(
            "connect to {remote} returned EACCES, and a security module confines the process: {profile}"
        ),
        "`ausearch -m avc -ts recent` or `journalctl -k -g apparmor` shows what was forbidden; allow \
         it in that profile",
        event::Facts::new()
            .with("profile", &profile)
            .with("remote", remote),
    ))
}
