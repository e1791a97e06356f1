//! Charts of selected parts.

use std::fmt::Write as _;

use super::{
    super::measured::{Figure, Measured, Section},
    show,
};

/// Width of the chart in pixels.
const WIDTH: f64 = 980.0;
const ROW: f64 = 20.0;
const MARGIN: f64 = 16.0;
/// Horizontal position at which bars begin, and limit of the longest.
const BARS: f64 = 430.0;
const BARS_END: f64 = 840.0;

const COLOUR: &str = "#4477aa";
const INTERVAL_COLOUR: &str = "#222222";

/// One panel for each part that is drawn, each with a scale of its own: the bar is
/// the median, the line its 95 % interval.
pub(super) fn bars(sections: &[Section]) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for section in sections {
        let drawn: Vec<_> = section
            .rows
            .iter()
            .filter(|row| Some(row.unit) == section.plotted && row.value().is_some())
            .collect();
        if let Some(unit) = section.plotted.filter(|_| !drawn.is_empty()) {
            y = panel(&mut body, &format!("{}, {unit}", section.title), &drawn, y);
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// Draws a panel and returns the top of the next one.
fn panel(body: &mut String, title: &str, rows: &[&Figure], top: f64) -> f64 {
    let most = rows
        .iter()
        .map(|row| reach(row))
        .fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| BARS + value.max(0.0) / most * (BARS_END - BARS);
    let mut y = top + ROW;
    let title = escaped(title);
    let _ = writeln!(
        body,
        "<text x=\"{MARGIN}\" y=\"{y}\" font-size=\"14\" font-weight=\"bold\">{title}</text>"
    );
    for row in rows {
        y += ROW;
        bar(body, row, x, y);
    }
    let bottom = y + ROW / 3.0;
    let first = top + ROW * 1.3;
    let _ = writeln!(
        body,
        "<line x1=\"{BARS}\" x2=\"{BARS}\" y1=\"{first}\" y2=\"{bottom:.1}\" stroke=\"#888888\"/>"
    );
    y + ROW + MARGIN
}

/// Draws a bar. `y` is the base line of its text.
fn bar(body: &mut String, row: &Figure, x: impl Fn(f64) -> f64, y: f64) {
    let value = row.value().unwrap();
    let (top, middle, text_x) = (y - 11.0, y - 4.0, BARS - 8.0);
    let (what, shown) = (escaped(&row.what), show(value, row.digits));
    let width = x(value) - BARS;
    let _ = writeln!(
        body,
        "<text x=\"{text_x}\" y=\"{y}\" text-anchor=\"end\">{what}</text>\n\
         <rect x=\"{BARS}\" y=\"{top}\" width=\"{width:.1}\" height=\"14\" fill=\"{COLOUR}\"/>"
    );
    if let Measured::Spread(spread) = &row.measured {
        let (low, high) = spread.interval();
        let (low, high) = (x(low), x(high));
        let _ = writeln!(
            body,
            "<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle}\" y2=\"{middle}\" \
             stroke=\"{INTERVAL_COLOUR}\" stroke-width=\"2\"/>"
        );
    }
    let end = x(reach(row)) + 6.0;
    let _ = writeln!(body, "<text x=\"{end:.1}\" y=\"{y}\">{shown}</text>");
}

/// Returns the largest value that a row shows.
fn reach(row: &Figure) -> f64 {
    match &row.measured {
        Measured::Spread(spread) => spread.interval().1.max(spread.median()),
        Measured::Number(number) => *number,
        Measured::NotRun(_) => 0.0,
    }
}

fn escaped(text: &str) -> String {
    text.replace('`', "")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
}
