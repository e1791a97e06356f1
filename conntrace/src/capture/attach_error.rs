//! Errors of attaching a hook, and their text.

use std::io;

use aya::{
    maps::MapError,
    programs::{ProgramError, links::LinkError},
};

use super::{
    ProgramMissing, StartError, failed, hooks::PROBES, programs::HookProgram, unsupported,
};
use crate::sys::proc_file;

/// Error that keeps a hook from being attached.
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
    #[error("cannot run the iterator")]
    Run(#[from] io::Error),
    #[error("`{PROBES}`: {0}")]
    NoProbes(io::Error),
    #[error("{0}")]
    Function(String),
    #[error("this kernel does not report drop reasons: they need Linux 5.17 or newer")]
    NoDropReasons,
    #[error("{0}")]
    Syscalls(String),
}

impl AttachError {
    /// Returns true if only another kernel or another tier can help.
    pub(super) fn is_unsupported(&self) -> bool {
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

/// Maps the failure of a required program to a start error. A refusal by policy, such as
/// lockdown, is told apart from a kernel that lacks a feature.
pub(super) fn attach_error(program: &HookProgram, error: AttachError) -> StartError {
    let lockdown = proc_file::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return unsupported(
            "it is locked down (confidentiality)".to_owned(),
            "boot with lockdown=integrity or lockdown=none",
        );
    }
    // Only the cgroup filter calls this helper.
    if chain(&error).contains("unknown func bpf_get_current_ancestor_cgroup_id") {
        return unsupported(
            "it has no helper bpf_get_current_ancestor_cgroup_id, which --cgroup needs".to_owned(),
            "filter by --comm, --uid or --pid, or use a newer kernel (5.10 does not, 6.1 does)",
        );
    }
    failed(&format!("attaching to {}", program.target.name()), error)
}

/// Formats an error and its sources as one line, without repetitions.
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

/// Formats an error, and shortens a verifier log to its last line that is not a statistic.
fn brief(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let Some((message, log)) = text.split_once(". Verifier output: ") else {
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
        Some(line) => format!("{message}: {line}"),
        None => message.to_owned(),
    }
}
