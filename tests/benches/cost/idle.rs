//! Cost of the agent on an idle host.

use std::{thread, time::Duration};

use conntrace_tests::conntrace;

use super::{
    measured::{Figure, Section},
    traced::{TracedAgent, cpu_seconds, wakeups},
};

const IDLE: Duration = Duration::from_secs(60);
/// Pause until the start has settled.
const SETTLED: Duration = Duration::from_secs(2);
/// Limit that is printed as 0.0 %.
const CPU_PERCENT_MAX: f64 = 0.05;

pub(crate) fn minute() -> Section {
    let rows = conntrace_testnet::run("bench", |testnet| {
        let netns = testnet.netns.to_string();
        let silent = TracedAgent::start(&["--netns", &netns]);
        // The summaries are on by default: `TracedAgent` turns them off.
        let mut regular = conntrace()
            .args(["--format", "json", "--netns", &netns])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(SETTLED);
        let pids = [silent.pid(), regular.id()];
        let before = pids.map(|pid| (cpu_seconds(pid), wakeups(pid)));
        thread::sleep(IDLE);
        let after = pids.map(|pid| (cpu_seconds(pid), wakeups(pid)));
        regular.kill().unwrap();
        regular.wait().unwrap();
        ["`--summary 0`", "by default, a summary a minute"]
            .into_iter()
            .zip(before.into_iter().zip(after))
            .flat_map(|(name, ((cpu, woken), (cpu_after, woken_after)))| {
                let percent = 100.0 * (cpu_after - cpu) / IDLE.as_secs_f64();
                [
                    Figure::number(format!("{name}: CPU"), "%", 1, percent)
                        .at_most(CPU_PERCENT_MAX),
                    Figure::number(
                        format!("{name}: wakeups"),
                        "",
                        0,
                        (woken_after - woken) as f64,
                    ),
                ]
            })
            .collect()
    });
    let about = format!(
        "{} s in which nothing happens in the only namespace that is watched. CPU time is \
         counted in ticks of 10 ms.",
        IDLE.as_secs()
    );
    Section::new("Idle", about, rows.unwrap())
}
