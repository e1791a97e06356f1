//! Path of a packet through the base chains of its hooks.

use nix::net::if_::if_nametoindex;

use super::{
    found::{self, could_give},
    hooks::{
        self, ARRIVING, CONNTRACK_PRIORITY, FORWARDED, IN, LOOP, LOOPBACK, NetfilterHook, OUT,
        OrderedChain, is_on,
    },
    position::Position,
    rule::{self, NftVerdict},
    ruleset::{BRIDGE, BaseChain, ChainName, NftRule, RULES_MAX, Ruleset, RulesetParts},
    seen::{HookDevice, PacketChange, PacketFacts, UNKNOWN_MARK, shared},
    truth::Truth,
};
use crate::diagnosis::firewall_facts::{
    self, Direction, Firewall, FirewallPacket, Match, MatchingRule, PacketEnd,
};

/// Maximum number of rules evaluated for a packet.
const STEPS_MAX: usize = RULES_MAX;
/// Comparisons with set elements that cost as much as one rule.
const COMPARED_A_STEP: usize = 64;
/// Maximum depth of jumps (`NFT_JUMP_STACK_SIZE`).
const DEPTH_MAX: usize = 16;

/// A rule of a chain with its comment, or the chain's policy.
type RulePlace<'a> = (&'a ChainName, Option<&'a NftRule>, Option<&'a [u8]>);

/// Walk of one packet through the ruleset.
struct PacketWalk<'a> {
    rules: &'a Ruleset,
    parts: &'a mut dyn RulesetParts,
    ending: PacketEnd,
    seen: PacketFacts,
    /// Certainty that a chain has ended the packet's path.
    ended: Truth,
    found: Vec<MatchingRule>,
    /// Comment of the map's element whose verdict led to this rule.
    of_element: Option<Vec<u8>>,
    steps: usize,
    is_complete: bool,
}

