//! Output of the figures as text, JSON, Markdown and charts.

mod host;
mod svg;

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};

use super::measured::{Figure, FigureTarget, Measured, Section};
pub(crate) use host::BenchHost;

/// Results of all parts and the host they were measured on.
pub(crate) struct BenchReport {
    pub(crate) host: BenchHost,
    pub(crate) sections: Vec<Section>,
}

impl BenchReport {
    /// Writes the page, its bars and the same figures for programs. All three are
    /// committed: they are of one run, so that a later one can be compared with what
    /// the page says by a program, too.
    pub(crate) fn write(&self, docs: &Path) {
        let json = serde_json::to_string_pretty(&self.json()).unwrap();
        fs::write(docs.join("performance.json"), json + "\n").unwrap();
        fs::write(docs.join("performance.svg"), svg::bars(&self.sections)).unwrap();
        fs::write(docs.join("performance.md"), self.markdown()).unwrap();
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

    fn markdown(&self) -> String {
        let mut page = format!(
            "# What conntrace costs\n\n\
             Written by `cargo xtask bench`: {}. Of rounds and samples the median is \
             given, its 95 % interval, and the least and the most. Machines differ by a factor \
             of four, and shared ones are noisy: run it on yours.\n\n\
             ![Bars of the figures below](performance.svg)\n",
            self.host.show()
        );
        page += &self.targets();
        for section in &self.sections {
            let _ = write!(page, "\n## {}\n\n{}\n\n", section.title, section.about);
            page +=
                "| what | figure | 95 % interval | min to max | target |\n|---|---|---|---|---|\n";
            section
                .rows
                .iter()
                .for_each(|row| page += &markdown_row(row));
        }
        page
    }

    /// Summarizes how many targets are met, and lists the others.
    fn targets(&self) -> String {
        let rows = self.sections.iter().flat_map(|section| &section.rows);
        let with_target: Vec<_> = rows.filter(|row| row.is_met().is_some()).collect();
        let missed: Vec<_> = with_target
            .iter()
            .filter(|row| row.is_met() == Some(false))
            .collect();
        let met = with_target.len() - missed.len();
        let mut text = format!("\n{met} of {} targets are met", with_target.len());
        text += if missed.is_empty() {
            ".\n"
        } else {
            "; missed:\n\n"
        };
        for row in missed {
            let (figure, target) = (figure(row), row.target.map(FigureTarget::show));
            let _ = writeln!(
                text,
                "- {}: {figure}, {}",
                row.what,
                target.unwrap_or_default()
            );
        }
        text
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

fn markdown_row(row: &Figure) -> String {
    let [interval, range] = spread(row);
    let cells = [row.what.clone(), figure(row), interval, range, target(row)];
    format!(
        "| {} |\n",
        cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
    )
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

/// Formats a number with a comma at every thousand.
pub(crate) fn show(value: f64, digits: usize) -> String {
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
