//! A small reader of the BPF Type Format (BTF), for the offsets of members in kernel structs.
//!
//! It never panics, whatever the bytes: damaged input is an error, and members in truncated
//! input are not found. (aya keeps its own member lookup private.)

mod extract;
mod only;
mod signature;

use std::collections::HashMap;

pub use extract::{BtfSelection, Prototype};
pub use signature::Signature;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// Maximum depth of typedefs and qualifiers, or of nested anonymous structs.
const DEPTH_MAX: usize = 16;
/// Maximum number of members inspected for one name. Anonymous structs that contain each
/// other would otherwise multiply without end.
const MEMBERS_MAX: usize = 1 << 20;

const KIND_INT: u8 = 1;
const KIND_PTR: u8 = 2;
const KIND_ARRAY: u8 = 3;
const KIND_STRUCT: u8 = 4;
const KIND_UNION: u8 = 5;
const KIND_ENUM: u8 = 6;
const KIND_FWD: u8 = 7;
const KIND_TYPEDEF: u8 = 8;
const KIND_VOLATILE: u8 = 9;
const KIND_CONST: u8 = 10;
const KIND_RESTRICT: u8 = 11;
const KIND_FUNC: u8 = 12;
const KIND_FUNC_PROTO: u8 = 13;
const KIND_VAR: u8 = 14;
const KIND_DATASEC: u8 = 15;
const KIND_FLOAT: u8 = 16;
const KIND_DECL_TAG: u8 = 17;
const KIND_TYPE_TAG: u8 = 18;
const KIND_ENUM64: u8 = 19;

/// Error of reading BTF.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Bytes that are not BTF, or of the other byte order.
    #[error("not BTF: bad magic or header")]
    Header,
    /// BTF that ends early or refers to bytes outside itself.
    #[error("damaged BTF at byte {0} of its types")]
    Damaged(usize),
    /// Kind of type whose length is unknown.
    #[error("BTF type kind {0} is newer than this program")]
    UnknownKind(u8),
    /// Struct or member that the kernel does not have.
    #[error("this kernel has no {0}")]
    Missing(String),
}

/// Place and size of a struct's member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberLayout {
    /// Offset from the start of the struct, in bits.
    pub bit_offset: u32,
    /// Width in bits, if it is a bitfield.
    pub bitfield: Option<u32>,
    /// Size in bytes; for a bitfield, that of its type.
    pub size: u32,
}

/// Parsed BTF of a kernel.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Start of each type in `types`, by id; id 0 is void.
    starts: Vec<u32>,
    /// Starts of the enums in `types`.
    enums: Vec<u32>,
    structs: HashMap<&'a [u8], u32>,
}

/// Fixed part of a type (`struct btf_type`).
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u8,
    kind_flag: bool,
    count: usize,
    size_or_type: u32,
}

/// State of a search for a member path.
#[derive(Default)]
struct Search {
    /// Number of members inspected for the current name.
    looked_at: usize,
    /// Descriptions of the members on the path, as offsets in the types.
    way: Vec<usize>,
}

