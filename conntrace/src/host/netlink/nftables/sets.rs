//! Sets and maps of `nf_tables`, and the lookup of a key.

use std::ops::ControlFlow;

use super::{
    parse::{comment_in, elements, name_of, nested, number_of, value},
    truth::{PartialByte, Truth, equal, order, within},
};

/// Set flags `NFT_SET_INTERVAL`, `NFT_SET_TIMEOUT` and `NFT_SET_EVAL`.
const INTERVAL: u32 = 0x4;
const TIMEOUT: u32 = 0x10;
const EVAL: u32 = 0x20;
/// Element flags `NFT_SET_ELEM_INTERVAL_END` and `NFT_SET_ELEM_CATCHALL`.
const INTERVAL_END: u32 = 0x1;
const CATCHALL: u32 = 0x2;

/// Maximum number of elements of a set that match one key: one, and the one for all other keys.
const MATCHING_MAX: usize = 2;

/// Family, table and name of a set.
pub(super) type SetName = (u8, Vec<u8>, Vec<u8>);

/// Definition of a set.
#[derive(Debug, Clone, Default)]
pub(super) struct SetSpec {
    flags: u32,
    key_len: usize,
    /// Sizes of a concatenated key's parts, in bytes; empty for a simple key.
    parts: Vec<usize>,
}

impl SetSpec {
    /// Parses the attributes of `NFT_MSG_NEWSET`.
    pub(super) fn parse(message: &[u8]) -> Self {
        let parts = nested(message, 9, 2).unwrap_or_default();
        let len = |bytes, kind| usize::try_from(number_of(bytes, kind)?).ok();
        Self {
            flags: number_of(message, 3).unwrap_or_default(),
            key_len: len(message, 5).unwrap_or_default(),
            parts: elements(parts).filter_map(|part| len(part, 1)).collect(),
        }
    }
}

/// Element of a set, or one end of a range.
#[derive(Debug, Clone)]
struct Element {
    key: Vec<u8>,
    /// Last key of a range in one element.
    key_end: Option<Vec<u8>>,
    flags: u32,
    /// Attributes of a map's value (`NFTA_SET_ELEM_DATA`); empty for a set.
    data: Vec<u8>,
    /// Comment (`NFTA_SET_ELEM_USERDATA`).
    comment: Option<Vec<u8>>,
    /// True if the element has an expression of its own that can fail, such as a limit.
    is_conditional: bool,
}

/// Set with its elements.
#[derive(Debug, Clone)]
pub(super) struct NftSet {
    kind: SetSpec,
    elements: Vec<Element>,
    /// Maximum number of elements kept.
    room: usize,
    is_cut: bool,
}

impl NftSet {
    pub(super) fn new(kind: SetSpec, room: usize) -> Self {
        Self {
            kind,
            elements: Vec::new(),
            room,
            is_cut: false,
        }
    }

    /// Adds the elements of a message `NFT_MSG_NEWSETELEM`, while there is room.
    pub(super) fn add(&mut self, message: &[u8]) -> ControlFlow<()> {
        for element in elements(value(message, 3).unwrap_or_default()) {
            if self.elements.len() >= self.room {
                self.is_cut = true;
                return ControlFlow::Break(());
            }
            self.elements.push(Element::parse(element));
        }
        ControlFlow::Continue(())
    }

