//! The scenes: each provokes one kind of ending in a thread of its own.

mod acts;
mod answers;
mod calls;
mod firewall;
mod local_ports;
mod silence;

use std::{io, net::IpAddr, thread};

use nix::unistd::gettid;

use super::Traced;
use crate::{
    event::Coverage,
    kernel::NO_TRACEFS,
    label::{Label, TimeoutBy},
    reply::ReplyKind,
    stage::{self, DeadEnd, Stage, StageError},
};

/// What a line must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) label: Label,
    pub(super) reply: ReplyKind,
    pub(super) timeout_by: Option<TimeoutBy>,
}

const fn expect(label: Label, reply: ReplyKind) -> Expected {
    Expected {
        label,
        reply,
        timeout_by: None,
    }
}

const fn timeout(by: TimeoutBy) -> Expected {
    Expected {
        timeout_by: Some(by),
        ..expect(Label::TimedOut, ReplyKind::None)
    }
}

const ESTABLISHED: Expected = expect(Label::Established, ReplyKind::SynAck);
const RESET: Expected = expect(Label::Refused, ReplyKind::Rst);
const PORT_UNREACHABLE: Expected = expect(Label::Refused, ReplyKind::Icmp);
const UNREACHABLE: Expected = expect(Label::Unreachable, ReplyKind::Icmp);
const NO_NEIGHBOUR: Expected = expect(Label::Unreachable, ReplyKind::Local);
const REJECTED_HERE: Expected = expect(Label::Refused, ReplyKind::Local);
const DROPPED_HERE: Expected = Expected {
    reply: ReplyKind::Local,
    ..BY_APPLICATION
};
const ABORTED: Expected = expect(Label::Aborted, ReplyKind::None);
const BY_KERNEL: Expected = timeout(TimeoutBy::Kernel);
const BY_APPLICATION: Expected = timeout(TimeoutBy::Application);
const CANCELLED: Expected = expect(Label::Cancelled, ReplyKind::None);
const NO_ROUTE: Expected = expect(Label::Unreachable, ReplyKind::None);
const DENIED: Expected = expect(Label::Denied, ReplyKind::None);
const FAILED: Expected = expect(Label::Failed, ReplyKind::None);
const PORT_EXHAUSTED: Expected = expect(Label::PortExhausted, ReplyKind::None);
const ADDRESS_UNAVAILABLE: Expected = expect(Label::AddressUnavailable, ReplyKind::None);

/// What a scene needs of its stage.
#[derive(Debug, Clone, Copy)]
enum Needs {
    Lo,
    Far,
    FarV6,
    Near,
    NearV6,
    /// A far side, and that this host's drops are seen.
    Drops,
    DropsV6,
    /// That connect is traced as a system call.
    Connects,
    ConnectsV6,
    /// That bind is.
    Binds,
}

impl Needs {
    /// Says why it is not there.
    fn check(self, stage: &Stage, coverage: Coverage) -> Result<(), String> {
        let v6 = matches!(
            self,
            Self::FarV6 | Self::NearV6 | Self::DropsV6 | Self::ConnectsV6
        );
        if v6 && !stage.has_v6 {
            return Err("this machine has no IPv6".to_owned());
        }
        let traced = |traced: bool| match traced {
            true => Ok(()),
            false => Err(format!("system calls cannot be traced: {NO_TRACEFS}")),
        };
        let side = |side: &Result<(), StageError>| match side {
            Ok(()) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        match self {
            Self::Lo => Ok(()),
            Self::Near | Self::NearV6 => side(&stage.near),
            Self::Drops | Self::DropsV6 if !coverage.local_drop => {
                Err("this kernel does not say why it drops a packet".to_owned())
            }
            Self::Far | Self::FarV6 | Self::Drops | Self::DropsV6 => side(&stage.far),
            Self::Connects | Self::ConnectsV6 => traced(coverage.no_route),
            Self::Binds => traced(coverage.bind_exhausted),
        }
    }
}

/// Sysctls of a namespace, as [`Stage::set_sysctl`] takes them.
type Sysctls = &'static [(&'static str, &'static str)];

/// A scene as it is written.
struct Scene {
    /// Also the thread's name: at most 15 bytes.
    name: &'static str,
    needs: Needs,
    /// If there are any, the scene has a stage of its own.
    sysctls: Sysctls,
    /// A route that it needs.
    dead_end: Option<(DeadEnd, IpAddr)>,
    /// Of every attempt it makes, in order.
    expected: &'static [Expected],
    play: fn() -> io::Result<()>,
}

const fn scene(
    name: &'static str,
    needs: Needs,
    expected: &'static [Expected],
    play: fn() -> io::Result<()>,
) -> Scene {
    Scene {
        name,
        needs,
        sysctls: &[],
        dead_end: None,
        expected,
        play,
    }
}

impl Scene {
    const fn with(self, sysctls: Sysctls) -> Self {
        Self { sysctls, ..self }
    }

