//! Extracts selected types from a kernel's BTF. The result is valid BTF of a few KB, so that
//! tests can check kernels that are not running.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::*;

/// Selection of a kernel's BTF. Entries that the kernel does not have are ignored.
#[derive(Debug)]
pub struct BtfSelection {
    /// Member paths as for [`Btf::member`]; structs keep no other members.
    pub members: Vec<&'static str>,
    /// Names of enumerators; their enums keep no others.
    pub enumerators: Vec<String>,
    /// Prototypes, kept whole except for the members of structs that arguments point to.
    pub prototypes: Vec<Prototype>,
}

/// Hook target whose arguments BTF describes.
#[derive(Debug)]
pub enum Prototype {
    /// Kernel function of this name.
    Function(String),
    /// Tracepoint of this name.
    Tracepoint(&'static str),
}

impl Prototype {
    /// Returns kind and name of the type that describes it.
    pub(super) fn named(&self) -> (u8, String) {
        match self {
            Self::Function(name) => (KIND_FUNC, name.clone()),
            Self::Tracepoint(name) => (KIND_TYPEDEF, format!("btf_trace_{name}")),
        }
    }
}

impl<'a> Btf<'a> {
    /// Returns BTF with only the selected types.
    ///
    /// # Errors
    /// When this BTF refers to bytes outside itself.
    pub fn extract(&self, wanted: &BtfSelection) -> Result<Vec<u8>, BtfError> {
        let cut = self.cut(wanted);
        cut.ok_or(BtfError::Damaged(self.types.len()))
    }

    fn cut(&self, wanted: &BtfSelection) -> Option<Vec<u8>> {
        let mut cut = SelectedTypes {
            btf: self,
            entries: HashSet::new(),
            types: BTreeSet::new(),
        };
        let structs = wanted.members.iter().filter_map(|path| cut.keep_way(path));
        let mut roots: Vec<u32> = structs.collect();
        let ids = 1..u32::try_from(self.starts.len()).ok()?;
        roots.extend(ids.filter(|&id| cut.keep_enumerators(id, &wanted.enumerators)));
        roots.extend(wanted.prototypes.iter().filter_map(|it| self.prototype(it)));
        cut.reach(roots)?;
        cut.write()
    }

    /// Returns the id of the type that describes a prototype: a function, or the typedef for the
    /// probes of a tracepoint.
    pub(super) fn prototype(&self, prototype: &Prototype) -> Option<u32> {
        let (kind, name) = prototype.named();
        let is_it = |&at: &u32| {
            let ty = self.type_at(at as usize).filter(|ty| ty.kind == kind);
            ty.is_some_and(|ty| self.is_named(ty.name, &name))
        };
        let after_void = self.starts.iter().skip(1).position(is_it)?;
        u32::try_from(after_void + 1).ok()
    }
}

/// Meaning of a 32-bit word in a type, which decides how it is copied.
#[derive(Clone, Copy)]
enum TypeWord {
    /// Number that is copied unchanged.
    Plain,
    /// Offset of a name in the strings.
    Name,
    /// Id of another type.
    Type,
}

/// Types and entries to keep.
struct SelectedTypes<'b, 'a> {
    btf: &'b Btf<'a>,
    /// Descriptions of the kept members and enumerators, as offsets in the types.
    entries: HashSet<usize>,
    /// Ids of the kept types. Their order is preserved, because the first of two structs with the
    /// same name is used.
    types: BTreeSet<u32>,
}

impl<'a> SelectedTypes<'_, 'a> {
    /// Keeps the members on this path, and returns the struct that it begins in; `None` if the
    /// kernel does not have the path.
    fn keep_way(&mut self, path: &str) -> Option<u32> {
        let mut search = Search::default();
        self.btf.find_path(path, &mut search)?;
        self.entries.extend(search.way);
        let (name, _) = path.split_once('.')?;
        self.btf.structs.get(name.as_bytes()).copied()
    }

    /// Keeps the enumerators of these names if the type is an enum. Returns true if it has any.
    fn keep_enumerators(&mut self, id: u32, names: &[String]) -> bool {
        let is_wanted = |&at: &usize| {
            let name = u32_at(self.btf.types, at).and_then(|name| self.btf.name(name));
            name.is_some_and(|name| names.iter().any(|wanted| wanted.as_bytes() == name))
        };
        let ty = self.btf.by_id(id).filter(|ty| ty.kind == KIND_ENUM);
        let entries = ty.map(|ty| entries(&ty)).unwrap_or_default();
        let kept: Vec<usize> = entries.into_iter().filter(is_wanted).collect();
        self.entries.extend(&kept);
        !kept.is_empty()
    }

