//! Figures of a guest, as the meter prints them and as they are committed.

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::operations::is_own;

/// First word of the meter's lines.
const MARK: &str = "cost";
/// State without an agent.
pub(super) const UNTRACED: &str = "untraced";

/// Figures of one build of conntrace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct GuestFigures {
    /// Release of the guest's kernel.
    pub(super) kernel: String,
    /// Agent stopped.
    pub(super) operations: Vec<OperationFigure>,
    /// Agent running.
    pub(super) refusals: Vec<RefusalFigure>,
    pub(super) threads: Vec<ThreadFigure>,
    /// Kernel's accounting on.
    pub(super) programs: Vec<ProgramFigure>,
    pub(super) memory: MemoryFigure,
    pub(super) not_run: Vec<NotRunState>,
}

/// Median of an operation in a state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OperationFigure {
    pub(super) state: String,
    pub(super) operation: String,
    pub(super) instructions: i64,
    /// More than untraced.
    pub(super) added: i64,
}

/// Mean of a refusal with its line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RefusalFigure {
    /// Format of the line, or `untraced`.
    pub(super) format: String,
    pub(super) instructions: i64,
    pub(super) lines: i64,
}

/// Part of a thread of the agent in a refusal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ThreadFigure {
    pub(super) format: String,
    pub(super) thread: String,
    pub(super) per_refusal: i64,
}

/// Runs of a BPF program, per operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ProgramFigure {
    pub(super) tier: String,
    pub(super) operation: String,
    pub(super) program: String,
    pub(super) runs: f64,
    /// Instructions of all its runs, accounting included.
    pub(super) instructions: i64,
    /// Instructions that the verifier went through.
    pub(super) verified: i64,
    /// Bytes of machine code.
    pub(super) jited: i64,
}

/// Memory of the agent once started, in kB.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct MemoryFigure {
    pub(super) pss: i64,
    pub(super) private: i64,
}

/// State that was not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct NotRunState {
    pub(super) state: String,
    pub(super) reason: String,
}

impl GuestFigures {
    /// Reads the figures of this binary, and those of none.
    pub(super) fn parse(kernel: &str, number: usize, lines: &[String]) -> Result<Self> {
        let number = number.to_string();
        let mut figures = Self {
            kernel: kernel.to_owned(),
            ..Self::default()
        };
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            if let [MARK, kind, binary, words @ ..] = words.as_slice()
                && (*binary == "-" || *binary == number)
            {
                let took = figures.take(kind, words);
                took.with_context(|| format!("a line of the meter: {line}"))?;
            }
        }
        if figures.operations.is_empty() {
            bail!("the meter printed no figures");
        }
        Ok(figures)
    }

    fn take(&mut self, kind: &str, words: &[&str]) -> Result<()> {
        match (kind, words) {
            ("operation", [state, operation, instructions]) => {
                let instructions: i64 = instructions.parse()?;
                let untraced = match *state {
                    UNTRACED => instructions,
                    _ => self
                        .instructions(UNTRACED, operation)
                        .context("no untraced figure before it")?,
                };
                self.operations.push(OperationFigure {
                    state: (*state).to_owned(),
                    operation: (*operation).to_owned(),
                    instructions,
                    added: instructions - untraced,
                });
            }
            ("refusal", [format, instructions, lines]) => self.refusals.push(RefusalFigure {
                format: (*format).to_owned(),
                instructions: instructions.parse()?,
                lines: lines.parse()?,
            }),
            ("thread", [format, thread, per_refusal]) => self.threads.push(ThreadFigure {
                format: (*format).to_owned(),
                thread: (*thread).to_owned(),
                per_refusal: per_refusal.parse()?,
            }),
            ("program", words) => self.programs.push(program(words)?),
            ("memory", [pss, private]) => {
                self.memory = MemoryFigure {
                    pss: pss.parse()?,
                    private: private.parse()?,
                }
            }
            ("not_run", [state, reason @ ..]) => self.not_run.push(NotRunState {
                state: (*state).to_owned(),
                reason: reason.join(" "),
            }),
            _ => bail!("unknown"),
        }
        Ok(())
    }

    fn find(&self, state: &str, operation: &str) -> Option<&OperationFigure> {
        let mut operations = self.operations.iter();
        operations.find(|it| it.state == state && it.operation == operation)
    }

    /// Median of an operation in a state.
    pub(super) fn instructions(&self, state: &str, operation: &str) -> Option<i64> {
        Some(self.find(state, operation)?.instructions)
    }

    /// Instructions that a state adds to an operation.
    pub(super) fn added(&self, state: &str, operation: &str) -> Option<i64> {
        Some(self.find(state, operation)?.added)
    }

    /// Iterates over the figures of conntrace itself.
    pub(super) fn own(&self) -> impl Iterator<Item = &OperationFigure> {
        self.operations.iter().filter(|it| is_own(&it.state))
    }

    /// Iterates over the states of conntrace itself that were not measured.
    pub(super) fn own_not_run(&self) -> impl Iterator<Item = &NotRunState> {
        self.not_run.iter().filter(|it| is_own(&it.state))
    }

    /// Mean of a refusal without an agent.
    pub(super) fn refusal_untraced(&self) -> Option<i64> {
        let mut refusals = self.refusals.iter();
        Some(refusals.find(|it| it.format == UNTRACED)?.instructions)
    }
}

