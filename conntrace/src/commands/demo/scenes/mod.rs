//! The scenes: each provokes one kind of ending in a thread of its own.

mod acts;
mod answers;
mod calls;
mod firewall;
mod held;
mod local_ports;
mod places;
mod play;
mod silence;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use held::HeldEvidence;
pub use held::client;
pub(super) use play::play;

use crate::{
    capture::NO_TRACEFS,
    diagnosis::{Certainty, Code},
    output::event::{Coverage, Outcome},
    record::{Label, ReplyKind, TimeoutBy},
};
use conntrace_testnet::{DeadEndRoute, Testnet, TestnetError};

/// What a line must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expectation {
    pub(super) label: Label,
    pub(super) reply: ReplyKind,
    pub(super) timeout_by: Option<TimeoutBy>,
}

impl Expectation {
    /// What a line says.
    pub(super) fn of_line(line: &Outcome) -> Self {
        Self {
            label: line.label,
            reply: line.details.reply.kind,
            timeout_by: line.details.timeout_by,
        }
    }
}

const fn expect(label: Label, reply: ReplyKind) -> Expectation {
    Expectation {
        label,
        reply,
        timeout_by: None,
    }
}

const fn timeout(by: TimeoutBy) -> Expectation {
    Expectation {
        timeout_by: Some(by),
        ..expect(Label::TimedOut, ReplyKind::None)
    }
}

const ESTABLISHED: Expectation = expect(Label::Established, ReplyKind::SynAck);
const RESET: Expectation = expect(Label::Refused, ReplyKind::Rst);
const PORT_UNREACHABLE: Expectation = expect(Label::Refused, ReplyKind::Icmp);
const UNREACHABLE: Expectation = expect(Label::Unreachable, ReplyKind::Icmp);
const NO_NEIGHBOUR: Expectation = expect(Label::Unreachable, ReplyKind::Local);
const REJECTED_HERE: Expectation = expect(Label::Refused, ReplyKind::Local);
const DROPPED_HERE: Expectation = Expectation {
    reply: ReplyKind::Local,
    ..BY_APPLICATION
};
const ABORTED: Expectation = expect(Label::Aborted, ReplyKind::None);
const BY_KERNEL: Expectation = timeout(TimeoutBy::Kernel);
const BY_APPLICATION: Expectation = timeout(TimeoutBy::Application);
const CANCELLED: Expectation = expect(Label::Cancelled, ReplyKind::None);
const NO_ROUTE: Expectation = expect(Label::Unreachable, ReplyKind::None);
const DENIED: Expectation = expect(Label::Denied, ReplyKind::None);
const FAILED: Expectation = expect(Label::Failed, ReplyKind::None);
const PORT_EXHAUSTED: Expectation = expect(Label::PortExhausted, ReplyKind::None);
const ADDRESS_UNAVAILABLE: Expectation = expect(Label::AddressUnavailable, ReplyKind::None);

/// Far hosts with which no scene opens a connection: how they answer elsewhere is no
/// evidence.
const QUIET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
const QUIET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 4);
/// A host that is never heard of at all.
const SILENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
const SILENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 5);

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
    fn check(self, testnet: &Testnet, coverage: Coverage) -> Result<(), String> {
        let v6 = matches!(
            self,
            Self::FarV6 | Self::NearV6 | Self::DropsV6 | Self::ConnectsV6
        );
        if v6 && !testnet.has_v6 {
            return Err("this machine has no IPv6".to_owned());
        }
        let traced = |traced: bool| match traced {
            true => Ok(()),
            false => Err(format!("system calls cannot be traced: {NO_TRACEFS}")),
        };
        let side = |side: &Result<(), TestnetError>| match side {
            Ok(()) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        match self {
            Self::Lo => Ok(()),
            Self::Near | Self::NearV6 => side(&testnet.near),
            Self::Drops | Self::DropsV6 if !coverage.local_drop => {
                Err("this kernel does not say why it drops a packet".to_owned())
            }
            Self::Far | Self::FarV6 | Self::Drops | Self::DropsV6 => side(&testnet.far),
            Self::Connects | Self::ConnectsV6 => traced(coverage.no_route),
            Self::Binds => traced(coverage.bind_exhausted),
        }
    }
}

/// A cause, and how sure it is.
pub(super) type ExpectedCause = (Code, Certainty);

/// Sysctls of a namespace, as [`Testnet::set_sysctl`] takes them.
type Sysctls = &'static [(&'static str, &'static str)];

/// A scene as it is written.
struct DemoScene {
    /// Also the thread's name: at most 15 bytes.
    name: &'static str,
    /// The failure that is provoked and how, for a person.
    does: &'static str,
    needs: Needs,
    /// On a stage of its own, on which nobody has looked yet: what is seen of a
    /// namespace's sockets is up to a second old.
    apart: bool,
    /// If there are any, the scene is played apart, as with what follows.
    sysctls: Sysctls,
    /// A route that it needs.
    dead_end: Option<(DeadEndRoute, IpAddr)>,
    /// The default gateway.
    gateway: Option<Ipv4Addr>,
    /// Of every attempt it makes, in order.
    expected: &'static [Expectation],
    /// Why the last one ends so.
    why: Option<ExpectedCause>,
    /// Likewise, where nothing is known of an `ICMPv6` error but its errno.
    why_by_errno: Option<ExpectedCause>,
    /// Another cause that is as right, where the kernel's timers decide.
    or: Option<ExpectedCause>,
    play: Play,
}

