//! Plays the scenarios of the demo, each in a thread of its own.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{
    Testnet, TestnetError,
    catalogue::{self, ExpectedCause, Scenario},
};

use super::TracedLines;
use crate::{capture::NO_TRACEFS, output::event::Coverage};

/// Time between the beginnings of two scenes: that for looking at the host is limited,
/// within every second.
const PACE: Duration = Duration::from_millis(30);
/// Time in which a scene is played again: a busy machine may leave no time to look at all
/// that shows its cause.
const AGAIN_FOR: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_secs(1);

/// A scenario as it was played.
#[derive(Debug)]
pub(super) struct DemoScene {
    pub(super) scenario: &'static Scenario,
    /// Expected cause of the last attempt.
    pub(super) cause: Option<ExpectedCause>,
    /// Causes of earlier tries, which were others.
    pub(super) before: Vec<Option<ExpectedCause>>,
    pub(super) result: SceneResult,
}

/// Result of playing a scenario.
#[derive(Debug, Clone)]
pub(super) enum SceneResult {
    /// This thread made the attempts.
    By { tid: u32 },
    /// This machine cannot stage it, for this reason.
    Skipped(String),
}

/// Scenarios that the demo shows, in the order of the report.
pub(super) fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    catalogue::all().filter(|scenario| !scenario.only_tested)
}

/// Plays all scenarios at once: some on test networks of their own, the others on one. Each
/// is told of as soon as it is over.
///
/// # Errors
/// When there is no test network at all.
pub(super) fn play(
    traced: &TracedLines,
    coverage: Coverage,
    tell: &(dyn Fn(&DemoScene) + Sync),
) -> Result<Vec<DemoScene>, TestnetError> {
    conntrace_testnet::run("stage", |common| {
        traced.add_stage(common);
        let again_until = Instant::now() + AGAIN_FOR;
        thread::scope(|scope| {
            let playing: Vec<_> = scenarios()
                .map(|scenario| {
                    thread::sleep(PACE);
                    scope.spawn(move || {
                        let scene = perform(scenario, common, (traced, coverage), again_until);
                        tell(&scene);
                        scene
                    })
                })
                .collect();
            playing
                .into_iter()
                .filter_map(|scene| scene.join().ok())
                .collect()
        })
    })
}

/// Plays a scenario, and again if its cause, or the certainty of it, differs.
fn perform(
    scenario: &'static Scenario,
    common: &Testnet,
    (traced, coverage): (&TracedLines, Coverage),
    again_until: Instant,
) -> DemoScene {
    let mut cause = if coverage.icmp6_detail {
        scenario.cause
    } else {
        scenario.cause_by_errno
    };
    let play = || {
        if !scenario.alone {
            return play_on(scenario, common, traced, coverage);
        }
        let played = conntrace_testnet::run("stage", |testnet| {
            traced.add_stage(testnet);
            play_on(scenario, testnet, traced, coverage)
        });
        played.unwrap_or_else(|error| SceneResult::Skipped(error.to_string()))
    };
    let mut before = Vec::new();
    let mut result = play();
    while let SceneResult::By { tid } = result {
        let told = traced.last_cause(tid);
        if told.is_some() && told == scenario.cause_or {
            cause = told;
        }
        if cause.is_none() || told == cause || Instant::now() >= again_until {
            break;
        }
        before.push(told);
        thread::sleep(PAUSE);
        result = play();
    }
    DemoScene {
        scenario,
        cause,
        before,
        result,
    }
}

fn play_on(
    scenario: &Scenario,
    testnet: &Testnet,
    traced: &TracedLines,
    coverage: Coverage,
) -> SceneResult {
    let until_told = |tid| traced.wait_for(tid, scenario.expected.len());
    let played = check(scenario, testnet, coverage).and_then(|()| {
        scenario
            .prepare(testnet)
            .and_then(|()| scenario.play(Path::new("/proc/self/exe"), &until_told))
            .map_err(|error| format!("it could not be set up: {error}"))
    });
    played.map_or_else(SceneResult::Skipped, |tid| SceneResult::By { tid })
}

/// Finds the reason for which this machine cannot stage or trace the scenario.
fn check(scenario: &Scenario, testnet: &Testnet, coverage: Coverage) -> Result<(), String> {
    scenario.check(testnet)?;
    match scenario.coverage {
        Some("local_drop") if !coverage.local_drop => {
            Err("this kernel does not say why it drops a packet".to_owned())
        }
        Some("no_route") if !coverage.no_route => Err(untraced_calls()),
        Some("bind_exhausted") if !coverage.bind_exhausted => Err(untraced_calls()),
        Some(_) | None => Ok(()),
    }
}

fn untraced_calls() -> String {
    format!("system calls cannot be traced: {NO_TRACEFS}")
}