impl<'a> Btf<'a> {
    /// Parses the content of `/sys/kernel/btf/vmlinux` or a similar file.
    ///
    /// # Errors
    /// When the bytes are not BTF of this byte order, or are truncated.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let header = bytes.get(..HEADER_LEN).ok_or(BtfError::Header)?;
        let word = |at| u32_at(header, at).ok_or(BtfError::Header);
        if header.first_chunk::<2>().map(|m| u16::from_ne_bytes(*m)) != Some(MAGIC) {
            return Err(BtfError::Header);
        }
        let body = bytes.get(word(4)? as usize..).ok_or(BtfError::Header)?;
        let types = section(body, word(8)?, word(12)?).ok_or(BtfError::Header)?;
        let strings = section(body, word(16)?, word(20)?).ok_or(BtfError::Header)?;
        let mut btf = Self {
            types,
            strings,
            starts: vec![0],
            enums: Vec::new(),
            structs: HashMap::new(),
        };
        btf.index()?;
        Ok(btf)
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.types.len() {
            let ty = self.type_at(at).ok_or(BtfError::Damaged(at))?;
            let number = |of| u32::try_from(of).map_err(|_| BtfError::Damaged(at));
            let (id, start) = (number(self.starts.len())?, number(at)?);
            self.starts.push(start);
            match ty.kind {
                KIND_STRUCT => {
                    if let Some(name) = self.name(ty.name) {
                        self.structs.entry(name).or_insert(id);
                    }
                }
                KIND_ENUM => self.enums.push(start),
                _ => {}
            }
            at += 12 + trailing_len(&ty)?;
        }
        Ok(())
    }

    /// Finds `struct.member[.member...]`, descending into anonymous structs and unions.
    ///
    /// # Errors
    /// When the kernel has no such member.
    pub fn member(&self, path: &str) -> Result<MemberLayout, BtfError> {
        self.find_path(path, &mut Search::default())
            .ok_or_else(|| BtfError::Missing(path.to_owned()))
    }

    fn find_path(&self, path: &str, search: &mut Search) -> Option<MemberLayout> {
        let (name, rest) = path.split_once('.')?;
        let mut ty = self.by_id(*self.structs.get(name.as_bytes())?)?;
        let mut bits = 0u32;
        let mut found = None;
        for part in rest.split('.') {
            search.looked_at = 0;
            let (member, type_id) = self.find_member(&ty, part, 0, search)?;
            bits = bits.checked_add(member.bit_offset)?;
            ty = self.resolve(type_id)?;
            found = Some(MemberLayout {
                bit_offset: bits,
                ..member
            });
        }
        found
    }

    fn find_member(
        &self,
        ty: &Type,
        name: &str,
        depth: usize,
        search: &mut Search,
    ) -> Option<(MemberLayout, u32)> {
        if depth > DEPTH_MAX || !matches!(ty.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        (0..ty.count).find_map(|i| {
            search.looked_at += 1;
            if search.looked_at > MEMBERS_MAX {
                return None;
            }
            let at = ty.at + 12 + i * 12;
            let name_at = u32_at(self.types, at)?;
            let type_id = u32_at(self.types, at + 4)?;
            let place = u32_at(self.types, at + 8)?;
            let (bit_offset, bits) = if ty.kind_flag {
                (place & 0x00ff_ffff, place >> 24)
            } else {
                (place, 0)
            };
            if self.name(name_at)? == name.as_bytes() {
                let member = MemberLayout {
                    bit_offset,
                    bitfield: (bits != 0).then_some(bits),
                    size: self.size(type_id, 0)?,
                };
                search.way.push(at);
                return Some((member, type_id));
            }
            if name_at != 0 {
                return None;
            }
            let (inner, id) = self.find_member(&self.resolve(type_id)?, name, depth + 1, search)?;
            search.way.push(at);
            let bit_offset = bit_offset.checked_add(inner.bit_offset)?;
            Some((
                MemberLayout {
                    bit_offset,
                    ..inner
                },
                id,
            ))
        })
    }

    /// Returns name and value of every enumerator in the enum that contains `name`; empty if no
    /// enum contains it.
    #[must_use]
    pub fn enumerators_beside(&self, name: &str) -> Vec<(&'a [u8], u32)> {
        let all = |&start: &u32| {
            let ty = self.type_at(start as usize)?;
            let word = |i, of| u32_at(self.types, ty.at + 12 + i * 8 + of);
            let is_it = |i| word(i, 0).is_some_and(|found| self.is_named(found, name));
            let one = |i| Some((self.name(word(i, 0)?)?, word(i, 4)?));
            let has_it = (0..ty.count).any(is_it);
            has_it.then(|| (0..ty.count).filter_map(one).collect())
        };
        self.enums.iter().find_map(all).unwrap_or_default()
    }

    /// Returns the value of an enumerator of any enum.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        let beside = self.enumerators_beside(name);
        let found = beside.iter().find(|(found, _)| *found == name.as_bytes());
        found.map(|&(_, value)| value)
    }

    /// Returns the BTF id of a kernel function.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        self.prototype(&Prototype::Function(name.to_owned()))
    }

    /// Follows typedefs and qualifiers to the underlying type.
    fn resolve(&self, id: u32) -> Option<Type> {
        let mut ty = self.by_id(id)?;
        for _ in 0..DEPTH_MAX {
            match ty.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    ty = self.by_id(ty.size_or_type)?;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn size(&self, id: u32, depth: usize) -> Option<u32> {
        let ty = self.resolve(id)?;
        match ty.kind {
            KIND_PTR => Some(8),
            KIND_ARRAY if depth < DEPTH_MAX => {
                let element = u32_at(self.types, ty.at + 12)?;
                let count = u32_at(self.types, ty.at + 20)?;
                self.size(element, depth + 1)?.checked_mul(count)
            }
            KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 | KIND_FLOAT => {
                Some(ty.size_or_type)
            }
            _ => None,
        }
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        // Id 0 is void, which has no members.
        if id == 0 {
            return None;
        }
        self.type_at(*self.starts.get(id as usize)? as usize)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = u32_at(self.types, at + 4)?;
        Some(Type {
            at,
            name: u32_at(self.types, at)?,
            kind: ((info >> 24) & 0x1f) as u8,
            kind_flag: info >> 31 != 0,
            count: (info & 0xffff) as usize,
            size_or_type: u32_at(self.types, at + 8)?,
        })
    }

    fn name(&self, at: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(at as usize..)?;
        rest.split(|&byte| byte == 0).next()
    }

    /// Compares the name at an offset with `name`. Checking the first byte avoids a call for most
    /// of the hundreds of thousands of names.
    fn is_named(&self, at: u32, name: &str) -> bool {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        rest.first() == name.as_bytes().first()
            && rest
                .strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn trailing_len(ty: &Type) -> Result<usize, BtfError> {
    Ok(match ty.kind {
        KIND_PTR | KIND_FWD | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT
        | KIND_FUNC | KIND_FLOAT | KIND_TYPE_TAG => 0,
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_ENUM | KIND_FUNC_PROTO => ty.count * 8,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => ty.count * 12,
        kind => return Err(BtfError::UnknownKind(kind)),
    })
}

fn section(body: &[u8], offset: u32, len: u32) -> Option<&[u8]> {
    body.get(offset as usize..)?.get(..len as usize)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests;
