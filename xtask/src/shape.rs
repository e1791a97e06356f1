//! `cargo xtask shape`: sizes and shape of the code and its documents, as a table.

#![expect(clippy::print_stdout, reason = "the table is what this task is for")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use syn::{
    Attribute, Item, UseTree,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use crate::run::output;

/// Words that open a doc comment which does not stand alone.
pub(crate) const OPENINGS: [&str; 6] = ["What", "Whether", "How", "Who", "Where", "Why"];
/// Documents that a new reader starts with.
const DOCUMENTS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];
/// Folder whose rooms are listed with what each imports from.
const LIBRARY: &str = "conntrace/src/";

/// Statistics of all Rust files.
#[derive(Default)]
struct Shape {
    /// Number of lines by crate.
    lines: BTreeMap<String, usize>,
    files: Vec<usize>,
    functions: Vec<usize>,
    /// Doc comments, and those among them that open with one of [`OPENINGS`].
    docs: (usize, usize),
    /// Files that define a type, by its name.
    types: BTreeMap<String, BTreeSet<String>>,
    /// Rooms of the library, with the rooms that they import from.
    arrows: BTreeMap<String, BTreeSet<String>>,
}

/// Prints the table of statistics.
pub(crate) fn shape(root: &Path) -> Result<()> {
    let mut command = Command::new("git");
    let files = output(command.args(["ls-files", "*.rs"]).current_dir(root))?;
    let mut shape = Shape::default();
    for path in files.lines() {
        let text = fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
        let file = syn::parse_file(&text).with_context(|| format!("cannot parse {path}"))?;
        let name = path.split('/').next().unwrap_or_default();
        *shape.lines.entry(name.to_owned()).or_default() += text.lines().count();
        shape.files.push(text.lines().count());
        let is_test = path.contains("/tests/") || path.ends_with("tests.rs");
        let room = path.strip_prefix(LIBRARY).filter(|_| !is_test);
        let room = room.map(room_of).unwrap_or_default();
        let mut visitor = Visitor {
            shape: &mut shape,
            path,
            room,
            last_doc: 0,
        };
        visitor.visit_file(&file);
    }
    shape.print();
    for document in DOCUMENTS {
        let text = fs::read_to_string(root.join(document)).with_context(|| document.to_owned())?;
        let (words, per_sentence) = prose(&text);
        println!(
            "{document}: {} lines, {words} words, {per_sentence:.1} a sentence",
            text.lines().count()
        );
    }
    Ok(())
}

/// The first part of a path within the library: a folder, or a file's stem.
fn room_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}

impl Shape {
    fn print(mut self) {
        for (name, lines) in &self.lines {
            println!("lines in {name}: {lines}");
        }
        println!("lines in all: {}", self.lines.values().sum::<usize>());
        println!("files: {}; {}", self.files.len(), spread(&mut self.files));
        println!(
            "functions: {}; {}",
            self.functions.len(),
            spread(&mut self.functions)
        );
        let (docs, opened) = self.docs;
        println!(
            "doc comments: {docs}; {opened} open with {}",
            OPENINGS.join(", ")
        );
        let twice: Vec<_> = self
            .types
            .iter()
            .filter(|(_, files)| files.len() > 1)
            .collect();
        println!("types defined twice: {}", twice.len());
        for (name, files) in twice {
            println!(
                "  {name}: {}",
                Vec::from_iter(files.iter().map(String::as_str)).join(", ")
            );
        }
        println!(
            "arrows between rooms: {}",
            self.arrows.values().map(BTreeSet::len).sum::<usize>()
        );
        for (from, to) in &self.arrows {
            println!(
                "  {from} -> {}",
                Vec::from_iter(to.iter().map(String::as_str)).join(", ")
            );
        }
        let circles = self.circles();
        println!("circles between rooms: {}", circles.len());
        for (one, other) in circles {
            println!("  {one} <-> {other}");
        }
    }

    /// Pairs of rooms of which each leads to the other.
    fn circles(&self) -> Vec<(&str, &str)> {
        let leads = |from: &str, to: &str| {
            let mut seen = BTreeSet::new();
            let mut next = vec![from];
            while let Some(room) = next.pop() {
                for room in self.arrows.get(room).into_iter().flatten() {
                    if seen.insert(room.as_str()) {
                        next.push(room);
                    }
                }
            }
            seen.contains(to)
        };
        let rooms = Vec::from_iter(self.arrows.keys().map(String::as_str));
        let mut circles = Vec::new();
        for (at, &one) in rooms.iter().enumerate() {
            for &other in rooms.iter().skip(at + 1) {
                if leads(one, other) && leads(other, one) {
                    circles.push((one, other));
                }
            }
        }
        circles
    }
}

