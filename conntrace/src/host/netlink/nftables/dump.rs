//! Dumps the ruleset of the calling thread's namespace over netlink.

use std::{collections::HashMap, io, ops::ControlFlow};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    rule::Sets,
    ruleset::{CHAIN, RULE, Ruleset, SET, TABLE},
    sets::{self, NftSet},
};
use crate::host::netlink;

/// Flags of a dump request: `NLM_F_REQUEST | NLM_F_DUMP`.
const FLAGS: u16 = 0x1 | 0x300;
/// Size of `struct nfgenmsg`.
const HEADER_LEN: usize = 4;
/// `NFT_MSG_NEWSETELEM`; the request `NFT_MSG_GETSETELEM` is one more.
pub(super) const ELEMENT: u16 = (10 << 8) + 12;
/// Maximum number of sets read for a packet, and of elements in all of them.
const SETS_MAX: usize = 256;
const ELEMENTS_MAX: usize = 65_536;

/// Dumps of one ruleset, checked to be of the same generation.
#[derive(Debug)]
pub(super) struct RulesetDump {
    /// Lower 16 bits of the ruleset's generation (`nfgenmsg.res_id`).
    generation: Option<u16>,
    /// True if the ruleset did not change since the first dump.
    pub(super) is_whole: bool,
}

impl RulesetDump {
    pub(super) fn new() -> Self {
        Self {
            generation: None,
            is_whole: true,
        }
    }

    /// Passes each message of this type (`NFT_MSG_NEW*`) to `each`, with its family and attributes,
    /// until `each` breaks. Family 0 stands for all.
    pub(super) fn all(
        &mut self,
        kind: u16,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(u8, &[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let body = [&[family, 0, 0, 0], attributes].concat();
        let request = netlink::request(kind + 1, FLAGS, &body)?;
        let is_whole = netlink::dump(NETLINK_NETFILTER, &request, |received, message| {
            let Some((header, rest)) = message.split_first_chunk::<HEADER_LEN>() else {
                return ControlFlow::Continue(());
            };
            let [family, _, generation @ ..] = *header;
            let generation = u16::from_be_bytes(generation);
            self.is_whole &= *self.generation.get_or_insert(generation) == generation;
            if received == kind {
                each(family, rest)
            } else {
                ControlFlow::Continue(())
            }
        })?;
        self.is_whole &= is_whole;
        Ok(())
    }

    /// Reads the ruleset without the elements of sets.
    pub(super) fn ruleset(&mut self) -> io::Result<Ruleset> {
        let mut rules = Ruleset::default();
        for kind in [TABLE, CHAIN, RULE, SET] {
            self.all(kind, 0, &[], |family, message| {
                rules.add(kind, family, message)
            })?;
        }
        Ok(rules)
    }

    /// Passes each message with elements of a set to `each`.
    pub(super) fn elements(
        &mut self,
        (family, table, set): &sets::SetName,
        each: impl FnMut(u8, &[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let of = [attribute(1, table)?, attribute(2, set)?].concat();
        self.all(ELEMENT, *family, &of, each)
    }

    fn set(
        &mut self,
        name: &sets::SetName,
        kind: sets::SetSpec,
        room: usize,
    ) -> io::Result<NftSet> {
        let mut set = NftSet::new(kind, room);
        self.elements(name, |_, message| set.add(message))?;
        set.finish();
        Ok(set)
    }
}

/// Sets of a ruleset, each read on first use.
#[derive(Debug)]
pub(super) struct LiveSets<'a> {
    pub(super) dump: &'a mut RulesetDump,
    pub(super) kinds: HashMap<sets::SetName, sets::SetSpec>,
    pub(super) known: HashMap<sets::SetName, Option<NftSet>>,
}

impl Sets for LiveSets<'_> {
    fn set(&mut self, name: &sets::SetName) -> Option<&NftSet> {
        if !self.known.contains_key(name) && self.known.len() < SETS_MAX {
            let kind = self.kinds.get(name).cloned();
            let used: usize = self.known.values().flatten().map(NftSet::len).sum();
            let room = ELEMENTS_MAX.saturating_sub(used);
            let set = kind.and_then(|kind| self.dump.set(name, kind, room).ok());
            // The set was deleted, or the kernel does not dump it.
            self.dump.is_whole &= set.is_some();
            self.known.insert(name.clone(), set);
        }
        self.known.get(name)?.as_ref()
    }
}

/// Encodes a name as `struct nlattr`, padded.
fn attribute(kind: u16, name: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(4 + name.len() + 1).map_err(io::Error::other)?;
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(name);
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}
