//! docs/performance.md, of the committed figures of the guest and of the clock.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{
    figures::{GuestFigures, UNTRACED},
    operations::{OPERATIONS, OWN_STATES, PEERS},
    read_baseline,
    table::{megabytes, percent, thousands},
    targets,
    wall_clock::WallClock,
};

const PAGE: &str = "docs/performance.md";
/// Columns of text; tables are wider.
const WIDTH: usize = 100;

/// Writes the page.
pub(super) fn write(root: &Path) -> Result<()> {
    fs::write(root.join(PAGE), render(root)?).context(PAGE)?;
    eprintln!("written: {PAGE}");
    Ok(())
}

/// Fails if the page does not say what the figures are.
pub(crate) fn check(root: &Path) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    ensure!(
        page == render(root)?,
        "{PAGE} is not what its figures are: write it with `cargo xtask bench --page`"
    );
    Ok(())
}

fn render(root: &Path) -> Result<String> {
    let (figures, wall_clock) = (read_baseline(root)?, WallClock::read(root)?);
    let mut page = Page("# What conntrace costs\n".to_owned());
    page.paragraph(
        "Written by `cargo xtask bench`: change the figures, not this file. Two measurements are \
         here. Instructions are counted in a guest, without noise; they carry the targets, and \
         `cargo xtask bench --guest --check` fails when one grows. The clock of a machine confirms \
         them.",
    );
    page.targets(&figures, &wall_clock);
    page.operations(&figures);
    page.peers(&figures);
    page.running(&figures);
    page.programs(&figures);
    page.memory(&figures);
    page.wall_clock(&wall_clock);
    Ok(page.0)
}

/// Text of the page so far.
struct Page(String);

impl Page {
    fn title(&mut self, level: usize, title: &str) {
        let _ = write!(self.0, "\n{} {title}\n", "#".repeat(level));
    }

    fn paragraph(&mut self, text: &str) {
        let _ = write!(self.0, "\n{}\n", wrapped(text, ""));
    }

    fn table(&mut self, table: &str) {
        let _ = write!(self.0, "\n{table}");
    }

    fn targets(&mut self, figures: &GuestFigures, wall_clock: &WallClock) {
        self.title(2, "Targets");
        self.paragraph(&format!(
            "Instructions added on Linux {}, with the agent stopped.",
            figures.kernel
        ));
        let (table, missed) = targets::markdown(figures, wall_clock);
        self.table(&table);
        if !missed.is_empty() {
            self.paragraph("Reasons and next levers where a must or a goal is missed:");
            self.0.push('\n');
        }
        for item in missed {
            let _ = writeln!(self.0, "{}", wrapped(&item, "  "));
        }
    }

    fn operations(&mut self, figures: &GuestFigures) {
        self.title(2, "Instructions that the kernel side adds");
        self.paragraph(&format!(
            "Linux {} in an emulated guest with one processor, whose clock is its instructions. \
             Each figure is a median of 400 operations, and of six such medians of processes the \
             middle one. The agent is stopped (SIGSTOP), so that only its programs in the kernel are left. A \
             column is a tier, and what follows it a filter. With both ends here an operation \
             costs for the caller and for the one that accepts.",
            figures.kernel
        ));
        let mut table = "| operation | ends here, close | untraced |".to_owned();
        table.extend(OWN_STATES.map(|(_, meaning)| format!(" {meaning} |")));
        let _ = writeln!(table, "\n|{}", "---|".repeat(3 + OWN_STATES.len()));
        for operation in OPERATIONS {
            let untraced = figures.instructions(UNTRACED, operation.name);
            let untraced = untraced.map_or_else(String::new, thousands);
            let (meaning, ends) = (operation.meaning, operation.ends);
            let _ = write!(table, "| {meaning} | {ends} | {untraced} |");
            table.extend(OWN_STATES.map(|(state, _)| cell(figures, state, operation.name)));
            table.push('\n');
        }
        self.table(&table);
    }

    fn peers(&mut self, figures: &GuestFigures) {
        self.title(3, "Other programs");
        self.paragraph(
            "In the same guest, stopped too, but for a moment after every 40 operations so that \
             their buffers are not full. bpftrace runs a script of ours that reports failed \
             attempts, tcpstates every change of state.",
        );
        let mut table = "| operation |".to_owned();
        table.extend(PEERS.map(|(_, meaning)| format!(" {meaning} |")));
        let _ = writeln!(table, "\n|{}", "---|".repeat(1 + PEERS.len()));
        for operation in OPERATIONS {
            let _ = write!(table, "| {} |", operation.meaning);
            table.extend(PEERS.map(|(state, _)| cell(figures, state, operation.name)));
            table.push('\n');
        }
        self.table(&table);
        for not_run in &figures.not_run {
            self.paragraph(&format!("Not run: {}: {}.", not_run.state, not_run.reason));
        }
    }