    /// Keeps these types and all types that they refer to.
    fn reach(&mut self, mut todo: Vec<u32>) -> Option<()> {
        while let Some(id) = todo.pop() {
            // Id 0 is void, which every BTF has.
            if id != 0 && self.types.insert(id) {
                let words = self.words(id)?;
                let types = words.iter().filter(|(is, _)| matches!(is, TypeWord::Type));
                todo.extend(types.map(|&(_, id)| id));
            }
        }
        Some(())
    }

    /// Returns the words of a type, without the entries that are not kept.
    fn words(&self, id: u32) -> Option<Vec<(TypeWord, u32)>> {
        let ty = self.btf.by_id(id)?;
        let mut entries = entries(&ty);
        let mut info = u32_at(self.btf.types, ty.at + 4)?;
        if matches!(ty.kind, KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64) {
            entries.retain(|at| self.entries.contains(at));
            info = info & !0xffff | u32::try_from(entries.len()).ok()?;
        }
        let mut words = vec![
            (TypeWord::Name, ty.name),
            (TypeWord::Plain, info),
            (third_word(ty.kind), ty.size_or_type),
        ];
        for at in entries {
            for (i, &is) in entry_words(ty.kind).iter().enumerate() {
                words.push((is, u32_at(self.btf.types, at + i * 4)?));
            }
        }
        Some(words)
    }

    fn write(&self) -> Option<Vec<u8>> {
        let ids: HashMap<u32, u32> = self.types.iter().copied().zip(1..).collect();
        let mut types = Vec::new();
        let mut strings = Strings::new();
        for &id in &self.types {
            for (is, word) in self.words(id)? {
                let word = match is {
                    TypeWord::Plain => word,
                    TypeWord::Name => strings.add(self.btf.name(word)?)?,
                    TypeWord::Type if word == 0 => 0,
                    TypeWord::Type => *ids.get(&word)?,
                };
                types.extend(word.to_ne_bytes());
            }
        }
        written(&types, &strings.bytes)
    }
}

/// Assembles BTF from types and strings.
pub(super) fn written(types: &[u8], strings: &[u8]) -> Option<Vec<u8>> {
    let types_len = u32::try_from(types.len()).ok()?;
    let strings_len = u32::try_from(strings.len()).ok()?;
    let mut bytes = Vec::from(MAGIC.to_ne_bytes());
    // Version 1, no flags.
    bytes.extend([1, 0]);
    let header_len = u32::try_from(HEADER_LEN).ok()?;
    for word in [header_len, 0, types_len, types_len, strings_len] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    Some(bytes)
}

/// Returns the offsets of a type's entries: members, enumerators or parameters.
fn entries(ty: &Type) -> Vec<usize> {
    let count = match ty.kind {
        KIND_INT | KIND_ARRAY => 1,
        KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 | KIND_FUNC_PROTO => ty.count,
        _ => 0,
    };
    let len = 4 * entry_words(ty.kind).len();
    (0..count).map(|i| ty.at + 12 + i * len).collect()
}

/// Returns the meaning of each word of an entry.
fn entry_words(kind: u8) -> &'static [TypeWord] {
    match kind {
        KIND_INT => &[TypeWord::Plain],
        KIND_ARRAY => &[TypeWord::Type, TypeWord::Type, TypeWord::Plain],
        KIND_STRUCT | KIND_UNION => &[TypeWord::Name, TypeWord::Type, TypeWord::Plain],
        KIND_ENUM => &[TypeWord::Name, TypeWord::Plain],
        KIND_ENUM64 => &[TypeWord::Name, TypeWord::Plain, TypeWord::Plain],
        KIND_FUNC_PROTO => &[TypeWord::Name, TypeWord::Type],
        _ => &[],
    }
}

/// Returns the meaning of the third word of a type, `size_or_type`.
fn third_word(kind: u8) -> TypeWord {
    match kind {
        KIND_PTR | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_FUNC
        | KIND_FUNC_PROTO | KIND_TYPE_TAG => TypeWord::Type,
        _ => TypeWord::Plain,
    }
}

/// String section in which each name is stored once.
struct Strings<'a> {
    bytes: Vec<u8>,
    known: HashMap<&'a [u8], u32>,
}

impl<'a> Strings<'a> {
    /// Creates the section with the empty string at offset 0, as BTF requires.
    fn new() -> Self {
        Self {
            bytes: vec![0],
            known: HashMap::from([(&b""[..], 0)]),
        }
    }

    /// Adds a name, if it is new, and returns its offset.
    fn add(&mut self, name: &'a [u8]) -> Option<u32> {
        if let Some(&at) = self.known.get(name) {
            return Some(at);
        }
        let at = u32::try_from(self.bytes.len()).ok()?;
        self.bytes.extend(name);
        self.bytes.push(0);
        self.known.insert(name, at);
        Some(at)
    }
}
