use crate::{
    diagnosis::{
        Case, Cause, CauseRule, Certainty, Code, Evidence, Facts, Finding, denied, place,
        question::BpfProgram, words,
    },
    record::Errno,
};

/// Denied: a security module's policy forbids the connect. It confines the process
/// (`SELinux`, `AppArmor`), or it is BPF programs that decide on every connect.
///
/// Wrong when the process is confined, or there are such programs, but something else
/// said no; the audit log knows. Before Linux 5.13 the kernel does not tell on what a
/// program decides.
pub(crate) const RULE: CauseRule = CauseRule {
    code: Code::SecurityModule,
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
