//! Cuts out of a kernel's BTF the few types that are asked for. What is left is
//! BTF as well, of a few KB, so that tests can ask kernels that do not run.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::*;

/// What to keep of a kernel's BTF. What it does not have is left out.
#[derive(Debug)]
pub struct BtfSelection {
    /// As [`Btf::member`] takes them; structs keep no other members.
    pub members: Vec<&'static str>,
    /// Their enums keep no others.
    pub enumerators: Vec<String>,
    /// Whole, but for the members of the structs that arguments point to.
    pub prototypes: Vec<Prototype>,
}

/// What describes the arguments of something that can be hooked.
#[derive(Debug)]
pub enum Prototype {
    /// A function of this name.
    Function(String),
    /// The probes of a tracepoint of this name.
    Tracepoint(&'static str),
}

impl Prototype {
    /// Kind and name of the type that stands for it.
    pub(super) fn named(&self) -> (u8, String) {
        match self {
            Self::Function(name) => (KIND_FUNC, name.clone()),
            Self::Tracepoint(name) => (KIND_TYPEDEF, format!("btf_trace_{name}")),
        }
    }
}

impl<'a> Btf<'a> {
    /// BTF with only what is wanted.
    ///
    /// # Errors
    /// When this one points outside itself.
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

    /// The type that stands for this prototype: a function, or the typedef by which
    /// the kernel tells what a tracepoint's probes take.
    pub(super) fn prototype(&self, prototype: &Prototype) -> Option<u32> {
        let (kind, name) = prototype.named();
        let is_it = |&at: &usize| {
            let ty = self.type_at(at).filter(|ty| ty.kind == kind);
            ty.is_some_and(|ty| self.is_named(ty.name, &name))
        };
        let after_void = self.starts.iter().skip(1).position(is_it)?;
        u32::try_from(after_void + 1).ok()
    }
}

/// What a word of a type is, which decides what becomes of it.
#[derive(Clone, Copy)]
enum TypeWord {
    /// It stays.
    Plain,
    /// Where a name is, in the strings.
    Name,
    /// The id of a type.
    Type,
}

/// What is kept.
struct SelectedTypes<'b, 'a> {
    btf: &'b Btf<'a>,
    /// Where the members and enumerators are described, as bytes of the types.
    entries: HashSet<usize>,
    /// By id. Their order stays, for of two structs with one name the first counts.
    types: BTreeSet<u32>,
}

impl<'a> SelectedTypes<'_, 'a> {
    /// Keeps the members on this path, if the kernel has it; its first struct.
    fn keep_way(&mut self, path: &str) -> Option<u32> {
        let mut search = Search::default();
        self.btf.find_path(path, &mut search)?;
        self.entries.extend(search.way);
        let (name, _) = path.split_once('.')?;
        self.btf.structs.get(name.as_bytes()).copied()
    }

    /// Keeps those of these names, if the type is an enum that has some.
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

    /// Keeps these types and all that they are made of.
    fn reach(&mut self, mut todo: Vec<u32>) -> Option<()> {
        while let Some(id) = todo.pop() {
            // Id 0 is void, and everywhere.
            if id != 0 && self.types.insert(id) {
                let words = self.words(id)?;
                let types = words.iter().filter(|(is, _)| matches!(is, TypeWord::Type));
                todo.extend(types.map(|&(_, id)| id));
            }
        }
        Some(())
    }

    /// A type's words, without the entries that are not kept.
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

/// BTF of these types and strings.
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

/// Where a type's entries start: members, enumerators, parameters.
fn entries(ty: &Type) -> Vec<usize> {
    let count = match ty.kind {
        KIND_INT | KIND_ARRAY => 1,
        KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 | KIND_FUNC_PROTO => ty.count,
        _ => 0,
    };
    let len = 4 * entry_words(ty.kind).len();
    (0..count).map(|i| ty.at + 12 + i * len).collect()
}

/// What the words of an entry are.
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

/// What the last word is that every type has.
fn third_word(kind: u8) -> TypeWord {
    match kind {
        KIND_PTR | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_FUNC
        | KIND_FUNC_PROTO | KIND_TYPE_TAG => TypeWord::Type,
        _ => TypeWord::Plain,
    }
}

/// Names, each once.
struct Strings<'a> {
    bytes: Vec<u8>,
    known: HashMap<&'a [u8], u32>,
}

impl<'a> Strings<'a> {
    /// The first is the empty one.
    fn new() -> Self {
        Self {
            bytes: vec![0],
            known: HashMap::from([(&b""[..], 0)]),
        }
    }

    /// Where it is.
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
