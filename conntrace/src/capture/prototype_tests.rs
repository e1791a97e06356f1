//! Compares the prototypes quoted above each hook with every test kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use conntrace_btf::{Btf, Prototype, Signature};

use crate::capture::{
    HookTarget, PROGRAMS,
    test_kernels::{self, TestKernel, Version},
};

/// Quoted prototype: `// proto: name(type arg, ...)` or `// proto (< 5.17): ...`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Quote {
    name: String,
    /// First version that it applies to, and first one that it no longer applies to.
    versions: (Version, Version),
    args: Vec<String>,
    /// True if a kernel may have further arguments (`...`).
    is_open: bool,
}

impl Quote {
    fn parse(line: &str) -> Option<Self> {
        let (note, proto) = line.strip_prefix("// proto")?.split_once(": ").unwrap();
        let versions = match note.trim().trim_matches(['(', ')']).split_once(' ') {
            None if note.is_empty() => ((0, 0), (u32::MAX, 0)),
            Some(("<", until)) => ((0, 0), test_kernels::version(until)),
            Some((">=", from)) => (test_kernels::version(from), (u32::MAX, 0)),
            _ => panic!("a note is `(< 5.17)` or `(>= 5.17)`: {line}"),
        };
        let (name, args) = proto.split_once('(').unwrap();
        let args = args.strip_suffix(')').unwrap();
        let without_more = args.strip_suffix(", ...");
        Some(Self {
            name: name.to_owned(),
            versions,
            args: without_more
                .unwrap_or(args)
                .split(", ")
                .map(type_of)
                .collect(),
            is_open: without_more.is_some(),
        })
    }

    fn is_for(&self, version: Version) -> bool {
        (self.versions.0..self.versions.1).contains(&version)
    }

    fn fits(&self, kernel: &Signature) -> bool {
        if self.is_open {
            kernel.args.starts_with(&self.args)
        } else {
            kernel.args == self.args
        }
    }
}

/// Returns the type of an argument, without its name.
fn type_of(arg: &str) -> String {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    arg.trim_end_matches(name).trim_end().to_owned()
}

/// Collects the quotes in the hooks' sources, by the name of the hook.
fn quoted() -> BTreeMap<String, BTreeSet<Quote>> {
    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conntrace-ebpf/src/hooks");
    let mut quoted: BTreeMap<String, BTreeSet<Quote>> = BTreeMap::new();
    for file in fs::read_dir(hooks).unwrap() {
        let source = fs::read_to_string(file.unwrap().path()).unwrap();
        for paragraph in source.split("\n\n") {
            let quotes: Vec<_> = paragraph.lines().filter_map(Quote::parse).collect();
            let hooked = hooked(paragraph);
            for quote in &quotes {
                assert!(
                    hooked.iter().all(|name| *name == quote.name) && !hooked.is_empty(),
                    "{} is quoted above {hooked:?}",
                    quote.name
                );
            }
            for name in hooked {
                quoted.entry(name).or_default();
            }
            for quote in quotes {
                quoted.entry(quote.name.clone()).or_default().insert(quote);
            }
        }
    }
    quoted
}