    const fn by(self, kind: DeadEnd, to: IpAddr) -> Self {
        Self {
            dead_end: Some((kind, to)),
            ..self
        }
    }
}

/// All of them, in the order of the report.
const SCENES: [&[Scene]; 5] = [
    answers::SCENES,
    firewall::SCENES,
    silence::SCENES,
    local_ports::SCENES,
    calls::SCENES,
];

/// A scene as it was played.
#[derive(Debug)]
pub(super) struct Act {
    pub(super) name: &'static str,
    pub(super) expected: &'static [Expected],
    pub(super) played: Played,
}

/// How it went.
#[derive(Debug)]
pub(super) enum Played {
    /// By this thread.
    By { tid: u32 },
    /// This machine cannot stage it, for this reason.
    Skipped(String),
}

/// Plays all scenes at once: those that set sysctls each on a stage of its own,
/// the others on one.
///
/// # Errors
/// When there is no stage at all.
pub(super) fn play(traced: &Traced, coverage: Coverage) -> Result<Vec<Act>, StageError> {
    stage::run("stage", |common| {
        traced.add_stage(common);
        thread::scope(|scope| {
            let playing: Vec<_> = SCENES
                .into_iter()
                .flatten()
                .map(|scene| {
                    scope.spawn(move || match scene.sysctls {
                        [] => perform(scene, common, coverage),
                        sysctls => perform_apart(scene, sysctls, traced, coverage),
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

fn perform_apart(scene: &Scene, sysctls: Sysctls, traced: &Traced, coverage: Coverage) -> Act {
    let act = stage::run("stage", |stage| {
        traced.add_stage(stage);
        let set = sysctls
            .iter()
            .try_for_each(|(name, value)| stage.set_sysctl(name, value));
        match set {
            Ok(()) => perform(scene, stage, coverage),
            Err(error) => skipped(scene, error.to_string()),
        }
    });
    act.unwrap_or_else(|error| skipped(scene, error.to_string()))
}

fn perform(scene: &Scene, stage: &Stage, coverage: Coverage) -> Act {
    if let Err(lack) = scene.needs.check(stage, coverage) {
        return skipped(scene, lack);
    }
    if let Some((kind, to)) = scene.dead_end
        && let Err(error) = stage.add_dead_end(kind, to)
    {
        return skipped(scene, error.to_string());
    }
    let player = thread::scope(|scope| {
        thread::Builder::new()
            .name(scene.name.to_owned())
            .spawn_scoped(scope, || {
                (scene.play)().map(|()| gettid().as_raw().unsigned_abs())
            })?
            .join()
            .map_err(|_| io::Error::other("its thread panicked"))?
    });
    match player {
        Ok(tid) => Act {
            name: scene.name,
            expected: scene.expected,
            played: Played::By { tid },
        },
        Err(error) => skipped(scene, format!("it could not be set up: {error}")),
    }
}

fn skipped(scene: &Scene, reason: String) -> Act {
    Act {
        name: scene.name,
        expected: scene.expected,
        played: Played::Skipped(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_threads_names_and_differ() {
        let scenes = || SCENES.into_iter().flatten();
        let long: Vec<_> = scenes().filter(|scene| scene.name.len() > 15).collect();
        assert!(
            long.is_empty(),
            "{:?}",
            long.iter().map(|scene| scene.name).collect::<Vec<_>>()
        );
        let names: HashSet<_> = scenes().map(|scene| scene.name).collect();
        assert_eq!(names.len(), scenes().count());
    }
}
