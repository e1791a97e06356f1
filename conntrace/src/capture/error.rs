//! Errors that keep tracing from starting.

use crate::sys::proc_file;

/// Error that keeps tracing from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Missing capabilities, by name.
    #[error(
        "tracing needs root, or the capabilities {0}: run with sudo, or give them to the service"
    )]
    Privilege(String),
    /// Kernel that lacks a required feature.
    #[error("kernel {kernel} cannot support tracing: {what}; {remedy}")]
    Unsupported {
        /// Kernel release (`uname -r`).
        kernel: String,
        /// Missing feature, as a clause about the kernel ("it has no ...").
        what: String,
        /// Remedy, as an imperative.
        remedy: &'static str,
    },
    /// Step of the start that failed for another reason.
    #[error("{what} failed on kernel {kernel}")]
    Failed {
        /// Kernel release (`uname -r`).
        kernel: String,
        /// Description of the step, such as "loading the programs".
        what: String,
        /// Error that the step returned.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Program or map that the object does not contain.
#[derive(Debug, thiserror::Error)]
#[error("the BPF object has no {0}: rebuild it with `cargo xtask ebpf`")]
pub(super) struct ProgramMissing(pub(super) String);

pub(super) fn unsupported(what: String, remedy: &'static str) -> StartError {
    StartError::Unsupported {
        kernel: release(),
        what,
        remedy,
    }
}

pub(super) fn failed(
    what: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StartError {
    StartError::Failed {
        kernel: release(),
        what: what.to_owned(),
        source: source.into(),
    }
}

/// Returns the kernel release (`uname -r`), or "unknown" where /proc cannot be read.
#[must_use]
pub fn release() -> String {
    proc_file::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim_end().to_owned())
}