/// Finds the hooks in a piece of source, by their BTF names. Tracepoints and iterators are
/// named in attributes, functions in the names of their programs.
fn hooked(source: &str) -> BTreeSet<String> {
    let mut hooked = BTreeSet::new();
    let between = |start: &str| {
        let rest = source.split(start).skip(1);
        rest.map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    hooked.extend(between("#[btf_tracepoint(function = \""));
    let iterators = between("link_section = \"iter/");
    hooked.extend(iterators.iter().map(|name| format!("bpf_iter_{name}")));
    let words = source.split(|c: char| !c.is_alphanumeric() && c != '_');
    let functions = words.filter_map(|word| {
        [
            "fentry_",
            "fexit_second_",
            "fexit_",
            "kprobe_",
            "kretprobe_",
        ]
        .iter()
        .find_map(|kind| word.strip_prefix(kind))
    });
    hooked.extend(functions.map(str::to_owned));
    hooked
}

/// Returns the hooks of the agent that BTF describes, by name.
fn hooks() -> BTreeMap<String, (HookTarget, Prototype)> {
    let known = PROGRAMS.iter().filter_map(|program| {
        let prototype = program.target.prototype()?;
        let name = match &prototype {
            Prototype::Function(name) => name.clone(),
            Prototype::Tracepoint(name) => (*name).to_owned(),
        };
        Some((name, (program.target, prototype)))
    });
    known.collect()
}

/// Describes the mismatch between the quotes of a hook and this kernel; `None` if they match.
fn mistake(
    quotes: &BTreeSet<Quote>,
    has: Option<&Signature>,
    kernel: &TestKernel,
) -> Option<String> {
    let is_for = |quote: &&Quote| quote.is_for(kernel.version);
    let Some(has) = has else {
        let quote = quotes.iter().find(is_for)?;
        return Some(format!("quoted {quote:?}, which the kernel lacks"));
    };
    let all = || quotes.iter().filter(|quote| quote.fits(has));
    // A distribution may backport newer code into the running kernel.
    let right = match kernel.is_running {
        true => all().count() == 1,
        false => all().eq(quotes.iter().filter(is_for)) && all().count() == 1,
    };
    (!right).then(|| format!("quoted {quotes:?}, the kernel has {has:?}"))
}

#[test]
fn every_hook_has_the_prototype_it_quotes() {
    let (quoted, none) = (quoted(), BTreeSet::new());
    for kernel in test_kernels::all() {
        let btf = Btf::parse(&kernel.btf).unwrap();
        for (name, (target, prototype)) in hooks() {
            let quotes = quoted.get(&name).unwrap_or(&none);
            let has = btf.signature(&prototype);
            let mistake = mistake(quotes, has.as_ref(), &kernel);
            let version = kernel.version;
            assert_eq!(
                mistake, None,
                "{name} on {version:?}; if new: cargo xtask btf"
            );
            // The programs read the result from the word after the arguments.
            if let (HookTarget::Return(_), Some(has)) = (target, has) {
                assert_eq!(has.returns, "int", "{name} on {version:?}");
                assert!(quotes.iter().all(|quote| !quote.is_open), "{name}: `...`");
            }
        }
    }
}

#[test]
fn every_hook_is_one_of_the_agent_and_has_a_quote() {
    let quoted = quoted();
    for (name, quotes) in &quoted {
        assert!(!quotes.is_empty(), "{name} has no prototype quoted");
    }
    let names: Vec<_> = quoted.keys().cloned().collect();
    assert_eq!(names, hooks().into_keys().collect::<Vec<_>>());
}

#[test]
fn every_way_to_hook_is_noticed() {
    let source = "#[btf_tracepoint(function = \"a\")] #[unsafe(link_section = \"iter/b\")]\n\
        function!(Bind, Socket, fexit_c, fexit_second_c, kprobe_c, kretprobe_c);\n\
        pub fn fentry_d() {} #[tracepoint(category = \"syscalls\", name = \"sys_enter_e\")]";
    let hooked: Vec<_> = hooked(source).into_iter().collect();
    assert_eq!(hooked, ["a", "bpf_iter_b", "c", "d"]);
}

#[test]
fn a_wrong_quote_is_a_mistake() {
    let has = |args: &[&str]| Signature {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        returns: "int".to_owned(),
    };
    let quotes = |lines: &[&str]| lines.iter().filter_map(|line| Quote::parse(line)).collect();
    let is_right = |lines: &[&str], has: Option<&Signature>, version, is_running| {
        let kernel = TestKernel {
            version,
            btf: Vec::new(),
            is_running,
        };
        mistake(&quotes(lines), has, &kernel).is_none()
    };
    let (one, two) = (has(&["int"]), has(&["int", "void *"]));
    let closed = &["// proto: f(int a)"];
    assert!(is_right(closed, Some(&one), (6, 1), false));
    assert!(!is_right(closed, Some(&two), (6, 1), false), "too many");
    assert!(!is_right(closed, None, (6, 1), false), "none");
    assert!(
        !is_right(&["// proto: f(u32 a)"], Some(&one), (6, 1), false),
        "another type"
    );
    assert!(!is_right(&[], Some(&one), (6, 1), false), "nothing quoted");
    let open = &["// proto: f(int a, ...)"];
    assert!(is_right(open, Some(&one), (6, 1), false) && is_right(open, Some(&two), (6, 1), false));
    let since = &["// proto (>= 6.1): f(int a)"];
    assert!(is_right(since, Some(&one), (6, 1), false));
    assert!(is_right(since, None, (5, 10), false), "it says so");
    assert!(!is_right(since, Some(&one), (5, 10), false), "but is there");
    assert!(
        is_right(since, Some(&one), (5, 10), true),
        "a distribution's"
    );
    let both = &[
        "// proto (< 6.1): f(int a)",
        "// proto (>= 6.1): f(int a, void *b)",
    ];
    assert!(
        is_right(both, Some(&one), (5, 10), false) && is_right(both, Some(&two), (6, 1), false)
    );
    assert!(!is_right(both, Some(&one), (6, 1), false) && is_right(both, Some(&one), (6, 1), true));
    assert!(
        !is_right(&[closed[0], since[0]], Some(&one), (6, 1), false),
        "both fit"
    );
}
