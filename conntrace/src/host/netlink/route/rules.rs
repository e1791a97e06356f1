//! Policy rules (`ip rule`): their dump, and matching of locally generated packets.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_nametoindex;

use super::message::{
    DUMP, INET, INET6, addr, bits, covers, family, malformed, name, too_many, typed,
};
use crate::{
    diagnosis::way::{DeadEndKind, Flow},
    host::netlink::{self, u16_at, u32_at},
};

/// Maximum number of rules of a namespace.
const RULES_MAX: usize = 4096;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
/// Size of `struct fib_rule_hdr`.
const HEADER_LEN: usize = 12;
const FIB_RULE_INVERT: u32 = 2;
/// Flags of a rule whose interface does not exist.
const FIB_RULE_IIF_DETACHED: u32 = 8;
const FIB_RULE_OIF_DETACHED: u32 = 16;
/// Flag of a rule that matches the source the route would select.
const FIB_RULE_FIND_SADDR: u32 = 0x10000;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_FLOW: u16 = 11;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_PAD: u16 = 18;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_DPORT_RANGE: u16 = 24;
const FRA_DPORT_MASK: u16 = 29;
const IPPROTO_TCP: u8 = 6;
/// Index of loopback, the input interface of locally generated packets (`flowi_iif`).
const LOOPBACK_IFINDEX: u32 = 1;

/// Policy rule (`struct fib_rule`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyRule {
    pub(super) priority: u32,
    pub(super) action: Action,
    pub(super) conditions: Conditions,
    /// Length up to which routes' prefixes are ignored.
    pub(super) suppress_prefix_len: Option<u8>,
    /// True if routes by interfaces of a group are ignored.
    pub(super) suppresses_group: bool,
}

/// Action of a policy rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Lookup(u32),
    /// Continues at the first rule of that priority; `None` if there is none.
    Goto(Option<u32>),
    Nop,
    Forbid(DeadEndKind),
    /// An action this version does not know.
    Other,
}

/// Conditions of a policy rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Conditions {
    pub(super) inverted: bool,
    pub(super) from: Option<(IpAddr, u8)>,
    pub(super) to: Option<(IpAddr, u8)>,
    /// Value and mask of the firewall mark.
    pub(super) mark: (u32, u32),
    pub(super) iif: Option<RuleInterface>,
    pub(super) oif: Option<RuleInterface>,
    pub(super) uids: Option<(u32, u32)>,
    pub(super) protocol: Option<u8>,
    pub(super) ports: Option<RulePorts>,
    /// True if the rule applies to packets of VRF interfaces.
    pub(super) is_of_vrf: bool,
    /// True for a condition that cannot be evaluated: source port, type of service, tunnel id, or
    /// one of a newer kernel.
    pub(super) has_unknown: bool,
}

/// Interface named in a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleInterface {
    pub(super) name: String,
    /// Index; `None` if there is no interface of that name.
    pub(super) index: Option<u32>,
}

/// Destination ports of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RulePorts {
    pub(super) first: u16,
    pub(super) last: u16,
    /// Mask of the port; 0 for a range.
    pub(super) mask: u16,
}

/// Packet to match with rules: a SYN from this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoutedPacket {
    pub(super) to: IpAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) device: Option<u32>,
    pub(super) mark: u32,
    pub(super) uid: Option<u32>,
    pub(super) port: u16,
}

impl RoutedPacket {
    /// Returns the SYN of this way, from this address.
    pub(super) fn new(way: &Flow, from: Option<IpAddr>) -> Self {
        Self {
            to: way.to,
            from,
            device: way.device,
            mark: way.mark,
            uid: way.uid,
            port: way.port,
        }
    }
}

/// Reads all rules of a family, in the order of evaluation.
pub(super) fn dump(v6: bool) -> io::Result<Vec<PolicyRule>> {
    let mut body = [0; HEADER_LEN];
    body[0] = family(v6);
    let request = netlink::request(RTM_GETRULE, DUMP, &body)?;
    let mut rules = Vec::new();
    netlink::ask_while(NETLINK_ROUTE, &request, |kind, body| {
        if kind != RTM_NEWRULE || body.first() != Some(&family(v6)) {
            return Ok(());
        }
        if rules.len() >= RULES_MAX {
            return Err(too_many("more than 4096 policy rules"));
        }
        rules.push(PolicyRule::parse(body).ok_or_else(malformed)?);
        Ok(())
    })?;
    Ok(rules)
}

