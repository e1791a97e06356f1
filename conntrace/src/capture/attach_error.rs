//! Why something is not attached, and how that is said.

use std::io;

use aya::{
    maps::MapError,
    programs::{ProgramError, links::LinkError},
};

use super::{
    ProgramMissing, StartError, failed, hooks::PROBES, programs::HookProgram, unsupported,
};
use crate::sys::proc_file;

/// Why a hook is not attached.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error(transparent)]
    Missing(#[from] ProgramMissing),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Map(#[from] MapError),
    #[error("cannot run it")]
    Run(#[from] io::Error),
    #[error("`{PROBES}`: {0}")]
    NoProbes(io::Error),
    #[error("{0}")]
    Function(String),
    #[error("this kernel does not say why it drops a packet: it needs Linux 5.17")]
    NoDropReasons,
    #[error("{0}")]
    Syscalls(String),
}

impl AttachError {
    /// Whether another kernel, or another tier, is all that helps.
    pub(super) fn is_by_nature(&self) -> bool {
        match self {
            Self::Function(_) | Self::NoDropReasons => true,
            Self::Missing(_)
            | Self::Program(_)
            | Self::Link(_)
            | Self::Map(_)
            | Self::Run(_)
            | Self::NoProbes(_)
            | Self::Syscalls(_) => false,
        }
    }
}

/// Why a required program is not there: a refusal by policy is not the same as
/// a kernel that cannot.
pub(super) fn attach_error(program: &HookProgram, error: AttachError) -> StartError {
    let lockdown = proc_file::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return unsupported(
            "it is locked down (confidentiality)".to_owned(),
            "boot with lockdown=integrity or none",
        );
    }
    // Only the filter of cgroups calls it.
    if chain(&error).contains("unknown func bpf_get_current_ancestor_cgroup_id") {
        return unsupported(
            "it does not tell programs which cgroups a process is in, which --cgroup needs"
                .to_owned(),
            "filter by --comm, --uid or --pid, or use a newer kernel (5.10 does not, 6.1 does)",
        );
    }
    failed(&format!("attaching to {}", program.target.name()), error)
}

/// An error and its sources in one line, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = brief(error);
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = brief(inner);
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// The verifier's log runs to pages: its last line says what it was, but for figures.
fn brief(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let Some((said, log)) = text.split_once(". Verifier output: ") else {
        return text;
    };
    let figures = [
        "processed ",
        "verification time ",
        "stack depth ",
        "subprog ",
    ];
    let is_figure = |line: &str| figures.iter().any(|figure| line.starts_with(figure));
    let mut lines = log.lines().rev().map(str::trim);
    match lines.find(|line| !line.is_empty() && !is_figure(line)) {
        Some(line) => format!("{said}: {line}"),
        None => said.to_owned(),
    }
}
