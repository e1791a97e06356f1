//! The way of a packet through the base chains of its hooks.

use super::{
    found,
    found::could_give,
    hooks,
    hooks::{ARRIVING, CONNTRACK_PRIORITY, Hook, IN, LOOP, LOOPBACK, OUT, Placed, is_on},
    position::Position,
    rule,
    rule::{Sets, Verdict},
    ruleset::{BaseChain, Name, Rule, Ruleset},
    seen::{Change, Device, Seen},
    truth::Truth,
};
use crate::diagnosis::{
    firewall_facts,
    firewall_facts::{Direction, Ending, Firewall, Found, Match, Packet},
};

/// Most rules that are evaluated for a packet.
const STEPS_MAX: usize = 20_000;
/// Comparisons with elements of sets that take as long as a rule.
const COMPARED_A_STEP: usize = 64;
/// `NFT_JUMP_STACK_SIZE`
const DEPTH_MAX: usize = 16;

/// A rule of a chain with its comment, or the chain's policy.
type Place<'a> = (&'a Name, Option<&'a Rule>, Option<&'a [u8]>);

/// A walk of one packet.
struct Walk<'a> {
    rules: &'a Ruleset,
    sets: &'a mut dyn Sets,
    ending: Ending,
    seen: Seen,
    /// The certainty that a chain has ended the packet's way.
    ended: Truth,
    found: Vec<Found>,
    steps: usize,
    is_complete: bool,
}

/// The rules that could have ended a packet's way so. `index` is that of its interface.
pub(super) fn ended_by(
    packet: &Packet,
    index: Option<u32>,
    ending: Ending,
    rules: &Ruleset,
    sets: &mut dyn Sets,
) -> Firewall {
    let mut device = match &packet.device {
        Some(name) => Device::Named(name.clone(), index),
        None if is_loopback(packet) => Device::Named(LOOPBACK.to_owned(), Some(1)),
        None => Device::Unknown,
    };
    let mut seen = Seen::new(packet);
    if packet.direction == Direction::Out
        && let Device::Named(name, _) = &device
    {
        seen.to_own = Some(name == LOOPBACK);
    }
    if packet.direction == Direction::In {
        let changes = translations(packet, &device, rules, sets);
        for change in &changes {
            seen.change(*change);
        }
        if changes.contains(&Change::Source) || changes.contains(&Change::Header) {
            device = Device::Unknown;
        }
        // What the answer itself was changed by begins here.
        seen.changes.clear();
    }
    let mut walk = Walk::new(seen, ending, rules, sets);
    walk.all(packet, &device);
    // What was written into a header may be another destination.
    let is_changed = walk.seen.changes.contains(&Change::Header);
    let is_complete = walk.is_complete && !(ending == Ending::Rewrite && is_changed);
    let mut found = walk.found;
    if !is_complete {
        let doubted = found.iter_mut();
        doubted.for_each(|found| found.matches = Match::Possibly);
    }
    found.sort_by_key(|found| found.matches != Match::Fully);
    Firewall {
        found,
        complete: is_complete,
    }
}

/// The changes that an answer arrives with: NAT of the SYN, which is undone only on
/// the way.
fn translations(
    packet: &Packet,
    device: &Device,
    rules: &Ruleset,
    sets: &mut dyn Sets,
) -> Vec<Change> {
    let syn = Packet {
        direction: Direction::Out,
        ..packet.clone()
    };
    let mut walk = Walk::new(Seen::new(&syn), Ending::Drop, rules, sets);
    walk.all(&syn, device);
    let changes = walk.seen.changes.into_iter();
    let swapped = changes.filter_map(|change| match change {
        Change::Source => Some(Change::Destination),
        Change::Destination => Some(Change::Source),
        Change::Header => Some(Change::Header),
        Change::Mark | Change::Untracked => None,
    });
    let unknown = (!walk.is_complete).then_some(Change::Header);
    swapped.chain(unknown).collect()
}