    fn running(&mut self, figures: &GuestFigures) {
        self.title(2, "Instructions with the agent running");
        let untraced = figures.refusal_untraced().unwrap_or_default();
        self.paragraph(&format!(
            "5,000 refused connects on loopback, tier `tracepoint`, and every line written to a \
             file in memory. Means per refusal on one processor: the connect, the programs in the \
             kernel, and the agent until its last line. Untraced the mean is {}. Text folds equal \
             failures, so that one line stands for many. `new` are refusals each by another \
             address: a case and a line each.",
            thousands(untraced)
        ));
        let mut table = "| output | lines | in all | added | of which threads of the agent |\n\
                         |---|---|---|---|---|\n"
            .to_owned();
        for it in figures.refusals.iter().filter(|it| it.format != UNTRACED) {
            let threads = figures.threads.iter();
            let threads = threads.filter(|thread| thread.format == it.format);
            let threads = threads.filter(|thread| thread.per_refusal > 0);
            let threads: Vec<_> = threads
                .map(|it| format!("`{}` {}", it.thread, thousands(it.per_refusal)))
                .collect();
            let [lines, total] = [it.lines, it.instructions].map(thousands);
            let added = with_percent(it.instructions - untraced, it.instructions);
            let (name, threads) = (it.format.replace('-', ", "), threads.join(", "));
            let _ = writeln!(
                table,
                "| {name} | {lines} | {total} | {added} | {threads} |"
            );
        }
        self.table(&table);
    }

    fn programs(&mut self, figures: &GuestFigures) {
        self.title(2, "The programs, one by one");
        self.paragraph(
            "With the kernel's accounting on (`bpf_stats_enabled`), which adds its own cost to \
             every run: compare these figures with each other only. Instructions are those of all \
             runs of an operation.",
        );
        let mut table = "| tier | operation | program | runs | instructions | instructions \
                         verified | bytes of machine code |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
        for it in &figures.programs {
            let (tier, operation, program, runs) = (&it.tier, &it.operation, &it.program, it.runs);
            let [took, verified, jited] = [it.instructions, it.verified, it.jited].map(thousands);
            let _ = writeln!(
                table,
                "| `{tier}` | {operation} | `{program}` | {runs:.2} | {took} | {verified} | {jited} |"
            );
        }
        self.table(&table);
    }

    fn memory(&mut self, figures: &GuestFigures) {
        self.title(2, "Memory in the guest");
        let [pss, private] = [figures.memory.pss, figures.memory.private].map(megabytes);
        self.paragraph(&format!(
            "Once started, tier `full`: {pss} MB in proportion (PSS), of which {private} MB are \
             private. Resident memory says more, for it counts the ring twice, which is mapped \
             twice."
        ));
    }

    fn wall_clock(&mut self, wall_clock: &WallClock) {
        self.title(2, "By the clock");
        self.paragraph(&format!(
            "{}. Of rounds and samples the median is given, its 95 % interval, and the least and \
             the most. Machines differ by a factor of four, and shared ones are noisy: these \
             figures only confirm those above.",
            wall_clock.host.show()
        ));
        self.table("![Bars of the figures below](performance.svg)\n");
        for (title, about, table) in wall_clock.sections() {
            self.title(3, title);
            self.paragraph(about);
            self.table(&table);
        }
    }
}

fn cell(figures: &GuestFigures, state: &str, operation: &str) -> String {
    let added = figures.added(state, operation);
    match added.zip(figures.instructions(state, operation)) {
        Some((added, median)) => format!(" {} |", with_percent(added, median)),
        None => " not run |".to_owned(),
    }
}

/// Added instructions, and their part of what it was before.
fn with_percent(added: i64, median: i64) -> String {
    format!("{} ({})", thousands(added), percent(added, median))
}

/// Wraps a paragraph; lines after the first are indented by this.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let columns = word.chars().count();
        if length > 0 && length + 1 + columns > WIDTH {
            lines.push('\n');
            lines.push_str(indent);
            length = indent.len();
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += columns;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_the_width() {
        let text = wrapped(&"word ".repeat(45), "  ");
        let lengths: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lengths, [99, 96, 31]);
    }
}
