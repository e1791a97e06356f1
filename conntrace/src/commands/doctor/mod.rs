//! Checks tracing support (`conntrace doctor`): what is missing, its cost and its remedy.
//!
//! The hooks are really attached, by the same code as in `run`.

mod coverage;
mod facts;
mod place;
mod text;

use std::{borrow::Cow, collections::BTreeMap, env::consts::ARCH};

pub use place::limits;
#[cfg(test)]
pub(crate) use place::tests::worst_limits;
use serde::Serialize;

use crate::{
    capture::{self, PROGRAMS, Settings, StartError, Tier},
    output::event::Start,
};

/// Version of the JSON, raised when a field is removed or changes meaning.
const SCHEMA: u32 = 1;

/// Report of `doctor`, printed in this form as JSON.
#[derive(Debug, Serialize)]
pub struct HostReport {
    /// Version of this object.
    pub schema: u32,
    /// Version of conntrace.
    pub version: &'static str,
    /// Release of the kernel (`uname -r`).
    pub kernel: String,
    /// Architecture for which conntrace is built.
    pub architecture: &'static str,
    /// True if `conntrace run` can start.
    pub can_trace: bool,
    /// Kind of hooks in use; null if tracing cannot start.
    pub tier: Option<Cow<'static, str>>,
    /// Reason why tracing cannot start; null if it can.
    pub obstacle: Option<Obstacle>,
    /// Checks of the host.
    pub facts: Vec<HostCheck>,
    /// Hooks in the order of attachment, without those of system calls.
    pub hooks: Vec<HookFinding>,
    /// Coverage by kind of ending, with the keys of the start line's `coverage`.
    pub coverage: BTreeMap<&'static str, EndingCoverage>,
}

/// Reason why tracing cannot start.
#[derive(Debug, Serialize)]
pub struct Obstacle {
    /// Kind of obstacle, matching the exit status of `run`.
    pub kind: ObstacleKind,
    /// Error message that `run` would print.
    pub message: String,
}

/// Kind of obstacle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObstacleKind {
    /// Missing capabilities.
    Privilege,
    /// Kernel without support for tracing.
    Kernel,
    /// Any other failure.
    Other,
}

/// Result of one check of the host.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct HostCheck {
    /// Name of the check.
    pub name: &'static str,
    /// State of the check.
    pub state: CheckState,
    /// Fact found on the host.
    pub found: String,
    /// Effect on tracing; null if the check is ok.
    pub cost: Option<&'static str>,
    /// Remedy; null if the check is ok.
    pub remedy: Option<&'static str>,
}

/// State of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// The check passed.
    Ok,
    /// Tracing works, but some facts stay unknown.
    Limits,
    /// Tracing cannot start.
    Blocks,
    /// The check could not be made.
    Unknown,
}

/// Result for one hook.
#[derive(Debug, Serialize)]
pub struct HookFinding {
    /// Name of the BPF program.
    pub name: &'static str,
    /// Kernel function or tracepoint to attach to.
    pub target: &'static str,
    /// True if tracing requires this hook.
    pub required: bool,
    /// True if the hook was attached; null if that was not tried.
    pub attached: Option<bool>,
    /// Reason why it is not attached; null if it is.
    pub reason: Option<String>,
    /// Purpose of the hook.
    pub purpose: &'static str,
    /// Effect of its absence.
    pub cost: &'static str,
}

/// Coverage of one kind of ending.
#[derive(Debug, Serialize)]
pub struct EndingCoverage {
    /// True if it is seen; null if tracing cannot start.
    pub seen: Option<bool>,
    /// Reason why it is not seen; null if it is.
    pub reason: Option<&'static str>,
    /// Remedy, or how to check by hand; null if it is seen.
    pub remedy: Option<&'static str>,
}

/// Examines this host: starts tracing, stops it again, and runs all checks. Requires a tokio
/// runtime. Also returns the result that `run` would get.
pub fn examine(tier: Option<Tier>) -> (HostReport, Result<(), StartError>) {
    let settings = Settings {
        tier,
        ..Settings::default()
    };
    // Dropping the tracer detaches the programs.
    let tried = capture::start(&settings).map(|(_, start)| start);
    let report = report_on(tried.as_ref(), facts::check_all());
    (report, tried.map(drop))
}

/// Formats the report as a line of JSON.
///
/// # Errors
/// Never in practice: the report serialises to plain JSON.
pub fn json(report: &HostReport) -> serde_json::Result<String> {
    Ok(serde_json::to_string(report)? + "\n")
}

/// Formats the report as text that fits one screen.
#[must_use]
pub fn text(report: &HostReport) -> String {
    text::render(report)
}

/// Returns the table of each tier's coverage on the kernels this version was tested on.
#[must_use]
pub fn kernels() -> String {
    let table = text::KERNELS.replace('`', "");
    format!("What each tier sees, as measured:\n\n{}", table.trim_end())
}

fn report_on(tried: Result<&Start, &StartError>, facts: Vec<HostCheck>) -> HostReport {
    let start = tried.ok();
    HostReport {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        kernel: capture::release(),
        architecture: ARCH,
        can_trace: start.is_some(),
        tier: start.map(|start| start.tier.clone()),
        obstacle: tried.err().map(obstacle),
        facts,
        hooks: hooks(start),
        coverage: coverage::table(
            start.map(|start| start.coverage),
            start.is_some_and(|start| start.tier != Tier::Tracepoint.as_str()),
        ),
    }
}

fn obstacle(error: &StartError) -> Obstacle {
    Obstacle {
        kind: match error {
            StartError::Privilege(_) => ObstacleKind::Privilege,
            StartError::Unsupported { .. } => ObstacleKind::Kernel,
            StartError::Failed { .. } => ObstacleKind::Other,
        },
        message: capture::chain(error),
    }
}

fn hooks(start: Option<&Start>) -> Vec<HookFinding> {
    let finding = |program: &capture::HookProgram| {
        let states = start.map_or_else(Default::default, |start| start.hooks.as_slice());
        let state = states.iter().find(|state| state.name == program.id.name());
        HookFinding {
            name: program.id.name(),
            target: program.target.name(),
            required: program.required,
            attached: state.map(|state| state.attached),
            reason: state.and_then(|state| state.reason.clone()),
            purpose: program.purpose,
            cost: program.cost,
        }
    };
    // Hooks of system calls are attached only on request.
    let tried = PROGRAMS
        .iter()
        .filter(|program| !program.target.is_syscall());
    tried.map(finding).collect()
}

#[cfg(test)]
mod tests;
