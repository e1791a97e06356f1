//! Figures of a guest as a table on standard output.

#![expect(clippy::print_stdout, reason = "the table is what this task is for")]

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::figures::{GuestFigures, OperationFigure};

/// Prints the figures of one build of conntrace, or of two side by side.
pub(super) fn print(all: &[GuestFigures]) -> Result<()> {
    let first = all.first().context("figures of a binary")?;
    let mut text = format!("\nLinux {}, agent stopped\n", first.kernel);
    let columns = ["median", "added", "added %"].map(|name| format!("{name:>10}"));
    let columns = columns.concat().repeat(all.len());
    let difference = if all.len() > 1 { "difference" } else { "" };
    let _ = writeln!(
        text,
        "{:18} {:10}{columns} {difference}",
        "state", "operation"
    );
    for row in &first.operations {
        let _ = write!(text, "{:18} {:10}", row.state, row.operation);
        let cells = all.iter().map(|it| cells(it, row));
        text.extend(cells);
        if let Some(second) = all
            .get(1)
            .and_then(|it| it.added(&row.state, &row.operation))
        {
            let _ = write!(text, " {:>10}", signed(second - row.added));
        }
        text.push('\n');
    }
    for (number, figures) in all.iter().enumerate() {
        if all.len() > 1 {
            let _ = writeln!(text, "\nbinary {}", number + 1);
        }
        details(&mut text, figures);
    }
    print!("{text}");
    Ok(())
}

fn cells(figures: &GuestFigures, row: &OperationFigure) -> String {
    let (state, operation) = (&row.state, &row.operation);
    let median = figures.instructions(state, operation);
    let (Some(median), Some(added)) = (median, figures.added(state, operation)) else {
        return format!("{:>10}{:>10}{:>10}", "not run", "", "");
    };
    let (median_shown, added_shown) = (thousands(median), thousands(added));
    format!(
        "{median_shown:>10}{added_shown:>10}{:>10}",
        percent(added, median)
    )
}

/// Adds the figures that are no medians.
fn details(text: &mut String, figures: &GuestFigures) {
    for it in &figures.not_run {
        let _ = writeln!(text, "NOT RUN: {}: {}", it.state, it.reason);
    }
    if figures.refusals.is_empty() {
        // The gate asked for no more.
        return;
    }
    let _ = writeln!(
        text,
        "\nagent running, instructions per refusal (mean of all)"
    );
    for it in &figures.refusals {
        let (total, lines) = (thousands(it.instructions), thousands(it.lines));
        let _ = writeln!(text, "{:10} {total:>10} in all, {lines} lines", it.format);
        for thread in figures
            .threads
            .iter()
            .filter(|thread| thread.format == it.format)
        {
            let _ = writeln!(
                text,
                "{:21} {}",
                thousands(thread.per_refusal),
                thread.thread
            );
        }
    }
    let _ = writeln!(
        text,
        "\nprograms with the kernel's accounting: runs and instructions per operation, \
         instructions verified, bytes of code"
    );
    for it in &figures.programs {
        let (tier, operation, program) = (&it.tier, &it.operation, &it.program);
        let (runs, took, verified, jited) = (it.runs, it.instructions, it.verified, it.jited);
        let _ = writeln!(
            text,
            "{tier:11} {operation:8} {program:16} {runs:6.2} {took:7} {verified:7} {jited:6}"
        );
    }
    let [pss, private] = [figures.memory.pss, figures.memory.private].map(megabytes);
    let _ = writeln!(
        text,
        "\nmemory once started: PSS {pss} MB, private {private} MB"
    );
}

/// Formats a number with a comma at every thousand.
pub(super) fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 {
        "-".to_owned()
    } else {
        String::new()
    };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn signed(number: i64) -> String {
    let plus = if number > 0 { "+" } else { "" };
    format!("{plus}{}", thousands(number))
}

/// Part that was added, of what it was before.
pub(super) fn percent(added: i64, median: i64) -> String {
    let percent = 100.0 * added as f64 / (median - added) as f64;
    // Without the sign of a negative zero.
    format!("{:.1} %", (percent * 10.0).round() / 10.0 + 0.0)
}

/// Formats kB as MB (10^6 bytes).
pub(super) fn megabytes(kilobytes: i64) -> String {
    format!("{:.1}", kilobytes as f64 * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, -1000, 1_234_567].map(thousands),
            ["0", "999", "-1,000", "1,234,567"]
        );
        assert_eq!(signed(2470), "+2,470");
        assert_eq!(percent(2470, 29_770), "9.0 %");
        assert_eq!(percent(-1, 10_000), "0.0 %");
    }
}
