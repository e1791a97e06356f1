//! Reduces a kernel's BTF to the hook targets, for aya: it looks up only the ids of a few names,
//! but takes four times the size of the BTF in memory. Ids are preserved, and all other types
//! become empty placeholders.

use std::collections::BTreeSet;

use super::{extract::written, *};

impl Btf<'_> {
    /// Returns BTF with only these prototypes, the first of each name, under the same ids.
    /// Prototypes that the kernel does not have are ignored.
    ///
    /// # Errors
    /// When this BTF refers to bytes outside itself.
    pub fn only(&self, prototypes: impl Iterator<Item = Prototype>) -> Result<Vec<u8>, BtfError> {
        let damaged = || BtfError::Damaged(self.types.len());
        let wanted: BTreeSet<_> = prototypes.map(|it| it.named()).collect();
        let mut wanted = Vec::from_iter(wanted);
        let mut strings = vec![0];
        let mut types = Vec::with_capacity(self.starts.len() * 12);
        for &at in self.starts.iter().skip(1) {
            if wanted.is_empty() {
                break;
            }
            let ty = self.type_at(at as usize).ok_or_else(damaged)?;
            let found = wanted
                .iter()
                .position(|(kind, name)| *kind == ty.kind && self.is_named(ty.name, name));
            let name = found.map(|found| wanted.swap_remove(found).1);
            let words = words_of(name.as_deref(), ty.kind, &mut strings).ok_or_else(damaged)?;
            types.extend_from_slice(&words);
        }
        written(&types, &strings).ok_or_else(damaged)
    }
}

/// Encodes a type of this name and kind, without entries. Without a name it encodes the
/// smallest type of BTF, a forward declaration.
fn words_of(name: Option<&str>, kind: u8, strings: &mut Vec<u8>) -> Option<[u8; 12]> {
    let (at, kind) = match name {
        None => (0, KIND_FWD),
        Some(name) => {
            let at = u32::try_from(strings.len()).ok()?;
            strings.extend(name.bytes());
            strings.push(0);
            (at, kind)
        }
    };
    let [a, b, c, d] = at.to_ne_bytes();
    let [e, f, g, h] = (u32::from(kind) << 24).to_ne_bytes();
    Some([a, b, c, d, e, f, g, h, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use aya::Endianness;

    use super::*;

    fn prototypes() -> [Prototype; 3] {
        [
            Prototype::Tracepoint("inet_sock_set_state"),
            Prototype::Function("tcp_v4_connect".to_owned()),
            Prototype::Function("no_such_function".to_owned()),
        ]
    }

    /// Reads the BTF of each kernel in the test matrix.
    fn kernels() -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../conntrace/bpf/btf");
        let files = fs::read_dir(folder).unwrap();
        let kernels = Vec::from_iter(files.map(|file| fs::read(file.unwrap().path()).unwrap()));
        assert!(kernels.len() > 1, "{folder}");
        kernels
    }

    #[test]
    fn what_can_be_hooked_has_the_id_that_the_kernel_gives_it() {
        for kernel in kernels() {
            let whole = Btf::parse(&kernel).unwrap();
            let only = whole.only(prototypes().into_iter()).unwrap();
            assert!(only.len() < kernel.len());
            let read = Btf::parse(&only).unwrap();
            for prototype in prototypes() {
                assert_eq!(read.prototype(&prototype), whole.prototype(&prototype));
            }
        }
    }

    #[test]
    fn aya_finds_what_it_finds_in_the_whole() {
        use aya_obj::btf::BtfKind;
        let bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let whole = aya::Btf::parse(&bytes, Endianness::default()).unwrap();
        let only = Btf::parse(&bytes).unwrap().only(prototypes().into_iter());
        let only = aya::Btf::parse(&only.unwrap(), Endianness::default()).unwrap();
        for prototype in prototypes() {
            let (kind, name) = prototype.named();
            let kind = if kind == KIND_FUNC {
                BtfKind::Func
            } else {
                BtfKind::Typedef
            };
            let id = |btf: &aya::Btf| btf.id_by_type_name_kind(&name, kind).ok();
            assert_eq!(id(&only), id(&whole), "{name}");
        }
    }
}