impl PolicyRule {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let any: IpAddr = match *body.first()? {
            INET => Ipv4Addr::UNSPECIFIED.into(),
            INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let flags = u32_at(body, 8)?;
        let mut raw = RawRule::new(any, *body.get(4)?);
        for (kind, value) in typed(body.get(HEADER_LEN..)?) {
            raw.read(kind, value, flags)?;
        }
        let (to_len, from_len) = (*body.get(1)?, *body.get(2)?);
        let mut conditions = raw.conditions;
        conditions.inverted = flags & FIB_RULE_INVERT != 0;
        conditions.has_unknown |= *body.get(3)? != 0;
        conditions.has_unknown |= flags & FIB_RULE_FIND_SADDR != 0;
        conditions.to = (to_len != 0).then_some((raw.to, to_len));
        conditions.from = (from_len != 0).then_some((raw.from, from_len));
        Some(Self {
            priority: raw.priority,
            action: match *body.get(7)? {
                1 => Action::Lookup(raw.table),
                2 => Action::Goto(raw.target),
                3 => Action::Nop,
                6 => Action::Forbid(DeadEndKind::Blackhole),
                7 => Action::Forbid(DeadEndKind::Unreachable),
                8 => Action::Forbid(DeadEndKind::Prohibit),
                _ => Action::Other,
            },
            conditions,
            suppress_prefix_len: raw.suppress_prefix_len,
            suppresses_group: raw.suppresses_group,
        })
    }

    /// Matches like `fib_rule_match`; `None` if an unknown condition decides.
    pub(super) fn matches(&self, packet: &RoutedPacket) -> Option<bool> {
        let all = self.conditions.all(packet);
        all.map(|all| all != self.conditions.inverted)
    }
}

/// Rule while its attributes are parsed.
struct RawRule {
    priority: u32,
    table: u32,
    target: Option<u32>,
    to: IpAddr,
    from: IpAddr,
    conditions: Conditions,
    suppress_prefix_len: Option<u8>,
    suppresses_group: bool,
}

impl RawRule {
    fn new(any: IpAddr, table: u8) -> Self {
        Self {
            priority: 0,
            table: table.into(),
            target: None,
            to: any,
            from: any,
            conditions: Conditions::default(),
            suppress_prefix_len: None,
            suppresses_group: false,
        }
    }

    /// Reads an attribute (`FRA_*`).
    fn read(&mut self, kind: u16, value: &[u8], flags: u32) -> Option<()> {
        let number = || u32_at(value, 0);
        let all = &mut self.conditions;
        match kind {
            FRA_DST => self.to = addr(value)?,
            FRA_SRC => self.from = addr(value)?,
            FRA_IIFNAME => all.iif = Some(interface(value, flags & FIB_RULE_IIF_DETACHED != 0)),
            FRA_GOTO => self.target = number(),
            FRA_PRIORITY => self.priority = number()?,
            FRA_FWMARK => all.mark.0 = number()?,
            // Unset is -1.
            FRA_SUPPRESS_IFGROUP => self.suppresses_group = number()? != u32::MAX,
            FRA_SUPPRESS_PREFIXLEN => {
                let len = Some(number()?).filter(|len| *len <= i32::MAX.cast_unsigned());
                self.suppress_prefix_len = len.map(|len| u8::try_from(len).unwrap_or(u8::MAX));
            }
            FRA_TABLE => self.table = number()?,
            FRA_FWMASK => all.mark.1 = number()?,
            FRA_OIFNAME => all.oif = Some(interface(value, flags & FIB_RULE_OIF_DETACHED != 0)),
            FRA_L3MDEV => all.is_of_vrf = *value.first()? != 0,
            FRA_UID_RANGE => all.uids = Some((number()?, u32_at(value, 4)?)),
            FRA_IP_PROTO => all.protocol = value.first().copied().filter(|&it| it != 0),
            FRA_DPORT_RANGE => {
                let ports = all.ports.get_or_insert(RulePorts::ANY);
                (ports.first, ports.last) = (u16_at(value, 0)?, u16_at(value, 2)?);
            }
            FRA_DPORT_MASK => all.ports.get_or_insert(RulePorts::ANY).mask = u16_at(value, 0)?,
            // Realm, padding and origin of the rule are not conditions.
            FRA_FLOW | FRA_PAD | FRA_PROTOCOL => {}
            _ => all.has_unknown = true,
        }
        Some(())
    }
}

fn interface(value: &[u8], is_detached: bool) -> RuleInterface {
    let name = name(value);
    RuleInterface {
        index: (!is_detached)
            .then(|| if_nametoindex(name.as_str()).ok())
            .flatten(),
        name,
    }
}

impl RulePorts {
    const ANY: Self = Self {
        first: 0,
        last: u16::MAX,
        mask: 0,
    };

