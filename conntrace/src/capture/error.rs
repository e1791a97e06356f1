//! Why tracing cannot start.

use crate::sys::proc_file;

/// Why tracing cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Capabilities are missing.
    #[error(
        "tracing needs root, or the capabilities {0}: run with sudo, or give them to the service"
    )]
    Privilege(String),
    /// The kernel cannot do it.
    #[error("kernel {kernel} cannot support tracing: {what}; {remedy}")]
    Unsupported {
        /// `uname -r`.
        kernel: String,
        /// What it lacks.
        what: String,
        /// What would mend it.
        remedy: &'static str,
    },
    /// Anything else.
    #[error("{what} failed on kernel {kernel}")]
    Failed {
        /// `uname -r`.
        kernel: String,
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The object lacks a part this agent expects.
#[derive(Debug, thiserror::Error)]
#[error("the object has no {0}")]
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

/// `uname -r`, or "unknown" where even that cannot be read.
#[must_use]
pub fn release() -> String {
    proc_file::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim_end().to_owned())
}
