//! Ruleset of a network namespace, as told by `nf_tables`: its tables and chains, and the rules of
//! single chains.

use std::{collections::HashSet, ops::ControlFlow, rc::Rc};

use super::{
    parse::{comment_in, elements, name_of, nested, number, number_of, until_nul, value},
    sets::{NftSet, SetName},
};

/// Maximum number of tables and chains kept.
const CHAINS_MAX: usize = 65_536;
/// Maximum number of rules kept of a ruleset, and of bytes of their expressions.
pub(super) const RULES_MAX: usize = 20_000;
const BYTES_MAX: usize = 8 << 20;

/// `NFT_MSG_NEWTABLE`, `NEWCHAIN`, `NEWRULE` and `NEWSET`; each request is one more.
pub(super) const TABLE: u16 = 10 << 8;
pub(super) const CHAIN: u16 = (10 << 8) + 3;
pub(super) const RULE: u16 = (10 << 8) + 6;
pub(super) const SET: u16 = (10 << 8) + 9;

/// Table flag `NFT_TABLE_F_DORMANT`.
const DORMANT: u32 = 1;

/// Protocol families `NFPROTO_INET`, `NFPROTO_NETDEV` and `NFPROTO_BRIDGE`.
pub(super) const INET: u8 = 1;
pub(super) const NETDEV: u8 = 5;
pub(super) const BRIDGE: u8 = 7;

/// Family, table and name of a chain.
pub(super) type ChainName = (u8, Vec<u8>, Vec<u8>);

/// Base chain: a chain that a hook runs.
#[derive(Debug, Clone)]
pub(super) struct BaseChain {
    pub(super) name: ChainName,
    pub(super) hook: u32,
    pub(super) priority: i32,
    /// Names of interfaces; a trailing star marks a prefix.
    pub(super) devices: Vec<Vec<u8>>,
    /// True for the policy `drop`.
    pub(super) drops: bool,
    /// True for the type `nat`.
    pub(super) is_nat: bool,
}

/// Rule of a chain.
#[derive(Debug, Clone)]
pub(super) struct NftRule {
    pub(super) handle: Option<u64>,
    /// List of expressions, as attributes.
    pub(super) expressions: Vec<u8>,
    /// Data of the tool that added the rule, such as the comment (`NFTA_RULE_USERDATA`).
    pub(super) user_data: Vec<u8>,
}

/// Tables and chains, without their rules.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    /// Tables with the flag `dormant`, by family and name.
    dormant: HashSet<(u8, Vec<u8>)>,
    pub(super) base_chains: Vec<BaseChain>,
    pub(super) chains: HashSet<ChainName>,
    /// True if tables or chains were left out.
    pub(super) is_cut: bool,
}

/// Rules of a chain, in order.
#[derive(Debug, Default)]
pub(super) struct ChainRules {
    pub(super) rules: Vec<NftRule>,
    /// True if the last ones were left out.
    pub(super) is_cut: bool,
}

/// Room that is left for rules.
#[derive(Debug)]
pub(super) struct RuleRoom {
    rules: usize,
    bytes: usize,
}

impl Default for RuleRoom {
    fn default() -> Self {
        Self {
            rules: RULES_MAX,
            bytes: BYTES_MAX,
        }
    }
}

/// Access to the parts of a ruleset.
pub(super) trait RulesetParts {
    /// Returns the rules of a chain; `None` if they are unknown.
    fn rules(&mut self, chain: &ChainName) -> Option<Rc<ChainRules>>;

    /// Returns the set; `None` if it is unknown. Of a large one the last elements are left out.
    fn set(&mut self, name: &SetName) -> Option<&NftSet>;

    /// Returns the set with only those elements that this key can match; `None` if it is unknown.
    fn matching(&mut self, name: &SetName, key: &[u8]) -> Option<NftSet>;
}

