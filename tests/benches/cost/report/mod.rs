//! Output of the figures as text, JSON and charts.

mod host;
mod svg;

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::measured::{Figure, Measured, Section};
pub(crate) use host::BenchHost;

/// Results of all parts and the host they were measured on.
pub(crate) struct BenchReport {
    pub(crate) host: BenchHost,
    pub(crate) sections: Vec<Section>,
}

impl BenchReport {
    /// Writes the figures, which the page is made of, and bars of them. Both are committed.
    pub(crate) fn write(&self, docs: &Path) {
        let json = serde_json::to_string_pretty(&self.json()).unwrap();
        fs::write(docs.join("performance.json"), json + "\n").unwrap();
        fs::write(docs.join("performance.svg"), svg::bars(&self.sections)).unwrap();
    }

    fn json(&self) -> Value {
        let section = |section: &Section| {
            json!({
                "title": section.title,
                "about": section.about,
                "rows": section.rows.iter().map(Figure::json).collect::<Vec<_>>(),
            })
        };
        json!({
            "host": self.host.json(),
            "sections": self.sections.iter().map(section).collect::<Vec<_>>(),
        })
    }
}

/// Prints a section as soon as it is measured.
pub(crate) fn print(section: &Section) {
    println!("\n{}\n  {}", section.title, section.about);
    for row in &section.rows {
        let ran = row.ran.as_ref().map(|ran| format!(" ({ran})"));
        let what = format!("{}{}", row.what, ran.unwrap_or_default());
        println!("  {what:<90} {:>22}  {}", figure(row), details(row));
    }
}

fn details(row: &Figure) -> String {
    let [interval, range] = spread(row);
    let spread = match interval.as_str() {
        "" => String::new(),
        _ => format!("95 %: {interval}; {range}"),
    };
    match target(row).as_str() {
        "" => spread,
        target if spread.is_empty() => target.to_owned(),
        target => format!("{spread}; {target}"),
    }
}

/// Formats the figure with its unit.
fn figure(row: &Figure) -> String {
    match (&row.measured, row.value()) {
        (Measured::NotRun(why), _) => format!("not run: {why}"),
        (_, Some(value)) => format!("{} {}", show(value, row.digits), row.unit)
            .trim_end()
            .to_owned(),
        (_, None) => String::new(),
    }
}

/// Formats the 95 % interval, and the minimum and maximum.
fn spread(row: &Figure) -> [String; 2] {
    match &row.measured {
        Measured::Spread(spread) => [spread.interval(), (spread.least(), spread.most())]
            .map(|(low, high)| format!("{} to {}", show(low, row.digits), show(high, row.digits))),
        Measured::Number(_) | Measured::NotRun(_) => Default::default(),
    }
}

fn target(row: &Figure) -> String {
    match (row.target, row.is_met()) {
        (Some(target), Some(true)) => format!("{}: met", target.show()),
        (Some(target), Some(false)) => format!("{}: **missed**", target.show()),
        (Some(target), None) => target.show(),
        (None, _) => String::new(),
    }
}

/// Formats a number with this many digits after the point.
pub(crate) fn show(value: f64, digits: usize) -> String {
    format!("{value:.digits$}")
}
