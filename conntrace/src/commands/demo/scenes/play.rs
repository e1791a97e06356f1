//! Plays the scenes, each in a thread of its own.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use nix::unistd::gettid;

use super::{Act, Held, Play, Played, SCENES, Scene};
use crate::{commands::demo::Traced, output::event::Coverage};
use conntrace_testnet::{self, Stage, StageError};

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
    traced: &Traced,
    coverage: Coverage,
    tell: &(dyn Fn(&Act) + Sync),
) -> Result<Vec<Act>, StageError> {
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
    scene: &Scene,
    common: &Stage,
    (traced, coverage): (&Traced, Coverage),
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
    while let Played::By { tid } = played {
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

fn play_apart(scene: &Scene, traced: &Traced, coverage: Coverage) -> Played {
    let played = conntrace_testnet::run("stage", |stage| {
        traced.add_stage(stage);
        play_on(scene, stage, traced, coverage)
    });
    played.unwrap_or_else(|error| Played::Skipped(error.to_string()))
}

fn play_on(scene: &Scene, stage: &Stage, traced: &Traced, coverage: Coverage) -> Played {
    if let Err(lack) = scene.needs.check(stage, coverage) {
        return Played::Skipped(lack);
    }
    if let Err(error) = scene.prepare(stage) {
        return Played::Skipped(error.to_string());
    }
    let player = thread::scope(|scope| {
        thread::Builder::new()
            .name(scene.name.to_owned())
            .spawn_scoped(scope, || act(scene, traced))?
            .join()
            .map_err(|_| io::Error::other("its thread panicked"))?
    });
    match player {
        Ok(tid) => Played::By { tid },
        Err(error) => Played::Skipped(format!("it could not be set up: {error}")),
    }
}

/// Plays it in this thread and keeps what it holds, this thread included, until its
/// lines are told. Returns who made the attempts.
fn act(scene: &Scene, traced: &Traced) -> io::Result<u32> {
    let held = match scene.play {
        Play::Once(play) => play().map(|()| Held::Nothing)?,
        Play::Holding(play) => play()?,
    };
    let own = gettid().as_raw().unsigned_abs();
    let tid = held.client().unwrap_or(own);
    traced.wait_for(tid, scene.expected.len());
    Ok(tid)
}
