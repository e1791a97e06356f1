//! Holds the prototype quoted above each hook against the running kernel.

use std::{fs, path::Path};

use super::*;

impl Btf<'_> {
    /// Types of a tracepoint's arguments, as C writes them: those of the function
    /// that `btf_trace_NAME` points to, but for the first, which is the probe's own.
    fn tracepoint_args(&self, name: &str) -> Option<Vec<String>> {
        let typedef = format!("btf_trace_{name}");
        let proto = self.starts.iter().skip(1).find_map(|&at| {
            let ty = self.type_at(at)?;
            let found = ty.kind == KIND_TYPEDEF && self.name(ty.name)? == typedef.as_bytes();
            found.then(|| self.resolve(self.resolve(ty.size_or_type)?.size_or_type))?
        })?;
        let arg = |i| self.c_type(u32_at(self.types, proto.at + 12 + i * 8 + 4)?);
        (1..proto.count).map(arg).collect()
    }

    /// Likewise of a function, as `bpf_iter_NAME` is for each iterator.
    fn function_args(&self, name: &str) -> Option<Vec<String>> {
        let proto = self.starts.iter().skip(1).find_map(|&at| {
            let ty = self.type_at(at)?;
            let found = ty.kind == KIND_FUNC && self.name(ty.name)? == name.as_bytes();
            found.then(|| self.by_id(ty.size_or_type))?
        })?;
        let arg = |i| self.c_type(u32_at(self.types, proto.at + 12 + i * 8 + 4)?);
        (0..proto.count).map(arg).collect()
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

/// `// proto: name(type arg, ...)` lines of the kernel side's hooks.
fn quoted() -> Vec<(String, Vec<String>)> {
    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conntrace-ebpf/src/hooks");
    let mut quoted = Vec::new();
    for file in fs::read_dir(hooks).unwrap() {
        let source = fs::read_to_string(file.unwrap().path()).unwrap();
        let protos = source
            .lines()
            .filter_map(|line| line.strip_prefix("// proto: "));
        let hooks = source.matches("#[btf_tracepoint(").count()
            + source.matches("link_section = \"iter/").count();
        assert_eq!(
            protos.clone().count(),
            hooks,
            "a prototype for each hook: {source}"
        );
        quoted.extend(protos.map(parse));
    }
    quoted
}

fn parse(proto: &str) -> (String, Vec<String>) {
    let (name, args) = proto.split_once('(').unwrap();
    let args = args.strip_suffix(')').unwrap().split(", ");
    let without_name = |arg: &str| {
        let name = |c: char| c.is_alphanumeric() || c == '_';
        arg.trim_end_matches(name).trim_end().to_owned()
    };
    (name.to_owned(), args.map(without_name).collect())
}

/// Newer kernels may add arguments behind those we know.
#[test]
fn every_hook_has_the_prototype_it_quotes() {
    let bytes = fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let btf = Btf::parse(&bytes).unwrap();
    let quoted = quoted();
    assert!(quoted.len() >= 4, "{quoted:?}");
    for (name, args) in quoted {
        let kernel = btf
            .tracepoint_args(&name)
            .or_else(|| btf.function_args(&name))
            .unwrap_or_else(|| panic!("no {name}"));
        assert!(
            kernel.starts_with(&args),
            "{name}: quoted {args:?}, kernel has {kernel:?}"
        );
    }
}