/// Formats median, 90th percentile and maximum.
fn spread(sizes: &mut [usize]) -> String {
    sizes.sort_unstable();
    let at = |percent: usize| {
        let last = sizes.len().saturating_sub(1);
        sizes.get(last * percent / 100).copied().unwrap_or_default()
    };
    format!("median {} lines, p90 {}, most {}", at(50), at(90), at(100))
}

/// Words of a Markdown text, and words in a sentence of its paragraphs and lists.
fn prose(text: &str) -> (usize, f64) {
    let mut words = 0;
    let mut lengths = Vec::new();
    for (at, block) in text.split("```").enumerate() {
        words += block.split_whitespace().count();
        if at % 2 == 0 {
            block
                .split("\n\n")
                .for_each(|part| sentences(part, &mut lengths));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "documents have few words")]
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
    (words, mean)
}

/// Adds the words of each sentence of a paragraph. Headings and tables have none.
fn sentences(paragraph: &str, lengths: &mut Vec<usize>) {
    let mut length = 0;
    for line in paragraph.lines().map(str::trim_start) {
        if line.starts_with(['|', '#', '<']) {
            continue;
        }
        let item = line.strip_prefix("- ");
        if item.is_some() {
            lengths.extend((length > 0).then_some(length));
            length = 0;
        }
        for word in item.unwrap_or(line).split_whitespace() {
            length += 1;
            if word
                .trim_end_matches(['*', ')', '"'])
                .ends_with(['.', '?', '!', ':'])
            {
                lengths.push(length);
                length = 0;
            }
        }
    }
    lengths.extend((length > 0).then_some(length));
}

/// Counts what a file defines.
struct Visitor<'a> {
    shape: &'a mut Shape,
    path: &'a str,
    room: &'a str,
    /// Line of the doc comment read last.
    last_doc: usize,
}

impl Visitor<'_> {
    fn function(&mut self, item: &impl syn::spanned::Spanned) {
        let span = item.span();
        self.shape
            .functions
            .push(span.end().line - span.start().line + 1);
    }

    fn defines(&mut self, name: &syn::Ident) {
        let files = self.shape.types.entry(name.to_string()).or_default();
        files.insert(self.path.to_owned());
    }

    /// Notes the rooms of `crate::...` in a path or in a tree of imports.
    fn leads_to(&mut self, to: &str) {
        if !self.room.is_empty() && !["lib", "main"].contains(&self.room) && to != self.room {
            let rooms = self.shape.arrows.entry(self.room.to_owned()).or_default();
            rooms.insert(to.to_owned());
        }
    }

    fn imports(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => self.leads_to(&path.ident.to_string()),
            UseTree::Name(name) => self.leads_to(&name.ident.to_string()),
            UseTree::Rename(name) => self.leads_to(&name.ident.to_string()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.imports(tree)),
            UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if let Item::Mod(module) = item
            && module.attrs.iter().any(is_for_tests)
        {
            // Imports of tests are no arrows.
            let room = std::mem::take(&mut self.room);
            visit::visit_item(self, item);
            self.room = room;
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.defines(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.defines(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.defines(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.defines(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if let UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.imports(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut parts = path.segments.iter().map(|part| part.ident.to_string());
        if let (Some("crate"), Some(to)) = (parts.next().as_deref(), parts.next()) {
            self.leads_to(&to);
        }
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Some(line) = doc_line(attribute) {
            // The lines of one comment follow each other.
            let at = attribute.span().start().line;
            if self.last_doc + 1 != at {
                self.shape.docs.0 += 1;
                self.shape.docs.1 += usize::from(opens_badly(&line));
            }
            self.last_doc = at;
        }
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    matches!(&attribute.meta, syn::Meta::List(list) if list.path.is_ident("cfg"))
}

/// Text of a doc attribute.
fn doc_line(attribute: &Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    let syn::Expr::Lit(literal) = &pair.value else {
        return None;
    };
    if let syn::Lit::Str(text) = &literal.lit
        && pair.path.is_ident("doc")
    {
        return Some(text.value());
    }
    None
}

/// Returns true if a doc comment that begins with this line does not stand alone.
pub(crate) fn opens_badly(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    OPENINGS.contains(&first.trim_end_matches([',', '.', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_ends_with_its_full_stop() {
        let text =
            "# Not this\n\nOne two. Three\nfour five.\n\n- six\n- seven eight\n\n| no | no |";
        let mut lengths = Vec::new();
        text.split("\n\n")
            .for_each(|part| sentences(part, &mut lengths));
        assert_eq!(lengths, [2, 3, 1, 2]);
    }

    #[test]
    fn openings_are_whole_words() {
        assert!(opens_badly(" What it does"));
        assert!(opens_badly(" Why, then"));
        assert!(!opens_badly(" Whole lines"));
        assert!(!opens_badly(""));
    }
}
