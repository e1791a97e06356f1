//! Catalogue of scenarios that one host can reproduce: the failure, its setup and the expected
//! lines.
//!
//! The demo shows the scenarios that are instructive for a person; the live tests run all of them.
//! Labels and causes are spelled as in the lines, because this crate does not know the agent.

mod answers;
mod calls;
mod firewall;
mod local_ports;
mod outcome;
mod places;
mod process;
mod silence;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    thread,
};

use nix::unistd::gettid;
use socket2::Socket;

use crate::{
    DeadEndRoute, FirewallVerdict, NEAR_LOCAL_V4, NEAR_LOCAL_V6, Testnet, endings::connect,
    firewall as add_firewall_rule, source_of,
};

pub use outcome::{ExpectedCause, ExpectedOutcome, LocalEnd};
use process::Client;
pub use process::client;

/// Far host to which no scenario opens a connection. Answers on other ports would be evidence.
const QUIET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
const QUIET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 4);
/// Far host that never sends a valid packet.
const SILENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
const SILENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 5);

/// Sysctls as pairs of name and value, in the form of [`Testnet::set_sysctl`].
type Sysctls = &'static [(&'static str, &'static str)];

/// Scenario of a failure: its setup, its attempts and the expected lines.
#[derive(Debug)]
pub struct Scenario {
    /// Name of the scenario and of the thread that plays it: at most 15 bytes.
    pub name: &'static str,
    /// Sentence for a person: the failure and how it is provoked.
    pub about: &'static str,
    /// Destination of the attempts, or the address that is bound.
    pub to: SocketAddr,
    /// Outcome lines of all attempts, in order.
    pub expected: &'static [ExpectedOutcome],
    /// Expected cause of the last attempt's outcome.
    pub cause: Option<ExpectedCause>,
    /// Expected cause if the kernel keeps only the errno of an `ICMPv6` error.
    pub cause_by_errno: Option<ExpectedCause>,
    /// Alternative cause that is also right, depending on the kernel's timers.
    pub cause_or: Option<ExpectedCause>,
    /// Key of `coverage` in the start line that the expected lines depend on.
    pub coverage: Option<&'static str>,
    /// Needs a test network to itself: sockets seen in a namespace are up to a second old.
    pub alone: bool,
    /// Left out of the demo, because another scenario there already shows the same.
    pub only_tested: bool,
    sysctls: Sysctls,
    dead_end: Option<DeadEndRoute>,
    gateway: Option<Ipv4Addr>,
    firewall: Option<FirewallVerdict>,
    /// Check of a kernel feature that the scenario needs.
    check: Option<fn() -> io::Result<()>>,
    act: Act,
}

/// Connection attempts of a scenario.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Connects one socket, blocking, and closes it.
    Connect,
    /// Leaves nothing behind that shows the cause.
    Once(fn(SocketAddr) -> io::Result<()>),
    /// Returns the sockets and devices that show the cause.
    Holding(fn(SocketAddr) -> io::Result<Vec<OwnedFd>>),
    /// Starts this program. Its process makes the attempt if it is returned.
    Starting(fn(SocketAddr, &Path) -> io::Result<Option<Client>>),
}

const fn scenario(
    name: &'static str,
    about: &'static str,
    to: SocketAddr,
    act: Act,
    expected: &'static [ExpectedOutcome],
) -> Scenario {
    Scenario {
        name,
        about,
        to,
        expected,
        cause: None,
        cause_by_errno: None,
        cause_or: None,
        coverage: None,
        alone: false,
        only_tested: false,
        sysctls: &[],
        dead_end: None,
        gateway: None,
        firewall: None,
        check: None,
        act,
    }
}

const fn v4(host: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(host), port)
}

const fn v6(host: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(host), port)
}

/// Returns the address of an IPv4 host as an IPv4-mapped IPv6 address.
const fn mapped(host: Ipv4Addr, port: u16) -> SocketAddr {
    v6(host.to_ipv6_mapped(), port)
}

impl Scenario {
    const fn because(self, code: &'static str, certainty: &'static str) -> Self {
        self.because_of_icmp6((code, certainty), (code, certainty))
    }

    const fn because_of_icmp6(mut self, cause: ExpectedCause, by_errno: ExpectedCause) -> Self {
        self.cause = Some(cause);
        self.cause_by_errno = Some(by_errno);
        self
    }

    const fn or(mut self, code: &'static str, certainty: &'static str) -> Self {
        self.cause_or = Some((code, certainty));
        self
    }

    const fn covered_by(mut self, key: &'static str) -> Self {
        self.coverage = Some(key);
        self
    }

