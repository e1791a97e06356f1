//! The scenes: each provokes one kind of ending in a thread of its own.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use nix::unistd::gettid;
use socket2::{Domain, Socket, Type};

use super::Traced;
use crate::{
    label::{Label, TimeoutBy},
    reply::ReplyKind,
    stage::{self, FAR_LOCAL_V4, FAR_V4, FAR_V6, NEAR_V4, Stage, StageError, ports},
};

/// How long an application waits that gives up; longer than the patience.
const GIVES_UP_AFTER: Duration = Duration::from_millis(300);
/// How long the kernel tries where a scene lets it.
const USER_TIMEOUT: Duration = Duration::from_millis(1500);

/// What a line must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) label: Label,
    pub(super) reply: ReplyKind,
    pub(super) timeout_by: Option<TimeoutBy>,
}

/// What a scene needs of its stage.
#[derive(Debug, Clone, Copy)]
enum Needs {
    Far,
    FarV6,
    Near,
}

/// A scene as it is written.
struct Scene {
    /// Also the thread's name: at most 15 bytes.
    name: &'static str,
    needs: Needs,
    /// Of every attempt it makes, in order.
    expected: &'static [Expected],
    play: fn() -> io::Result<()>,
}

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

const fn expect(label: Label, reply: ReplyKind) -> Expected {
    Expected {
        label,
        reply,
        timeout_by: None,
    }
}

const fn timeout(by: TimeoutBy) -> Expected {
    Expected {
        label: Label::TimedOut,
        reply: ReplyKind::None,
        timeout_by: Some(by),
    }
}

const ESTABLISHED: Expected = expect(Label::Established, ReplyKind::SynAck);

const SCENES: &[Scene] = &[
    Scene {
        name: "established",
        needs: Needs::Far,
        expected: &[ESTABLISHED],
        play: || connect(FAR_V4, ports::ACCEPTS),
    },
    Scene {
        name: "answered late",
        needs: Needs::Far,
        expected: &[ESTABLISHED],
        play: || connect(FAR_V4, ports::ACCEPTS_SECOND_SYN),
    },
    Scene {
        name: "refused",
        needs: Needs::Far,
        expected: &[expect(Label::Refused, ReplyKind::Rst)],
        play: || connect(FAR_V4, ports::RESETS),
    },
    Scene {
        name: "refused v6",
        needs: Needs::FarV6,
        expected: &[expect(Label::Refused, ReplyKind::Rst)],
        play: || connect(FAR_V6, ports::RESETS),
    },
    Scene {
        name: "refused mapped",
        needs: Needs::FarV6,
        expected: &[expect(Label::Refused, ReplyKind::Rst)],
        play: || {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            let mapped = SocketAddr::from((FAR_V4.to_ipv6_mapped(), ports::RESETS));
            failing(socket.connect(&mapped.into()))
        },
    },
    Scene {
        name: "port closed",
        needs: Needs::Far,
        expected: &[expect(Label::Refused, ReplyKind::Icmp)],
        play: || connect(FAR_V4, ports::PORT_UNREACHABLE),
    },
    Scene {
        name: "kernel timeout",
        needs: Needs::Far,
        expected: &[timeout(TimeoutBy::Kernel)],
        play: || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
            let silent = SocketAddr::from((FAR_V4, ports::SILENT));
            failing(socket.connect(&silent.into()))
        },
    },
    Scene {
        name: "app timeout",
        needs: Needs::Far,
        expected: &[timeout(TimeoutBy::Application)],
        play: || {
            let silent = SocketAddr::from((FAR_V4, ports::SILENT));
            failing(TcpStream::connect_timeout(&silent, GIVES_UP_AFTER).map(drop))
        },
    },
    Scene {
        name: "cancelled",
        needs: Needs::Far,
        expected: &[expect(Label::Cancelled, ReplyKind::None)],
        play: || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            let silent = SocketAddr::from((FAR_V4, ports::SILENT));
            failing(socket.connect(&silent.into()))
        },
    },
    Scene {
        name: "host down",
        needs: Needs::Far,
        expected: &[expect(Label::Unreachable, ReplyKind::Icmp)],
        play: || connect(FAR_V4, ports::HOST_UNREACHABLE),
    },
    Scene {
        name: "prohibited v6",
        needs: Needs::FarV6,
        expected: &[expect(Label::Unreachable, ReplyKind::Icmp)],
        play: || connect(FAR_V6, ports::ADMIN_PROHIBITED),
    },
    Scene {
        name: "no neighbour",
        needs: Needs::Near,
        expected: &[expect(Label::Unreachable, ReplyKind::Local)],
        play: || connect(NEAR_V4, ports::ACCEPTS),
    },
    Scene {
        name: "tuple in use",
        needs: Needs::Far,
        expected: &[
            ESTABLISHED,
            expect(Label::AddressUnavailable, ReplyKind::None),
        ],
        play: || {
            let far = SocketAddr::from((FAR_V4, ports::ACCEPTS)).into();
            let (first, second) = (bound(45_678)?, bound(45_678)?);
            first.connect(&far)?;
            failing(second.connect(&far))
        },
    },
    // Last: it narrows the port range of the stage it is on, its own.
    Scene {
        name: "ports used up",
        needs: Needs::Far,
        expected: &[
            ESTABLISHED,
            ESTABLISHED,
            expect(Label::PortExhausted, ReplyKind::None),
        ],
        play: || {
            let far = SocketAddr::from((FAR_V4, ports::ACCEPTS));
            let _held = (TcpStream::connect(far)?, TcpStream::connect(far)?);
            failing(TcpStream::connect(far).map(drop))
        },
    },
];

/// A stream socket bound to a port that others may share.
fn bound(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((FAR_LOCAL_V4, port)).into())?;
    Ok(socket)
}

/// Connects and closes. How it ends is for the trace to say.
fn connect(to: impl Into<IpAddr>, port: u16) -> io::Result<()> {
    failing(TcpStream::connect((to.into(), port)).map(drop))
}

/// A connect may fail; the trace says how, and is held against what was expected.
fn failing(_connected: io::Result<()>) -> io::Result<()> {
    Ok(())
}

/// Plays all scenes at once, the one that needs a narrow port range on a stage
/// of its own.
///
/// # Errors
/// When there is no stage at all.
pub(super) fn play(traced: &Traced) -> Result<Vec<Act>, StageError> {
    let Some((narrow, wide)) = SCENES.split_last() else {
        return Ok(Vec::new());
    };
    let mut acts = stage::run("stage", |stage| {
        traced.add_stage(stage.netns);
        thread::scope(|scope| {
            let playing: Vec<_> = wide
                .iter()
                .map(|scene| scope.spawn(move || perform(scene, stage)))
                .collect();
            playing
                .into_iter()
                .filter_map(|act| act.join().ok())
                .collect::<Vec<_>>()
        })
    })?;
    acts.push(stage::run("stage", |stage| {
        traced.add_stage(stage.netns);
        match stage.set_sysctl("net/ipv4/ip_local_port_range", "40000 40001") {
            Ok(()) => perform(narrow, stage),
            Err(error) => skipped(narrow, error.to_string()),
        }
    })?);
    Ok(acts)
}

fn perform(scene: &Scene, stage: &Stage) -> Act {
    let obstacle = match scene.needs {
        Needs::FarV6 if !stage.has_v6 => Some("this machine has no IPv6".to_owned()),
        Needs::Far | Needs::FarV6 => stage.far.as_ref().err().map(ToString::to_string),
        Needs::Near => stage.near.as_ref().err().map(ToString::to_string),
    };
    if let Some(reason) = obstacle {
        return skipped(scene, reason);
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
