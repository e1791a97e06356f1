//! Signatures of hook targets in C syntax.

use super::*;

/// Argument and result types of a hook target.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature {
    /// Types of the arguments in C syntax.
    pub args: Vec<String>,
    /// Type of the result in C syntax.
    pub returns: String,
}

impl Btf<'_> {
    /// Returns the signature of a function or tracepoint; `None` if the kernel has none of this
    /// name. The first argument of a tracepoint's probe, its private data, is omitted.
    #[must_use]
    pub fn signature(&self, prototype: &Prototype) -> Option<Signature> {
        let described = self.by_id(self.prototype(prototype)?)?;
        let (proto, own) = match prototype {
            Prototype::Function(_) => (self.by_id(described.size_or_type)?, 0),
            Prototype::Tracepoint(_) => {
                let pointer = self.resolve(described.size_or_type)?;
                (self.resolve(pointer.size_or_type)?, 1)
            }
        };
        let arg = |i| self.c_type(u32_at(self.types, proto.at + 12 + i * 8 + 4)?);
        Some(Signature {
            args: (own..proto.count).map(arg).collect::<Option<_>>()?,
            returns: self.c_type(proto.size_or_type)?,
        })
    }

    fn c_type(&self, id: u32) -> Option<String> {
        if id == 0 {
            return Some("void".to_owned());
        }
        let ty = self.by_id(id)?;
        let name = || Some(String::from_utf8_lossy(self.name(ty.name)?).into_owned());
        match ty.kind {
            KIND_PTR => Some(format!("{} *", self.c_type(ty.size_or_type)?)),
            KIND_CONST => Some(format!("const {}", self.c_type(ty.size_or_type)?)),
            KIND_STRUCT | KIND_FWD => Some(format!("struct {}", name()?)),
            KIND_ENUM => Some(format!("enum {}", name()?)),
            _ => name(),
        }
    }
}