    const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    const fn only_tested(mut self) -> Self {
        self.only_tested = true;
        self
    }

    const fn with(mut self, sysctls: Sysctls) -> Self {
        self.sysctls = sysctls;
        self.alone()
    }

    /// Adds a route to the destination that leads nowhere.
    const fn by(mut self, route: DeadEndRoute) -> Self {
        self.dead_end = Some(route);
        self.alone()
    }

    const fn through(mut self, gateway: Ipv4Addr) -> Self {
        self.gateway = Some(gateway);
        self.alone()
    }

    /// Adds a firewall rule of this host for packets to the destination's port.
    const fn meeting(mut self, rule: FirewallVerdict) -> Self {
        self.firewall = Some(rule);
        self.alone()
    }

    const fn checked(mut self, check: fn() -> io::Result<()>) -> Self {
        self.check = Some(check);
        self
    }

    /// Source address of the attempts, where a route leads to the destination.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        source_of(self.to.ip())
    }

    /// Returns true if one blocking connect is answered at once, so that any number of attempts may
    /// run.
    #[must_use]
    pub fn is_at_once(&self) -> bool {
        let answered = |line: &ExpectedOutcome| line.syn_sent == 1 && line.reply != "local";
        matches!(self.act, Act::Connect) && !self.alone && self.expected.iter().all(answered)
    }

    /// Asks whether the test network has the devices and addresses that the scenario needs.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check(&self, testnet: &Testnet) -> Result<(), String> {
        if self.to.is_ipv6() && !testnet.has_v6 {
            return Err("this machine has no IPv6".to_owned());
        }
        let source = self.source();
        let near = [NEAR_LOCAL_V4.into(), NEAR_LOCAL_V6.into()];
        let device = match source {
            Some(source) if near.contains(&source) => &testnet.near,
            Some(source) if !source.is_loopback() => &testnet.far,
            Some(_) | None => &Ok(()),
        };
        device.as_ref().copied().map_err(ToString::to_string)
    }

    /// Configures the test network. To be called on one of its threads.
    ///
    /// # Errors
    /// When this kernel has no such sysctl, route, firewall or socket option.
    pub fn prepare(&self, testnet: &Testnet) -> io::Result<()> {
        for (name, value) in self.sysctls {
            testnet.set_sysctl(name, value)?;
        }
        if let Some(route) = self.dead_end {
            testnet.add_dead_end(route, self.to.ip())?;
        }
        if let Some(via) = self.gateway {
            testnet.add_gateway(via)?;
        }
        if let Some(verdict) = self.firewall {
            add_firewall_rule(self.to.port(), verdict)?;
        }
        self.check.map_or(Ok(()), |check| check())
    }

    /// Makes the attempts in a thread of that name, once the network is prepared. `told` is called
    /// with the id of that thread. The evidence is kept until it returns.
    ///
    /// # Errors
    /// When something that leads up to the attempts fails.
    pub fn play(&self, program: &Path, told: &(dyn Fn(u32) + Sync)) -> io::Result<u32> {
        thread::scope(|scope| {
            thread::Builder::new()
                .name(self.name.to_owned())
                .spawn_scoped(scope, || self.act(program, told))?
                .join()
                .map_err(|_| io::Error::other("its thread panicked"))?
        })
    }

    fn act(&self, program: &Path, told: &dyn Fn(u32)) -> io::Result<u32> {
        let (mut held, mut client) = (Vec::new(), None);
        match self.act {
            Act::Connect => connect(self.to)?,
            Act::Once(act) => act(self.to)?,
            Act::Holding(act) => held = act(self.to)?,
            Act::Starting(act) => client = act(self.to, program)?,
        }
        let own = gettid().as_raw().unsigned_abs();
        let tid = client.as_ref().map_or(own, |Client(child)| child.id());
        told(tid);
        drop((held, client));
        Ok(tid)
    }
}

/// Converts sockets to what a scenario holds.
fn keep<const N: usize>(sockets: [Socket; N]) -> Vec<OwnedFd> {
    sockets.map(OwnedFd::from).into()
}

/// All scenarios, in the order of a report.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        answers::SCENARIOS,
        places::SCENARIOS,
        firewall::SCENARIOS,
        silence::SCENARIOS,
        local_ports::SCENARIOS,
        calls::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_threads_names_and_differ() {
        let long: Vec<_> = all().filter(|one| one.name.len() > 15).collect();
        assert!(long.is_empty(), "{long:#?}");
        let names: HashSet<_> = all().map(|one| one.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn every_scenario_has_a_line() {
        assert!(all().all(|one| !one.expected.is_empty()));
        assert!(all().filter(|one| one.is_at_once()).count() >= 16);
    }
}