    fn has(self, port: u16) -> bool {
        if self.mask == 0 {
            (self.first..=self.last).contains(&port)
        } else {
            (self.first ^ port) & self.mask == 0
        }
    }
}

impl Conditions {
    /// Combines all conditions: a false one decides, even if others are unknown.
    fn all(&self, packet: &RoutedPacket) -> Option<bool> {
        let to = self.to.is_none_or(|to| covers(to, packet.to));
        let from = self.from.is_none_or(|from| self.is_from(from, packet));
        let mark = (self.mark.0 ^ packet.mark) & self.mark.1 == 0;
        let iif = self.iif.as_ref();
        let iif = iif.is_none_or(|iif| iif.index == Some(LOOPBACK_IFINDEX));
        let oif = self.oif.as_ref();
        let oif = oif.is_none_or(|oif| oif.index.is_some() && oif.index == packet.device);
        let protocol = self.protocol.is_none_or(|it| it == IPPROTO_TCP);
        let ports = self.ports.is_none_or(|ports| ports.has(packet.port));
        let known = to && from && mark && iif && oif && protocol && ports;
        let uid = match (self.uids, packet.uid) {
            (None, _) => Some(true),
            (Some((first, last)), Some(uid)) => Some((first..=last).contains(&uid)),
            (Some(_), None) => None,
        };
        // A packet without a device belongs to no VRF.
        let is_of_no_vrf = self.is_of_vrf && packet.device.is_none();
        if !known || uid == Some(false) || is_of_no_vrf {
            return Some(false);
        }
        let is_decided = uid.is_some() && !self.is_of_vrf && !self.has_unknown;
        is_decided.then_some(true)
    }

    /// Matches the source: an unset one counts as 0.0.0.0 in IPv4, and matches nothing in IPv6.
    fn is_from(&self, from: (IpAddr, u8), packet: &RoutedPacket) -> bool {
        match packet.from {
            Some(addr) => covers(from, addr),
            None => covers(from, Ipv4Addr::UNSPECIFIED.into()),
        }
    }
}

impl fmt::Display for PolicyRule {
    /// Formats the rule like `ip rule` (`print_rule` of iproute2).
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.conditions)?;
        match self.action {
            Action::Lookup(table) => write!(out, " lookup {}", table_name(table))?,
            Action::Goto(Some(target)) => write!(out, " goto {target}")?,
            Action::Goto(None) => write!(out, " goto none")?,
            Action::Nop => write!(out, " nop")?,
            Action::Forbid(DeadEndKind::Blackhole) => write!(out, " blackhole")?,
            Action::Forbid(DeadEndKind::Unreachable) => write!(out, " unreachable")?,
            Action::Forbid(DeadEndKind::Prohibit) => write!(out, " prohibit")?,
            Action::Other => {}
        }
        match self.suppress_prefix_len {
            Some(len) => write!(out, " suppress_prefixlength {len}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inverted {
            write!(out, "not ")?;
        }
        match self.from {
            Some(from) => write!(out, "from {}", prefix(from))?,
            None => write!(out, "from all")?,
        }
        if let Some(to) = self.to {
            write!(out, " to {}", prefix(to))?;
        }
        match self.mark {
            (0, 0) => {}
            (mark, u32::MAX) => write!(out, " fwmark {mark:#x}")?,
            (0, mask) => write!(out, " fwmark 0/{mask:#x}")?,
            (mark, mask) => write!(out, " fwmark {mark:#x}/{mask:#x}")?,
        }
        for (word, interface) in [("iif", &self.iif), ("oif", &self.oif)] {
            if let Some(RuleInterface { name, index }) = interface {
                let detached = if index.is_some() { "" } else { " [detached]" };
                write!(out, " {word} {name}{detached}")?;
            }
        }
        if let Some((first, last)) = self.uids {
            write!(out, " uidrange {first}-{last}")?;
        }
        match self.protocol {
            Some(IPPROTO_TCP) => write!(out, " ipproto tcp")?,
            Some(17) => write!(out, " ipproto udp")?,
            Some(other) => write!(out, " ipproto {other}")?,
            None => {}
        }
        match self.ports {
            Some(RulePorts { first, last, .. }) if first == last => write!(out, " dport {first}"),
            Some(RulePorts { first, last, .. }) => write!(out, " dport {first}-{last}"),
            None => Ok(()),
        }
    }
}

fn prefix((addr, len): (IpAddr, u8)) -> String {
    if len == bits(addr) {
        addr.to_string()
    } else {
        format!("{addr}/{len}")
    }
}

/// Returns the name of a table that every host has in `rt_tables`, or its number.
fn table_name(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        255 => "local".to_owned(),
        other => other.to_string(),
    }
}
