//! Targets of the cost, and what would help where one is missed.

use super::{figures::GuestFigures, table::thousands, wall_clock::WallClock};

/// Limits of the instructions that are added, on the kernel of the committed figures.
struct InstructionTarget {
    what: &'static str,
    /// States of which the highest figure counts.
    states: &'static [&'static str],
    operation: &'static str,
    must: i64,
    goal: i64,
    /// Reason for a miss, and what would help next.
    lever: &'static str,
}

const TARGETS: [InstructionTarget; 8] = [
    InstructionTarget {
        what: "refused connect, `tracepoint`",
        states: &["tracepoint"],
        operation: "refused",
        must: 1_500,
        goal: 1_150,
        lever: "four program runs are dispatched, which is a third of it, the clock is read \
                twice, and a record is reserved and handed over. Next: the caller's executable \
                and cgroup.",
    },
    InstructionTarget {
        what: "ordinary close, both ends here, `tracepoint`",
        states: &["tracepoint"],
        operation: "close",
        must: 2_100,
        goal: 1_600,
        lever: "13 program runs are dispatched, which is three quarters of it. Next: the \
                caller's executable and cgroup.",
    },
    InstructionTarget {
        what: "accepted connection alone, any tier",
        states: &["tracepoint", "full", "kprobe"],
        operation: "accepted",
        must: 700,
        goal: 620,
        lever: "six program runs are dispatched, and leave at once.",
    },
    InstructionTarget {
        what: "refused connect, `full`",
        states: &["full"],
        operation: "refused",
        must: 1_800,
        goal: 1_200,
        lever: "as on `tracepoint`; and the returns of `security_socket_connect` and \
                `tcp_v4_connect`, nearly all of it the trampolines.",
    },
    InstructionTarget {
        what: "ordinary close, both ends here, `full`",
        states: &["full"],
        operation: "close",
        must: 2_300,
        goal: 1_600,
        lever: "as on `tracepoint`, and the same two trampolines. Next: one instead of two \
                where no security module can deny.",
    },
    InstructionTarget {
        what: "refused connect, `kprobe`",
        states: &["kprobe"],
        operation: "refused",
        must: 4_000,
        goal: 2_500,
        lever: "as on `tracepoint`; and probes at two entries and two returns, which cost \
                most before a program does anything.",
    },
    InstructionTarget {
        what: "ordinary close, both ends here, `kprobe`",
        states: &["kprobe"],
        operation: "close",
        must: 4_000,
        goal: 2_500,
        lever: "as for the refused connect.",
    },
    InstructionTarget {
        what: "ordinary close, both ends here, a filter that fits nothing",
        states: &["tracepoint-port-1"],
        operation: "close",
        must: 1_600,
        goal: 1_200,
        lever: "13 program runs are dispatched: fewer hooks would help, less work in them \
                would not.",
    },
];

/// Row of the wall-clock figures with a target, in milliseconds.
const START: &str = "until the `start` line is readable";
const START_MUST_MS: f64 = 80.0;
const START_GOAL_MS: f64 = 60.0;
const START_LEVER: &str =
    "the verifier and reading the kernel's BTF take most of it: fewer and smaller programs help.";

/// Row of the table, and advice if a target is missed.
struct Judged {
    what: &'static str,
    unit: &'static str,
    figure: Option<f64>,
    must: f64,
    goal: f64,
    lever: &'static str,
}

impl Judged {
    fn of(target: &InstructionTarget, figures: &GuestFigures) -> Self {
        let added = target.states.iter();
        let added: Option<Vec<_>> = added
            .map(|state| figures.added(state, target.operation))
            .collect();
        let highest = added.and_then(|added| added.into_iter().max());
        Self {
            what: target.what,
            unit: "instructions",
            figure: highest.map(|it| it as f64),
            must: target.must as f64,
            goal: target.goal as f64,
            lever: target.lever,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.figure {
            None => "not measured",
            Some(figure) if figure <= self.goal => "goal met",
            Some(figure) if figure <= self.must => "met, goal missed",
            Some(_) => "**missed**",
        }
    }

    fn row(&self) -> String {
        let Self { what, unit, .. } = self;
        let figure = self.figure.map_or("-".to_owned(), rounded);
        let (must, goal, verdict) = (rounded(self.must), rounded(self.goal), self.verdict());
        format!("| {what} | {figure} {unit} | {must} | {goal} | {verdict} |\n")
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "instructions or milliseconds: far from the limits"
)]
fn rounded(figure: f64) -> String {
    thousands(figure.round() as i64)
}

/// The table of targets, and a paragraph for each that is missed.
pub(super) fn markdown(figures: &GuestFigures, wall_clock: &WallClock) -> (String, Vec<String>) {
    let mut all: Vec<_> = TARGETS.iter().map(|it| Judged::of(it, figures)).collect();
    all.push(Judged {
        what: "from exec to the `start` line, wall clock",
        unit: "ms",
        figure: wall_clock.value(START),
        must: START_MUST_MS,
        goal: START_GOAL_MS,
        lever: START_LEVER,
    });
    let mut table = "| added to | figure | must | goal | |\n|---|---|---|---|---|\n".to_owned();
    table.extend(all.iter().map(Judged::row));
    let missed = all
        .iter()
        .filter(|it| it.figure.is_none_or(|at| at > it.goal));
    let missed = missed.map(|it| format!("- **{}**: {}", it.what, it.lever));
    (table, missed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(figure: Option<f64>) -> &'static str {
        let judged = Judged {
            what: "",
            unit: "",
            figure,
            must: 100.0,
            goal: 80.0,
            lever: "",
        };
        judged.verdict()
    }

    #[test]
    fn a_target_is_met_up_to_its_limit() {
        assert_eq!(judged(Some(80.0)), "goal met");
        assert_eq!(judged(Some(81.0)), "met, goal missed");
        assert_eq!(judged(Some(100.0)), "met, goal missed");
        assert_eq!(judged(Some(101.0)), "**missed**");
        assert_eq!(judged(None), "not measured");
    }
}
