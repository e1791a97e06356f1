//! Asks for the ruleset of the calling thread's namespace over netlink, part by part.

use std::{collections::HashMap, io, ops::ControlFlow, rc::Rc};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    ruleset::{CHAIN, ChainName, ChainRules, RULE, RuleRoom, Ruleset, RulesetParts, SET, TABLE},
    sets::{NftSet, SetName, SetSpec},
};
use crate::host::netlink::{self, push};

/// `NLM_F_REQUEST`, for a dump combined with `NLM_F_DUMP`.
const REQUEST: u16 = 0x1;
const DUMP: u16 = REQUEST | 0x300;
/// `NLA_F_NESTED`, of an attribute that holds attributes.
const NESTED: u16 = 1 << 15;
/// Size of `struct nfgenmsg`.
const HEADER_LEN: usize = 4;
/// `NFT_MSG_NEWSETELEM`; the request `NFT_MSG_GETSETELEM` is one more.
pub(super) const ELEMENT: u16 = (10 << 8) + 12;
/// `NFT_MSG_NEWGEN`; the request `NFT_MSG_GETGEN` is one more.
const GENERATION: u16 = (10 << 8) + 15;
/// Element flag `NFT_SET_ELEM_CATCHALL`.
const CATCHALL: u32 = 0x2;
/// Maximum number of sets read for a packet, of elements in each, and in all of them.
const SETS_MAX: usize = 256;
const LISTED_MAX: usize = 4096;
const ELEMENTS_MAX: usize = 65_536;

/// Requests about one ruleset, whose answers are checked to be of the same generation.
#[derive(Debug)]
pub(super) struct RulesetRequests {
    /// Lower 16 bits of the ruleset's generation (`nfgenmsg.res_id`).
    generation: Option<u16>,
    /// True if the ruleset did not change since the first request.
    pub(super) is_whole: bool,
}