fn is_loopback(packet: &Packet) -> bool {
    packet.remote.ip().to_canonical().is_loopback()
}

impl<'a> Walk<'a> {
    fn new(seen: Seen, ending: Ending, rules: &'a Ruleset, sets: &'a mut dyn Sets) -> Self {
        Self {
            rules,
            sets,
            ending,
            seen,
            ended: Truth::False,
            found: Vec::new(),
            steps: 0,
            is_complete: !rules.is_cut,
        }
    }

    fn all(&mut self, packet: &Packet, device: &Device) {
        let is_loop = matches!(device, Device::Named(name, _) if name == LOOPBACK);
        let hooks = match packet.direction {
            _ if is_loop => LOOP,
            Direction::Out => OUT,
            Direction::In => IN,
            Direction::Arriving => ARRIVING,
        };
        for hook in hooks {
            if packet.direction == Direction::Out && self.seen.is_rerouted() {
                self.hook(*hook, packet, &Device::Unknown);
            } else {
                self.hook(*hook, packet, device);
            }
        }
        // A translated destination can be this host itself, with other hooks to pass.
        let is_elsewhere = packet.direction == Direction::Out && self.seen.is_translated();
        let matters = self.ending != Ending::Rewrite && self.ended != Truth::True;
        if is_elsewhere && !is_loop && matters {
            self.is_complete = false;
        }
    }

    fn hook(&mut self, hook: Hook, packet: &Packet, device: &Device) {
        let leaves = matches!(hook, Hook::Output | Hook::Postrouting | Hook::Egress);
        let devices = if leaves {
            (Device::Absent, device.clone())
        } else {
            (device.clone(), Device::Absent)
        };
        (self.seen.arrives_by, self.seen.leaves_by) = devices;
        let has_socket = matches!(hook, Hook::Output | Hook::Postrouting);
        let is_own = has_socket && packet.direction == Direction::Out;
        self.seen.uid = packet.uid.filter(|_| is_own);
        let is_translated = is_own || packet.direction == Direction::Arriving;
        let is_v6 = self.seen.is_v6;
        let chains = self.rules.base_chains.iter();
        let placed = chains.filter_map(|chain| hooks::place(chain, hook, is_v6, is_translated));
        let mut placed: Vec<_> = placed.collect();
        placed.sort_by_key(|(order, _)| *order);
        for group in placed.chunk_by(|(one, _), (other, _)| one == other) {
            self.group(group, hook, device);
        }
    }

