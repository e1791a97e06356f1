//! Writes what was measured where people read it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    kind::{COVERAGE, COVERAGE_SYSCALLS, VERIFIER},
    matrix::GuestRow,
};

/// Table of kernels that `doctor --help` prints.
const TABLE: &str = "conntrace/src/commands/doctor/kernels.md";
/// Document that has the table as well.
const PAGE: &str = "docs/kernels.md";
/// Lines around the table in that document.
const MARKS: [&str; 2] = [
    "<!-- kernels: cargo xtask vm --write -->\n",
    "<!-- /kernels -->\n",
];
const VERIFIER_DOC: &str = "docs/verifier.md";
const VERIFIER_HEADER: &str = "\
# What the verifier says

Instructions it goes through per program, and bytes of the machine code that is made of
it, as `cargo xtask vm --verifier --write` found them. Kernels before 5.16 do not tell the
first. The tests `verifier` of `live` fail for a program that takes more than 30,000.

";

/// The keys of coverage that differ, in the table's order; what it has not is seen
/// everywhere.
const KEYS: [&str; 5] = [
    "local_drop",
    "icmp6_detail",
    "no_route",
    "local_denial",
    "bind_exhausted",
];

pub(super) fn write(root: &Path, rows: &[GuestRow], verifier: bool) -> Result<()> {
    if verifier {
        let table = verifier_table(rows);
        fs::create_dir_all(root.join("docs"))?;
        return Ok(fs::write(
            root.join(VERIFIER_DOC),
            format!("{VERIFIER_HEADER}{table}"),
        )?);
    }
    let table = coverage_table(rows)?;
    fs::write(root.join(TABLE), &table)?;
    let page = root.join(PAGE);
    let text = between(&fs::read_to_string(&page)?, &table)?;
    Ok(fs::write(&page, text)?)
}

/// The text with this between the marks.
fn between(text: &str, table: &str) -> Result<String> {
    let [begin, end] = MARKS;
    let parts = text.split_once(begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    });
    let (before, after) = parts.with_context(|| format!("{PAGE} has no {begin}"))?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

fn coverage_table(rows: &[GuestRow]) -> Result<String> {
    let mut table = String::from("| kernel | tier | all else |");
    table.extend(KEYS.map(|key| format!(" `{key}` |")));
    table.push_str("\n|---|---|---|---|---|---|---|---|\n");
    let tier = |row: &GuestRow| match row.kind {
        "no-ipv6" => "full, without IPv6".to_owned(),
        tier => tier.to_owned(),
    };
    let mut count = 0;
    for row in rows {
        for (name, more) in [(COVERAGE, ""), (COVERAGE_SYSCALLS, ", `--trace-syscalls`")] {
            let ended = row.ended.iter().find(|(found, _)| found == name);
            let start =
                ended.and_then(|(_, ended)| ended.printed.iter().find(|it| it.starts_with('{')));
            let Some(start) = start else { continue };
            let start: Value = serde_json::from_str(start).context("a start line")?;
            table.push_str(&coverage_row(
                &row.kernel,
                &format!("{}{more}", tier(row)),
                &start,
            )?);
            count += 1;
        }
    }
    if count == 0 {
        bail!("no guest has said what it covers");
    }
    Ok(table)
}

fn coverage_row(kernel: &str, tier: &str, start: &Value) -> Result<String> {
    let coverage = start
        .get("coverage")
        .and_then(Value::as_object)
        .context("a start line has coverage")?;
    let word = |seen: bool| if seen { "yes" } else { "no" };
    let else_seen = coverage
        .iter()
        .filter(|(key, _)| !KEYS.contains(&key.as_str()));
    let all_else = else_seen.into_iter().all(|(_, seen)| *seen == true);
    let version = kernel.split(['-', '+']).next().unwrap_or(kernel);
    let mut row = format!("| {version} | {tier} | {} |", word(all_else));
    row.extend(
        KEYS.map(|key| format!(" {} |", word(coverage.get(key) == Some(&Value::Bool(true))))),
    );
    row.push('\n');
    Ok(row)
}

/// `verifier PROGRAM INSTRUCTIONS BYTES`, as the test prints it, by program and kernel.
fn verifier_table(rows: &[GuestRow]) -> String {
    let mut kernels: Vec<&str> = Vec::new();
    let mut programs: BTreeMap<String, BTreeMap<&str, String>> = BTreeMap::new();
    for row in rows {
        let version = row.kernel.split(['-', '+']).next().unwrap_or(&row.kernel);
        if !kernels.contains(&version) {
            kernels.push(version);
        }
        let lines = row.ended.iter().filter(|(name, _)| name == VERIFIER);
        for line in lines.flat_map(|(_, ended)| &ended.printed) {
            let words: Vec<_> = line.split_whitespace().collect();
            if let ["verifier", program, instructions, bytes] = words.as_slice() {
                let cell = format!("{instructions} / {bytes}");
                programs
                    .entry((*program).to_owned())
                    .or_default()
                    .insert(version, cell);
            }
        }
    }
    let mut table = format!(
        "| program | {} |\n|---|{}\n",
        kernels.join(" | "),
        "---|".repeat(kernels.len())
    );
    for (program, cells) in programs {
        let cells = kernels
            .iter()
            .map(|kernel| cells.get(kernel).map_or("", String::as_str));
        table.push_str(&format!(
            "| `{program}` | {} |\n",
            cells.collect::<Vec<_>>().join(" | ")
        ));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let [begin, end] = MARKS;
        let text = format!("a\n{begin}old\n{end}b\n");
        assert_eq!(
            between(&text, "new\n").unwrap(),
            format!("a\n{begin}new\n{end}b\n")
        );
        assert!(between("a\n", "new\n").is_err());
    }

    #[test]
    fn a_row_says_what_is_seen() {
        let start = serde_json::json!({ "coverage": { "rst": true, "no_route": true } });
        let row = coverage_row("6.1.0-50-cloud-amd64", "full", &start).unwrap();
        assert_eq!(row, "| 6.1.0 | full | yes | no | no | yes | no | no |\n");
    }
}