impl ChainRules {
    /// Adds a message `NFT_MSG_NEWRULE`, without `struct nfgenmsg`, while there is room.
    pub(super) fn add(&mut self, message: &[u8], room: &mut RuleRoom) -> ControlFlow<()> {
        let rule = NftRule {
            handle: handle(message),
            expressions: value(message, 4).unwrap_or_default().to_vec(),
            user_data: value(message, 7).unwrap_or_default().to_vec(),
        };
        let len = rule.expressions.len() + rule.user_data.len();
        if room.rules == 0 || room.bytes < len {
            self.is_cut = true;
            return ControlFlow::Break(());
        }
        room.rules -= 1;
        room.bytes -= len;
        self.rules.push(rule);
        ControlFlow::Continue(())
    }
}

impl Ruleset {
    /// Adds a message of a dump of tables or, after these, of chains. `message` begins after
    /// `struct nfgenmsg`.
    pub(super) fn add(&mut self, kind: u16, family: u8, message: &[u8]) -> ControlFlow<()> {
        if self.dormant.len() + self.chains.len() >= CHAINS_MAX {
            self.is_cut = true;
            return ControlFlow::Break(());
        }
        match kind {
            TABLE if number_of(message, 2).unwrap_or_default() & DORMANT != 0 => {
                let table = name_of(message, 1).unwrap_or_default();
                self.dormant.insert((family, table.to_vec()));
            }
            CHAIN => self.add_chain(family, message),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn add_chain(&mut self, family: u8, message: &[u8]) {
        let Some(name) = chain(family, message, 3) else {
            return;
        };
        self.chains.insert(name.clone());
        let (family, table, _) = &name;
        let hook = nested(message, 4, 1).and_then(number);
        let is_active = !self.dormant.contains(&(*family, table.clone()));
        if let Some(hook) = hook.filter(|_| is_active) {
            let priority = nested(message, 4, 2).and_then(number);
            self.base_chains.push(BaseChain {
                hook,
                priority: priority.unwrap_or_default().cast_signed(),
                devices: devices(value(message, 4).unwrap_or_default()),
                // NF_DROP
                drops: number_of(message, 5) == Some(0),
                is_nat: name_of(message, 7) == Some(b"nat"),
                name,
            });
        }
    }
}

impl NftRule {
    /// Iterates over the name and the data of each expression.
    pub(super) fn expressions(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        elements(&self.expressions).map(|expression| {
            let data = value(expression, 2).unwrap_or_default();
            (name_of(expression, 1).unwrap_or_default(), data)
        })
    }

    /// Returns the comment that `nft` stores with a rule.
    pub(super) fn comment(&self) -> Option<&[u8]> {
        comment_in(&self.user_data)
    }
}

/// Returns the chain of a message; `name` is the type of the attribute with its name.
pub(super) fn chain(family: u8, message: &[u8], name: u16) -> Option<ChainName> {
    let (table, chain) = (name_of(message, 1)?, name_of(message, name)?);
    Some((family, table.to_vec(), chain.to_vec()))
}

pub(super) fn handle(message: &[u8]) -> Option<u64> {
    let bytes = value(message, 3)?.first_chunk()?;
    Some(u64::from_be_bytes(*bytes))
}

/// Returns the interfaces of a hook (`NFTA_HOOK_DEV`, `NFTA_HOOK_DEVS`).
fn devices(hook: &[u8]) -> Vec<Vec<u8>> {
    let list = value(hook, 4).unwrap_or_default();
    let names = crate::host::netlink::attributes(list).map(|(kind, name)| {
        let name = until_nul(name).to_vec();
        // NFTA_DEVICE_PREFIX
        let star: &[u8] = if kind & 0x3fff == 2 { b"*" } else { b"" };
        [&name, star].concat()
    });
    let one = name_of(hook, 3).map(<[u8]>::to_vec);
    let mut names: Vec<_> = one.into_iter().chain(names).collect();
    names.sort();
    names.dedup();
    names
}

/// Returns the name `nft` uses for a family (`NFPROTO_*`).
pub(super) fn family_name(family: u8) -> &'static str {
    match family {
        INET => "inet",
        2 => "ip",
        3 => "arp",
        NETDEV => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}
