use super::{Case, Evidence, ask::Program, denied, place, words};
use crate::{
    errno::Errno,
    event::{self, Cause, Certainty, Code},
};

/// Denied: a security module's policy forbids the connect. It confines the process
/// (`SELinux`, `AppArmor`), or it is BPF programs that decide on every connect.
///
/// Wrong when the process is confined, or there are such programs, but something else
/// said no; the audit log knows. Before Linux 5.13 the kernel does not tell on what a
/// program decides.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    by_profile(case, evidence).or_else(|| by_programs(case, evidence))
}

fn by_profile(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
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

fn by_programs(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let errno = [Errno::EPERM, Errno::EACCES]
        .into_iter()
        .find(|&errno| denied::by_connect(case, errno))?;
    let remote = case.remote_socket()?;
    if place::no_way(case, evidence).is_some() {
        return None;
    }
    let programs = evidence.security_programs()?;
    let Program { id, .. } = programs.first()?;
    Some(Cause::new(
        Code::SecurityModule,
        Certainty::Likely,
        &format!(
            "connect to {remote} returned {errno}, and BPF programs of the security module bpf decide \
             on every connect: {}",
            words::programs(&programs)
        ),
        &format!(
            "`bpftool prog show id {id}` tells which process holds the program: have {remote} allowed \
             by that one's policy"
        ),
        event::Facts::new()
            .with("programs", &programs)
            .with("remote", remote),
    ))
}