/// Finds the rules that could have ended a packet's path. `index` is that of its interface.
pub(super) fn ended_by(
    packet: &FirewallPacket,
    index: Option<u32>,
    ending: PacketEnd,
    rules: &Ruleset,
    parts: &mut dyn RulesetParts,
) -> Firewall {
    let mut device = match &packet.device {
        Some(name) => HookDevice::Named(name.clone(), index),
        None if is_loopback(packet) => HookDevice::Named(LOOPBACK.to_owned(), Some(1)),
        None => HookDevice::Unknown,
    };
    let mut seen = PacketFacts::new(packet);
    if packet.direction == Direction::Out
        && let HookDevice::Named(name, _) = &device
    {
        seen.to_own = Some(name == LOOPBACK);
    }
    if packet.direction == Direction::In {
        let changes = translations(packet, &device, rules, parts);
        for change in &changes {
            seen.change(*change);
        }
        if changes.contains(&PacketChange::Source) || changes.contains(&PacketChange::Header) {
            device = HookDevice::Unknown;
        }
        // From here on only changes to the answer itself count.
        seen.changes.clear();
    }
    let mut walk = PacketWalk::new(seen, ending, rules, parts);
    walk.all(packet, &device);
    // A rewritten header may contain another destination.
    let is_changed = walk.seen.changes.contains(&PacketChange::Header);
    let is_complete = walk.is_complete && !(ending == PacketEnd::Rewrite && is_changed);
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

/// Returns the changes with which an answer arrives: NAT of the SYN, which is reversed only later
/// on its path.
fn translations(
    packet: &FirewallPacket,
    device: &HookDevice,
    rules: &Ruleset,
    parts: &mut dyn RulesetParts,
) -> Vec<PacketChange> {
    let syn = FirewallPacket {
        direction: Direction::Out,
        ..packet.clone()
    };
    let mut walk = PacketWalk::new(PacketFacts::new(&syn), PacketEnd::Drop, rules, parts);
    walk.all(&syn, device);
    let changes = walk.seen.changes.into_iter();
    let swapped = changes.filter_map(|change| match change {
        PacketChange::Source => Some(PacketChange::Destination),
        PacketChange::Destination => Some(PacketChange::Source),
        PacketChange::Header => Some(PacketChange::Header),
        PacketChange::Mark | PacketChange::Untracked => None,
    });
    let unknown = (!walk.is_complete).then_some(PacketChange::Header);
    swapped.chain(unknown).collect()
}

fn is_loopback(packet: &FirewallPacket) -> bool {
    packet.remote.ip().to_canonical().is_loopback()
}

/// Returns the interfaces by which the packet arrives and leaves, as a hook sees them.
fn devices(
    hook: NetfilterHook,
    packet: &FirewallPacket,
    device: &HookDevice,
) -> (HookDevice, HookDevice) {
    let is_forwarded = matches!(
        packet.direction,
        Direction::Forwarded | Direction::ForwardedBack
    );
    let further = || match &packet.leaves_by {
        Some(name) => HookDevice::Named(name.clone(), if_nametoindex(name.as_str()).ok()),
        None => HookDevice::Unknown,
    };
    match hook {
        NetfilterHook::Forward => (device.clone(), further()),
        NetfilterHook::Postrouting | NetfilterHook::Egress if is_forwarded => {
            (HookDevice::Absent, further())
        }
        NetfilterHook::Output | NetfilterHook::Postrouting | NetfilterHook::Egress => {
            (HookDevice::Absent, device.clone())
        }
        NetfilterHook::Ingress | NetfilterHook::Prerouting | NetfilterHook::Input => {
            (device.clone(), HookDevice::Absent)
        }
    }
}

impl<'a> PacketWalk<'a> {
    fn new(
        seen: PacketFacts,
        ending: PacketEnd,
        rules: &'a Ruleset,
        parts: &'a mut dyn RulesetParts,
    ) -> Self {
        Self {
            rules,
            parts,
            ending,
            seen,
            ended: Truth::False,
            found: Vec::new(),
            of_element: None,
            steps: 0,
            is_complete: !rules.is_cut,
        }
    }

    fn all(&mut self, packet: &FirewallPacket, device: &HookDevice) {
        let is_loop = matches!(device, HookDevice::Named(name, _) if name == LOOPBACK);
        let hooks = match packet.direction {
            _ if is_loop => LOOP,
            Direction::Out | Direction::OutBack => OUT,
            Direction::In | Direction::Delivered => IN,
            Direction::Arriving => ARRIVING,
            Direction::Forwarded | Direction::ForwardedBack => FORWARDED,
        };
        for hook in hooks {
            self.translate(*hook, packet);
            if packet.direction == Direction::Out && self.seen.is_rerouted() {
                self.hook(*hook, packet, &HookDevice::Unknown);
            } else {
                self.hook(*hook, packet, device);
            }
        }
        // The chains of a bridge are not walked, and a packet of another namespace may cross one.
        let comes_from_outside = !matches!(packet.direction, Direction::Out | Direction::In);
        let is_of_bridge = |chain: &BaseChain| chain.name.0 == BRIDGE;
        if comes_from_outside && self.rules.base_chains.iter().any(is_of_bridge) {
            self.is_complete = false;
        }
        // A translated destination can be this host, whose input hooks are not walked.
        let is_elsewhere = packet.direction == Direction::Out && self.seen.is_translated();
        let matters = self.ending != PacketEnd::Rewrite && self.ended != Truth::True;
        if is_elsewhere && !is_loop && matters {
            self.is_complete = false;
        }
    }

    /// Sets the other end of a packet that the namespace translates, as this hook sees it. The chains
    /// of one hook can see either.
    fn translate(&mut self, hook: NetfilterHook, packet: &FirewallPacket) {
        if packet.asked.is_none_or(|asked| asked == packet.remote) {
            return;
        }
        let is_back = packet.direction.is_back();
        let (addr, port) = match hook {
            NetfilterHook::Forward | NetfilterHook::Input => (
                Some(packet.remote.ip().to_canonical()),
                Some(packet.remote.port()),
            ),
            NetfilterHook::Ingress
            | NetfilterHook::Prerouting
            | NetfilterHook::Output
            | NetfilterHook::Postrouting
            | NetfilterHook::Egress => (None, None),
        };
        if is_back {
            (self.seen.source, self.seen.source_port) = (addr, port);
        } else {
            (self.seen.destination, self.seen.destination_port) = (addr, port);
        }
    }

    fn hook(&mut self, hook: NetfilterHook, packet: &FirewallPacket, device: &HookDevice) {
        (self.seen.arrives_by, self.seen.leaves_by) = devices(hook, packet, device);
        let has_socket = matches!(hook, NetfilterHook::Output | NetfilterHook::Postrouting);
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

    /// Walks chains of the same priority, in unknown order.
    fn group(&mut self, group: &[OrderedChain<'_>], hook: NetfilterHook, device: &HookDevice) {
        let reach = self.ended.not();
        if reach == Truth::False {
            return;
        }
        if group.len() > 1 {
            // Each chain may see the changes of the others.
            let (ended, found) = (self.ended, self.found.len());
            let is_mark = |change: &PacketChange| *change == PacketChange::Mark;
            let was_marked = self.seen.changes.iter().any(is_mark);
            self.seen.changes.retain(|change| !is_mark(change));
            for (order, chain) in group {
                self.base(chain, *order, hook, device, reach);
            }
            self.ended = ended;
            self.found.truncate(found);
            if self.seen.changes.iter().any(is_mark) {
                self.seen.mark = UNKNOWN_MARK;
            } else if was_marked {
                self.seen.remember(PacketChange::Mark);
            }
        }
        let (before, from) = (self.ended, self.found.len());
        let (mark, mut mark_after) = (self.seen.mark, None);
        let mut ends = Vec::new();
        for (order, chain) in group {
            self.ended = before;
            self.seen.mark = mark;
            self.base(chain, *order, hook, device, reach);
            ends.push((self.ended, self.found.len()));
            let own = self.seen.mark;
            mark_after = Some(mark_after.map_or(own, |after| shared(after, own)));
        }
        self.seen.mark = mark_after.unwrap_or(mark);
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
        hook: NetfilterHook,
        device: &HookDevice,
        mut reach: Truth,
    ) {
        if matches!(hook, NetfilterHook::Ingress | NetfilterHook::Egress) {
            let is_on = is_on(chain, device);
            // It may run for a lower interface, such as a port of a bond.
            self.is_complete &= is_on != Truth::False;
            reach = reach.and(is_on);
        }
        if reach == Truth::False {
            return;
        }
        let is_tracked = !matches!(hook, NetfilterHook::Ingress | NetfilterHook::Egress)
            && priority > CONNTRACK_PRIORITY
            && !self.seen.changes.contains(&PacketChange::Untracked);
        self.seen.is_new = is_tracked && !self.seen.direction.is_back();
        let through = self.chain(&chain.name, reach, 0);
        let reach = reach.and(through);
        if chain.drops && reach != Truth::False {
            let policy = (&chain.name, None, None);
            self.end(policy, firewall_facts::RuleVerdict::Drop, reach);
        }
    }

    /// Walks a chain that the packet reaches with certainty `reach`. Returns the certainty that it
    /// leaves by `return` or at the end.
    fn chain(&mut self, name: &ChainName, reach: Truth, depth: usize) -> Truth {
        let read = (depth < DEPTH_MAX).then(|| self.parts.rules(name));
        let Some(chain) = read.flatten() else {
            return self.give_up();
        };
        let mut at = Position::new();
        for rule in &chain.rules {
            if at.here == Truth::False {
                break;
            }
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return self.give_up();
            }
            let table = (name.0, name.1.as_slice());
            let outcome = rule::evaluate(rule, table, &self.seen, self.parts);
            self.steps += outcome.compared / COMPARED_A_STEP;
            for change in &outcome.changes {
                self.seen.change(*change);
            }
            if let Some((condition, mark)) = outcome.mark {
                let is_here = self.ended.not().and(reach).and(at.here);
                self.seen.set_mark(mark, is_here.and(condition));
            }
            let comment = outcome.comment.as_deref();
            let led_here = self.of_element.clone();
            if outcome.of_element.is_some() {
                self.of_element = outcome.of_element;
            }
            for (condition, verdict) in &outcome.verdicts {
                if at.here.and(*condition) != Truth::False {
                    let this = (name, Some(rule), comment);
                    self.follow(&mut at, *condition, verdict, this, reach, depth);
                }
            }
            self.of_element = led_here;
        }
        if chain.is_cut && at.here != Truth::False {
            return self.give_up();
        }
        at.through()
    }

    /// Stops the walk in a chain; the rest is unknown.
    fn give_up(&mut self) -> Truth {
        self.is_complete = false;
        self.ended = self.ended.or(Truth::Unknown);
        Truth::Unknown
    }

    fn follow(
        &mut self,
        at: &mut Position,
        condition: Truth,
        verdict: &NftVerdict,
        this: RulePlace<'_>,
        reach: Truth,
        depth: usize,
    ) {
        let (name, ..) = this;
        let hit = at.here.and(condition);
        let reached = reach.and(hit);
        let target = |chain: &[u8]| (name.0, name.1.clone(), chain.to_vec());
        match verdict {
            NftVerdict::Continue => {}
            NftVerdict::Accept => at.ends(condition),
            NftVerdict::Stolen => {
                self.name(this, firewall_facts::RuleVerdict::Rewrite, reached);
                self.ended = self.ended.or(reached);
                at.ends(condition);
            }
            NftVerdict::Rewrite => {
                self.name(this, firewall_facts::RuleVerdict::Rewrite, reached);
                at.ends(condition);
            }
            NftVerdict::End(verdict) => {
                self.end(this, *verdict, reached);
                at.ends(condition);
            }
            NftVerdict::Return => at.leaves(condition, Truth::True),
            NftVerdict::Jump(chain) => {
                let through = self.chain(&target(chain), reached, depth + 1);
                at.returns(condition, through);
            }
            NftVerdict::Goto(chain) => {
                let through = self.chain(&target(chain), reached, depth + 1);
                at.leaves(condition, through);
            }
        }
    }

    /// Ends the packet's path at this place, with this certainty.
    fn end(&mut self, place: RulePlace<'_>, verdict: firewall_facts::RuleVerdict, reached: Truth) {
        self.ended = self.ended.or(reached);
        self.name(place, verdict, reached);
    }

    /// Adds the place to the answer if its verdict explains the ending.
    fn name(
        &mut self,
        (name, rule, comment): RulePlace<'_>,
        verdict: firewall_facts::RuleVerdict,
        reached: Truth,
    ) {
        if let Some(most) = could_give(self.ending, verdict, self.seen.direction) {
            let own = comment.or_else(|| rule.and_then(NftRule::comment));
            let comment = own.or(self.of_element.as_deref());
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
