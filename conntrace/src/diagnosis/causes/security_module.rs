use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, denied, place,
        question::BpfProgram, step, words,
    },
    record::{Errno, Label},
};

/// A security module's policy forbids the connect. It confines the process (`SELinux`,
/// `AppArmor`), or it is BPF programs that decide on every connect.
///
/// Wrong when the process is confined, or there are such programs, but something else said no;
/// the audit log knows. Before Linux 5.13 the kernel does not tell on what a program decides.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::SecurityModule,
    labels: &[Label::Denied],
    is: "A security module forbids the connection.",
    means: "a security module forbids it",
    recognised: &[
        "Likely: connect returned EACCES (--trace-syscalls), there is a route, and a security module confines the process; `evidence.profile` is its profile.",
        "Likely: connect returned EPERM or EACCES, there is a route, and BPF programs of the security module bpf decide on every connect; `evidence.programs` names them. The kernel tells so from Linux 5.13 on.",
    ],
    reasons: &[
        "SELinux: the domain may not connect to ports of that type.",
        "AppArmor: the profile allows no network.",
        "A security agent's BPF program forbids that destination, or that process to connect.",
    ],
    steps: &[
        step(
            "ausearch -m avc -ts recent",
            "what SELinux forbade, to which type of port",
        ),
        step(
            "journalctl -k -g apparmor",
            "what AppArmor forbade, by which profile",
        ),
        step("bpftool prog show id ID", "which process holds the program"),
    ],
    look,
    proofs: &[(
        Certainty::Likely,
        "EPERM or EACCES of connect that is no route's, and a profile or program that decides",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let errno = [Errno::EPERM, Errno::EACCES].into_iter();
    let Some(errno) = errno
        .into_iter()
        .find(|&errno| denied::by_connect(case, errno))
    else {
        return Ok(None);
    };
    // Only a route that forbids gives EACCES before that.
    if errno == Errno::EACCES && place::no_way(case, evidence)?.is_some() {
        return Ok(None);
    }
    let by_profile = match errno {
        Errno::EACCES => by_profile(case, evidence),
        _ => Ok(None),
    };
    match by_profile {
        Ok(Some(cause)) => Ok(Some(cause)),
        Ok(None) => by_programs(case, errno, evidence),
        Err(reason) => match by_programs(case, errno, evidence)? {
            Some(cause) => Ok(Some(cause)),
            None => Err(reason),
        },
    }
}

fn by_profile(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let (Some(remote), Some(process)) = (case.remote_socket(), case.process) else {
        return Ok(None);
    };
    let Some(profile) = evidence.confinement(process)? else {
        return Ok(None);
    };
    Ok(Some(Cause::new(
        Code::SecurityModule,
        Certainty::Likely,
        &format!(
            "connect to {remote} returned EACCES, and a security module confines the process: {profile}"
        ),
        "`ausearch -m avc -ts recent` or `journalctl -k -g apparmor` shows what was forbidden; allow \
         it in that profile",
        Facts::new()
            .with("profile", &profile)
            .with("remote", remote),
    )))
}

fn by_programs(case: &Case, errno: Errno, evidence: &mut dyn Evidence) -> Finding {
    let Some(remote) = case.remote_socket() else {
        return Ok(None);
    };
    let programs = evidence.security_programs()?;
    let Some(BpfProgram { id, .. }) = programs.first() else {
        return Ok(None);
    };
    Ok(Some(Cause::new(
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
        Facts::new()
            .with("programs", &programs)
            .with("remote", remote),
    )))
}