    /// Chains of the same priority: which runs first is unknown.
    fn group(&mut self, group: &[Placed<'_>], hook: Hook, device: &Device) {
        let reach = self.ended.not();
        if reach == Truth::False {
            return;
        }
        if group.len() > 1 {
            // Each may see what another has changed.
            let (ended, found) = (self.ended, self.found.len());
            for (order, chain) in group {
                self.base(chain, *order, hook, device, reach);
            }
            self.ended = ended;
            self.found.truncate(found);
        }
        let (before, from) = (self.ended, self.found.len());
        let mut ends = Vec::new();
        for (order, chain) in group {
            self.ended = before;
            self.base(chain, *order, hook, device, reach);
            ends.push((self.ended, self.found.len()));
        }
        let may_end = |(ended, _): &&(Truth, usize)| *ended != before;
        if ends.iter().filter(may_end).count() > 1 {
            let found = self.found.iter_mut().skip(from);
            found.for_each(|found| found.matches = Match::Possibly);
        }
        self.ended = ends.iter().fold(before, |all, (ended, _)| all.or(*ended));
    }

    fn base(
        &mut self,
        chain: &BaseChain,
        (priority, _): (i32, i32),
        hook: Hook,
        device: &Device,
        mut reach: Truth,
    ) {
        if matches!(hook, Hook::Ingress | Hook::Egress) {
            let is_on = is_on(chain, device);
            // It may run for an interface below this one, such as a port of a bond.
            self.is_complete &= is_on != Truth::False;
            reach = reach.and(is_on);
        }
        if reach == Truth::False {
            return;
        }
        let is_tracked = !matches!(hook, Hook::Ingress | Hook::Egress)
            && priority > CONNTRACK_PRIORITY
            && !self.seen.changes.contains(&Change::Untracked);
        self.seen.is_new = is_tracked && self.seen.direction != Direction::In;
        let through = self.chain(&chain.name, reach, 0);
        let reach = reach.and(through);
        if chain.drops && reach != Truth::False {
            let policy = (&chain.name, None, None);
            self.end(policy, firewall_facts::Verdict::Drop, reach);
        }
    }

    /// Walks a chain that the packet reaches with this certainty. Returns the certainty
    /// that one in it leaves it at its end or by `return`.
    fn chain(&mut self, name: &Name, reach: Truth, depth: usize) -> Truth {
        let rules = self.rules;
        let Some(chain) = rules.chains.get(name).filter(|_| depth < DEPTH_MAX) else {
            return self.give_up();
        };
        let mut at = Position::new();
        for rule in chain {
            if at.here == Truth::False {
                break;
            }
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return self.give_up();
            }
            let table = (name.0, name.1.as_slice());
            let outcome = rule::evaluate(rule, table, &self.seen, self.sets);
            self.steps += outcome.compared / COMPARED_A_STEP;
            for change in &outcome.changes {
                self.seen.change(*change);
            }
            let comment = outcome.comment.as_deref();
            for (condition, verdict) in &outcome.verdicts {
                if at.here.and(*condition) != Truth::False {
                    let this = (name, Some(rule), comment);
                    self.follow(&mut at, *condition, verdict, this, reach, depth);
                }
            }
        }
        at.through()
    }

    /// Leaves a chain whose rest is unknown.
    fn give_up(&mut self) -> Truth {
        self.is_complete = false;
        self.ended = self.ended.or(Truth::Unknown);
        Truth::Unknown
    }

    fn follow(
        &mut self,
        at: &mut Position,
        condition: Truth,
        verdict: &Verdict,
        this: Place<'_>,
        reach: Truth,
        depth: usize,
    ) {
        let (name, ..) = this;
        let hit = at.here.and(condition);
        let reached = reach.and(hit);
        let target = |chain: &[u8]| (name.0, name.1.clone(), chain.to_vec());
        match verdict {
            Verdict::Continue => {}
            Verdict::Accept => at.ends(condition),
            Verdict::Stolen => {
                self.name(this, firewall_facts::Verdict::Rewrite, reached);
                self.ended = self.ended.or(reached);
                at.ends(condition);
            }
            Verdict::Rewrite => {
                self.name(this, firewall_facts::Verdict::Rewrite, reached);
                at.ends(condition);
            }
            Verdict::End(verdict) => {
                self.end(this, *verdict, reached);
                at.ends(condition);
            }
            Verdict::Return => at.leaves(condition, Truth::True),
            Verdict::Jump(chain) => {
                let through = self.chain(&target(chain), reached, depth + 1);
                at.returns(condition, through);
            }
            Verdict::Goto(chain) => {
                let through = self.chain(&target(chain), reached, depth + 1);
                at.leaves(condition, through);
            }
        }
    }

    /// The packet's way ends here, with this certainty.
    fn end(&mut self, place: Place<'_>, verdict: firewall_facts::Verdict, reached: Truth) {
        self.ended = self.ended.or(reached);
        self.name(place, verdict, reached);
    }

    /// Names the place in the answer, if its verdict can be what was observed.
    fn name(
        &mut self,
        (name, rule, comment): Place<'_>,
        verdict: firewall_facts::Verdict,
        reached: Truth,
    ) {
        if let Some(most) = could_give(self.ending, verdict, self.seen.direction) {
            found::add(
                &mut self.found,
                name,
                rule,
                comment,
                (verdict, most),
                reached,
            );
        }
    }
}
