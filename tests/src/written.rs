//! Complete output of an agent, and its totals.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use serde_json::Value;

use crate::{accounted, assert_adds_up, check};

/// Interval of lines that are validated by the schema, because validation takes longer than all the
/// rest. The other tests validate every line.
const SCHEMA_EVERY: usize = 16;

/// Parses the lines of a file one by one.
pub fn each_line(path: &Path) -> impl Iterator<Item = Value> {
    let lines = BufReader::new(File::open(path).unwrap()).lines();
    lines.enumerate().map(|(number, line)| {
        let line = line.unwrap();
        if number % SCHEMA_EVERY == 0 {
            check(&line).unwrap()
        } else {
            serde_json::from_str(&line).unwrap()
        }
    })
}

/// Parses and validates every line. No total exceeds the number of attempts. The last line is an
/// exact stop line with nothing in flight.
pub fn checked(lines: &str) -> Vec<Value> {
    let lines: Vec<_> = lines.lines().map(|line| check(line).unwrap()).collect();
    for line in of_type(&lines, "summary") {
        assert!(
            accounted(line) <= line["attempts"].as_u64().unwrap(),
            "{line:#}"
        );
    }
    let stop = lines.last().unwrap();
    assert_eq!(stop["type"], "stop");
    assert_eq!(stop["in_flight"], 0);
    assert_adds_up(stop);
    lines
}

/// Iterates over the lines of this type.
pub fn of_type<'a>(lines: &'a [Value], kind: &str) -> impl DoubleEndedIterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["type"] == kind)
}

/// Counts the lines of this type.
pub fn count(lines: &[Value], kind: &str) -> usize {
    of_type(lines, kind).count()
}

/// Reads a count from a line.
pub fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Sums the losses of this reason over all loss lines.
pub fn told_lost(lines: &[Value], reason: &str) -> usize {
    told(lines, "lost", reason)
}

/// Counts the lines of this kind or sink that the loss lines report as not written.
pub fn told_undelivered(lines: &[Value], kind: &str) -> usize {
    told(lines, "undelivered", kind)
}

/// Sums the attempts that, as the loss lines report, found no place in the table.
pub fn told_without_place(lines: &[Value]) -> usize {
    let tables = of_type(lines, "loss").filter_map(|loss| loss["table"].as_object());
    tables.map(|table| number(&table["not_admitted"])).sum()
}

fn told(lines: &[Value], object: &str, name: &str) -> usize {
    let count = |loss: &Value| loss[object].get(name).map_or(0, number);
    of_type(lines, "loss").map(count).sum()
}