    /// Returns a set of the same kind without elements.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.kind.clone(), MATCHING_MAX)
    }

    /// Returns true if elements were left out.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Sorts the elements after all were added.
    pub(super) fn finish(&mut self) {
        let by_key = |element: &Element| {
            // An end sorts before a start with the same key: the next range begins there.
            let is_start = element.flags & INTERVAL_END == 0;
            (element.key.clone(), is_start)
        };
        self.elements.sort_by_cached_key(by_key);
    }

    /// Looks up a key: returns each possible value and the certainty that one exists.
    pub(super) fn look_up(&self, key: &[PartialByte]) -> SetMatches {
        let mut looked = SetMatches {
            is_found: Truth::False,
            values: Vec::new(),
            comment: None,
        };
        let mut catchall = None;
        for (at, element) in self.elements.iter().enumerate() {
            if element.flags & CATCHALL != 0 {
                catchall = Some(element);
                continue;
            }
            let is_it = self.matches(at, element, key);
            looked.add(element, is_it);
            if is_it == Truth::True {
                break;
            }
        }
        if let Some(element) = catchall.filter(|_| looked.is_found != Truth::True) {
            let is_it = looked.is_found.not();
            looked.add(element, is_it);
        }
        let changes = self.is_cut || self.kind.flags & (TIMEOUT | EVAL) != 0;
        if looked.is_found == Truth::False && changes {
            // The element may have existed when the packet passed.
            looked.is_found = Truth::Unknown;
        }
        if self.kind.flags & EVAL != 0 {
            // The packet itself may have added the element.
            looked.doubt();
        }
        looked
    }

    fn matches(&self, at: usize, element: &Element, key: &[PartialByte]) -> Truth {
        if let Some(end) = &element.key_end {
            return self.within_parts(key, &element.key, end);
        }
        if self.kind.flags & INTERVAL == 0 {
            return equal(key, &element.key);
        }
        if element.flags & INTERVAL_END != 0 {
            return Truth::False;
        }
        let from = order(key, &element.key).map(std::cmp::Ordering::is_ge);
        // A last range without an end extends to the highest key.
        let until = self.elements.get(at + 1).map_or(Truth::True, |next| {
            order(key, &next.key).map(std::cmp::Ordering::is_lt).into()
        });
        Truth::from(from).and(until)
    }

    /// Compares each part of the key with its range. Parts are padded to whole registers.
    fn within_parts(&self, key: &[PartialByte], low: &[u8], high: &[u8]) -> Truth {
        if self.kind.parts.is_empty() {
            return within(key, low, high);
        }
        let mut at = 0;
        let mut all = Truth::True;
        for len in &self.kind.parts {
            let end = at + len;
            all = all.and(
                match (key.get(at..end), low.get(at..end), high.get(at..end)) {
                    (Some(key), Some(low), Some(high)) => within(key, low, high),
                    (None, _, _) | (_, None, _) | (_, _, None) => Truth::Unknown,
                },
            );
            at += len.next_multiple_of(4);
        }
        all
    }

    /// Like [`look_up`](Self::look_up), with a key that is known.
    pub(super) fn look_up_known(&self, key: &[u8]) -> SetMatches {
        let key: Vec<_> = key.iter().copied().map(PartialByte::known).collect();
        self.look_up(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Returns the size of a key, in bytes.
    pub(super) fn key_len(&self) -> usize {
        self.kind.key_len
    }
}

impl Element {
    fn parse(bytes: &[u8]) -> Self {
        let key = |kind| nested(bytes, kind, 1).map(<[u8]>::to_vec);
        let list = value(bytes, 11).unwrap_or_default();
        let own = value(bytes, 7).into_iter().chain(elements(list));
        let counts = |expression: &[u8]| name_of(expression, 1) == Some(b"counter");
        Self {
            key: key(1).unwrap_or_default(),
            key_end: key(10),
            flags: number_of(bytes, 3).unwrap_or_default(),
            data: value(bytes, 2).unwrap_or_default().to_vec(),
            comment: comment_in(value(bytes, 6).unwrap_or_default()).map(<[u8]>::to_vec),
            is_conditional: !own.into_iter().all(counts),
        }
    }
}

/// Possible results of a lookup.
#[derive(Debug)]
pub(super) struct SetMatches {
    /// Certainty that the set has such an element.
    pub(super) is_found: Truth,
    /// Attributes of each possible value, with its certainty.
    pub(super) values: Vec<(Truth, Vec<u8>)>,
    /// Comment of the element, if there is one only.
    pub(super) comment: Option<Vec<u8>>,
}

impl SetMatches {
    /// Returns the result for a set that could not be read.
    pub(super) fn unknown() -> Self {
        Self {
            is_found: Truth::Unknown,
            values: Vec::new(),
            comment: None,
        }
    }

    fn add(&mut self, element: &Element, is_it: Truth) {
        let doubt = if element.is_conditional {
            Truth::Unknown
        } else {
            Truth::True
        };
        let is_it = is_it.and(doubt);
        match is_it {
            Truth::False => return,
            Truth::True => self.values.clear(),
            Truth::Unknown => {}
        }
        self.is_found = self.is_found.or(is_it);
        self.values.push((is_it, element.data.clone()));
        let is_only = self.values.len() == 1;
        self.comment = element.comment.clone().filter(|_| is_only);
    }

    fn doubt(&mut self) {
        self.is_found = Truth::Unknown;
        for (is_it, _) in &mut self.values {
            *is_it = Truth::Unknown;
        }
    }
}
