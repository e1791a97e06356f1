//! Plays the scenes, each in a thread of its own.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use nix::unistd::gettid;

use super::{Act, DemoScene, HeldEvidence, Play, SCENES, SceneResult};
use crate::{commands::demo::TracedLines, output::event::Coverage};
use conntrace_testnet::{self, Testnet, TestnetError};

/// Between the beginnings of two scenes: the time for looking at the host is limited,
/// within every second.
const PACE: Duration = Duration::from_millis(30);
/// Until when a scene is played again: a busy machine may leave no time to look at all
/// that shows its cause.
const AGAIN_FOR: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_secs(1);

/// Plays all scenes at once: some on stages of their own, the others on one. Each is told
/// of as soon as it is over.
///
/// # Errors
/// When there is no stage at all.
pub(in crate::commands::demo) fn play(
    traced: &TracedLines,
    coverage: Coverage,
    tell: &(dyn Fn(&Act) + Sync),
) -> Result<Vec<Act>, TestnetError> {
    conntrace_testnet::run("stage", |common| {
        traced.add_stage(common);
        let again_until = Instant::now() + AGAIN_FOR;
        thread::scope(|scope| {
            let playing: Vec<_> = SCENES
                .into_iter()
                .flatten()
                .map(|scene| {
                    thread::sleep(PACE);
                    scope.spawn(move || {
                        let act = perform(scene, common, (traced, coverage), again_until);
                        tell(&act);
                        act
                    })
                })
                .collect();
            playing
                .into_iter()
                .filter_map(|act| act.join().ok())
                .collect()
        })
    })
}

/// Plays a scene, and again if its cause, or how sure that is, differs.
fn perform(
    scene: &DemoScene,
    common: &Testnet,
    (traced, coverage): (&TracedLines, Coverage),
    again_until: Instant,
) -> Act {
    let mut why = scene.why(coverage);
    let play = || {
        if scene.apart {
            play_apart(scene, traced, coverage)
        } else {
            play_on(scene, common, traced, coverage)
        }
    };
    let mut before = Vec::new();
    let mut played = play();
    while let SceneResult::By { tid } = played {
        let told = traced.last_why(tid);
        if told.is_some() && told == scene.or {
            why = told;
        }
        if why.is_none() || told == why || Instant::now() >= again_until {
            break;
        }
        before.push(told);
        thread::sleep(PAUSE);
        played = play();
    }
    Act {
        name: scene.name,
        does: scene.does,
        expected: scene.expected,
        why,
        before,
        played,
    }
}

fn play_apart(scene: &DemoScene, traced: &TracedLines, coverage: Coverage) -> SceneResult {
    let played = conntrace_testnet::run("stage", |testnet| {
        traced.add_stage(testnet);
        play_on(scene, testnet, traced, coverage)
    });
    played.unwrap_or_else(|error| SceneResult::Skipped(error.to_string()))
}

fn play_on(
    scene: &DemoScene,
    testnet: &Testnet,
    traced: &TracedLines,
    coverage: Coverage,
) -> SceneResult {
    if let Err(lack) = scene.needs.check(testnet, coverage) {
        return SceneResult::Skipped(lack);
    }
    if let Err(error) = scene.prepare(testnet) {
        return SceneResult::Skipped(error.to_string());
    }
    let player = thread::scope(|scope| {
        thread::Builder::new()
            .name(scene.name.to_owned())
            .spawn_scoped(scope, || act(scene, traced))?
            .join()
            .map_err(|_| io::Error::other("its thread panicked"))?
    });
    match player {
        Ok(tid) => SceneResult::By { tid },
        Err(error) => SceneResult::Skipped(format!("it could not be set up: {error}")),
    }
}

/// Plays it in this thread and keeps what it holds, this thread included, until its
/// lines are told. Returns who made the attempts.
fn act(scene: &DemoScene, traced: &TracedLines) -> io::Result<u32> {
    let held = match scene.play {
        Play::Once(play) => play().map(|()| HeldEvidence::Nothing)?,
        Play::Holding(play) => play()?,
    };
    let own = gettid().as_raw().unsigned_abs();
    let tid = held.client().unwrap_or(own);
    traced.wait_for(tid, scene.expected.len());
    Ok(tid)
}