fn program(words: &[&str]) -> Result<ProgramFigure> {
    let [
        tier,
        operation,
        program,
        runs,
        instructions,
        verified,
        jited,
    ] = words
    else {
        bail!("not the words of a program");
    };
    Ok(ProgramFigure {
        tier: (*tier).to_owned(),
        operation: (*operation).to_owned(),
        program: (*program).to_owned(),
        runs: runs.parse()?,
        instructions: instructions.parse()?,
        verified: verified.parse()?,
        jited: jited.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(number: usize, text: &str) -> Result<GuestFigures> {
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        GuestFigures::parse("6.12.1-cloud", number, &lines)
    }

    const PRINTED: &str = "\
[    1.0] a line of the kernel's
cost operation - untraced refused 27300
cost refusal - untraced 27400 0
cost operation 0 full refused 30185
cost operation 1 full refused 29000
cost thread 0 json conntrace-work 19630
cost program 0 full refused set_state_first 2.00 1010 5000 1800
cost memory 0 9000 2600
cost not_run - tcpstates cannot start tcpstates: No such file";

    #[test]
    fn a_binary_has_its_own_figures_and_those_of_none() {
        let first = parse(0, PRINTED).unwrap();
        assert_eq!(first.added("full", "refused"), Some(2885));
        assert_eq!(first.added(UNTRACED, "refused"), Some(0));
        assert_eq!(first.refusal_untraced(), Some(27400));
        assert_eq!(first.threads.len(), 1);
        assert_eq!(first.programs[0].runs, 2.0);
        assert_eq!(first.memory.private, 2600);
        assert_eq!(
            first.not_run[0].reason,
            "cannot start tcpstates: No such file"
        );
        let second = parse(1, PRINTED).unwrap();
        assert_eq!(second.added("full", "refused"), Some(1700));
        assert!(second.threads.is_empty());
    }

    #[test]
    fn a_line_that_is_cut_is_an_error() {
        for text in [
            "",
            "cost operation - untraced refused",
            "cost operation - untraced refused many",
            "cost operation 0 full refused 30185",
            "cost program 0 full refused set_state_first 2.00",
            "cost nonsense - 1",
        ] {
            assert!(parse(0, text).is_err(), "{text}");
        }
    }

    #[test]
    fn figures_survive_their_file() {
        let figures = parse(0, PRINTED).unwrap();
        let json = serde_json::to_string(&figures).unwrap();
        assert_eq!(
            serde_json::from_str::<GuestFigures>(&json).unwrap(),
            figures
        );
    }
}
