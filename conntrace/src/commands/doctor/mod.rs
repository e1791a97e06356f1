//! `conntrace doctor`: what this host offers for tracing, what is missing, what
//! that costs and what would mend it.
//!
//! The hooks are really tried, by what `run` does at its start.

mod coverage;
mod facts;
mod text;

use std::{borrow::Cow, collections::BTreeMap, env::consts::ARCH};

use serde::Serialize;

use crate::{
    capture,
    capture::{PROGRAMS, Settings, StartError, Tier},
    output::event::Start,
};

/// Version of the JSON. Goes up when a field is removed or changes meaning.
const SCHEMA: u32 = 1;

/// What was found; written as JSON just so.
#[derive(Debug, Serialize)]
pub struct HostReport {
    /// Version of this object.
    pub schema: u32,
    /// Version of conntrace.
    pub version: &'static str,
    /// `uname -r`.
    pub kernel: String,
    /// That conntrace is built for.
    pub architecture: &'static str,
    /// Whether `conntrace run` would start.
    pub can_trace: bool,
    /// Which kind of hooks would be used; null when tracing cannot start.
    pub tier: Option<Cow<'static, str>>,
    /// Why tracing cannot start.
    pub obstacle: Option<Obstacle>,
    /// What the host has and lacks.
    pub facts: Vec<HostCheck>,
    /// Every hook, in the order they are attached.
    pub hooks: Vec<HookFinding>,
    /// What would be seen, by the keys of the start line's `coverage`.
    pub coverage: BTreeMap<&'static str, EndingCoverage>,
}

/// Why tracing cannot start.
#[derive(Debug, Serialize)]
pub struct Obstacle {
    /// Of which kind, as the exit status tells it.
    pub kind: ObstacleKind,
    /// What `run` would say.
    pub message: String,
}

/// The kinds of obstacles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObstacleKind {
    /// Capabilities are missing.
    Privilege,
    /// The kernel cannot support tracing.
    Kernel,
    /// Anything else.
    Other,
}

/// Something about the host.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct HostCheck {
    /// What it is about.
    pub name: &'static str,
    /// How it stands.
    pub state: CheckState,
    /// What was found.
    pub found: String,
    /// What it costs, unless all is well.
    pub cost: Option<&'static str>,
    /// What would mend it.
    pub remedy: Option<&'static str>,
}

/// How a fact stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Tracing works, but something stays unknown.
    Limits,
    /// Tracing cannot start.
    Blocks,
    /// It could not be found out.
    Unknown,
}

/// A hook, and what became of it.
#[derive(Debug, Serialize)]
pub struct HookFinding {
    /// The program's name.
    pub name: &'static str,
    /// What it is attached to.
    pub target: &'static str,
    /// Whether tracing cannot do without.
    pub required: bool,
    /// Whether it could be attached; null when that was not tried.
    pub attached: Option<bool>,
    /// Why not.
    pub reason: Option<String>,
    /// What it is there for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub cost: &'static str,
}

/// Whether a kind of ending would be seen.
#[derive(Debug, Serialize)]
pub struct EndingCoverage {
    /// Null when tracing cannot start.
    pub seen: Option<bool>,
    /// Why not.
    pub reason: Option<&'static str>,
    /// What would mend it, or how to look by hand.
    pub remedy: Option<&'static str>,
}

/// Examines this host: tries to start tracing, takes everything down again, and
/// looks around. Must run inside a tokio runtime. The second value is what
/// `run` would have met.
pub fn examine(tier: Option<Tier>) -> (HostReport, Result<(), StartError>) {
    let settings = Settings {
        tier,
        ..Settings::default()
    };
    // The tracer is dropped at once, and with it the programs.
    let tried = capture::start(&settings).map(|(_, start)| start);
    let diagnosis = diagnose(tried.as_ref(), facts::look());
    (diagnosis, tried.map(drop))
}

/// The object as text, or as a line of JSON.
///
/// # Errors
/// Never in practice: the JSON is made of strings and booleans.
pub fn json(diagnosis: &HostReport) -> serde_json::Result<String> {
    Ok(serde_json::to_string(diagnosis)? + "\n")
}

/// Text for a person that fits one screen.
#[must_use]
pub fn text(diagnosis: &HostReport) -> String {
    text::render(diagnosis)
}

/// Table of what each tier sees on the kernels that this version was tested on.
#[must_use]
pub fn kernels() -> String {
    let table = text::KERNELS.replace('`', "");
    format!("What each tier sees, as measured:\n\n{}", table.trim_end())
}

fn diagnose(tried: Result<&Start, &StartError>, facts: Vec<HostCheck>) -> HostReport {
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
    // Those of system calls are used only when asked for.
    let tried = PROGRAMS
        .iter()
        .filter(|program| !program.target.is_syscall());
    tried.map(finding).collect()
}

#[cfg(test)]
mod tests;