/// What a scene does.
#[derive(Clone, Copy)]
enum Play {
    /// All that shows the cause lasts.
    Once(fn() -> io::Result<()>),
    /// What it returns is part of that.
    Holding(fn() -> io::Result<HeldEvidence>),
}

const fn scene(
    name: &'static str,
    does: &'static str,
    needs: Needs,
    expected: &'static [Expectation],
    play: fn() -> io::Result<()>,
) -> DemoScene {
    of(name, does, needs, expected, Play::Once(play))
}

const fn holding(
    name: &'static str,
    does: &'static str,
    needs: Needs,
    expected: &'static [Expectation],
    play: fn() -> io::Result<HeldEvidence>,
) -> DemoScene {
    of(name, does, needs, expected, Play::Holding(play))
}

const fn of(
    name: &'static str,
    does: &'static str,
    needs: Needs,
    expected: &'static [Expectation],
    play: Play,
) -> DemoScene {
    DemoScene {
        name,
        does,
        needs,
        apart: false,
        sysctls: &[],
        dead_end: None,
        gateway: None,
        expected,
        why: None,
        why_by_errno: None,
        or: None,
        play,
    }
}

impl DemoScene {
    const fn apart(self) -> Self {
        Self {
            apart: true,
            ..self
        }
    }

    const fn with(self, sysctls: Sysctls) -> Self {
        Self { sysctls, ..self }.apart()
    }

    const fn by(self, kind: DeadEndRoute, to: IpAddr) -> Self {
        Self {
            dead_end: Some((kind, to)),
            ..self
        }
        .apart()
    }

    const fn through(self, gateway: Ipv4Addr) -> Self {
        Self {
            gateway: Some(gateway),
            ..self
        }
        .apart()
    }

    const fn because(self, code: Code, certainty: Certainty) -> Self {
        self.because_of_icmp6((code, certainty), (code, certainty))
    }

    const fn because_of_icmp6(self, why: ExpectedCause, by_errno: ExpectedCause) -> Self {
        Self {
            why: Some(why),
            why_by_errno: Some(by_errno),
            ..self
        }
    }

    const fn or(self, code: Code, certainty: Certainty) -> Self {
        Self {
            or: Some((code, certainty)),
            ..self
        }
    }

    fn why(&self, coverage: Coverage) -> Option<ExpectedCause> {
        if coverage.icmp6_detail {
            self.why
        } else {
            self.why_by_errno
        }
    }

    /// Sets what it needs on a stage of its own.
    fn prepare(&self, testnet: &Testnet) -> io::Result<()> {
        for (name, value) in self.sysctls {
            testnet.set_sysctl(name, value)?;
        }
        if let Some((kind, to)) = self.dead_end {
            testnet.add_dead_end(kind, to)?;
        }
        self.gateway.map_or(Ok(()), |via| testnet.add_gateway(via))
    }
}

/// All of them, in the order of the report.
const SCENES: [&[DemoScene]; 6] = [
    answers::SCENES,
    places::SCENES,
    firewall::SCENES,
    silence::SCENES,
    local_ports::SCENES,
    calls::SCENES,
];

/// Number of scenes.
pub(super) fn count() -> usize {
    SCENES.into_iter().map(<[DemoScene]>::len).sum()
}

/// A scene as it was played.
#[derive(Debug)]
pub(super) struct Act {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    pub(super) expected: &'static [Expectation],
    /// Of the last attempt.
    pub(super) why: Option<ExpectedCause>,
    /// The causes of earlier tries, which were others.
    pub(super) before: Vec<Option<ExpectedCause>>,
    pub(super) played: SceneResult,
}

/// How it went.
#[derive(Debug, Clone)]
pub(super) enum SceneResult {
    /// By this thread.
    By { tid: u32 },
    /// This machine cannot stage it, for this reason.
    Skipped(String),
}

/// All of them as if they had been played so.
#[cfg(test)]
pub(super) fn scenes_as_played(played: SceneResult) -> impl Iterator<Item = Act> {
    SCENES.into_iter().flatten().map(move |scene| Act {
        name: scene.name,
        does: scene.does,
        expected: scene.expected,
        why: scene.why,
        before: Vec::new(),
        played: played.clone(),
    })
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

    #[test]
    fn every_cause_is_staged_that_one_host_can_stage() {
        let scenes = || SCENES.into_iter().flatten();
        let causes: HashSet<_> = scenes().filter_map(|scene| Some(scene.why?.0)).collect();
        let missing: Vec<_> = Code::ALL
            .into_iter()
            .filter(|code| !causes.contains(code))
            .collect();
        // The first needs a gateway behind another device than a tunnel's, such as the
        // stage has. For the next two a policy of the host's would have to be set, and be left
        // if killed. The last needs a namespace without an address.
        let elsewhere = [
            Code::PrivateAddressNotLocal,
            Code::CgroupPolicy,
            Code::SecurityModule,
            Code::NoSourceAddress,
        ];
        assert_eq!(missing, elsewhere);
    }
}
