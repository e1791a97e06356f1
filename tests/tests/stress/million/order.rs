//! Order that a worker receives.

use std::{
    env,
    fmt::{self, Display},
    process::{Child, Command, Stdio},
    str::FromStr,
};

/// Environment variable that makes this program a worker and holds its order.
pub(crate) const WORKER: &str = "CONNTRACE_TEST_MILLION";

/// Distribution that a worker's attempts are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderKind {
    /// All endings except a lack of ports.
    Wide,
    /// Endings on a test network with two ephemeral ports.
    Narrow,
    /// Process that makes a single attempt.
    Single,
}

/// Order of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MillionOrder {
    pub(crate) kind: OrderKind,
    pub(crate) seed: u64,
    pub(crate) threads: u16,
    /// Attempts of each thread.
    pub(crate) attempts: usize,
    /// Number of its first thread on the test network.
    pub(crate) first_thread: u16,
}

impl MillionOrder {
    /// Starts a worker with this order.
    pub(crate) fn start(self) -> Child {
        Command::new(env::current_exe().unwrap())
            .env(WORKER, self.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Display for MillionOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            seed,
            threads,
            attempts,
            first_thread,
        } = self;
        write!(f, "{kind:?} {seed} {threads} {attempts} {first_thread}")
    }
}

impl FromStr for MillionOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let [kind, seed, threads, attempts, first_thread] = text.split(' ').collect::<Vec<_>>()[..]
        else {
            return Err(format!("five words, not {text:?}"));
        };
        Ok(Self {
            kind: match kind {
                "Wide" => OrderKind::Wide,
                "Narrow" => OrderKind::Narrow,
                "Single" => OrderKind::Single,
                _ => return Err(kind.to_owned()),
            },
            seed: seed.parse().map_err(|_| seed)?,
            threads: threads.parse().map_err(|_| threads)?,
            attempts: attempts.parse().map_err(|_| attempts)?,
            first_thread: first_thread.parse().map_err(|_| first_thread)?,
        })
    }
}
