//! docs/events.md: every line, object and value of the JSON Schema.

use std::fmt::Write as _;

use conntrace::output::event;
use serde_json::{Map, Value};

use super::{NOTICE, escaped};

const HEAD: &str = include_str!("events_head.md");
/// Beginning of a reference to a definition.
const DEFS: &str = "#/$defs/";

/// Returns the document.
pub(crate) fn document() -> String {
    let schema = event::json_schema();
    let schema = schema.as_value();
    let empty = Map::new();
    let defs = schema.get("$defs").and_then(Value::as_object);
    let defs = defs.unwrap_or(&empty);
    let mut text = format!("# Lines\n\n{NOTICE}\n\n{HEAD}\n## Every line\n\n");
    // `schema` is written last, with the content of the type before it.
    let kind = "| `type` | string | Kind of the line: one of the next headings. |\n";
    let last = "| `schema` |";
    text += &fields(schema).replace(last, &format!("{kind}{last}"));
    let mut types = Vec::new();
    for kind in variants(schema) {
        let name = kind.pointer("/properties/type/const");
        let content = reference(kind).and_then(|target| defs.get_key_value(target));
        if let (Some(Value::String(name)), Some((target, content))) = (name, content) {
            add_section(&mut text, "##", &format!("`{name}`"), kind);
            text += &fields(content);
            types.push(target);
        }
    }
    text += "\n## Objects\n";
    for (name, def) in defs {
        if def.get("properties").is_some() && !types.contains(&name) {
            add_section(&mut text, "###", name, def);
            text += &fields(def);
        }
    }
    text += "\n## Values\n";
    for (name, def) in defs
        .iter()
        .filter(|(_, def)| variants(def).next().is_some())
    {
        add_section(&mut text, "###", name, def);
        text += "| value | meaning |\n|---|---|\n";
        for value in variants(def) {
            let name = value.get("const").and_then(Value::as_str);
            let name = name.unwrap_or_default();
            let _ = writeln!(text, "| `{name}` | {} |", description(value));
        }
    }
    text
}

fn add_section(text: &mut String, level: &str, name: &str, of: &Value) {
    let _ = writeln!(text, "\n{level} {name}\n\n{}\n", description(of));
}

/// Returns a table of the fields of an object.
fn fields(of: &Value) -> String {
    let mut table = "| field | type | meaning |\n|---|---|---|\n".to_owned();
    let fields = of.get("properties").and_then(Value::as_object);
    for (name, field) in fields.into_iter().flatten() {
        let (of, meaning) = (type_of(field), description(field));
        let _ = writeln!(table, "| `{name}` | {of} | {meaning} |");
    }
    table
}

/// Returns the type of a field: a word, or a link to its section.
fn type_of(field: &Value) -> String {
    let all = |of: &[Value]| of.iter().map(type_of).collect::<Vec<_>>();
    let list = |key| field.get(key).and_then(Value::as_array);
    match reference(field) {
        Some("Time") => return "string (date-time)".to_owned(),
        Some(target) => return format!("[{target}](#{})", target.to_lowercase()),
        None => {}
    }
    if let Some(any) = list("anyOf") {
        return all(any).join(" or ");
    }
    if let Some(each) = list("prefixItems") {
        return format!("array of {}", all(each).join(", "));
    }
    if let Some(each) = field.get("items") {
        return format!("array of {}", type_of(each));
    }
    if let Some(each) = field
        .get("additionalProperties")
        .filter(|it| it.is_object())
    {
        return format!("object of {}", type_of(each));
    }
    let format = field.get("format").and_then(Value::as_str);
    let name = |of: &Value| match (of.as_str().unwrap_or("any"), format) {
        ("string", Some(format)) => format!("string ({format})"),
        (name, _) => name.to_owned(),
    };
    match list("type") {
        Some(any) => any.iter().map(name).collect::<Vec<_>>().join(" or "),
        None => field.get("type").map_or_else(|| "any".to_owned(), name),
    }
}

fn reference(of: &Value) -> Option<&str> {
    of.get("$ref")?.as_str()?.strip_prefix(DEFS)
}

fn variants(of: &Value) -> impl Iterator<Item = &Value> {
    let variants = of.get("oneOf").and_then(Value::as_array);
    variants.into_iter().flatten()
}

fn description(of: &Value) -> String {
    let text = of.get("description").and_then(Value::as_str);
    escaped(&text.unwrap_or_default().replace('\n', " "))
}
