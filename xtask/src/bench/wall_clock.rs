//! Figures by the clock of a machine, as the benchmark wrote them, for the page.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Committed figures, from the root of the repository.
const FILE: &str = "docs/performance.json";

/// Figures of one run.
#[derive(Deserialize)]
pub(super) struct WallClock {
    pub(super) host: Host,
    sections: Vec<Section>,
}

#[derive(Deserialize)]
pub(super) struct Host {
    date: String,
    kernel: String,
    cpu: String,
    cpus: u32,
    load: String,
}

#[derive(Deserialize)]
struct Section {
    title: String,
    about: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    what: String,
    unit: String,
    digits: usize,
    /// Ends of the connection on the host, close, and tier.
    ran: Option<String>,
    value: Option<f64>,
    not_run: Option<String>,
    interval_95: Option<(f64, f64)>,
    min: Option<f64>,
    max: Option<f64>,
    target: Option<String>,
    met: Option<bool>,
}

impl WallClock {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let text = fs::read_to_string(root.join(FILE)).context(FILE)?;
        serde_json::from_str(&text).context(FILE)
    }

    /// Figure of the row of this name.
    pub(super) fn value(&self, what: &str) -> Option<f64> {
        let mut rows = self.sections.iter().flat_map(|section| &section.rows);
        rows.find(|row| row.what == what)?.value
    }

    /// Paragraphs and tables, by section: the description, then its table.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &str, String)> {
        self.sections.iter().map(|section| {
            let mut table = "| what | ran as | figure | 95 % interval | min to max | target |\n\
                             |---|---|---|---|---|---|\n"
                .to_owned();
            table.extend(section.rows.iter().map(Row::markdown));
            (section.title.as_str(), section.about.as_str(), table)
        })
    }
}

impl Host {
    pub(super) fn show(&self) -> String {
        let Self {
            date,
            kernel,
            cpu,
            cpus,
            load,
        } = self;
        format!("{date}, Linux {kernel}, {cpus} CPUs ({cpu}), load average at the start {load}")
    }
}

impl Row {
    fn markdown(&self) -> String {
        let show = |value| show(value, self.digits);
        let range = |low, high| format!("{} to {}", show(low), show(high));
        let figure = match (&self.not_run, self.value) {
            (Some(why), _) => format!("not run: {why}"),
            (None, Some(value)) => format!("{} {}", show(value), self.unit),
            (None, None) => String::new(),
        };
        let interval = self.interval_95.map(|(low, high)| range(low, high));
        let spread = self.min.zip(self.max).map(|(low, high)| range(low, high));
        let target = self.target.as_ref().map(|target| match self.met {
            Some(true) => format!("{target}: met"),
            Some(false) => format!("{target}: **missed**"),
            None => target.clone(),
        });
        let cells = [
            self.what.clone(),
            self.ran.clone().unwrap_or_default(),
            figure.trim_end().to_owned(),
            interval.unwrap_or_default(),
            spread.unwrap_or_default(),
            target.unwrap_or_default(),
        ];
        let mut row = String::new();
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(row, "| {} |", cells.join(" | "));
        row
    }
}

/// Formats a number with a comma at every thousand.
fn show(value: f64, digits: usize) -> String {
    let plain = format!("{:.digits$}", value.abs());
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let is_zero = plain.chars().all(|c| matches!(c, '0' | '.'));
    let sign = if value < 0.0 && !is_zero { "-" } else { "" };
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = r#"{
        "host": {"date": "D", "kernel": "K", "cpu": "C", "cpus": 2, "load": "0.1"},
        "sections": [{"title": "T", "about": "A", "rows": [
            {"what": "a|b", "unit": "ms", "digits": 1, "ran": "both ends", "value": 1234.56,
             "interval_95": [-0.01, 2], "min": -1, "max": 3, "target": "at most 1", "met": false},
            {"what": "c", "unit": "", "digits": 0, "value": null, "not_run": "no such program"}
        ]}]}"#;

    #[test]
    fn a_row_says_all_that_was_measured() {
        let run: WallClock = serde_json::from_str(RUN).unwrap();
        let (_, _, table) = run.sections().next().unwrap();
        let rows: Vec<_> = table.lines().skip(2).collect();
        let first = "| a\\|b | both ends | 1,234.6 ms | 0.0 to 2.0 | -1.0 to 3.0 | \
                     at most 1: **missed** |";
        assert_eq!(
            rows,
            [first, "| c |  | not run: no such program |  |  |  |"]
        );
        assert_eq!(run.value("a|b"), Some(1234.56));
        assert_eq!(run.value("c"), None);
    }
}