impl RulesetRequests {
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
        let request = netlink::request(kind + 1, DUMP, &body)?;
        let is_whole = netlink::dump(NETLINK_NETFILTER, &request, |received, message| match self
            .part(message)
        {
            Some((family, rest)) if received == kind => each(family, rest),
            Some(_) | None => ControlFlow::Continue(()),
        })?;
        self.is_whole &= is_whole;
        Ok(())
    }

    /// Passes the answer to a request for one object to `each`. Returns false if there is none.
    fn one(
        &mut self,
        kind: u16,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        let body = [&[family, 0, 0, 0], attributes].concat();
        let request = netlink::request(kind + 1, REQUEST, &body)?;
        let outcome = netlink::exchange(NETLINK_NETFILTER, &request, |received, message| {
            if let Some((_, rest)) = self.part(message).filter(|_| received == kind) {
                each(rest);
            }
            Ok(())
        })?;
        match outcome {
            Ok(()) => Ok(true),
            Err(libc::ENOENT) => Ok(false),
            Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Splits a message into its family and its attributes, and checks its generation.
    fn part<'a>(&mut self, message: &'a [u8]) -> Option<(u8, &'a [u8])> {
        let (header, rest) = message.split_first_chunk::<HEADER_LEN>()?;
        let [family, _, generation @ ..] = *header;
        let generation = u16::from_be_bytes(generation);
        self.is_whole &= *self.generation.get_or_insert(generation) == generation;
        Some((family, rest))
    }

    /// Checks that the ruleset is still the same: that there is no such element has no generation.
    pub(super) fn check(&mut self) -> io::Result<()> {
        self.one(GENERATION, 0, &[], |_| {})?;
        Ok(())
    }

    /// Reads the tables and chains.
    pub(super) fn ruleset(&mut self) -> io::Result<Ruleset> {
        let mut ruleset = Ruleset::default();
        for kind in [TABLE, CHAIN] {
            self.all(kind, 0, &[], |family, message| {
                ruleset.add(kind, family, message)
            })?;
        }
        Ok(ruleset)
    }

    /// Reads the rules of a chain, while there is room.
    fn rules(
        &mut self,
        (family, table, chain): &ChainName,
        room: &mut RuleRoom,
    ) -> io::Result<ChainRules> {
        let mut rules = ChainRules::default();
        let of = [name(1, table), name(2, chain)].concat();
        self.all(RULE, *family, &of, |_, message| rules.add(message, room))?;
        Ok(rules)
    }

    /// Reads the definition of a set.
    fn spec(&mut self, (family, table, set): &SetName) -> io::Result<Option<SetSpec>> {
        let mut spec = None;
        let of = [name(1, table), name(2, set)].concat();
        self.one(SET, *family, &of, |message| {
            spec = Some(SetSpec::parse(message));
        })?;
        Ok(spec)
    }

    /// Passes each message with elements of a set to `each`.
    pub(super) fn elements(
        &mut self,
        (family, table, set): &SetName,
        each: impl FnMut(u8, &[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let of = [name(1, table), name(2, set)].concat();
        self.all(ELEMENT, *family, &of, each)
    }

    /// Adds the element of a set that has this key, or a range around it, and the one for all
    /// other keys.
    fn matching(
        &mut self,
        (family, table, set): &SetName,
        key: &[u8],
        found: &mut NftSet,
    ) -> io::Result<()> {
        let of = [name(1, table), name(2, set)].concat();
        // NFTA_DATA_VALUE in NFTA_SET_ELEM_KEY
        let by_key = nest(1, &attribute(1, key));
        let mut add = |message: &[u8]| {
            let _ = found.add(message);
        };
        self.one(
            ELEMENT,
            *family,
            &[&*of, &one_element(&by_key)].concat(),
            &mut add,
        )?;
        // NFTA_SET_ELEM_FLAGS
        let by_flag = attribute(3, &CATCHALL.to_be_bytes());
        let catchall = [&*of, &one_element(&by_flag)].concat();
        match self.one(ELEMENT, *family, &catchall, add) {
            // Before Linux 5.13 sets have no such element.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            found => found.map(|_| ()),
        }
    }
}

/// The parts of a ruleset, each read on first use.
#[derive(Debug)]
pub(super) struct LiveParts<'a> {
    requests: &'a mut RulesetRequests,
    ruleset: &'a Ruleset,
    room: RuleRoom,
    chains: HashMap<ChainName, Option<Rc<ChainRules>>>,
    sets: HashMap<SetName, Option<NftSet>>,
    /// Error other than that a part is gone.
    pub(super) error: Option<io::Error>,
}

impl<'a> LiveParts<'a> {
    pub(super) fn new(requests: &'a mut RulesetRequests, ruleset: &'a Ruleset) -> Self {
        Self {
            requests,
            ruleset,
            room: RuleRoom::default(),
            chains: HashMap::new(),
            sets: HashMap::new(),
            error: None,
        }
    }

    /// Notes why a part could not be read.
    fn known<T>(&mut self, result: io::Result<Option<T>>) -> Option<T> {
        match result {
            Ok(found) => {
                // It was deleted, or the kernel does not tell it.
                self.requests.is_whole &= found.is_some();
                found
            }
            Err(error) => {
                self.requests.is_whole = false;
                self.error.get_or_insert(error);
                None
            }
        }
    }

    fn read_set(&mut self, name: &SetName) -> io::Result<Option<NftSet>> {
        let used: usize = self.sets.values().flatten().map(NftSet::len).sum();
        let room = ELEMENTS_MAX.saturating_sub(used).min(LISTED_MAX);
        let Some(spec) = self.requests.spec(name)? else {
            return Ok(None);
        };
        let mut set = NftSet::new(spec, room);
        self.requests
            .elements(name, |_, message| set.add(message))?;
        set.finish();
        Ok(Some(set))
    }
}

impl RulesetParts for LiveParts<'_> {
    fn rules(&mut self, chain: &ChainName) -> Option<Rc<ChainRules>> {
        if let Some(known) = self.chains.get(chain) {
            return known.clone();
        }
        if !self.ruleset.chains.contains(chain) {
            return None;
        }
        let read = self.requests.rules(chain, &mut self.room);
        let rules = self.known(read.map(|rules| Some(Rc::new(rules))));
        self.chains.insert(chain.clone(), rules.clone());
        rules
    }

    fn set(&mut self, name: &SetName) -> Option<&NftSet> {
        if !self.sets.contains_key(name) && self.sets.len() < SETS_MAX {
            let read = self.read_set(name);
            let set = self.known(read);
            self.sets.insert(name.clone(), set);
        }
        self.sets.get(name)?.as_ref()
    }

    fn matching(&mut self, name: &SetName, key: &[u8]) -> Option<NftSet> {
        let mut found = self.sets.get(name)?.as_ref()?.emptied();
        let asked = self.requests.matching(name, key, &mut found);
        self.known(asked.map(|()| Some(found)))
    }
}

fn name(kind: u16, name: &[u8]) -> Vec<u8> {
    attribute(kind, &[name, &[0]].concat())
}

fn one_element(attributes: &[u8]) -> Vec<u8> {
    // NFTA_LIST_ELEM in NFTA_SET_ELEM_LIST_ELEMENTS
    nest(3, &nest(1, attributes))
}

fn nest(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push(&mut bytes, kind, value);
    bytes
}
